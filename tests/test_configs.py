"""Strict configuration: what a file means, and what it cannot mean."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from repbench.configs.loader import MAX_DEPTH, apply_overrides, build, load_preset, load_yaml
from repbench.errors import UsageError


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Probe(Strict):
    learning_rate: float = 1e-3
    steps: int = Field(default=1000, gt=0)
    layer: int | Literal["last", "first"] = "last"
    grid: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _grid_is_sorted(self) -> Probe:
        if list(self.grid) != sorted(self.grid):
            raise ValueError("`grid` must rise")
        return self


class Stage(Strict):
    name: str
    batch_size: int = 8


class Protocol(Strict):
    probe: Probe = Probe()
    stages: tuple[Stage, ...] = ()
    out: Path = Path("runs")
    tune: bool = False
    warmup: float | None = None


KEYS = ["probe", "probe.learning_rate", "probe.steps", "probe.layer", "probe.grid", "stages", "out", "tune", "warmup"]


def yaml_file(folder: Path, content: str | bytes) -> Path:
    path = folder / "protocol.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def nested(keys: str, value: object) -> dict[str, Any]:
    """`a.b` and 1 make `{"a": {"b": 1}}`."""
    head, _, rest = keys.partition(".")
    return {head: nested(rest, value) if rest else value}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4e-4", 4e-4),
        ("1e-4", 1e-4),
        ("1E6", 1e6),
        (".5", 0.5),
        ("1.", 1.0),
        ("-3", -3),
        ("012", 12),
        ("0o12", 10),
        ("0xfF", 255),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'12'", "12"),
        ('"true"', "true"),
        ("[1, two, 3e0]", [1, "two", 3.0]),
        ("e4", "e4"),
        ("x=y", "x=y"),
    ],
)
def test_scalars_are_those_of_yaml_1_2_in_a_file_and_in_set(tmp_path: Path, text: str, value: object) -> None:
    from_file = load_yaml(yaml_file(tmp_path, f"key: {text}\n"))["key"]
    from_set = apply_overrides({}, [f"key={text}"])["key"]

    assert (from_file, type(from_file)) == (value, type(value))
    assert (from_set, type(from_set)) == (value, type(value))


def test_a_file_is_a_tree(tmp_path: Path) -> None:
    content = "# a comment\nprobe:\n  steps: 10\n  grid: [1e-4, 1e-3]\nstages:\n- name: one\n- {name: two}\n"

    assert load_yaml(yaml_file(tmp_path, content)) == {
        "probe": {"steps": 10, "grid": [1e-4, 1e-3]},
        "stages": [{"name": "one"}, {"name": "two"}],
    }


@pytest.mark.parametrize("content", ["", "# nothing\n", "{}", "\ufeff{}"])
def test_an_empty_file_is_an_empty_tree(tmp_path: Path, content: str) -> None:
    assert load_yaml(yaml_file(tmp_path, content)) == {}


@pytest.mark.parametrize("path", ["absent.yaml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(UsageError, match="cannot be read") as caught:
        load_yaml(tmp_path / path)
    assert caught.value.file == str(tmp_path / path)


LAUGHS = "a: &a [lol, lol]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghi"))

REFUSED: dict[str, tuple[str | bytes, int, str]] = {
    "duplicate-key": ("a: 1\nb: 2\na: 3\n", 3, "key `a` is given twice, first on line 1"),
    "duplicate-key-below": ("a:\n  b: 1\n  b: 2\n", 3, "key `b` is given twice, first on line 2"),
    "anchor": ("a: 1\nb: &x 2\n", 2, "anchor `&x` is not allowed"),
    "alias": ("a: 1\nb: *x\n", 2, "alias `[*]x` is not allowed"),
    "merge-key": ("a: 1\n<<: {b: 2}\n", 2, "merge key `<<` is not allowed"),
    "python-tag": ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, "tag `.*os.system` is not allowed"),
    "own-tag": ("a: !x 1\n", 1, "tag `!x` is not allowed"),
    "nested-10000": ("a:\n  " + "[" * 10_000, 2, f"nested deeper than {MAX_DEPTH}"),
    "2-mib": ("a: 1\n" * (2 << 20), 209716, "beyond the 1 MiB"),
    "two-documents": ("a: 1\n---\nb: 2\n", 2, "a second document starts here"),
    "billion-laughs": (LAUGHS, 1, "anchor `&a` is not allowed"),
    "number-as-key": ("a: 1\n2: b\n", 2, "a key must be text, but is 2"),
    "list-as-key": ("? [a]\n: b\n", 1, "a key must be text"),
    "infinity": ("a: 1\nb: .inf\n", 2, "`.inf` is not a finite number"),
    "overflow": ("a: 1e999\n", 1, "`1e999` is not a finite number"),
    "4300-digits": ("a: " + "9" * 5000, 1, "is not a finite number"),
    "list": ("- a\n", 1, "a configuration is a mapping"),
    "syntax": ("a: 1\nb: c: d\n", 2, "not YAML: mapping values are not allowed here"),
    "open-bracket": ("a: [1,\n", 2, "not YAML: while parsing a flow"),
    "control-character": ("a: 1\nb: \x01\n", 2, r"character U\+0001 is not allowed"),
    "latin-1": (b"a: 1\nb: \xe4\n", 2, "is not UTF-8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_fault_41_what_strict_yaml_is_not_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    content, line, reason = REFUSED[case]
    path = yaml_file(tmp_path, content)

    with pytest.raises(UsageError, match=rf"^Line {line}\b.*{reason}") as caught:
        load_yaml(path)

    assert caught.value.file == str(path)
    assert caught.value.exit_code == 2


def test_the_deepest_tree_allowed_is_read(tmp_path: Path) -> None:
    deepest = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)

    assert "a" in load_yaml(yaml_file(tmp_path, f"a: {deepest}"))
    with pytest.raises(UsageError, match="nested deeper"):
        load_yaml(yaml_file(tmp_path, f"a: [{deepest}]"))


def test_overrides_set_single_keys_and_leave_the_tree_alone() -> None:
    tree = {"probe": {"steps": 10, "learning_rate": 1.0}}

    changed = apply_overrides(tree, ["probe.steps=30", "tune=true", "features.input.kind=mel", "tune=true"])

    assert changed == {
        "probe": {"steps": 30, "learning_rate": 1.0},
        "tune": True,
        "features": {"input": {"kind": "mel"}},
    }
    assert tree == {"probe": {"steps": 10, "learning_rate": 1.0}}


@pytest.mark.parametrize(
    ("assignments", "reason"),
    [
        (["probe.steps=20", "probe.steps=30"], "`probe.steps` is set twice, to 20 and to 30 .*Set it once"),
        (["tune=1", "tune=true"], "`tune` is set twice, to 1 and to true"),
        (["task.positive=[a]", "seed=1", "task.positive=[a,b]"], "`task.positive` is set twice"),
        (["probe.steps=20", "probe=null"], "`probe` is set as a whole, and `probe.steps` in it"),
    ],
)
def test_fault_no_setting_is_dropped_for_a_later_one(assignments: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        apply_overrides({"probe": {"steps": 10}}, assignments)


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("probe.steps", "`--set probe.steps` is not of the form KEY=VALUE"),
        ("=3", "not of the form KEY=VALUE"),
        ("probe..steps=3", "not of the form KEY=VALUE"),
        ("out.folder=x", '`out` is a value, "runs", and has no keys .key out.folder'),
        ("probe={steps: 3}", "neither a scalar nor an inline list .key probe.*Set one key at a time"),
        ("probe=steps: 3", "neither a scalar nor an inline list"),
        ("grid=- 1", "neither a scalar nor an inline list"),
        ("grid=*x", "alias `[*]x` is not allowed"),
        ("grid=@x", "is no value: .*Put a text in quotes"),
    ],
)
def test_an_impossible_override_is_refused(assignment: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        apply_overrides({"out": "runs"}, [assignment])


def test_a_tree_becomes_a_frozen_model() -> None:
    tree = {"probe": {"learning_rate": 1, "grid": [1e-4, 1]}, "stages": [{"name": "one"}], "out": "elsewhere"}

    protocol = build(Protocol, tree, "the test")

    assert protocol == Protocol(
        probe=Probe(learning_rate=1.0, grid=(1e-4, 1.0)), stages=(Stage(name="one"),), out=Path("elsewhere")
    )


@pytest.mark.parametrize(("value", "example"), [("1e-3,1e-2", "[1e-3, 1e-2]"), (0.1, "[0.1]")])
def test_a_value_where_a_list_is_needed_is_shown_as_one(value: object, example: str) -> None:
    wanted = f"`probe.grid` must be a list, as in `--set 'probe.grid={example}'`, but is "
    with pytest.raises(UsageError, match=re.escape(wanted)):
        build(Protocol, {"probe": {"grid": value}}, "the test")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("misspell", ["drop", "swap", "double"])
def test_fault_40_every_key_misspelt_is_recognised(key: str, misspell: str) -> None:
    *above, name = key.split(".")
    wrong = {"drop": name[:-1], "swap": name[1] + name[0] + name[2:], "double": name + name[-1]}[misspell]
    misspelt = ".".join([*above, wrong])

    with pytest.raises(UsageError, match=rf"^In the test: unknown key `{misspelt}`, did you mean `{key}`\?$"):
        build(Protocol, nested(misspelt, 1), "the test")


def test_fault_40_a_key_in_the_wrong_place_is_recognised() -> None:
    with pytest.raises(UsageError, match=r"unknown key `learning_rate`, did you mean `probe\.learning_rate`\?"):
        build(Protocol, {"learning_rate": 1e-3}, "the test")
    with pytest.raises(
        UsageError, match=r"unknown key `stages\[0\]\.batchsize`, did you mean `stages\[0\].batch_size`\?"
    ):
        build(Protocol, {"stages": [{"name": "one", "batchsize": 3}]}, "the test")
    with pytest.raises(UsageError, match=r"unknown key `zzzzz`\.$"):
        build(Protocol, {"zzzzz": 1}, "the test")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("probe.learning_rate", "1e-4x", '`probe.learning_rate` must be a valid number, but is "1e-4x"'),
        ("probe.learning_rate", "1e-4", '`probe.learning_rate` must be a valid number, but is "1e-4"'),
        ("probe.learning_rate", None, "must be a valid number, but is null"),
        ("probe.steps", 1e3, r"must be a valid integer, but is 1000\.0"),
        ("probe.steps", True, "must be a valid integer, but is true"),
        ("probe.steps", 0, "must be greater than 0, but is 0"),
        ("probe.layer", "all", "`probe.layer` must be a valid integer or 'last' or 'first', but is \"all\""),
        ("probe.grid", [1, "x"], r'`probe\.grid\[1\]` must be a valid number, but is "x"'),
        ("probe.grid", [2, 1], "`probe`: `grid` must rise"),
        ("probe", 3, "`probe` must be a mapping, but is 3"),
        ("tune", "yes", '`tune` must be a valid boolean, but is "yes"'),
        ("tune", 1, "`tune` must be a valid boolean, but is 1"),
        ("stages", [{}], r"`stages\[0\]\.name` is missing"),
    ],
)
def test_fault_40_a_wrong_type_is_refused_not_converted(key: str, value: object, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        build(Protocol, nested(key, value), "the test")


def test_fault_40_all_faults_are_told_at_once_in_one_line(tmp_path: Path) -> None:
    tree = {"probe": {"lerning_rate": 1e-4, "steps": "many"}, "tune": "yes", "stages": [{"batch_size": 2}]}

    with pytest.raises(UsageError) as caught:
        build(Protocol, tree, tmp_path / "protocol.yaml")

    message = str(caught.value)
    assert "unknown key `probe.lerning_rate`, did you mean `probe.learning_rate`?" in message
    assert '`probe.steps` must be a valid integer, but is "many"' in message
    assert '`tune` must be a valid boolean, but is "yes"' in message
    assert "`stages[0].name` is missing" in message
    assert f"file {tmp_path / 'protocol.yaml'}" in message
    assert "\n" not in message


def test_fault_40_small_numbers_arrive(tmp_path: Path) -> None:
    tree = load_yaml(yaml_file(tmp_path, "probe:\n  learning_rate: 1e-4\n"))

    assert build(Protocol, tree, "the test").probe.learning_rate == 0.0001


def test_presets_ship_with_the_package() -> None:
    assert load_preset("default") == {}
    with pytest.raises(UsageError, match=r"no preset `defualt`\. Did you mean `default`\? There are: .*`default`"):
        load_preset("defualt")
    with pytest.raises(UsageError, match=r"no preset `\.\./configs/default`"):
        load_preset("../configs/default")
