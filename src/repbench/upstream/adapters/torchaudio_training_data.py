"""What the bundles of torchaudio were trained on, by the documentation of `torchaudio.pipelines`.

Pre-training and, of the recognition models, fine-tuning: both are in the weights. The documentation names corpora, and
of LibriSpeech the subsets; speakers and utterances are not stated. WavLM's names LibriSpeech without subsets, and its
960 hours are those of all three train subsets.

Sources: https://docs.pytorch.org/audio/stable/pipelines.html, which repeats the model cards of wav2vec 2.0, XLSR-53,
XLS-R, HuBERT, VoxPopuli and WavLM.
"""

from __future__ import annotations

from repbench.upstream.training_data import UNKNOWN_DATA, TrainingData

_SOURCE = "documentation of torchaudio.pipelines"


def _data(name: str, *splits: str) -> TrainingData:
    return TrainingData(name=name, splits=splits, source=_SOURCE)


_LIBRISPEECH_960 = _data("LibriSpeech", "train-clean-100", "train-clean-360", "train-other-500")
_LIBRISPEECH_100 = _data("LibriSpeech", "train-clean-100")
_LIBRILIGHT_60K = _data("Libri-Light", "unlab-60k")
_LIBRILIGHT_10M = _data("Libri-Light", "train-10min")
_VOXPOPULI_10K = _data("VoxPopuli", "10k")
_MLS, _COMMON_VOICE, _BABEL = _data("Multilingual LibriSpeech"), _data("Common Voice"), _data("BABEL")
_XLS_R = (_MLS, _COMMON_VOICE, _data("VoxLingua107"), _BABEL, _data("VoxPopuli"))
_WAVLM_94K = (_LIBRILIGHT_60K, _data("GigaSpeech"), _data("VoxPopuli"))

_BUNDLES = {
    "WAV2VEC2_BASE": (_LIBRISPEECH_960,),
    "WAV2VEC2_LARGE": (_LIBRISPEECH_960,),
    "WAV2VEC2_LARGE_LV60K": (_LIBRILIGHT_60K,),
    "WAV2VEC2_ASR_BASE_10M": (_LIBRISPEECH_960, _LIBRILIGHT_10M),
    "WAV2VEC2_ASR_BASE_100H": (_LIBRISPEECH_960,),
    "WAV2VEC2_ASR_BASE_960H": (_LIBRISPEECH_960,),
    "WAV2VEC2_ASR_LARGE_10M": (_LIBRISPEECH_960, _LIBRILIGHT_10M),
    "WAV2VEC2_ASR_LARGE_100H": (_LIBRISPEECH_960,),
    "WAV2VEC2_ASR_LARGE_960H": (_LIBRISPEECH_960,),
    "WAV2VEC2_ASR_LARGE_LV60K_10M": (_LIBRILIGHT_60K, _LIBRILIGHT_10M),
    "WAV2VEC2_ASR_LARGE_LV60K_100H": (_LIBRILIGHT_60K, _LIBRISPEECH_100),
    "WAV2VEC2_ASR_LARGE_LV60K_960H": (_LIBRILIGHT_60K, _LIBRISPEECH_960),
    "WAV2VEC2_XLSR53": (_MLS, _COMMON_VOICE, _BABEL),
    "WAV2VEC2_XLSR_300M": _XLS_R,
    "WAV2VEC2_XLSR_1B": _XLS_R,
    "WAV2VEC2_XLSR_2B": _XLS_R,
    "HUBERT_BASE": (_LIBRISPEECH_960,),
    "HUBERT_LARGE": (_LIBRILIGHT_60K,),
    "HUBERT_XLARGE": (_LIBRILIGHT_60K,),
    "HUBERT_ASR_LARGE": (_LIBRILIGHT_60K, _LIBRISPEECH_960),
    "HUBERT_ASR_XLARGE": (_LIBRILIGHT_60K, _LIBRISPEECH_960),
    "WAVLM_BASE": (_LIBRISPEECH_960,),
    "WAVLM_BASE_PLUS": _WAVLM_94K,
    "WAVLM_LARGE": _WAVLM_94K,
    **{
        f"VOXPOPULI_ASR_BASE_10K_{language}": (_VOXPOPULI_10K, _data("VoxPopuli", language.lower()))
        for language in ("DE", "EN", "ES", "FR", "IT")
    },
    "MMS_FA": (UNKNOWN_DATA,),  # 31,000 hours in 1,130 languages, of corpora that are not named
}
"""From the name of a bundle to its training data."""


def training_data_of_bundle(name: str) -> tuple[TrainingData, ...] | None:
    """The training data of a bundle; None for one that the table lacks."""
    return _BUNDLES.get(name)
