"""A `Corpus` from the header and the utterances of a manifest, and its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from repbench.corpora.contract import Corpus, FeatureDeclaration, Utterance
from repbench.corpora.manifest.lines import portable_line
from repbench.files import canonical_json

_SENTIMENT_CLASSES = {"sentiment", "sentiment2", "sentiment3", "sentiment7", "sentiment7_rounded"}


def corpus_of(
    header: Mapping[str, Any],
    utterances: tuple[Utterance, ...],
    label_sets: Mapping[str, tuple[str, ...]],
    fingerprint: str | None = None,
) -> Corpus:
    """The corpus of a manifest.

    Args:
        header: The content of `corpus.json`.
        utterances: Sorted by id.
        label_sets: Those of the header.
        fingerprint: If it is known already.
    """
    return Corpus(
        name=header["name"],
        licence=header["licence"],
        utterances=utterances,
        label_sets=label_sets,
        resample=header["resample"],
        fingerprint=fingerprint or _fingerprint(utterances, header),
        notes=tuple(header["notes"]),
        features=_features(header),
        dropped=header.get("dropped", {}),
    )


def on_scales(utterances: tuple[Utterance, ...], header: Mapping[str, Any]) -> tuple[Utterance, ...]:
    """The utterances with the scales that the corpus declares."""
    scales = scales_of(header, utterances[0])
    return tuple(replace(utterance, scales=scales) for utterance in utterances) if scales else utterances


def scales_of(header: Mapping[str, Any], first: Utterance) -> Mapping[str, float]:
    """The scales that the corpus declares.

    A manifest of `mosi` or `mosei` that was made before scales were declared is recognised by the classes that these
    layouts add to the number. Scales are no part of the fingerprint: tasks do not read a number without one.
    """
    scales: Mapping[str, float] | None = header.get("scales")
    if scales is None:
        return {"sentiment": 0.0} if first.attributes.keys() >= _SENTIMENT_CLASSES else {}
    return scales


def _features(header: Mapping[str, Any]) -> FeatureDeclaration | None:
    return FeatureDeclaration(**header["features"]) if "features" in header else None


def _fingerprint(utterances: Iterable[Utterance], header: Mapping[str, Any]) -> str:
    """SHA-256 of the label sets, the declared features and the path-free fields of every utterance."""
    digest = fingerprint_start(header)
    for utterance in utterances:
        digest.update(portable_bytes(utterance))
    fingerprint: str = digest.hexdigest()
    return fingerprint


def fingerprint_start(header: Mapping[str, Any]) -> Any:
    """The digest of a fingerprint before the first utterance; `portable_bytes` of each follow, in the order of ids."""
    # A line feed between the parts, which no canonical JSON holds: other parts cannot give the same bytes.
    digest = hashlib.sha256(canonical_json({kind: list(labels) for kind, labels in header["label_sets"].items()}))
    features = _features(header)
    if features is not None:
        digest.update(b"\n" + canonical_json(asdict(features)))
    return digest


def portable_bytes(utterance: Utterance) -> bytes:
    """What an utterance adds to a fingerprint."""
    return b"\n" + portable_line(utterance).encode("utf-8")


def samples_digest(utterances: Iterable[Utterance]) -> str:
    """SHA-256 of the hashes of all samples, in the order of the ids."""
    return hashlib.sha256("\n".join(item.samples_sha256 for item in utterances).encode("ascii")).hexdigest()
