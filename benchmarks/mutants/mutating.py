"""Small faults, one at a time: a source text -> its mutants.

A mutant is the whole text with one change of a kind that people make: another comparison, a sum for a difference, a
dropped condition, entry, argument, call or statement, another number or name. What no test should hold is left alone:
docstrings, annotations, decorators, imports, assertions, `strict=` of `zip`, what matters beside a CPU only, and texts
for people, which have blanks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">=")),
    ast.LtE: ("<=", ("<", ">")),
    ast.Gt: (">", (">=", "<=")),
    ast.GtE: (">=", (">", "<")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
OPERATORS: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitOr: ("|", "&"),
    ast.BitAnd: ("&", "|"),
}
OPPOSITES = {
    one: other
    for pair in (("min", "max"), ("any", "all"), ("floor", "ceil"), ("amin", "amax"))
    for one, other in (pair, pair[::-1])
}
"""Functions and methods that are taken for each other."""

PLAIN = {"sorted": "list", "round": "int", "abs": "", "deepcopy": "", "reversed": "list", "expm1": "exp"}
"""Functions of one argument, and what is put in their place."""

DROPPED_METHODS = {
    "abs", "clamp", "clamp_", "clamp_max", "clamp_min", "clamp_min_", "clone", "copy", "cumsum", "double", "eval",
    "exp", "float", "log", "lower", "sqrt", "sqrt_", "square", "square_", "strip", "train", "transpose",
}  # fmt: skip
"""Methods that give what they are called on, changed."""

UNTESTED_KEYWORDS = {"strict", "encoding", "what", "do", "key", "file", "utterance", "repr", "device"}
"""Arguments that no test holds: checks of what cannot happen, the platform's own default, errors, other devices."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One small fault.

    Attributes:
        where: The outermost function or method, such as `Probe.mixed`; "" outside of every one.
        old: The lines that change, without their indentation.
        new: What they become.
        source: The whole text with the fault.
    """

    where: str
    old: str
    new: str
    source: str


@dataclass(frozen=True, slots=True)
class _Edit:
    """Bytes to be replaced, and the function they lie in."""

    where: str
    start: int
    end: int
    text: str


def mutants_of(source: str) -> list[Mutant]:
    """Every mutant of a text, by place; texts that no longer parse, and repetitions, are left out."""
    encoded = source.encode("utf-8")
    found: dict[str, Mutant] = {}
    for edit in sorted(_Finder(source).edits(), key=lambda each: (each.start, each.end)):
        mutated = (encoded[: edit.start] + edit.text.encode("utf-8") + encoded[edit.end :]).decode("utf-8")
        if mutated == source or not _parses(mutated):
            continue
        old, new = _changed_lines(source, mutated)
        found.setdefault(mutated, Mutant(edit.where, old, new, mutated))
    return list(found.values())


def _parses(source: str) -> bool:
    try:
        compile(source, "<mutant>", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _changed_lines(source: str, mutated: str) -> tuple[str, str]:
    """The lines that differ, of both, each on one line."""
    old, new = source.splitlines(), mutated.splitlines()
    first = next(place for place, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    last = next(place for place, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b)
    return _on_one_line(old[first : len(old) - last]), _on_one_line(new[first : len(new) - last])


def _on_one_line(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


class _Finder:
    """Walks a tree and gives the changes that can be made at each node."""

    def __init__(self, source: str) -> None:
        self._source = source.encode("utf-8")
        self._tree = ast.parse(source)
        self._starts = [0]
        for line in self._source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def edits(self) -> Iterator[_Edit]:
        """All of them."""
        yield from self._within(self._tree.body, "", in_function=False)

    # Where a change may lie

    def _within(self, nodes: Sequence[ast.AST], where: str, *, in_function: bool) -> Iterator[_Edit]:
        for node in nodes:
            yield from self._node(node, where, in_function=in_function)

    def _node(self, node: ast.AST, where: str, *, in_function: bool) -> Iterator[_Edit]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from self._definition(node, where, in_function=in_function)
            return
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Assert | ast.JoinedStr) or _is_text(node):
            return
        for start, end, text in self._changes(node, in_function=in_function):
            yield _Edit(where if in_function else "", start, end, text)
        if not isinstance(node, ast.Raise):
            yield from self._within(list(_children(node)), where, in_function=in_function)

    def _definition(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, where: str, *, in_function: bool
    ) -> Iterator[_Edit]:
        if isinstance(node, ast.ClassDef):
            inner = where if in_function else f"{where}.{node.name}".lstrip(".")
            yield from self._within(node.body, inner, in_function=in_function)
            return
        if node.returns is not None and ast.unparse(node.returns).endswith(("Error", "Fault", "Unlabelled")):
            return  # builds an error
        defaults = [each for each in (*node.args.defaults, *node.args.kw_defaults) if each is not None]
        yield from self._within(defaults, where, in_function=in_function)
        inner = where if in_function else f"{where}.{node.name}".lstrip(".")
        yield from self._within(node.body, inner, in_function=True)

    # What may change

    def _changes(self, node: ast.AST, *, in_function: bool) -> Iterator[tuple[int, int, str]]:
        match node:
            case ast.Compare():
                yield from self._compare(node)
            case ast.BinOp():
                yield from self._operator(node, in_function=in_function)
            case ast.BoolOp():
                yield from self._bool(node)
            case ast.UnaryOp() if not isinstance(node.operand, ast.Constant):  # a number changes by itself
                yield (*self._span(node), self._text(node.operand))
            case ast.Constant():
                yield from self._constant(node)
            case ast.If() | ast.While() | ast.IfExp():
                if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
                    yield (*self._span(node.test), f"not ({self._text(node.test)})")
            case ast.comprehension():
                yield from self._without_one(node.iter)
                for condition in node.ifs:
                    yield (*self._span(condition), "True")
            case ast.For():
                yield from self._without_one(node.iter)
            case ast.Call():
                yield from self._call(node)
            case ast.Slice():
                for part in (node.lower, node.upper, node.step):
                    if part is not None:
                        yield (*self._span(part), "")
            case ast.Dict() | ast.Set() | ast.List():
                yield from self._without_one(node)
        if isinstance(node, ast.stmt) and in_function:
            yield from self._statement(node)

    def _statement(self, node: ast.stmt) -> Iterator[tuple[int, int, str]]:
        match node:
            case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Delete() | ast.Return(value=None):
                yield (*self._span(node), "pass")
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield (*self._span(node), "pass")
            case ast.AugAssign():
                yield (*self._span(node), "pass")
                if type(node.op) in OPERATORS:
                    old, new = OPERATORS[type(node.op)]
                    yield from self._between(node.target, node.value, f"{old}=", f"{new}=")
            case ast.Continue():
                yield (*self._span(node), "break")
            case ast.Break():
                yield (*self._span(node), "continue")

    def _compare(self, node: ast.Compare) -> Iterator[tuple[int, int, str]]:
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            old, others = COMPARISONS[type(operator)]
            for new in others:
                yield from self._between(left, right, old, new)
            if isinstance(operator, ast.In | ast.NotIn):
                yield from self._without_one(right)

    def _operator(self, node: ast.BinOp, *, in_function: bool) -> Iterator[tuple[int, int, str]]:
        if type(node.op) not in OPERATORS or (isinstance(node.op, ast.BitOr) and not in_function):
            return  # a union of types, outside of functions
        yield from self._between(node.left, node.right, *OPERATORS[type(node.op)])

    def _bool(self, node: ast.BoolOp) -> Iterator[tuple[int, int, str]]:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from self._between(left, right, old, new)
        for absent in range(len(node.values)):
            kept = [self._text(value) for place, value in enumerate(node.values) if place != absent]
            yield (*self._span(node), f" {old} ".join(kept))

    def _constant(self, node: ast.Constant) -> Iterator[tuple[int, int, str]]:
        value = node.value
        if isinstance(value, bool):
            yield (*self._span(node), str(not value))
        elif isinstance(value, int):
            yield (*self._span(node), str(value + 1))
        elif isinstance(value, float):
            yield (*self._span(node), repr(2 * value or 1.0))
        elif isinstance(value, str | bytes) and not _is_prose(value):
            other = f"X{value}" if isinstance(value, str) else b"X" + value
            yield (*self._span(node), repr(other))

    def _call(self, node: ast.Call) -> Iterator[tuple[int, int, str]]:
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in OPPOSITES:
            _, end = self._span(node.func)
            yield end - len(name), end, OPPOSITES[name]
        if name in PLAIN and len(node.args) == 1 and not node.keywords:
            yield (*self._span(node), f"{PLAIN[name]}({self._text(node.args[0])})")
        if name in DROPPED_METHODS and isinstance(node.func, ast.Attribute):
            yield (*self._span(node), self._text(node.func.value))
        parts = [*node.args, *(keyword.value for keyword in node.keywords)]
        for keyword in node.keywords:
            if keyword.arg in UNTESTED_KEYWORDS or len(parts) < 2:
                continue
            start, end = self._span(keyword)
            yield start, self._past_comma(end), ""

    def _without_one(self, node: ast.expr) -> Iterator[tuple[int, int, str]]:
        """A display without one of its entries."""
        if isinstance(node, ast.Dict):
            if len(node.values) > 1:
                for key, value in zip(node.keys, node.values, strict=True):
                    start = self._span(value)[0] - 2 if key is None else self._span(key)[0]
                    yield start, self._past_comma(self._span(value)[1]), ""
        elif isinstance(node, ast.Set | ast.List | ast.Tuple) and len(node.elts) > 1:
            for element in node.elts:
                start, end = self._span(element)
                yield start, self._past_comma(end), ""

    # Where a node stands in the text

    def _span(self, node: ast.AST) -> tuple[int, int]:
        assert isinstance(node, ast.expr | ast.stmt | ast.keyword)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        text = self._source[start:end].decode("utf-8")
        return f"({text})" if isinstance(node, ast.BoolOp | ast.IfExp | ast.BinOp | ast.Compare) else text

    def _between(self, left: ast.AST, right: ast.AST, old: str, new: str) -> Iterator[tuple[int, int, str]]:
        """The operator between two nodes, which nothing but brackets and blanks surrounds."""
        start, end = self._span(left)[1], self._span(right)[0]
        place = self._source[start:end].find(old.encode("ascii"))
        if place >= 0:
            yield start + place, start + place + len(old), new

    def _past_comma(self, end: int) -> int:
        while self._source[end : end + 1].isspace():
            end += 1
        return end + 1 if self._source[end : end + 1] == b"," else end


def _is_prose(text: str | bytes) -> bool:
    return len(text.split()) > 1


def _is_text(node: ast.AST) -> bool:
    """A docstring, or a string that stands alone; the names of a type."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Subscript):
        return isinstance(node.value, ast.Name) and node.value.id in {"Callable", "Literal"}
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) == "__all__"
    return False


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What lies in a node and may change."""
    if isinstance(node, ast.AnnAssign):
        yield from () if node.value is None else (node.value,)
        return
    if isinstance(node, ast.Call):
        called = getattr(node.func, "id", getattr(node.func, "attr", ""))
        yield node.func
        yield from node.args[1:] if called in {"cast", "getattr", "TypeVar", "NewType"} else node.args
        yield from (each.value for each in node.keywords if each.arg not in UNTESTED_KEYWORDS)
        return
    if isinstance(node, ast.ExceptHandler):
        yield from node.body
        return
    yield from ast.iter_child_nodes(node)
