"""Building a synthetic corpus from its plan: voices, workers, sound files, manifest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from repbench.corpora import manifest
from repbench.corpora.contract import Corpus, Draft, DraftUtterance, Phone, Progress, Turn
from repbench.corpora.synthetic import worker_pool
from repbench.corpora.synthetic.arpabet import PHONE_SET
from repbench.corpora.synthetic.conditions import SAMPLE_RATE_HZ, SENTENCES, SyntheticSpec
from repbench.corpora.synthetic.mixtures import partner_of
from repbench.corpora.synthetic.plan import PlannedUtterance, plan, speakers
from repbench.corpora.synthetic.voices import ENGLISH, draw_voice, voice_name
from repbench.errors import EnvironmentFault

LICENCE = "generated with espeak-ng (GPL-3.0-or-later), for local use; not shipped with repbench"

_LOADER = "espeakng_loader"
_SOUND = "sound"
_SCRATCH = "scratch"
_DATA_FILES = ("phontab", "phonindex", "phondata", "intonations")
_LANGUAGE_FILES = {
    ENGLISH: ("en_dict", "lang/gmw/en-US"),
    "de": ("de_dict", "lang/gmw/de"),
    "es": ("es_dict", "lang/roa/es"),
}

_NOTES = {
    SENTENCES: "Phone times are espeak-ng's own; sentiment lies in the words alone, not in the voice.",
    "words": "Phone times are espeak-ng's own; half of the utterances are words that are no command.",
    "commands": "Phone times are espeak-ng's own; no command of test occurs in train, but all words of slots do.",
    "emotions": "Phone times are espeak-ng's own; emotion lies in pitch, rate and level alone, not in the words.",
    "languages": "Every speaker speaks all languages; there are no phones, because each language has its own.",
    "searches": "Phone times are espeak-ng's own; a query is a word of its own, not cut from a document.",
    "mixtures": "Two voices in each utterance; a turn lasts from the first phone to the last, as espeak-ng times them.",
}
"""From the kind of a corpus to what a reader of a score should know about its labels."""


def build(spec: SyntheticSpec, out: Path, *, num_workers: int, progress: Progress | None = None) -> Corpus:
    """Make the corpus in the empty folder `out`; the same for every number of workers.

    Args:
        spec: Which corpus.
        out: An empty folder, which may be renamed afterwards.
        num_workers: Number of worker processes.
        progress: Called with (utterances done, all utterances); one that is synthesised but not yet read counts half.

    Raises:
        EnvironmentFault: espeak-ng is not installed, or a worker failed.
    """
    data = _espeak_data()
    planned = plan(spec)
    sound, scratch = out / _SOUND, out / _SCRATCH
    home = scratch / "home"
    sound.mkdir()
    has_phones = spec.kind not in ("languages", "mixtures")
    voices = set(speakers(spec.size))
    if spec.kind == "mixtures":
        voices |= set(map(partner_of, voices))
    _write_espeak_home(home, data, spec, voices, {utterance.content.language for utterance in planned})
    results = worker_pool.run(
        [_job(utterance, has_phones=has_phones) for utterance in planned],
        scratch,
        worker_pool.WorkerCommand([str(sound), str(home), spec.condition.name]),
        num_workers=num_workers,
        # synthesis is the first half of the work, reading for the manifest the second
        progress=_half(progress, 0, 2 * len(planned)),
    )
    # Before the manifest: the folder holds copies of espeak-ng's data, which are no part of the corpus.
    shutil.rmtree(scratch)
    draft = _draft(spec, planned, results, sound)
    return manifest.write(draft, out, resample="allowed", progress=_half(progress, len(planned), 2 * len(planned)))


def _espeak_data() -> Path:
    if importlib.util.find_spec(_LOADER) is None:
        raise EnvironmentFault(
            "The corpus `synthetic` is spoken by espeak-ng, which is not installed",
            key=_LOADER,
            do="Install it: pip install 'repbench[demo]'",
        )
    import espeakng_loader

    return Path(espeakng_loader.get_data_path())


def _write_espeak_home(home: Path, data: Path, spec: SyntheticSpec, speakers: Set[str], languages: Set[str]) -> None:
    """Write a data folder for espeak-ng with our voices in each language; its own is large and must not be changed."""
    # the few files that these languages need
    for name in (*_DATA_FILES, *(name for language in sorted(languages) for name in _LANGUAGE_FILES[language])):
        target = home / "espeak-ng-data" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / name, target)
    voices = home / "espeak-ng-data" / "voices"
    voices.mkdir()
    for speaker in speakers:
        for language in languages:
            definition = draw_voice(speaker, spec.condition.voice_spread, language).definition
            (voices / voice_name(speaker, language)).write_text(definition, encoding="ascii", newline="\n")


def _job(utterance: PlannedUtterance, *, has_phones: bool) -> dict[str, object]:
    return {
        "id": utterance.id,
        "speaker": utterance.speaker,
        "session": utterance.session,
        "spoken": utterance.content.spoken,
        "language": utterance.content.language,
        "prosody": list(utterance.content.prosody),
        "has_phones": has_phones,
        "turns": [list(turn) for turn in utterance.content.turns],
    }


def _draft(
    spec: SyntheticSpec, planned: Sequence[PlannedUtterance], results: Sequence[dict[str, Any]], sound: Path
) -> Draft:
    # the first result of each worker names its version; the others are utterances
    versions = sorted({result["espeak_ng"] for result in results if "espeak_ng" in result})
    phones = {result["id"]: _phones(result["phones"]) for result in results if "id" in result}
    turns = {result["id"]: _turns(result["turns"]) for result in results if "id" in result}
    has_phones = None not in phones.values()
    return Draft(
        name=spec.corpus_name,
        licence=LICENCE,
        root=sound,
        utterances=[
            _draft_utterance(utterance, phones[utterance.id], sound, turns[utterance.id]) for utterance in planned
        ],
        phone_map={label: label for label in PHONE_SET} if has_phones else None,
        phone_set=PHONE_SET if has_phones else None,
        notes=(
            f"Synthetic speech of espeak-ng {', '.join(versions)} "
            f"(espeakng-loader {importlib.metadata.version('espeakng-loader')}): scores on it compare representations "
            "with each other and say nothing of how well they do on human speech.",
            _NOTES[spec.kind],
        ),
    )


def _phones(result: Sequence[tuple[int, int, str]] | None) -> tuple[Phone, ...] | None:
    if result is None:
        return None
    return tuple(Phone(start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ, label) for start, end, label in result)


def _turns(result: Sequence[tuple[int, int, str]] | None) -> tuple[Turn, ...] | None:
    if result is None:
        return None
    return tuple(Turn(start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ, speaker) for start, end, speaker in result)


def _draft_utterance(
    utterance: PlannedUtterance, phones: tuple[Phone, ...] | None, sound: Path, turns: tuple[Turn, ...] | None = None
) -> DraftUtterance:
    voices = sorted({turn.voice for turn in utterance.content.turns})
    return DraftUtterance(
        id=utterance.id,
        audio=sound / f"{utterance.id}.wav",
        speaker="+".join(voices) if voices else utterance.speaker,
        # One text of two voices that overlap is none.
        text=None if voices else utterance.content.text,
        phones=phones,
        turns=turns,
        attributes=utterance.content.attributes,
        group=utterance.session,
        split=utterance.split,
    )


def _half(progress: Progress | None, before: int, total: int) -> Progress | None:
    """`progress` for one half of the work, in whole utterances: each is counted in both halves of `total`."""
    if progress is None:
        return None
    return lambda done, _: progress((before + done) // 2, total // 2)
