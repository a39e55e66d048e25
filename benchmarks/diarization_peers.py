"""Errors of diarization beside those of other scorers on drawn segments.

    pip install pyannote.metrics spy-der && python benchmarks/diarization_peers.py [--pairs 40] [--md-eval FILE]

Prints the largest differences: of the parts of DER, in seconds, from pyannote.metrics; of DER from spyder; of JER from
pyannote.metrics, which pairs speakers by the time they share and not by the least sum of errors, so that its JER is
never lower. FILE is `nemo/collections/asr/metrics/md_eval.py` of the package nemo_toolkit 3.0, a port of version 22 of
NIST's md-eval, which dscore calls for its DER; it is loaded alone, and reads what `repbench` writes as RTTM.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from repbench.corpora.contract import Turn
from repbench.corpora.rttm import format_rttm
from repbench.downstream.metrics.diarization import (
    MICROSECONDS,
    Segment,
    diarization_durations,
    diarization_error_rate,
    jaccard_error_rate,
    jaccard_overlaps,
    joined,
    microseconds,
)

SECONDS = 30.0


def drawn(random: np.random.Generator, number: int) -> tuple[list[Segment], list[Segment]]:
    """Turns of up to three speakers to the millisecond, and others: independent, or the same ones moved."""

    def side(count: int) -> list[Segment]:
        found = []
        for speaker in range(count):
            start = float(random.uniform(0, 3))
            while (end := start + float(random.uniform(0.2, 4))) <= SECONDS:
                found.append((microseconds(round(start, 3)), microseconds(round(end, 3)), speaker))
                start = end + float(random.uniform(0.05, 5))
        return sorted(found)

    reference = side(int(random.integers(1, 4)))
    if number % 2:
        return reference, side(int(random.integers(1, 5)))
    order = random.permutation(3)
    shifts = random.integers(-300, 300, size=(len(reference), 2)) * 1000
    moved = [
        (max(start + int(first), 0), min(end + int(last), microseconds(SECONDS)), int(order[speaker]))
        for (start, end, speaker), (first, last) in zip(reference, shifts, strict=True)
    ]
    return reference, joined(each for each in moved if each[0] < each[1])


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--md-eval", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    md_eval = None if arguments.md_eval is None else loaded_alone(arguments.md_eval)
    core, metrics = (importlib.import_module(name) for name in ("pyannote.core", "pyannote.metrics.diarization"))
    spyder = importlib.import_module("spyder")
    random = np.random.default_rng(arguments.seed)
    parts = der = jer = nist = 0.0
    scored = core.Timeline([core.Segment(0, SECONDS)])
    for number in range(arguments.pairs):
        told, found = drawn(random, number)
        own = diarization_durations(told, found)
        sides = _annotation(core, told), _annotation(core, found)
        theirs = metrics.DiarizationErrorRate()(*sides, uem=scored, detailed=True)
        names = ("total", "missed detection", "false alarm", "confusion")
        parts = max(parts, *(abs(mine / MICROSECONDS - theirs[name]) for mine, name in zip(own, names, strict=True)))
        other = spyder.DER(_listed(told), _listed(found)).der
        der = max(der, abs((diarization_error_rate([own]) or 0.0) - other))
        if md_eval is not None:
            nist = max(
                nist,
                *(
                    abs(mine / MICROSECONDS - its)
                    for mine, its in zip(own, nist_parts(md_eval, told, found), strict=True)
                ),
            )
        higher = metrics.JaccardErrorRate()(*sides, uem=scored) - (
            jaccard_error_rate(jaccard_overlaps(told, found)) or 0
        )
        if higher < -1e-12:
            raise SystemExit(f"pair {number}: the JER of pyannote.metrics is lower by {-higher:g}")
        jer = max(jer, higher)
    print(f"parts of DER: {parts:.2g} s; DER: {der:.2g}; JER of pyannote.metrics higher by up to {jer:.3f}")
    if md_eval is not None:
        print(f"parts of DER from md-eval 22: {nist:.2g} s")


def loaded_alone(file: Path) -> ModuleType:
    """The module of a file, without the package it is in, of which it uses the logger."""
    package = ModuleType("nemo.utils")
    package.logging = logging  # type: ignore[attr-defined]
    sys.modules["nemo.utils"] = package
    spec = importlib.util.spec_from_file_location("md_eval", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} is no file of Python.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def nist_parts(md_eval: ModuleType, told: Sequence[Segment], found: Sequence[Segment]) -> list[float]:
    """Seconds of speech, missed, false and confused by md-eval, from two RTTM files and a UEM of the recording."""
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for name, segments in (("reference", told), ("system", found)):
            file = Path(folder) / f"{name}.rttm"
            turns = [Turn(start / MICROSECONDS, end / MICROSECONDS, f"s{speaker}") for start, end, speaker in segments]
            file.write_text(format_rttm([("recording", turns)]), encoding="utf-8")
            side: dict[str, Any] = {}
            md_eval.get_rttm_data(side, str(file))
            sides.append(side)
    whole = {"recording": {"1": [{"TBEG": 0.0, "TEND": SECONDS}]}}
    _, scores = md_eval.evaluate(*sides, uem_data=whole, verbose=False)
    return [scores[each] for each in ("SCORED_SPEAKER", "MISSED_SPEAKER", "FALARM_SPEAKER", "SPEAKER_ERROR")]


def _annotation(core: Any, segments: Sequence[Segment]) -> Any:
    annotation = core.Annotation()
    for number, (start, end, speaker) in enumerate(segments):
        annotation[core.Segment(start / MICROSECONDS, end / MICROSECONDS), number] = str(speaker)
    return annotation


def _listed(segments: Sequence[Segment]) -> list[tuple[str, float, float]]:
    return [(str(speaker), start / MICROSECONDS, end / MICROSECONDS) for start, end, speaker in segments]


if __name__ == "__main__":
    main()
