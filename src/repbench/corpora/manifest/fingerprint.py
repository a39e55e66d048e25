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
    header: Mapping[str, Any], utterances: tuple[Utterance, ...], label_sets: Mapping[str, tuple[str, ...]]
) -> Corpus:
    features = FeatureDeclaration(**header["features"]) if "features" in header else None
    return Corpus(
        name=header["name"],
        licence=header["licence"],
        utterances=_on_scales(utterances, header),
        label_sets=label_sets,
        resample=header["resample"],
        fingerprint=_fingerprint(utterances, label_sets, features),
        notes=tuple(header["notes"]),
        features=features,
        dropped=header.get("dropped", {}),
    )


def _on_scales(utterances: tuple[Utterance, ...], header: Mapping[str, Any]) -> tuple[Utterance, ...]:
    """The utterances with the scales that the corpus declares.

    A manifest of `mosi` or `mosei` that was made before scales were declared is recognised by the classes that these
    layouts add to the number. Scales are no part of the fingerprint: tasks do not read a number without one.
    """
    scales = header.get("scales")
    if scales is None:
        scales = {"sentiment": 0.0} if utterances[0].attributes.keys() >= _SENTIMENT_CLASSES else {}
    return tuple(replace(utterance, scales=scales) for utterance in utterances) if scales else utterances


def _fingerprint(
    utterances: Iterable[Utterance],
    label_sets: Mapping[str, tuple[str, ...]],
    features: FeatureDeclaration | None,
) -> str:
    """SHA-256 of the label sets, the declared features and the path-free fields of every utterance."""
    # A line feed between the parts, which no canonical JSON holds: other parts cannot give the same bytes.
    digest = hashlib.sha256(canonical_json({kind: list(labels) for kind, labels in label_sets.items()}))
    if features is not None:
        digest.update(b"\n" + canonical_json(asdict(features)))
    for utterance in utterances:
        digest.update(b"\n")
        digest.update(portable_line(utterance).encode("utf-8"))
    return digest.hexdigest()


def samples_digest(utterances: Iterable[Utterance]) -> str:
    """SHA-256 of the hashes of all samples, in the order of the ids."""
    return hashlib.sha256("\n".join(item.samples_sha256 for item in utterances).encode("ascii")).hexdigest()
