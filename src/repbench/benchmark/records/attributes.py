"""Attributes of utterances in the lines of predictions: what a run keeps, so that a report can group by it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from repbench.corpora.contract import AttributeValue, Utterance
from repbench.downstream.contract import Prediction


def with_attributes(
    predictions: Sequence[Prediction], utterances: Iterable[Utterance], names: Sequence[str]
) -> list[Prediction]:
    """Each prediction with those of the named attributes that its utterance has; joined by id."""
    of_id: Mapping[str, Utterance] = {each.id: each for each in utterances}
    found = []
    for prediction in predictions:
        utterance = of_id.get(prediction.id)
        known = {} if utterance is None else utterance.attributes
        kept = tuple((name, known[name]) for name in sorted(set(names)) if name in known)
        found.append(replace(prediction, attributes=kept) if kept else prediction)
    return found


def attributes_of(given: Any) -> tuple[tuple[str, AttributeValue], ...]:
    """The attributes of a line as pairs, by name; a ValueError where they are none.

    An empty object is refused: a run leaves the field out, and the digest of the file depends on it.
    """
    if not isinstance(given, dict) or not given:
        raise ValueError(f"`attributes` must hold values by name, but is {given!r}")
    for name, value in given.items():
        # `type` keeps JSON's true out; text needs a form in UTF-8, which half a character has not.
        known = type(value) in (int, float, str) and (type(value) is not float or math.isfinite(value))
        if not known or not _is_text(name) or (isinstance(value, str) and not _is_text(value)):
            raise ValueError(f"the attribute `{name!r}` must be text or a number, but is {value!r}")
    return tuple(sorted(given.items()))


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
