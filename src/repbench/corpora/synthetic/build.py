"""Building a synthetic corpus from its plan: voices, workers, sound files, manifest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repbench.corpora import manifest
from repbench.corpora.contract import Corpus, Draft, DraftUtterance, Phone, Progress
from repbench.corpora.synthetic import worker_pool
from repbench.corpora.synthetic.arpabet import PHONE_SET
from repbench.corpora.synthetic.conditions import SAMPLE_RATE_HZ, SyntheticSpec
from repbench.corpora.synthetic.plan import PlannedUtterance, plan, speakers
from repbench.corpora.synthetic.voices import draw_voice
from repbench.errors import EnvironmentFault

LICENCE = "generated with espeak-ng (GPL-3.0-or-later), for local use; not shipped with repbench"

_LOADER = "espeakng_loader"
_SOUND = "sound"
_SCRATCH = "scratch"
_DATA_FILES = ("phontab", "phonindex", "phondata", "intonations", "en_dict", "lang/gmw/en-US")


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
    _write_espeak_home(home, data, spec)
    results = worker_pool.run(
        [_job(utterance) for utterance in planned],
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


def _write_espeak_home(home: Path, data: Path, spec: SyntheticSpec) -> None:
    """Write a data folder for espeak-ng with English and our voices; its own is large and must not be changed."""
    for name in _DATA_FILES:
        target = home / "espeak-ng-data" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # the few files that American English needs
        shutil.copyfile(data / name, target)
    voices = home / "espeak-ng-data" / "voices"
    voices.mkdir()
    for speaker in speakers(spec.size):
        definition = draw_voice(speaker, spec.condition.voice_spread).definition
        (voices / speaker).write_text(definition, encoding="ascii", newline="\n")


def _job(utterance: PlannedUtterance) -> dict[str, str]:
    return {
        "id": utterance.id,
        "speaker": utterance.speaker,
        "session": utterance.session,
        "text": utterance.text,
    }


def _draft(
    spec: SyntheticSpec, planned: Sequence[PlannedUtterance], results: Sequence[dict[str, Any]], sound: Path
) -> Draft:
    # the first result of each worker names its version; the others are utterances
    versions = sorted({result["espeak_ng"] for result in results if "espeak_ng" in result})
    phones = {result["id"]: _phones(result["phones"]) for result in results if "id" in result}
    return Draft(
        name=spec.corpus_name,
        licence=LICENCE,
        root=sound,
        utterances=[_draft_utterance(utterance, phones[utterance.id], sound) for utterance in planned],
        phone_map={label: label for label in PHONE_SET},
        phone_set=PHONE_SET,
        notes=(
            f"Synthetic speech of espeak-ng {', '.join(versions)} "
            f"(espeakng-loader {importlib.metadata.version('espeakng-loader')}): scores on it compare representations "
            "with each other and say nothing of how well they do on human speech.",
            "Phone times are espeak-ng's own; sentiment lies in the words alone, not in the voice.",
        ),
    )


def _phones(result: Sequence[tuple[int, int, str]]) -> tuple[Phone, ...]:
    return tuple(Phone(start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ, label) for start, end, label in result)


def _draft_utterance(utterance: PlannedUtterance, phones: tuple[Phone, ...], sound: Path) -> DraftUtterance:
    return DraftUtterance(
        id=utterance.id,
        audio=sound / f"{utterance.id}.wav",
        speaker=utterance.speaker,
        text=utterance.text,
        phones=phones,
        attributes={"sentiment": utterance.sentiment},
        group=utterance.session,
        split=utterance.split,
    )


def _half(progress: Progress | None, before: int, total: int) -> Progress | None:
    """`progress` for one half of the work, in whole utterances: each is counted in both halves of `total`."""
    if progress is None:
        return None
    return lambda done, _: progress((before + done) // 2, total // 2)
