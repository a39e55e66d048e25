"""Precomputed frames of a corpus: declared once, and measured for every utterance when a manifest is made."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from repbench.audio.feature_files import FeatureMeasure, format_of, measure_features, refuse_other_duration
from repbench.corpora.contract import (
    DraftFeatures,
    DraftUtterance,
    FeatureDeclaration,
    FeatureFormat,
    Utterance,
)
from repbench.corpora.safe_paths import RootFolder, is_encodable
from repbench.errors import DataError, IntegrityError, RepbenchError

_TYPES: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "hop_seconds": (int, float),
    "first_center_seconds": (int, float),
    "width": int,
    "format": str,
}


def with_features(
    utterances: Sequence[Utterance],
    drafts: Sequence[DraftUtterance],
    declared: DraftFeatures | None,
    root: RootFolder,
) -> tuple[tuple[Utterance, ...], FeatureDeclaration | None, dict[str, RepbenchError]]:
    """The utterances with the features that their drafts name, read and checked.

    Args:
        utterances: As measured from their sound.
        drafts: Their drafts, in the same order.
        declared: The declaration of the features.
        root: The folder that must hold them.

    Returns:
        The utterances; the declaration; and from the id of each utterance whose features are missing, corrupt, of
        another width or do not fit the duration of its sound, to that fault.

    Raises:
        DataError: Features are of several formats; or there are features without a declaration, or a declaration
            without features.
    """
    named = [number for number, draft in enumerate(drafts) if draft.features is not None]
    if declared is None:
        if named:
            what = "The utterances name features whose hop is not declared"
            raise DataError(what, utterance=drafts[named[0]].id, key="features", do="Declare it with --features-hop")
        return tuple(utterances), None, {}
    if not named:
        what = "Features are declared, but no utterance names a file of them"
        raise DataError(what, key="features", do="Add a column `features`, or leave the declaration out")
    _refuse_wrong_clock(declared)
    placed, faults = list(utterances), dict[str, RepbenchError]()
    for number in named:
        try:
            placed[number] = replace(placed[number], features=_place(drafts[number], root))
        except DataError as fault:
            faults[placed[number].id] = fault
    # without those whose place has just been refused
    named = [number for number in named if placed[number].features is not None]
    _refuse_two_formats([placed[number] for number in named])
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(_measured_or_fault, [placed[number] for number in named]))
    declaration = None
    for number, measure in zip(named, found, strict=True):
        try:
            if isinstance(measure, RepbenchError):
                raise measure
            # the first file that can be read gives the width for all
            declaration = declaration or _declaration(declared, placed[number], measure)
            refuse_unfit(placed[number], measure, declaration)
            placed[number] = replace(placed[number], features_sha256=measure.sha256)
        except (DataError, IntegrityError) as fault:
            faults[placed[number].id] = fault
    return tuple(placed), declaration, faults


def _place(draft: DraftUtterance, root: RootFolder) -> Path:
    assert draft.features is not None
    return root.absolute(draft.features, utterance=draft.id)


def refuse_unfit(utterance: Utterance, measure: FeatureMeasure, declared: FeatureDeclaration) -> None:
    """Refuse features as `refuse_unfit_frames` does."""
    refuse_unfit_frames(utterance, measure.num_frames, measure.width, declared)


def refuse_unfit_frames(utterance: Utterance, num_frames: int, width: int, declared: FeatureDeclaration) -> None:
    """Refuse frames that are not of the declared width or do not fit the duration of their sound.

    Raises:
        DataError: The width differs, or the frames do not fit the duration.
    """
    assert utterance.features is not None
    if width != declared.width:
        what = f"The features have the width {width}, but the corpus's have {declared.width}"
        do = "Save the same features for every utterance"
        raise DataError(what, file=utterance.features, utterance=utterance.id, do=do)
    refuse_other_duration(
        num_frames,
        utterance.seconds,
        hop_s=declared.hop_seconds,
        first_center_s=declared.first_center_seconds,
        path=utterance.features,
        utterance=utterance.id,
    )


def fault_of_declaration(fields: Mapping[str, Any]) -> str | None:
    """The reason why `fields` are no `FeatureDeclaration`; None if they are one."""
    for key in sorted(set(fields) ^ set(_TYPES)):
        return f"unknown key `{key}`" if key in fields else f"`{key}` is missing"
    for key, kind in _TYPES.items():
        # True is an int to `isinstance`
        if not isinstance(fields[key], kind) or isinstance(fields[key], bool):
            return f"`{key}` has the wrong type, {type(fields[key]).__name__}"
    if fields["format"] not in get_args(FeatureFormat):
        return f"`format` must be {' or '.join(get_args(FeatureFormat))}"
    if fields["width"] < 1:
        return f"`width` must be at least 1, but is {fields['width']}"
    return _fault_of_clock(fields["name"], fields["hop_seconds"], fields["first_center_seconds"])


def _fault_of_clock(name: str, hop_s: float, first_center_s: float) -> str | None:
    if not name or not is_encodable(name):
        return "`name` is empty or not valid UTF-8"
    if not (math.isfinite(hop_s) and 0 < hop_s <= 10):
        return f"`hop_seconds` must be above 0 and at most 10, but is {hop_s:g} (a hop in seconds?)"
    if not (math.isfinite(first_center_s) and 0 <= first_center_s <= 10):
        return f"`first_center_seconds` must be in [0, 10], but is {first_center_s:g} (a time in seconds?)"
    return None


def _refuse_wrong_clock(declared: DraftFeatures) -> None:
    fault = _fault_of_clock(declared.name, declared.hop_seconds, declared.first_center_seconds)
    if fault is not None:
        raise DataError(f"The declaration of the features is wrong: {fault}", key="features", do="Correct it")


def _declaration(declared: DraftFeatures, first: Utterance, measure: FeatureMeasure) -> FeatureDeclaration:
    assert first.features is not None
    return FeatureDeclaration(
        name=declared.name,
        hop_seconds=float(declared.hop_seconds),
        first_center_seconds=float(declared.first_center_seconds),
        width=measure.width,
        format=format_of(first.features, utterance=first.id),
    )


def _refuse_two_formats(utterances: Sequence[Utterance]) -> None:
    formats: dict[FeatureFormat, Utterance] = {}
    for utterance in utterances:
        assert utterance.features is not None
        formats.setdefault(format_of(utterance.features, utterance=utterance.id), utterance)
    if len(formats) > 1:
        second = list(formats.values())[1]
        what = f"The features are in files of two formats, {' and '.join(formats)}"
        raise DataError(what, file=second.features, utterance=second.id, do="Save all of them in one")


def _measured_or_fault(utterance: Utterance) -> FeatureMeasure | RepbenchError:
    assert utterance.features is not None
    try:
        return measure_features(utterance.features, utterance=utterance.id)
    except (DataError, IntegrityError) as fault:
        return fault
