"""Write the pages that are made of the code: commands.md, settings.md, and api.md of the Python interface.

`make reference` runs it, and a test holds the pages to what it would write: a command, an option or a setting that is
added, changed or removed is so in the manual too, or the tests fail.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import typer
from pydantic import BaseModel

from api_reference import api_page
from repbench.benchmark.leaderboard.settings import LeaderboardSettings
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.sweep.plan import SweepPlan
from repbench.cli import app
from repbench.configs.loader import preset_names
from repbench.errors import RepbenchError
from repbench.upstream.adapters.declarations import Declaration, VectorDeclaration
from repbench.upstream.adapters.feature_folder import FolderDeclaration, VectorFolderDeclaration
from repbench.upstream.adapters.onnx_graph import GraphSettings
from repbench.upstream.adapters.unit_folder import UnitsDeclaration
from repbench.upstream.apc.config import ApcConfig
from repbench.upstream.mockingjay.config import MockingjayConfig
from repbench.upstream.pretraining.settings import TrainingSettings

DOCS = Path(__file__).parent
MADE = "<!-- Made by docs/manual.py; `make reference` writes it again. -->"


class Shown(NamedTuple):
    """Settings that have a section.

    Attributes:
        title: Of the section.
        model: The settings.
        above: Key that precedes all of them; empty: none.
        text: Paragraph before the tables.
        presets: Group of the presets that ship; None: there are none.
    """

    title: str
    model: type[BaseModel]
    above: str
    text: str
    presets: str | None = None


PROTOCOLS = ""
"""The group of presets that are protocols."""

SETTINGS = (
    Shown(
        "A run",
        Protocol,
        "",
        "Taken by `repbench run` with `--config FILE` and `--set A.B=V`, on top of `--preset NAME`. "
        "[Protocols](protocols.md) describes the published protocols.",
        PROTOCOLS,
    ),
    Shown(
        "Pre-training",
        TrainingSettings,
        "training",
        "Taken by `repbench pretrain` of every upstream, in the same file as the settings of the model "
        "([Pre-training](pretraining.md)).",
    ),
    Shown(
        "Mockingjay",
        MockingjayConfig,
        "",
        "The model, taken by `repbench pretrain mockingjay` and by `repbench.load_upstream`.",
        "mockingjay",
    ),
    Shown("APC", ApcConfig, "", "The model, taken by `repbench pretrain apc` and by `repbench.load_upstream`.", "apc"),
    Shown("A sweep", SweepPlan, "", "The plan that `repbench sweep` reads ([Sweeps](sweep.md))."),
    Shown(
        "A leaderboard",
        LeaderboardSettings,
        "",
        "`leaderboard.yaml`, the settings of a leaderboard ([Leaderboards](leaderboard.md)).",
    ),
    Shown(
        "A module of `py:`",
        Declaration,
        "",
        "`MODULE_ATTRIBUTE.info.yaml`, the declaration of a module that is no upstream by itself "
        "([Models](models.md#py-any-module)).",
    ),
    Shown(
        "A module of `py:` with one vector an utterance",
        VectorDeclaration,
        "",
        "The same file of a module that gives one vector an utterance, as an x-vector "
        "([Models](models.md#one-vector-an-utterance)).",
    ),
    Shown(
        "A graph of `onnx:`",
        GraphSettings,
        "graph",
        "The group `graph` of the declaration beside an ONNX file ([Models](models.md#onnx-graphs)).",
    ),
    Shown(
        "A folder of `features:`",
        FolderDeclaration,
        "",
        "`features.yaml`, in a folder of features that another program computed ([Models](models.md#features-files)).",
    ),
    Shown(
        "A folder of `features:` with one vector an utterance",
        VectorFolderDeclaration,
        "",
        "The same file in a folder of vectors ([Models](models.md#features-files)).",
    ),
    Shown(
        "A folder of `units:`",
        UnitsDeclaration,
        "",
        "`units.yaml`, in a folder of units that another program computed ([Models](models.md#units-discrete-speech)).",
    ),
)


def commands_page() -> str:
    """The manual of the command line."""
    parts = [
        "# Commands",
        MADE,
        "`--help` after any command prints the same in a terminal; `repbench --version` prints the version. Every "
        "command takes `--json`: one object on standard output, and all progress on standard error. The value under "
        "“default” is taken where the option is not given.",
        _table(("command", "does"), [_overview(path, command) for path, command in walk_commands()]),
        _exit_codes(),
        *(_command(path, command) for path, command in walk_commands()),
    ]
    return "\n\n".join(parts) + "\n"


def settings_page() -> str:
    """The manual of everything that can be written in YAML or given with `--set`."""
    parts = [
        "# Settings",
        MADE,
        "Every key of every YAML file that repbench reads, with its default. Files are read strictly: an unknown key, "
        "a value of another type and a number out of bounds are errors, all reported at once with their keys (exit "
        "2). `null` means no value. On the command line `--set A.B=V` sets one key.",
        *(_section(shown) for shown in SETTINGS),
    ]
    return "\n\n".join(parts) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "settings.md": settings_page,
    "api.md": lambda: api_page(MADE),
}
"""The pages that are made from the code."""


def walk_commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, with the words that call it, in the order of the help."""

    def below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
        children = getattr(command, "commands", None)
        if children is None:
            yield path, command
            return
        for name, child in children.items():
            if not child.hidden:
                yield from below(f"{path} {name}", child)

    return below("repbench", typer.main.get_command(app))


def _overview(path: str, command: Any) -> tuple[str, str]:
    return f"[`{path}`](#{path.replace(' ', '-')})", command.short_help


def _exit_codes() -> str:
    family = (fault for fault in RepbenchError.__subclasses__() if fault.__module__ == RepbenchError.__module__)
    faults = sorted(family, key=lambda fault: fault.exit_code)
    rows = [
        ("0", "All is well."),
        ("1", "A bug of repbench, with its traceback."),
        *((str(fault.exit_code), _first_sentence(fault)) for fault in faults),
        ("130", "Interrupted by Ctrl-C."),
        ("141", "Nobody reads the output any more."),
        ("143", "Ended by SIGTERM."),
    ]
    text = "An error is one line on standard error, which names the file, utterance or key at fault and what to do."
    return f"## Exit codes\n\n{text}\n\n{_table(('code', 'means'), rows)}"


def _command(path: str, command: Any) -> str:
    arguments = [each for each in command.params if not each.opts[0].startswith("-")]
    options = [each for each in command.params if each.opts[0].startswith("-") and not getattr(each, "hidden", False)]
    needed = [_spelt(each) for each in options if each.required]
    usage = " ".join([path, *(_of_usage(each) for each in arguments), *needed, "[OPTIONS]"])
    rows = [(f"`{_spelt(each)}`", _default(each), each.help or "") for each in (*arguments, *options)]
    what = inspect.cleandoc(command.help)
    return f"## {path}\n\n```text\n{usage}\n```\n\n{what}\n\n{_table(('option', 'default', 'means'), rows)}"


def _spelt(parameter: Any) -> str:
    """An option with its value, or the name of an argument."""
    if not parameter.opts[0].startswith("-"):
        return str(parameter.metavar)
    if parameter.is_flag:
        return str(parameter.opts[0])
    return f"{parameter.opts[0]} {parameter.metavar or parameter.name.upper()}"


def _of_usage(argument: Any) -> str:
    name = f"{argument.metavar}…" if argument.nargs == -1 else str(argument.metavar)
    return name if argument.required else f"[{name}]"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "needed"
    if parameter.default is None or getattr(parameter, "is_flag", False):
        return ""
    return f"`{parameter.default}`"


def _section(shown: Shown) -> str:
    parts = [f"## {shown.title}", shown.text, *_tables(shown.model, shown.above, shown.above, set())]
    if shown.presets is not None:
        parts += [_preset(shown.presets or None, name) for name in preset_names(shown.presets or None)]
    return "\n\n".join(parts)


def _tables(model: type[BaseModel], title: str, above: str, seen: set[type[BaseModel]]) -> Iterator[str]:
    """The table of a model's own keys, then those of the models within it; none is shown twice in a section."""
    seen.add(model)
    docs = sentences_of(model)
    schema = model.model_json_schema()
    needed = set(schema.get("required", ()))
    own, within = [], []
    for name, field in model.model_fields.items():
        key = field.alias or name
        path, kind = f"{above}.{key}".lstrip("."), schema["properties"][key]
        inner, part = _inner(path, kind), _model_in(field.annotation)
        if part is not None and part not in seen:
            within.append((part, path, inner))
        if part is None or part in seen or inner != path:
            default = "needed" if key in needed else _value(field.get_default(call_default_factory=True))
            own.append((f"`{path}`", _kind(kind), default, docs[name]))
    if title:
        yield f"### {title}"
    yield inspect.cleandoc(model.__doc__ or "")
    if own:
        yield _table(("key", "is", "default", "means"), own)
    for part, name, path in sorted(within, key=lambda each: each[1] != each[2]):
        if part not in seen:
            yield from _tables(part, name, path, seen)


def _inner(path: str, schema: Mapping[str, Any]) -> str:
    """The prefix of the keys of an inner model: in each item of a list, under any name, or plainly."""
    if schema.get("type") == "array":
        return f"{path}[]"
    return f"{path}.NAME" if "additionalProperties" in schema else path


def sentences_of(model: type[BaseModel]) -> dict[str, str]:
    """The docstring under each field in the source."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation, inside unions and containers too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, getattr(annotation, "__args__", ()))), None)


def _kind(schema: Mapping[str, Any], several: bool = False) -> str:
    """In words, what a value must be, or several values."""
    if "anyOf" in schema:
        return _either(_kind(each, several) for each in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return _either(f"`{each}`" for each in schema["enum"])
    kind = schema.get("type", "object")
    if kind == "array":
        kinds = schema.get("prefixItems", [schema.get("items")])
        assert all(each == kinds[0] for each in kinds)
        return f"list of {f'{len(kinds)} ' if 'prefixItems' in schema else ''}{_kind(kinds[0], several=True)}"
    one, more = _WORDS[kind]
    return (more if several else one) + _bounds(schema)


_WORDS = {
    "integer": ("whole number", "whole numbers"),
    "number": ("number", "numbers"),
    "string": ("text", "texts"),
    "boolean": ("`true` or `false`",) * 2,
    "object": ("mapping", "mappings"),
    "null": ("`null`",) * 2,
}
"""What JSON Schema calls a value, and what we call one and several."""


def _either(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _bounds(schema: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign}\u00a0{schema[name]:g}" for name, sign in signs.items() if name in schema]
    return f"\u00a0{', '.join(bounds)}" if bounds else ""


def _value(value: Any) -> str:
    """A default as it would be written in YAML; nothing of a model, whose fields have theirs."""
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, str):
        return f"`{value}`" if value else "`''`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{json.dumps(value)}`"


def _preset(group: str | None, name: str) -> str:
    folder = resources.files("repbench.configs")
    text = (folder / group if group else folder).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return f"### Preset {name}\n\n```yaml\n{text}```"


def _first_sentence(thing: type) -> str:
    return inspect.cleandoc(thing.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def main() -> None:
    """Write every page that is made of the code."""
    for name, made in PAGES.items():
        (DOCS / name).write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    main()
