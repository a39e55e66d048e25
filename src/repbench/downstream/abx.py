"""The task `abx`: how often a token is nearer to a token of another phone, or speaker, than to one of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from repbench.corpora.contract import Utterance
from repbench.downstream.contract import (
    DownstreamInfo,
    FrozenFeatures,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Outcome,
    Prediction,
    ReadSplit,
)
from repbench.downstream.discrimination.alignment import Pooling
from repbench.downstream.discrimination.cells import Condition, On, Speakers
from repbench.downstream.discrimination.cutting import TokenFrames, cells_of
from repbench.downstream.discrimination.item_files import ItemFile, read_item_file
from repbench.downstream.discrimination.options import at_least, one_of
from repbench.downstream.discrimination.tokens import Token, tokens_of
from repbench.downstream.metrics import abx
from repbench.downstream.metrics.frame_distances import FRAME_DISTANCES
from repbench.downstream.phone import SILENCES
from repbench.downstream.problems.abx import AbxPrediction, TokenLabels
from repbench.errors import DataError, Unlabelled, UsageError

_log = logging.getLogger(__name__)

DISTANCES = ("angular", "cosine", "euclidean", "kl", "identical")
CONTEXTS = ("none", "triphone")


@dataclass(frozen=True, slots=True)
class AbxTally:
    """The counts of some predictions.

    Attributes:
        sums: Of each class a, class b and group of the speakers of X: the cells' error rates summed, and the cells.
        triples: Number of triples.
        left_out: Tokens without a frame.
    """

    sums: Sequence[tuple[str, str, str, float, int]]
    triples: int
    left_out: int


class Abx(MeasuredByTallies):
    """ABX discrimination of phones or of speakers.

    Metric: `error_rate` (primary), averaged over contexts, then over speakers (phones, if speakers are discriminated),
    then over pairs of classes.

    Args:
        on: What is discriminated: phone or speaker.
        context: none, or triphone: A, B and X have the same neighbours.
        speaker: Of phones: within one speaker, or across (X is of another speaker than A and B).
        distance: Of frames: angular, cosine (the same), euclidean, kl or identical.
        pooling: dtw: tokens are aligned; mean: each is the mean of its frames.
        max_size_group: Tokens A, B and X of a cell at most; null: all.
        max_x_across: Across speakers, speakers of X for each class, context and speaker of A at most; null: all.
        item: A ZeroSpeech item file with the tokens, in place of the corpus's alignment.
    """

    reads: tuple[ReadSplit, ...] = ()

    info = DownstreamInfo(
        name="abx",
        problem="abx",
        split="speaker-disjoint",
        default_head="none",
        metrics={"error_rate": MetricInfo(unit="proportion of triples", higher_is_better=False)},
        primary_metric="error_rate",
    )

    def __init__(
        self,
        *,
        on: On = "phone",
        context: str = "none",
        speaker: Speakers = "within",
        distance: str = "angular",
        pooling: Pooling = "dtw",
        max_size_group: int | None = 10,
        max_x_across: int | None = 5,
        item: str | None = None,
    ) -> None:
        self._condition = Condition(
            on=one_of("on", on, get_args(On)),
            speakers=one_of("speaker", speaker, get_args(Speakers)),
            in_context=one_of("context", context, CONTEXTS) == "triphone",
            max_size_group=at_least("max_size_group", max_size_group, 2),
            max_x_across=at_least("max_x_across", max_x_across, 1),
        )
        if on == "speaker" and speaker == "across":
            what = "Speakers are discriminated within a phone, so X has no speaker other than that of A"
            raise UsageError(what, key="task.speaker", do="Leave task.speaker out with task.on=speaker")
        self._distance = FRAME_DISTANCES[one_of("distance", distance, DISTANCES)]
        self._pooling: Pooling = one_of("pooling", pooling, get_args(Pooling))
        self._item = None if item is None else read_item_file(Path(item))

    def labels(self, utterance: Utterance) -> TokenLabels | None:
        """The tokens; None for an utterance that has none.

        Raises:
            Unlabelled: It has no alignment or no speaker.
            DataError: The item file has another speaker.
        """
        if self._item is not None:
            tokens = _of_item(self._item, utterance)
        else:
            if utterance.phones is None:
                do = "Give --alignments to `corpus prepare`, or an item file with --set task.item=FILE"
                raise Unlabelled("no phone alignment", utterance=utterance.id, do=do)
            if utterance.speaker is None:
                raise Unlabelled("no speaker", utterance=utterance.id, do="Add speakers to the corpus")
            tokens = tokens_of(utterance.phones, utterance.speaker, SILENCES)
        return TokenLabels(self._condition.on, tokens) if tokens else None

    def classes(self, label_sets: LabelSets, train: Iterable[Any]) -> tuple[str, ...]:
        """None: predictions name phones and speakers."""
        return ()

    def outcome(self, features: FrozenFeatures) -> Outcome:
        """The cells of all test utterances.

        Raises:
            DataError: The item file names other utterances, or no triple can be made.
            EnvironmentFault: The tokens that are drawn do not fit the memory.
        """
        examples = features.test.examples
        if self._item is not None:
            self._item.check([each.id for each in examples])
        owners = [number for number, each in enumerate(examples) for _ in each.labels.tokens]
        tokens = [token for each in examples for token in each.labels.tokens]
        times = features.context.times
        assert times is not None, "a run knows the times of its frames"
        cut = TokenFrames(
            tokens,
            owners,
            features.test.each(),
            sample_rate_hz=times.sample_rate_hz,
            hop=times.hop_samples,
            first_center=times.first_center_samples,
        )
        cells = cells_of(
            cut,
            self._condition,
            self._distance,
            pooling=self._pooling,
            seed=features.seed,
            device=features.device,
            memory_bytes=features.memory_bytes,
        )
        if not cells:
            what = f"No two tokens of one class and one of another share a context ({len(tokens)} tokens)"
            raise DataError(what, key="task.context", do="Take --set task.context=none, or more speech of each speaker")
        if left_out := cut.without_frames.total():
            _log.warning("abx: %d of %d tokens have no frame and are left out", left_out, len(tokens))
        of_utterance: dict[int, list[abx.Cell]] = {}
        for cell in cells:
            counted = abx.Cell(cell.a, cell.b, cell.group, cell.context, cell.twice_errors, cell.triples)
            of_utterance.setdefault(owners[cell.first_x], []).append(counted)
        predictions = [
            AbxPrediction(
                id=each.id,
                speaker=each.utterance.speaker,
                group=each.utterance.group,
                on=self._condition.on,
                cells=tuple(sorted(of_utterance.get(number, ()))),
                left_out=cut.without_frames[number],
            )
            for number, each in enumerate(examples)
        ]
        return Outcome(predictions=predictions, files=self._files())

    def _files(self) -> dict[str, bytes]:
        """The digest of the item file, which the options name by its path alone."""
        if self._item is None:
            return {}
        return {"item.txt": f"{self._item.sha256}  {self._item.path.name}\n".encode()}

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> AbxTally:
        """The cells summed over contexts, for each speaker of X."""
        of_speaker: dict[str | None, list[abx.Cell]] = {}
        given = [each for each in predictions if isinstance(each, AbxPrediction)]
        for each in given:
            of_speaker.setdefault(each.speaker, []).extend(each.cells)
        return AbxTally(
            sums=[line for cells in of_speaker.values() for line in abx.summed_over_contexts(cells)],
            triples=sum(cell.triples for each in given for cell in each.cells),
            left_out=sum(each.left_out for each in given),
        )

    def measure_tallies(self, tallies: Sequence[AbxTally], classes: Sequence[str]) -> dict[str, Measurement]:
        """The error rate of all cells, with the counts of cells, triples and tokens without a frame."""
        sums = [line for tally in tallies for line in tally.sums]
        counts = {
            "cells": sum(count for *_, count in sums),
            "triples": sum(tally.triples for tally in tallies),
            "tokens_without_frames": sum(tally.left_out for tally in tallies),
        }
        return {"error_rate": Measurement(value=abx.error_rate(sums), counts=counts)}


def _of_item(item: ItemFile, utterance: Utterance) -> tuple[Token, ...]:
    tokens = item.of(utterance.id)
    others = {each.speaker for each in tokens} - {utterance.speaker}
    if utterance.speaker is not None and others:
        what = f"The item file gives the speaker `{min(others)}` where the corpus has `{utterance.speaker}`"
        raise DataError(what, file=item.path, utterance=utterance.id, do="Name speakers as the corpus does")
    return tokens
