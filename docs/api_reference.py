"""The page of the Python interface: signature and docstring of every public name."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple


class Module(NamedTuple):
    """A module whose names are public.

    Attributes:
        name: As it is imported.
        text: What it is for, before its names.
        names: Those that are public; None: its `__all__`, or without one all that it defines without an underscore.
    """

    name: str
    text: str
    names: tuple[str, ...] | None = None


MODULES = (
    Module("repbench", "What a script needs. Each name is imported when it is first used."),
    Module(
        "repbench.benchmark.run",
        "A run with all its options, where `repbench.evaluate` is too short.",
        ("RunRequest", "WrittenRecord", "run"),
    ),
    Module(
        "repbench.benchmark.dry_run",
        "What a run would do.",
        ("PlannedRun", "PlannedRecord", "PlannedFeatures", "plan_run"),
    ),
    Module(
        "repbench.benchmark.pipeline.pretrain",
        "A pre-training with all its options.",
        ("PretrainRequest", "Pretrained", "run_pretraining", "PlannedPretraining", "plan_pretraining"),
    ),
    Module(
        "repbench.benchmark.records.record",
        "Records and predictions ([The record](record.md) describes every field).",
        ("Record", "read_record", "read_records", "read_predictions", "Metric", "Baselines"),
    ),
    Module("repbench.benchmark.report", "Reports from records."),
    Module(
        "repbench.benchmark.scoring.statistics",
        "Intervals and paired differences over speakers and seeds.",
        ("Interval", "Difference", "crossed_intervals", "paired_differences"),
    ),
    Module("repbench.upstream.contract", "The contract of models ([Plugins](plugins.md))."),
    Module("repbench.downstream.contract", "The contract of tasks."),
    Module("repbench.downstream.heads.contract", "The contract of heads."),
    Module("repbench.corpora.open", "Corpora by their names, or from the folders of manifests.", ("open_corpus",)),
    Module("repbench.corpora.read", "The sound of utterances.", ("read_utterance",)),
    Module("repbench.corpora.contract", "The contract of corpora and layouts."),
    Module("repbench.testing", "Conformance suites for the tests of a plugin, and fakes."),
    Module("repbench.progress", "Receivers of progress, as every long function takes one."),
    Module("repbench.errors", "Errors, each with the exit code of the command line."),
)

_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example|Reference|References|Note):$", re.MULTILINE)
_ITEM = re.compile(r"^([*\w.]+):\s+(.*)$", re.DOTALL)


def api_page(made: str) -> str:
    """The page.

    Args:
        made: The comment that says how the page is made.
    """
    parts = [
        "# Python interface",
        made,
        "Every public name, with its docstring. Names that are not here may change without notice. Axes are B batch, "
        "T samples, F frames, D width and L layers.",
        *(part for module in MODULES for part in _module(module)),
    ]
    return "\n\n".join(parts) + "\n"


def public_names(module: Module) -> list[str]:
    """The public names of a module, in its order."""
    found = import_module(module.name)
    if module.names is not None:
        return list(module.names)
    if hasattr(found, "__all__"):
        return list(found.__all__)
    return [
        name
        for name, value in vars(found).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.name and _is_described(value)
    ]


def _is_described(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isfunction(value)


def _module(module: Module) -> Iterator[str]:
    yield f"## {module.name}"
    yield module.text
    found = import_module(module.name)
    for name in public_names(module):
        value = getattr(found, name)
        if _is_described(value):
            yield from _described(name, value)


def _described(name: str, value: Any) -> Iterator[str]:
    yield f"### {name}"
    yield f"```text\n{_signature(name, value)}\n```"
    yield from _docstring(value)
    if inspect.isclass(value):
        for method, function in _methods(value):
            yield f"**{name}.{method}**"
            if not isinstance(function, property):
                yield f"```text\n{_signature(method, function)}\n```"
            yield from _docstring(function)


def _methods(owner: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class defines itself and describes."""
    for name, value in vars(owner).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if (
            not name.startswith("_")
            and isinstance(function, property) | inspect.isfunction(function)
            and function.__doc__
        ):
            yield name, function


def _signature(name: str, value: Any) -> str:
    if inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base.__name__ not in {"object", "Protocol"})
        head = f"class {name}({bases})" if bases else f"class {name}"
        if not dataclasses.is_dataclass(value):
            return head
        return "\n".join(
            [
                head,
                *(f"    {each.name}: {_annotation(each.type)}{_default(each)}" for each in dataclasses.fields(value)),
            ]
        )
    parameters = [_parameter(each) for each in _with_markers(inspect.signature(value))]
    result = inspect.signature(value).return_annotation
    gives = "" if result is inspect.Signature.empty else f" -> {_annotation(result)}"
    line = f"{name}({', '.join(parameters)}){gives}"
    return line if len(line) <= 100 else f"{name}(\n    " + ",\n    ".join(parameters) + f",\n){gives}"


def _with_markers(signature: inspect.Signature) -> Iterator[inspect.Parameter | str]:
    """The parameters, with `*` before the first that is given by keyword alone."""
    marked = False
    for each in signature.parameters.values():
        marked = marked or each.kind is each.VAR_POSITIONAL
        if each.kind is each.KEYWORD_ONLY and not marked:
            marked = True
            yield "*"
        yield each


def _parameter(each: inspect.Parameter | str) -> str:
    if isinstance(each, str):
        return each
    stars = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
    kind = "" if each.annotation is each.empty else f": {_annotation(each.annotation)}"
    default = "" if each.default is each.empty else f" = {_value(each.default)}"
    return f"{stars}{each.name}{kind}{default}"


def _default(each: dataclasses.Field[Any]) -> str:
    if each.default is not dataclasses.MISSING:
        return f" = {_value(each.default)}"
    return " = …" if each.default_factory is not dataclasses.MISSING else ""


def _value(value: Any) -> str:
    """A default as it is written; what is no plain value is only said to be there."""
    plain = isinstance(value, str | int | float | bool | tuple | None)
    return repr(value) if plain else "…"


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _docstring(value: Any) -> Iterator[str]:
    """The docstring as Markdown: its sections become lists."""
    text = inspect.cleandoc(value.__doc__ or "")
    if text.startswith(f"{getattr(value, '__name__', '')}("):  # what dataclasses write where there is none
        return
    parts = _SECTION.split(text)
    yield from (each for each in [_escaped(parts[0].strip())] if each)
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        lines = inspect.cleandoc(body.lstrip("\n"))
        if title == "Example":
            yield f"*{title}*\n\n```text\n{lines}\n```"
        elif title in {"Args", "Attributes", "Raises"}:
            yield f"*{title}*\n\n" + "\n".join(_item(each) for each in _items(lines))
        else:
            yield f"*{title}*: {_escaped(' '.join(lines.split()))}"


def _items(lines: str) -> Iterator[str]:
    """The entries of a section: each begins at the margin, and its further lines are indented."""
    for each in re.split(r"\n(?=\S)", lines):
        yield " ".join(each.split())


def _item(text: str) -> str:
    found = _ITEM.match(text)
    return f"* `{found[1]}`: {_escaped(found[2])}" if found else f"* {_escaped(text)}"


def _escaped(text: str) -> str:
    """Text without what Markdown would take for markup; code stays code."""
    parts = re.split(r"(``?[^`]*``?)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<>\[\]])", r"\\\1", part) for part in parts)
