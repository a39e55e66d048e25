"""What an upstream declares of its training data: plugins, declaration files, model cards, bundles, checkpoints."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repbench import load_upstream
from repbench.benchmark.loading.certificates import declared_as_json
from repbench.benchmark.loading.upstreams import build_upstream
from repbench.benchmark.pipeline.pretrain import run_pretraining
from repbench.corpora.contract import Corpus
from repbench.errors import DataError, IntegrityError, PluginError, UsageError
from repbench.registry import registry
from repbench.testing import tone_corpus
from repbench.testing.fakes import Envelope
from repbench.upstream.adapters import huggingface_training_data, torchaudio_training_data
from repbench.upstream.adapters.feature_folder import FeatureFolder
from repbench.upstream.checkpoints.factory import HEARD_FILE, TRAINED_ON_FILE
from repbench.upstream.checkpoints.native import open_checkpoint, read_weights, save_weights
from repbench.upstream.contract import Provenance, provenance_of
from repbench.upstream.training_data import UNKNOWN_DATA, TrainingData, as_json, of_json, refuse_training_data
from repbench.upstream.windowed import WindowedUpstream, Windows
from tests.upstream.small_training import request
from tests.upstream.speech_encoders import save_small

LIBRISPEECH = TrainingData(name="LibriSpeech", splits=("train-clean-100",))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"name": " "}, "`name` must be the name of a corpus"),
        ({"name": "x", "splits": "train"}, "`splits` must be a tuple of names, but is 'train'"),
        ({"name": "x", "speakers": ["1"]}, "`speakers` must be a frozenset of ids, but is a list"),
        ({"name": "x", "samples_sha256": frozenset({"0" * 63})}, "64 hexadecimal digits each, but holds '000"),
    ],
)
def test_a_declaration_that_says_nothing_is_refused(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(PluginError, match=match):
        TrainingData(**fields)


def test_what_is_kept_as_json_comes_back() -> None:
    digests = frozenset({"a" * 64})
    data = (TrainingData(name="x", speakers=frozenset({"1"}), samples_sha256=digests), LIBRISPEECH, UNKNOWN_DATA)
    assert of_json(json.loads(json.dumps(as_json(data))), digests) == data
    assert of_json(as_json(None), digests) is None


def test_a_plugin_declares_it_as_an_attribute_and_its_fingerprint_and_declaration_stay() -> None:
    silent, declaring = Envelope(), Envelope()
    declaring.trained_on = (LIBRISPEECH,)  # type: ignore[assignment]
    assert provenance_of(silent).trained_on is None
    assert provenance_of(declaring).trained_on == (LIBRISPEECH,)
    assert silent.fingerprint() == declaring.fingerprint()
    assert declared_as_json(silent.info) == declared_as_json(declaring.info)


def test_what_surrounds_an_upstream_keeps_its_declaration() -> None:
    inner = Envelope()
    inner.trained_on = (LIBRISPEECH,)  # type: ignore[assignment]
    windows = Windows(num_samples=16_000, context_frames=2, seconds=1.0, context_seconds=0.04)
    assert provenance_of(WindowedUpstream(inner, windows)).trained_on == (LIBRISPEECH,)


def test_digests_of_a_declaration_are_those_of_the_provenance() -> None:
    data = TrainingData(name="x", samples_sha256=frozenset({"b" * 64}))
    assert Provenance(heard=frozenset({"a" * 64}), trained_on=(data,)).digests == {"a" * 64, "b" * 64}


def test_a_plugin_whose_declaration_is_of_another_kind_is_refused_when_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_another_kind.py").write_text(
        "from repbench.testing.fakes import Envelope\n\n"
        "def made(*, checkpoint=None, seed=0):\n"
        "    upstream = Envelope()\n    upstream.trained_on = 'LibriSpeech'\n    return upstream\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = registry().find("upstream", "py:of_another_kind:made").entry
    with pytest.raises(PluginError, match=r"`trained_on` must be None or a tuple .* but is 'LibriSpeech'"):
        build_upstream(entry, None, 0)
    refuse_training_data((), "x")
    sys.modules.pop("of_another_kind")


@pytest.mark.parametrize("name", ["mel", "mel_no_cmvn", "fbank"])
def test_front_ends_and_untrained_networks_are_trained_on_nothing(name: str) -> None:
    assert provenance_of(load_upstream(name)).trained_on == ()
    assert provenance_of(load_upstream("apc", checkpoint="random:tiny")).trained_on == ()


# checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    """A corpus, and a checkpoint of a model that was trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    corpus = tone_corpus(folder / "tones", num_speakers=4, sessions=1, per_session=4)
    done = run_pretraining(request("apc", folder / "tones", folder / "run", steps=2))
    return corpus, done.checkpoint


def test_a_checkpoint_states_corpus_speakers_and_utterances(trained: tuple[Corpus, Path]) -> None:
    corpus, checkpoint = trained
    heard = frozenset((checkpoint / HEARD_FILE).read_text().split())
    speakers = frozenset(str(each.speaker) for each in corpus.utterances if each.samples_sha256 in heard)
    (own,) = provenance_of(load_upstream("apc", checkpoint=checkpoint)).trained_on or ()
    assert (own.name, own.fingerprint, own.samples_sha256) == (corpus.name, corpus.fingerprint, heard)
    assert own.speakers == speakers
    assert 0 < len(speakers) < 4


def test_a_training_from_a_checkpoint_states_both_corpora(trained: tuple[Corpus, Path], tmp_path: Path) -> None:
    tone_corpus(tmp_path / "other", num_speakers=4, sessions=1, per_session=3)
    asked = request("apc", tmp_path / "other", tmp_path / "run", steps=1)
    done = run_pretraining(replace(asked, from_checkpoint=trained[1]))
    second, first = provenance_of(load_upstream("apc", checkpoint=done.checkpoint)).trained_on or ()
    assert (second.source, first.fingerprint) == ("the checkpoint", trained[0].fingerprint)
    assert second.samples_sha256 == first.samples_sha256, "the digests are those of both"


def _without(checkpoint: Path, folder: Path, **fields: Any) -> Path:
    """The checkpoint as an earlier release wrote it: without its file of training data, with other fields."""
    opened = open_checkpoint(checkpoint)
    texts = {HEARD_FILE: (checkpoint / HEARD_FILE).read_text()}
    known = {name: opened.fields[name] for name in ("upstream", "config", "corpus")} | fields
    save_weights(folder, weights=read_weights(opened), fields=known, texts=texts)
    return folder


def test_a_checkpoint_of_an_earlier_release_states_its_corpus(trained: tuple[Corpus, Path], tmp_path: Path) -> None:
    corpus, checkpoint = trained
    old = _without(checkpoint, tmp_path / "old")
    (own,) = provenance_of(load_upstream("apc", checkpoint=old)).trained_on or ()
    assert (own.name, own.speakers, own.samples_sha256 is None) == (corpus.name, None, False)
    began = [{"event": "from", "corpus": None}]
    begun = _without(checkpoint, tmp_path / "begun", history=began)
    assert (provenance_of(load_upstream("apc", checkpoint=begun)).trained_on or ())[1:] == (UNKNOWN_DATA,)
    converted = _without(checkpoint, tmp_path / "converted", corpus=None)
    assert provenance_of(load_upstream("apc", checkpoint=converted)).trained_on is None


def test_training_data_that_is_damaged_is_named(trained: tuple[Corpus, Path], tmp_path: Path) -> None:
    opened = open_checkpoint(trained[1])
    known = {name: opened.fields[name] for name in ("upstream", "config", "corpus")}
    texts = {TRAINED_ON_FILE: '[{"name": "x"}]'}
    save_weights(tmp_path / "bad", weights=read_weights(opened), fields=known, texts=texts)
    with pytest.raises(IntegrityError, match="corrupt: the training data") as caught:
        load_upstream("apc", checkpoint=tmp_path / "bad")
    assert TRAINED_ON_FILE in str(caught.value.file)


# declaration files

CODE = """
import torch
from torch import nn

class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, waveforms, lengths):
        return waveforms[:, : waveforms.shape[1] // 320 * 320].reshape(len(waveforms), -1, 4, 80).mean(-1) * self.scale
"""
DECLARED = """
name: blocks
hop_samples: 320
first_center_samples: 160
window_samples: 320
layer_names: [energy]
width: 4
"""
TRAINED_ON = """
trained_on:
- name: LibriSpeech
  splits: [train-clean-100]
  speakers: speakers.txt
  samples_sha256: heard.txt
- name: unknown
"""


def test_a_module_declares_it_in_its_yaml_and_its_fingerprint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blocks_with_data.py").write_text(CODE)
    declaration = tmp_path / "blocks_with_data_Blocks.info.yaml"
    declaration.write_text(DECLARED)
    monkeypatch.syspath_prepend(str(tmp_path))
    silent = load_upstream("py:blocks_with_data:Blocks")
    declaration.write_text(DECLARED + TRAINED_ON)
    (tmp_path / "speakers.txt").write_text("19\n26\n\n")
    (tmp_path / "heard.txt").write_text(f"{'a' * 64}\n")
    declaring = load_upstream("py:blocks_with_data:Blocks")
    assert provenance_of(silent).trained_on is None
    own, rest = provenance_of(declaring).trained_on or ()
    assert (own.speakers, own.samples_sha256) == (frozenset({"19", "26"}), frozenset({"a" * 64}))
    assert rest.is_rest
    assert declaring.fingerprint() == silent.fingerprint()
    assert provenance_of(load_upstream("py:blocks_with_data:Blocks", checkpoint="random")).trained_on == ()
    (tmp_path / "heard.txt").write_text(f"{'a' * 64}\nabc\n")
    with pytest.raises(DataError, match=r"64 hexadecimal digits, but is 'abc'") as caught:
        load_upstream("py:blocks_with_data:Blocks")
    assert str(caught.value.file).endswith("heard.txt:2")
    (tmp_path / "heard.txt").unlink()
    with pytest.raises(DataError, match="The file of `samples_sha256` cannot be read: No such file"):
        load_upstream("py:blocks_with_data:Blocks")


def test_a_folder_of_features_declares_it_and_its_fingerprint_stays(tmp_path: Path) -> None:
    corpus = tone_corpus(tmp_path / "tones", num_speakers=2, sessions=1, per_session=1)
    folder = tmp_path / "features"
    for each in corpus.utterances:
        file = folder / f"{each.id}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.zeros((4, 3), np.float32))
    declared = "sample_rate_hz: 16000\nhop_samples: 320\nfirst_center_samples: 200\n"
    (folder / "features.yaml").write_text(declared)
    silent = FeatureFolder(folder).bound_to(corpus)
    (folder / "features.yaml").write_text(f"{declared}trained_on: []\n")
    declaring = FeatureFolder(folder).bound_to(corpus)
    assert (provenance_of(silent).trained_on, provenance_of(declaring).trained_on) == (None, ())
    assert silent.fingerprint() == declaring.fingerprint()


# model cards and bundles


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ("language: en\ndatasets:\n- librispeech_asr\n- mozilla-foundation/common_voice_7_0\nlicense: mit", 2),
        ("datasets:\n  - 'librispeech_asr'  # 960 h\n", 1),
        ("datasets: [librispeech_asr, voxpopuli]\n", 2),
        ("datasets: librispeech_asr\ntags:\n- speech\n", 1),
        ("datasets:\ntags:\n- speech\n", 0),
        ("language: en\n", 0),
    ],
)
def test_data_sets_of_a_card_are_read_however_they_are_written(front: str, expected: int) -> None:
    found = huggingface_training_data.datasets_of(front)
    assert len(found) == expected
    assert found[:1] in ([], ["librispeech_asr"])


def test_a_card_names_some_of_the_data_and_a_declaration_all_of_it(tmp_path: Path) -> None:
    folder = save_small("wav2vec2", tmp_path / "model")
    assert provenance_of(load_upstream(f"hf:{folder}")).trained_on is None
    (folder / "README.md").write_text("---\nlicense: mit\ndatasets:\n- librispeech_asr\n---\n# A model\n")
    silent = load_upstream(f"hf:{folder}")
    named, rest = provenance_of(silent).trained_on or ()
    assert (named.name, named.splits, rest.is_rest) == ("librispeech_asr", (), True)
    assert silent.info.licence == "mit"
    (folder / "trained_on.yaml").write_text("trained_on:\n- name: LibriSpeech\n  splits: [train-clean-100]\n")
    declaring = load_upstream(f"hf:{folder}")
    (whole,) = provenance_of(declaring).trained_on or ()
    assert (whole.title, whole.source) == ("LibriSpeech (train-clean-100)", "trained_on.yaml")
    assert declaring.fingerprint() == silent.fingerprint()
    assert provenance_of(load_upstream(f"hf:{folder}", checkpoint="random")).trained_on == ()
    (folder / "trained_on.yaml").write_text("trained_on:\n- nam: LibriSpeech\n")
    with pytest.raises(UsageError, match="nam"):
        load_upstream(f"hf:{folder}")


def test_weights_from_elsewhere_are_not_those_that_the_folder_describes(tmp_path: Path) -> None:
    folder, other = (save_small("wav2vec2", tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two")))
    (folder / "trained_on.yaml").write_text("trained_on: []\n")
    assert provenance_of(load_upstream(f"hf:{folder}", checkpoint="model.safetensors")).trained_on == ()
    assert provenance_of(load_upstream(f"hf:{folder}", checkpoint=str(other))).trained_on is None
    assert provenance_of(load_upstream(f"hf:{folder}", checkpoint=str(other / "model.safetensors"))).trained_on is None


def test_every_bundle_of_torchaudio_has_its_training_data() -> None:
    pipelines: Any = pytest.importorskip("torchaudio.pipelines", exc_type=ImportError)
    bundles = [name for name in dir(pipelines) if isinstance(getattr(pipelines, name), pipelines.Wav2Vec2Bundle)]
    assert len(bundles) >= 20
    for name in bundles:
        data = torchaudio_training_data.training_data_of_bundle(name)
        assert data, name
        text = " ".join((getattr(pipelines, name).__doc__ or "").replace("-", " ").split()).lower()
        for each in data:
            # by the words of the documentation, which writes CommonVoice
            assert each.is_rest or each.name.replace("-", " ").replace("Common Voice", "CommonVoice").lower() in text, (
                name
            )
