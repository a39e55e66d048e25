"""The plugin door: what is found, under which name, and what a broken plugin may not do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from repbench.errors import PluginError, UsageError
from repbench.globalstate import preserved_global_state
from repbench.registry import GROUPS, Entry, Registry, normalised, registry
from tests.fake_distributions import install, registry_of

BROKEN = {
    "raises": ("raise ValueError('no weights')", "ValueError: no weights"),
    "syntax": ("def broken(:", "SyntaxError: invalid syntax"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "needs": ("import surely_not_installed", "ModuleNotFoundError: No module named 'surely_not_installed'"),
    "lacks": ("class Encoder: ...", "AttributeError: module '.*' has no attribute 'model'; it has Encoder"),
    "absent": (None, "ModuleNotFoundError: No module named 'fault_33_absent'"),
}
"""A module's source, None for a module that is not there, and what importing `model` from it says."""


def run_python(code: str, folder: Path) -> str:
    """What `code` prints in a fresh interpreter that finds the modules in `folder`."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_builtins_come_through_the_door_like_everyone() -> None:
    names = {kind: {entry.name for entry in registry().entries(kind) if entry.builtin} for kind in GROUPS}

    assert names["upstream"] >= {"mel", "mel_no_cmvn"}
    assert names["downstream"] >= {"phone", "speaker", "sentiment"}
    assert names["corpus"] >= {"synthetic", "librispeech", "ljspeech", "fsdd", "csv"}


def test_importing_the_registry_loads_neither_torch_nor_numpy(tmp_path: Path) -> None:
    heavy = run_python(
        "import repbench.registry; repbench.registry.registry().rows()\n"
        "print([name for name in ('torch', 'numpy', 'pydantic', 'yaml') if name in sys.modules])",
        tmp_path,
    )
    assert heavy == "[]"


def test_a_plugin_is_imported_only_when_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        tmp_path,
        "speechy",
        "[repbench.upstreams]\nlazy = lazy_plugin:Nest.model\n",
        modules={"lazy_plugin": "class Nest:\n    model = 'the model'\n"},
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = registry_of(tmp_path)

    assert [row["name"] for row in found.rows()] == ["lazy"]
    assert "lazy_plugin" not in sys.modules
    assert found.load("upstream", "lazy") == "the model"


def test_rows_tell_what_the_metadata_says(tmp_path: Path) -> None:
    install(tmp_path, "speechy", "[repbench.corpora]\nnoises = speechy.noises:NOISES\n", version="2.3")

    assert registry_of(tmp_path).rows("corpus") == [
        {
            "name": "noises",
            "kind": "corpus",
            "version": "2.3",
            "origin": "speechy",
            "target": "speechy.noises:NOISES",
            "note": "",
        }
    ]
    assert registry_of(tmp_path).rows("upstream") == []


@pytest.mark.parametrize(
    ("spec", "owner", "options"),
    [
        ("synthetic", "repbench", ()),
        ("synthetic:noisy:small", "repbench", ("noisy", "small")),
        ("repbench:synthetic:noisy", "repbench", ("noisy",)),
        ("Speech_Y:noises", "Speech.Y", ()),
        ("speech-y:noises:loud", "Speech.Y", ("loud",)),
        ("noises:loud", "Speech.Y", ("loud",)),
    ],
)
def test_a_spec_is_a_name_and_its_options(tmp_path: Path, spec: str, owner: str, options: tuple[str, ...]) -> None:
    install(tmp_path, "repbench", "[repbench.corpora]\nsynthetic = a:A\n")
    install(tmp_path, "Speech.Y", "[repbench.corpora]\nnoises = b:B\n")

    found = registry_of(tmp_path).find("corpus", spec)

    assert (found.entry.distribution, found.options) == (owner, options)


def test_nobody_takes_an_option_away_from_a_builtin(tmp_path: Path) -> None:
    install(tmp_path, "repbench", "[repbench.corpora]\nsynthetic = a:A\n")
    install(tmp_path, "synthetic", "[repbench.corpora]\nnoisy = b:B\nsynthetic = b:C\n")
    found = registry_of(tmp_path)

    assert found.find("corpus", "synthetic:noisy").entry.target == "a:A"
    assert found.find("corpus", "synthetic:synthetic").entry.target == "b:C"
    assert found.find("corpus", "noisy").entry.target == "b:B"


def test_an_unknown_name_is_answered_with_a_question_and_the_list(tmp_path: Path) -> None:
    install(tmp_path, "repbench", "[repbench.upstreams]\nmel = a:A\nmel_no_cmvn = a:B\n")

    with pytest.raises(UsageError, match=r"no upstream `mle`\. Did you mean `mel`\? There are: `mel`, `mel_no_cmvn`"):
        registry_of(tmp_path).find("upstream", "mle")
    for wrong, meant in (("HF:org/Model", "hf:org/Model"), ("torch-audio:X", "torchaudio:X"), ("MEL", "mel")):
        do = rf"no upstream `{wrong}`\. Did you mean `{meant}`\?.*, and hf:REPO, torchaudio:BUNDLE, py:MODULE:NAME"
        with pytest.raises(UsageError, match=do):
            registry_of(tmp_path).find("upstream", wrong)
    with pytest.raises(UsageError, match=r"no downstream ``\. There are: none"):
        registry_of(tmp_path).find("downstream", "")


@pytest.mark.parametrize(
    ("spec", "argument"),
    [("hf:facebook/wav2vec2-base", "facebook/wav2vec2-base"), ("hf:./a:b", "./a:b"), ("features:folder", "folder")],
)
def test_a_door_takes_all_that_follows_its_prefix(tmp_path: Path, spec: str, argument: str) -> None:
    install(tmp_path, "repbench", "[repbench.upstreams]\nmel = a:A\n")
    found = registry_of(tmp_path).find("upstream", spec)
    assert (found.entry.qualified, found.entry.argument, found.options) == (spec, argument, ())
    assert (found.entry.distribution, found.entry.version, found.entry.builtin) == ("repbench", "1.0", True)


@pytest.mark.parametrize(("spec", "write"), [("hf", "hf:DIR_OR_REPO"), ("torchaudio:", "torchaudio:BUNDLE")])
def test_a_door_without_a_name_says_what_to_write(tmp_path: Path, spec: str, write: str) -> None:
    with pytest.raises(UsageError, match=f"Nothing follows the prefix.*Write `{write}`"):
        registry_of(tmp_path).find("upstream", spec)


def test_the_doors_lead_to_upstreams_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="prefix `hf:` leads to upstreams, not to a downstream"):
        registry_of(tmp_path).find("downstream", "hf:some/model")


def test_py_names_an_object_directly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_direct_model.py").write_text("model = 'mine'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = registry_of(tmp_path)

    entry, options = found.find("upstream", "py:my_direct_model:model:loud")

    assert (entry.distribution, entry.version, entry.builtin, options) == ("py", "", False, ("loud",))
    assert found.load("upstream", entry.qualified) == "mine"
    with pytest.raises(PluginError, match=r"No module named 'my_missing_model'.*PYTHONPATH"):
        found.load("upstream", "py:my_missing_model:model")
    with pytest.raises(UsageError, match=r"`py:my_direct_model` does not name an object.*py:module:attribute"):
        found.find("upstream", "py:my_direct_model")


@pytest.mark.parametrize("case", BROKEN)
def test_fault_33_a_plugin_that_cannot_be_loaded_is_named_and_disturbs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    source, reason = BROKEN[case]
    module = f"fault_33_{case}"
    install(
        tmp_path,
        "brokenly",
        f"[repbench.upstreams]\nbad = {module}:model\n",
        modules={} if source is None else {module: source},
    )
    install(tmp_path, "soundly", "[repbench.upstreams]\ngood = math:pi\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = registry_of(tmp_path)

    assert [row["name"] for row in found.rows("upstream")] == ["bad", "good"]
    with pytest.raises(PluginError, match=rf"`bad`.*distribution `brokenly` 1\.0 cannot be loaded: {reason}") as caught:
        found.load("upstream", "bad")
    assert "pip uninstall brokenly" in str(caught.value.do)
    assert found.load("upstream", "good") == pytest.approx(3.14159, abs=1e-5)


def test_fault_33_the_cure_fits_the_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fault_33_needy.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    needy = Entry("needy", "upstream", "fault_33_needy:model", "third", "1.0", builtin=False)
    with pytest.raises(PluginError, match="Install what provides the module `surely_not_installed`"):
        needy.load()
    gone = Entry("gone", "upstream", "fault_33_gone:model", "third", "1.0", builtin=False)
    with pytest.raises(PluginError, match="pip install --force-reinstall third"):
        gone.load()


def test_fault_33_an_interrupt_is_no_fault_of_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fault_33_interrupted.py").write_text("raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(KeyboardInterrupt):
        Entry("x", "upstream", "fault_33_interrupted:model", "third", "1.0", builtin=False).load()


@pytest.mark.parametrize(
    "content",
    [
        "[repbench.upstreams]\nno equals sign here\n",
        "[repbench.upstreams\nbad = a:A\n",
        "nonsense before any section\n",
        b"[repbench.upstreams]\nbad = \xff\xfe:A\n",
    ],
    ids=["no-equals", "open-section", "no-section", "not-utf-8"],
)
def test_fault_34_malformed_entry_points_are_ignored_and_named(tmp_path: Path, content: str | bytes) -> None:
    install(tmp_path, "malformed", content)
    install(tmp_path, "soundly", "[repbench.upstreams]\ngood = math:pi\n")
    found = registry_of(tmp_path)

    assert [entry.name for entry in found.entries("upstream")] == ["good"]
    (problem,) = found.problems
    assert problem.distribution == "malformed"
    assert "entry_points.txt cannot be read" in problem.reason
    assert "pip install --force-reinstall malformed" in problem.cure


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("hf = a:A", "`hf` is a reserved prefix"),
        ("py = a:A", "`py` is a reserved prefix"),
        ("two words = a:A", "neither a colon nor a space"),
        ("co:lon = a:A", "neither a colon nor a space"),
        ("= a:A", "neither a colon nor a space"),
        ("module_only = a", "not of the form `module:attribute`"),
        ("call = a:A()", "not of the form `module:attribute`"),
        ("good = a:A", "the same distribution has named `math:pi` so before"),
    ],
)
def test_fault_34_an_impossible_entry_is_ignored_alone(tmp_path: Path, line: str, reason: str) -> None:
    install(tmp_path, "soundly", f"[repbench.upstreams]\ngood = math:pi\n{line}\n")
    found = registry_of(tmp_path)

    assert [entry.target for entry in found.entries("upstream")] == ["math:pi"]
    (problem,) = found.problems
    assert problem.distribution == "soundly"
    assert reason in problem.reason


@pytest.mark.parametrize("fields", ["", "Metadata-Version: 2.1\n", "Name:\n"])
def test_fault_34_metadata_without_a_name_is_tolerated(tmp_path: Path, fields: str) -> None:
    install(tmp_path, "nameless", "[repbench.upstreams]\nbad = a:A\n", fields=fields)
    install(tmp_path, "nameless_bystander", "[console_scripts]\nbystander = a:A\n", fields=fields)
    install(tmp_path, "soundly", "[repbench.upstreams]\ngood = math:pi\n")
    found = registry_of(tmp_path)

    assert [entry.name for entry in found.entries("upstream")] == ["good"]
    (problem,) = found.problems
    assert "nameless-1.0.dist-info" in problem.distribution
    assert "holds no name" in problem.reason


def test_fault_35_a_builtin_keeps_its_bare_name(tmp_path: Path) -> None:
    install(tmp_path, "aaa-speech", "[repbench.upstreams]\nmel = theirs:Mel\n")
    install(tmp_path, "repbench", "[repbench.upstreams]\nmel = ours:Mel\n")
    found = registry_of(tmp_path)

    assert found.find("upstream", "mel").entry.target == "ours:Mel"
    assert found.find("upstream", "aaa_speech:mel").entry.target == "theirs:Mel"
    assert found.find("upstream", "repbench:mel").entry.target == "ours:Mel"
    assert [row["note"] for row in found.rows()] == ["", "hidden by the built-in; use aaa-speech:mel"]


def test_fault_35_two_third_parties_must_be_told_apart(tmp_path: Path) -> None:
    install(tmp_path, "first", "[repbench.upstreams]\nwav = a:A\nfirst = a:F\n")
    install(tmp_path, "second", "[repbench.upstreams]\nwav = b:B\nfirst = b:F\n")
    found = registry_of(tmp_path)

    clash = r"`wav` is registered by the distributions `first` and `second`.*`first:wav` or `second:wav`"
    with pytest.raises(PluginError, match=clash):
        found.find("upstream", "wav")
    assert found.find("upstream", "second:wav").entry.target == "b:B"
    assert found.find("upstream", "first:first").entry.target == "a:F"
    notes = [row["note"] for row in found.rows() if row["name"] == "wav"]
    assert notes == ["name shared with `second`; use first:wav", "name shared with `first`; use second:wav"]
    with pytest.raises(UsageError, match=r"There are: .*`first:wav`, `second:wav`"):
        found.find("upstream", "unlike")


def test_fault_35_of_a_distribution_found_twice_the_first_counts(tmp_path: Path) -> None:
    install(tmp_path / "near", "My_Speech", "[repbench.upstreams]\nwav = near:A\n", version="2.0")
    install(tmp_path / "far", "my-speech", "[repbench.upstreams]\nwav = far:A\nold = far:B\n", version="1.0")

    entries = registry_of(tmp_path / "near", tmp_path / "far").entries("upstream")

    assert [(entry.target, entry.version) for entry in entries] == [("near:A", "2.0")]


def test_fault_35_clashes_are_told_with_owner_and_name(tmp_path: Path) -> None:
    install(tmp_path, "repbench", "[repbench.upstreams]\nmel = ours:Mel\n")
    install(tmp_path, "theirs", "[repbench.upstreams]\nmel = theirs:Mel\nwav = theirs:Wav\n")
    install(tmp_path, "others", "[repbench.upstreams]\nwav = others:Wav\nalone = others:Alone\n")

    assert [tuple(clash) for clash in registry_of(tmp_path).clashes()] == [
        ("theirs", "the upstream `mel`: hidden by the built-in", "Name it `theirs:mel`"),
        ("others", "the upstream `wav`: name shared with `theirs`", "Name it `others:wav`"),
        ("theirs", "the upstream `wav`: name shared with `others`", "Name it `theirs:wav`"),
    ]


def test_fault_36_a_default_device_that_is_not_there_is_put_back() -> None:
    import torch

    with preserved_global_state() as changed:
        torch.set_default_device("cuda:77")

    assert changed == ["default device"]
    assert torch.zeros(1).device.type == "cpu"


SIDE_EFFECTS = {
    "working directory": "import os; os.chdir('/')",
    "environment variable FAULT_36_NEW": "import os; os.environ['FAULT_36_NEW'] = '1'",
    "environment variable FAULT_36_OLD": "import os; os.environ['FAULT_36_OLD'] = 'changed'",
    "environment variable FAULT_36_GONE": "import os; del os.environ['FAULT_36_GONE']",
    "signal handler SIGINT": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
    "signal handler SIGTERM": "import signal; signal.signal(signal.SIGTERM, lambda *_: None)",
    "random generator of Python": "import random; random.seed(7)",
    "random generator of numpy": "import numpy; numpy.random.seed(7)",
    "random generator of torch": "import torch; torch.manual_seed(7)",
    "default dtype": "import torch; torch.set_default_dtype(torch.float64)",
    "number of threads": "import torch; torch.set_num_threads(torch.get_num_threads() + 1)",
    "gradient mode": "import torch; torch.set_grad_enabled(False)",
    "deterministic algorithms": "import torch; torch.use_deterministic_algorithms(True)",
    "cudnn.benchmark": "import torch; torch.backends.cudnn.benchmark = True",
    "cudnn.deterministic": "import torch; torch.backends.cudnn.deterministic = True",
    "cudnn.enabled": "import torch; torch.backends.cudnn.enabled = False",
    "cudnn.allow_tf32": "import torch; torch.backends.cudnn.allow_tf32 = False",
    "default device": "import torch; torch.set_default_device('meta')",
    "precision of float32 products": "import torch; torch.set_float32_matmul_precision('medium')",
    "precision of float32 in backends": "import torch; torch.backends.fp32_precision = 'tf32'",
}
"""What a module may change, by the name it is reported under."""


@pytest.mark.parametrize("name", SIDE_EFFECTS)
def test_fault_36_side_effects_of_an_import_are_undone_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import torch  # noqa: F401 - the state of a torch that is in use

    monkeypatch.setenv("FAULT_36_OLD", "old")
    monkeypatch.setenv("FAULT_36_GONE", "still here")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = f"fault_36_{list(SIDE_EFFECTS).index(name)}"
    install(
        tmp_path,
        "careless",
        f"[repbench.upstreams]\ncareless = {module}:model\n",
        modules={module: f"{SIDE_EFFECTS[name]}\nmodel = 'loaded'\n"},
    )
    found = registry_of(tmp_path)

    with preserved_global_state() as left_over:
        assert found.load("upstream", "careless") == "loaded"

    assert left_over == []
    (problem,) = found.problems
    assert problem.distribution == "careless"
    assert name in problem.reason.partition("put back: ")[2].split(", ")


@pytest.mark.parametrize("name", [name for name in SIDE_EFFECTS if "torch." in SIDE_EFFECTS[name]])
def test_fault_36_the_guard_sees_each_change(name: str) -> None:
    with preserved_global_state() as undone:
        exec(SIDE_EFFECTS[name])
    with preserved_global_state() as nothing:
        pass

    assert name in undone
    assert nothing == []


def test_fault_36_a_failing_import_is_undone_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "fault_36_failing.py").write_text("import os\nos.chdir('/')\nraise ValueError('half way')\n")

    with pytest.raises(PluginError, match="half way"):
        Entry("x", "upstream", "fault_36_failing:model", "third", "1.0", builtin=False).load()

    assert Path.cwd() == tmp_path


@pytest.mark.slow
def test_fault_36_a_plugin_that_loads_torch_itself_leaves_it_fresh(tmp_path: Path) -> None:
    (tmp_path / "fault_36_fresh.py").write_text(
        "import torch, sklearn\n"
        "torch.set_default_dtype(torch.float64)\n"
        "torch.backends.cudnn.benchmark = True\n"
        "model = 1\n"
    )
    printed = run_python(
        "from repbench.registry import Registry\n"
        "found = Registry([])\n"
        "found.load('upstream', 'py:fault_36_fresh:model')\n"
        "import torch\n"
        "print(torch.get_default_dtype(), torch.backends.cudnn.benchmark)\n"
        "print(found.problems[0].reason)",
        tmp_path,
    )
    state, reason = printed.splitlines()
    assert state == "torch.float32 False"
    assert reason.endswith("put back: default dtype, cudnn.benchmark")


def test_names_of_distributions_are_compared_as_pep_503_says() -> None:
    assert normalised("My.Speech__Models") == normalised("my-speech-models") == "my-speech-models"


def test_the_registry_of_nothing_is_empty() -> None:
    assert Registry([]).rows() == []
    assert Registry([]).problems == ()
