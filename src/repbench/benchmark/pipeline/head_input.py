"""What a head reads of its task and upstream, checked before data is read."""

from __future__ import annotations

from collections.abc import Iterable

from repbench.benchmark.protocol import ProbeSettings
from repbench.downstream.contract import Downstream, problem_of
from repbench.downstream.heads import NO_HEAD, head_info, is_fitted
from repbench.errors import UsageError
from repbench.progress import Reporter
from repbench.upstream.contract import Upstream


def refuse_some_frames(settings: ProbeSettings, task: Downstream, head: str, *, finetune: bool) -> None:
    """Refuse training on some frames of each utterance where all are needed.

    Raises:
        UsageError: The task, the head or fine-tuning reads whole utterances.
    """
    if settings.frames_per_utterance is None:
        return
    if finetune:
        what, do = "Fine-tuning trains on whole utterances", "Leave it out"
    elif problem_of(task).pools and is_fitted(head):
        what, do = f"The head `{head}` is fitted to the mean of all frames", "Leave it out"
    elif not problem_of(task).pools:
        what, do = f"`{task.info.name}` has other answers than one an utterance", "Leave it out"
    elif not head_info(head).mean_over_frames:
        what = f"The head `{head}` does not take the mean over frames, so it cannot be trained on some of them"
        do = "Leave it out, or take --head mlp1"
    else:
        return
    raise UsageError(what, key="probe.frames_per_utterance", do=do)


def refuse_one_vector(upstream: Upstream, task: Downstream, heads: Iterable[str], settings: ProbeSettings) -> None:
    """Refuse what needs frames over time, where the upstream gives one vector an utterance.

    Args:
        upstream: Any upstream.
        task: The task.
        heads: Names of the heads.
        settings: Of the probe.

    Raises:
        UsageError: The task, a head or a setting needs frames; names what does not.
    """
    if not upstream.info.one_vector:
        return
    gives = f"`{upstream.info.name}` gives one vector an utterance"
    reason = problem_of(task).why_not_one_vector(task)
    if reason is not None:
        what, key = f"{gives}, and `{task.info.name}` {reason}", "--downstream"
        do = "Take a task of one answer an utterance, as speaker, keyword or verification, or an upstream of frames"
        if "task." in reason:
            key, do = "task", "Leave the option out, or take an upstream of frames"
        raise UsageError(what, key=key, do=do)
    head = next((each for each in heads if each != NO_HEAD and head_info(each).reads_deviation), None)
    if head is not None:
        what = f"{gives}, and the head `{head}` reads deviations over frames"
        do = "Take --head linear, mlp1 or knn"
        if "linear" not in problem_of(task).heads:
            do = "Take --set task.score=cosine or plda, or an upstream of frames"
        raise UsageError(what, key="--head", do=do)
    for name in ("frames_per_utterance", "spec_augment"):
        if getattr(settings, name):
            raise UsageError(f"{gives}, and this setting is about several", key=f"probe.{name}", do="Leave it out")


def refuse_to_train_fitted(head: str, layer: str, *, finetune: bool) -> None:
    """Refuse what only training by steps can do for a head that is fitted without.

    Raises:
        UsageError: The layers are mixed by learnt weights, or the network is fine-tuned.
    """
    if not is_fitted(head):
        return
    if finetune:
        what = f"The head `{head}` is fitted to the features of a frozen model, and gives no gradient"
        raise UsageError(what, key="--finetune", do="Leave --finetune out, or take --head linear")
    if layer == "weighted":
        what = f"The weights of `weighted` are learnt by steps, and the head `{head}` is fitted without"
        raise UsageError(what, key="--layer", do="Take --layer mean, all, or one layer")


def refuse_constant_input(upstream: Upstream, task: Downstream, head: str, layer: str, layers: tuple[int, ...]) -> None:
    """Refuse a head that reads the mean of frames whose mean is zero.

    Raises:
        UsageError: It would be trained on constants.
    """
    pooled_alone = problem_of(task).pools and head_info(head).linear_on_mean
    if pooled_alone and _reads_normalised_layer(upstream, layer, layers):
        raise UsageError(
            f"The head `{head}` reads only the mean over time, and layer 0 of {upstream.info.name} is normalised to "
            "mean zero over each utterance: its input would be constant",
            key="--head",
            do="Take --head mlp1, or an upstream without CMVN such as mel_no_cmvn",
        )


def _reads_normalised_layer(upstream: Upstream, layer: str, layers: tuple[int, ...]) -> bool:
    """Whether a probe reads layer 0 alone, and this is normalised over the utterance."""
    return upstream.info.utterance_normalised and (layers == (0,) or layer == "all")


def note_on_tuning(head: str, reporter: Reporter) -> None:
    """Report a head without a learning rate where one is to be chosen."""
    if is_fitted(head):
        reporter.say(f"note: the head `{head}` has no learning rate, so --tune adds no record of it")


def note_on_statistics(upstream: Upstream, head: str, layer: str, layers: tuple[int, ...], reporter: Reporter) -> None:
    """Report a head that reads nothing but mean and deviation of frames that are normalised over the utterance."""
    # No refusal: the declaration is about means, and deltas after the normalisation keep deviations that vary.
    if head_info(head).statistics_alone and _reads_normalised_layer(upstream, layer, layers):
        reporter.say(
            f"note: the head `{head}` reads mean and deviation over time, and layer 0 of {upstream.info.name} is "
            "normalised over each utterance: where its variance is 1 too, the head's input is constant, and its score "
            "is chance. An upstream without CMVN, such as mel_no_cmvn, or probe.layer_norm=true avoids it"
        )
