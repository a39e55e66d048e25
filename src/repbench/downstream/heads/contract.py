"""The contract of heads: the networks that turn frames of features into scores of classes.

A head plugin (entry-point group `repbench.heads`) is a factory with a declaration, `info`. A subclass of `Head` with
`info` and keyword-only arguments is the usual one. repbench's own heads come through the same group.

Axes: N frames of all utterances of a batch in turn, D width, U utterances, O outputs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from repbench.downstream.heads.frames import mean_of_each
from repbench.downstream.problems.contract import Rows
from repbench.errors import PluginError

CONTRACT_VERSION = 1

Gives = Rows
"""One row of scores a frame, one an utterance, one a frame whose last score is that of the blank of CTC, or one an
utterance that begins with its embedding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadInfo:
    """Declaration of a head.

    Attributes:
        name: Name of the head.
        gives: The rows of scores that it can give. `ctc`, with a blank, and `linear` are two heads.
        context_frames: Frames on either side of each that its scores depend on; 0 for utterances.
        whole_utterances: Whether the scores of a frame depend on further frames than these. Training then draws whole
            utterances in place of single frames, and the head is always called with counts.
        one_matrix: Whether `output` holds all its parameters. Such heads of one run are computed as one product.
        linear_on_mean: Whether the scores of an utterance are a function of the mean of its frames alone, as they are
            of linear layers. Such a head is refused where that mean is constant.
        mean_over_frames: Whether the scores of an utterance depend on the mean, over its frames, of what is computed of
            each frame alone. Such a head can be trained on some frames of each (`probe.frames_per_utterance`).
        statistics_alone: Whether the scores of an utterance depend on the mean and the deviation of its frames alone. A
            run of such a head on frames that are normalised over the utterance has a note.
        reads_deviation: Whether it reads the deviation over the frames of an utterance. Such a head is refused for one
            vector an utterance, which has none.
        embedding_units: Units of the embedding with which a row of scores begins, where it gives utterances with one.
        fitted: Whether it is a `FittedHead`: computed from the means of the training utterances, without steps.
        contract: Version of this contract.
    """

    name: str
    gives: tuple[Gives, ...]
    context_frames: int = 0
    whole_utterances: bool = False
    one_matrix: bool = False
    linear_on_mean: bool = False
    mean_over_frames: bool = False
    statistics_alone: bool = False
    reads_deviation: bool = False
    embedding_units: int = 0
    fitted: bool = False
    contract: int = CONTRACT_VERSION

    def __post_init__(self) -> None:
        if self.contract != CONTRACT_VERSION:
            raise PluginError(f"`contract` must be {CONTRACT_VERSION}, but is {self.contract}", key=self.name)
        unknown = [each for each in self.gives if each not in get_args(Gives)]
        if unknown or not self.gives:
            choices = ", ".join(f'"{each}"' for each in get_args(Gives))
            raise PluginError(f"`gives` must name one or more of {choices}, but is {self.gives}", key=self.name)
        if "frames with a blank" in self.gives and len(self.gives) > 1:
            raise PluginError("A head with a blank gives nothing else", key=self.name, do="Register it under two names")
        if (self.embedding_units > 0) != (self.gives == ("utterances with an embedding",)):
            what = (
                "`embedding_units` must be above 0 for a head that gives utterances with an embedding, and nothing "
                f"else, but is {self.embedding_units} for one that gives {', '.join(self.gives)}"
            )
            raise PluginError(what, key=self.name, do="Correct one of the two")
        if self.context_frames < 0:
            raise PluginError(f"`context_frames` must be at least 0, but is {self.context_frames}", key=self.name)
        if self.whole_utterances and self.context_frames:
            what = "A head with `whole_utterances` has no `context_frames`, which are those of single frames"
            raise PluginError(what, key=self.name, do="Leave one of the two out")
        if self.fitted and (self.gives != ("utterances",) or not self.linear_on_mean):
            what = "A head that is fitted gives utterances alone, and reads their means"
            raise PluginError(what, key=self.name, do='Declare gives=("utterances",) and linear_on_mean=True')


class Head(nn.Module):
    """Frames to scores: the base class of heads.

    A subclass defines `info`, its last layer `output`, and `before_output`; or, if it is not one matrix, `forward`
    alone. Weights are drawn from the generator that it is given, masks of dropout by `SeededDropout`: global random
    state is not used. The scores of an utterance depend on its own frames alone.

    Attributes:
        info: Its declaration.
        output: Its last layer.
    """

    info: HeadInfo
    output: nn.Linear

    def forward(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """Scores of frames.

        Args:
            frames: (N, D). For a head with context that is called without counts, (N (2 context + 1), D): for each
                frame its window, the latest frame first.
            counts: (U,) frames of each utterance, which add up to N. Not needed by a head for frames without context,
                unless it reads whole utterances.

        Returns:
            (N, O), or (U, O) if it was built with `pools`.
        """
        scores: Tensor = self.output(self.before_output(frames, counts))
        return scores

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """The input of the last layer, for the arguments of `forward`: (N, inputs) or (U, inputs)."""
        raise NotImplementedError

    @property
    def context_frames(self) -> int:
        """Frames on either side of each that its scores depend on."""
        return self.info.context_frames

    @property
    def is_one_matrix(self) -> bool:
        """Whether `output` holds all its parameters."""
        return self.info.one_matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """The settings that fitted heads read; each reads those that it needs.

    Attributes:
        neighbours: Nearest training utterances that vote.
        temperature: Divides the cosine of a neighbour in the exponent of its weight.
        inverse_penalty: C, the inverse strength of the penalty of a regression.
    """

    neighbours: int
    temperature: float
    inverse_penalty: float


class FittedHead(Head):
    """A head that is computed from the means of the training utterances: the base class of such heads.

    Its numbers are buffers or parameters, so that they are saved with the probe. A buffer may have as many rows as
    there are training utterances: it takes that length from the file that it is loaded from. Before `fit` it has none.
    """

    @abstractmethod
    def fit(self, means: Tensor, classes: Tensor, settings: FitSettings) -> tuple[str, ...]:
        """Compute its numbers.

        Args:
            means: (U, D) the mean of the frames of each training utterance.
            classes: (U,) int64, the number of the class of each. Some of the O classes may not be among them.
            settings: Those of the probe.

        Returns:
            Warnings for the record, in words.
        """

    @abstractmethod
    def scores_of_means(self, means: Tensor) -> Tensor:
        """Finite scores (U, O) of means (U, D)."""

    def forward(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """Scores (U, O) of the means of frames (N, D) of utterances with (U,) counts."""
        assert counts is not None
        return self.scores_of_means(mean_of_each(frames, counts))  # (N, D) -> (U, D) -> (U, O)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: dict[str, Any], *given: Any
    ) -> None:
        """As of the base class, after the rows of the buffers are as many as the file holds."""
        for name, buffer in self._buffers.items():
            stored = state_dict.get(f"{prefix}{name}")
            if buffer is not None and stored is not None and stored.shape[1:] == buffer.shape[1:] and buffer.ndim:
                self._buffers[name] = buffer.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *given)


@runtime_checkable
class HeadFactory(Protocol):
    """The target of an entry point in `repbench.heads`.

    Attributes:
        info: The declaration of the heads that it makes.
    """

    info: HeadInfo

    def __call__(
        self,
        *,
        width: int,
        num_outputs: int,
        hidden_units: int,
        pools: bool,
        dropout: float,
        generator: torch.Generator,
    ) -> Head:
        """A head with fresh weights.

        Args:
            width: D.
            num_outputs: O: the classes, and the blank or the units of the embedding for a head that gives them.
            hidden_units: Units of hidden layers, for heads that have any.
            pools: Whether it gives one row of scores an utterance rather than one a frame.
            dropout: Share of hidden units that is dropped in training, for heads that drop any.
            generator: Draws the initial weights. The same state gives the same weights.
        """
        ...
