"""`py:` and modules whose `forward` is another one: the error names what is expected and a wrapper that works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench import load_upstream
from repbench.errors import PluginError

DECLARED = """
name: blocks
hop_samples: 320
first_center_samples: 160
window_samples: 320
layer_names: [energy]
width: 4
"""

HEAD = """
import torch
from torch import nn

class Encoder(nn.Module):
    def encode(self, x, scale=1.0):
        x = x[:, : x.shape[1] // 320 * 320]
        return scale * x.reshape(len(x), -1, 4, 80).square().mean(-1)
"""

FORWARDS = {
    "one argument": ("(self, x)", "return self.encode(x)", "(x)", "waveforms"),
    "transformers": (
        "(self, input_values, attention_mask=None)",
        "return self.encode(input_values)",
        "(input_values, attention_mask=None)",
        "waveforms",
    ),
    "SpeechBrain": (
        "(self, wavs, wav_lens=None)",
        "return self.encode(wavs, 1.0 if wav_lens is None else wav_lens)",
        "(wavs, wav_lens=None)",
        "waveforms",
    ),
    "fairseq": (
        "(self, source, padding_mask=None, mask: bool = True)",
        "assert not mask\n        return self.encode(source)",
        "(source, padding_mask=None, mask=True)",
        "waveforms, mask=False",
    ),
    "keyword-only": (
        "(self, wavs, *, wav_lengths)",
        "assert len(wav_lengths) == len(wavs)\n        return self.encode(wavs)",
        "(wavs, *, wav_lengths)",
        "waveforms, wav_lengths=lengths",
    ),
    "lengths first": (
        "(self, lengths, wavs)",
        "assert lengths.dtype == torch.int64\n        return self.encode(wavs)",
        "(lengths, wavs)",
        "lengths, waveforms",
    ),
    "a default in between": (
        "(self, x, norm=False, *, lengths)",
        "return self.encode(x)",
        "(x, norm=False, *, lengths)",
        "waveforms, lengths=lengths",
    ),
    "an option": ("(self, x, norm=False)", "return self.encode(x)", "(x, norm=False)", "waveforms"),
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Writes a class `Encoder` with a `forward` of its own, and its declaration; gives the name of the module."""

    def written(signature: str, body: str, more: str = "", declared: str = DECLARED) -> str:
        name = f"call_{abs(hash((request.node.name, signature, body, more))) % 10**12}"
        code = HEAD + f"\n    def forward{signature}:\n        {body}\n\n" + more
        (tmp_path / f"{name}.py").write_text(code)
        for attribute in ("Encoder", "MyEncoder"):
            (tmp_path / f"{name}_{attribute}.info.yaml").write_text(declared)
        return name

    monkeypatch.syspath_prepend(str(tmp_path))
    return written


def wrapper_in(error: PluginError) -> str:
    """The three lines that an error shows."""
    assert len(error.block.splitlines()) == 3, error.text()
    return f"{error.block}\n"


def hidden_states(name: str) -> Tensor:
    layers: Tensor = load_upstream(f"py:{name}:MyEncoder")(torch.ones(2, 1_000), torch.tensor([1_000, 700])).layers
    return layers


@pytest.mark.parametrize("kind", FORWARDS)
def test_a_forward_of_the_field_is_refused_with_a_wrapper_that_works(write: Any, kind: str) -> None:
    signature, body, shown, given = FORWARDS[kind]
    name = write(signature, body)
    what = rf"called as `forward\(waveforms, lengths\)`, but its own is `forward{re.escape(shown)}`.*which-way"
    with pytest.raises(PluginError, match=what) as caught:
        load_upstream(f"py:{name}:Encoder")
    wrapper = wrapper_in(caught.value)
    assert f"super().forward({given})" in wrapper
    layers = hidden_states(write(signature, body, wrapper))
    assert (tuple(layers.shape), float(layers[0, 0].mean())) == ((1, 2, 3, 4), 1.0)


@pytest.mark.parametrize(
    ("signature", "body", "given"),
    [
        (
            "(self, input_values, attention_mask=None)",
            "assert attention_mask.sum(1).tolist() == [1_000, 700]\n        return self.encode(input_values)",
            "waveforms, attention_mask=torch.arange(waveforms.shape[1], device=lengths.device) < lengths[:, None]",
        ),
        (
            "(self, source, padding_mask=None, mask=True)",
            "assert padding_mask.sum(1).tolist() == [0, 300]\n        return self.encode(source)",
            "waveforms, padding_mask=torch.arange(waveforms.shape[1], device=lengths.device) >= lengths[:, None], "
            "mask=False",
        ),
        (
            "(self, wavs, wav_lens=None)",
            "torch.testing.assert_close(wav_lens, torch.tensor([1.0, 0.7]))\n        return self.encode(wavs)",
            "waveforms, wav_lens=lengths / waveforms.shape[1]",
        ),
    ],
)
def test_a_module_that_is_given_padded_batches_is_told_the_lengths(
    write: Any, signature: str, body: str, given: str
) -> None:
    declared = DECLARED + "batch_invariant: true\n"
    name = write(signature, body, declared=declared)
    with pytest.raises(PluginError) as caught:
        load_upstream(f"py:{name}:Encoder")
    wrapper = wrapper_in(caught.value)
    assert f"super().forward({given})" in wrapper
    assert tuple(hidden_states(write(signature, body, wrapper, declared)).shape) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "signature",
    [
        "(self, wav, wav_lengths)", "(self, x, x_len=None)", "(self, audio, num_samples=None)", "(self, x, y)",
        "(self, *args)", "(self, x, lens, normalise=True)",
    ],
)  # fmt: skip
def test_other_names_of_the_same_two_arguments_are_taken(write: Any, signature: str) -> None:
    first = "args[0]" if "*" in signature else signature.split(",")[1].strip()
    name = write(signature, f"return self.encode({first})")
    assert load_upstream(f"py:{name}:Encoder").info.name == "blocks"


@pytest.mark.parametrize(
    ("value", "described", "taken"),
    [
        ("self.encode(x), lengths // 320", r"tuple of \(1, 3, 4\), \(1,\)", "[0]"),
        ('{"features": self.encode(x), "lengths": lengths}', "dict with the keys features, lengths", "['features']"),
    ],
)
def test_an_item_of_what_a_module_returns_is_taken_by_a_wrapper(
    write: Any, value: str, described: str, taken: str
) -> None:
    name = write("(self, x, lengths)", f"return {value}")
    with pytest.raises(PluginError, match=f"returned {described}") as caught:
        load_upstream(f"py:{name}:Encoder")(torch.ones(1, 1_000), torch.tensor([1_000]))
    wrapper = wrapper_in(caught.value)
    assert wrapper.endswith(f"{taken}\n")
    assert f"End its `forward` with `return …{taken}`, or wrap it" in caught.value.line()
    assert tuple(hidden_states(write("(self, x, lengths)", f"return {value}", wrapper)).shape) == (1, 2, 3, 4)


@pytest.mark.parametrize("batch_invariant", ["true", "false"])
def test_a_module_of_one_channel_is_given_one(write: Any, batch_invariant: str) -> None:
    made = "def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv1d(1, 4, 320, stride=320)\n"
    body = "return self.conv(x).transpose(-1, -2)\n\n    " + made
    declared = DECLARED + f"batch_invariant: {batch_invariant}\n"
    name = write("(self, x, lengths)", body, declared=declared)
    with pytest.raises(PluginError, match=r"If it takes \(B, 1, T\)") as caught:
        load_upstream(f"py:{name}:Encoder")(torch.ones(2, 1_000), torch.tensor([1_000, 700]))
    wrapper = wrapper_in(caught.value)
    assert tuple(hidden_states(write("(self, x, lengths)", body, wrapper, declared)).shape) == (1, 2, 3, 4)


def test_an_argument_of_unknown_meaning_is_left_to_be_filled_in(write: Any) -> None:
    name = write("(self, x, speaker, lengths)", "return self.encode(x)")
    with pytest.raises(PluginError) as caught:
        load_upstream(f"py:{name}:Encoder")
    assert caught.value.block.endswith("return super().forward(waveforms, ..., lengths)  # speaker")
    assert f"name its declaration `{name}_MyEncoder.info.yaml`" in caught.value.line()


def test_a_module_that_was_given_lengths_for_sound_is_turned_round(write: Any) -> None:
    body = "return torch.nn.functional.conv1d(y.unsqueeze(-2), torch.ones(4, 1, 1)).mT[:, 319::320]"
    name = write("(self, n, y)", body)
    with pytest.raises(PluginError, match="If it takes the lengths first") as caught:
        load_upstream(f"py:{name}:Encoder")(torch.ones(1, 1_000), torch.tensor([1_000]))
    wrapper = wrapper_in(caught.value)
    assert tuple(hidden_states(write("(self, n, y)", body, wrapper)).shape) == (1, 2, 3, 4)


def test_a_wrapper_has_another_name_than_the_class_it_wraps(write: Any) -> None:
    name = write("(self, x)", "return self.encode(x)", "class MyEncoder(Encoder):\n    pass\n")
    with pytest.raises(PluginError, match=rf"{name}_WrappedEncoder\.info\.yaml") as caught:
        load_upstream(f"py:{name}:MyEncoder")
    assert wrapper_in(caught.value).startswith("class WrappedEncoder(MyEncoder):\n")


def test_frames_along_the_last_axis_are_recognised(write: Any) -> None:
    name = write("(self, x, lengths)", "return self.encode(x).transpose(1, 2)")
    with pytest.raises(PluginError, match=r"returned \(1, 1, 4, 3\).*for \(B, D, F\) return `states.transpose"):
        load_upstream(f"py:{name}:Encoder")(torch.ones(1, 1_000), torch.tensor([1_000]))


def test_an_error_of_the_module_itself_stays_its_own(write: Any) -> None:
    name = write("(self, x, lengths)", 'raise ValueError("not today")')
    with pytest.raises(ValueError, match=r"^not today$"):
        load_upstream(f"py:{name}:Encoder")(torch.ones(1, 1_000), torch.tensor([1_000]))
