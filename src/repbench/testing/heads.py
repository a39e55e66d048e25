"""The conformance suite behind `repbench check head`: each promise of a head is a named check.

A head is tried on frames drawn from a seed, in each form that it declares to give. A comparison of scores is relative
to their root mean square.

Axes: N frames of all utterances in turn, D width, U utterances, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from repbench.benchmark.loading.certificates import CheckResult
from repbench.benchmark.probing.probe import Probe, ProbeShape, encoded_probe, scores_side_by_side
from repbench.downstream.heads import FitSettings, FittedHead, Head, HeadFactory, HeadInfo, restart_dropout, windows
from repbench.globalstate import preserved_global_state
from repbench.testing.conformance import Broken, Held, NotApplicable, Suite

WIDTH = 6
NUM_OUTPUTS = 4
HIDDEN_UNITS = 5
DROPOUT = 0.4
COUNTS = (7, 1, 23, 12)
"""Frames of the utterances of a batch; one has a single frame."""

NUM_TRAINING = 30
FIT_SETTINGS = FitSettings(neighbours=5, temperature=0.07, inverse_penalty=1.0)
"""Of the heads that are fitted: training utterances, and settings."""

TOLERANCE = 1e-4
"""Largest difference of scores, as a share of their root mean square."""


class HeadSubject:
    """A head under test.

    Args:
        factory: Makes heads; called many times, as some checks change weights.
    """

    def __init__(self, factory: HeadFactory) -> None:
        self.factory = factory
        self.results: dict[str, CheckResult] = {}

    @property
    def info(self) -> HeadInfo:
        """Its declaration."""
        return self.factory.info

    @property
    def forms(self) -> tuple[bool, ...]:
        """The values of `pools` that it is built with."""
        return tuple(sorted({gives.startswith("utterances") for gives in self.info.gives}))

    @property
    def num_outputs(self) -> int:
        """O: some classes, and the units of the embedding of a head that gives one."""
        return NUM_OUTPUTS + self.info.embedding_units

    def build(self, pools: bool, *, seed: int = 1, dropout: float = 0.0) -> Head:
        """A head in eval mode; one that is fitted is fitted to the training utterances of `seed`."""
        generator = torch.Generator().manual_seed(seed)
        head = self.factory(
            width=WIDTH,
            num_outputs=self.num_outputs,
            hidden_units=HIDDEN_UNITS,
            pools=pools,
            dropout=dropout,
            generator=generator,
        )
        if self.info.fitted and isinstance(head, FittedHead):
            head.fit(*means_of_training(seed), FIT_SETTINGS)
        return head.eval()

    def fitted(self, means: Tensor, classes: Tensor, seed: int = 1) -> Head:
        """A head that is fitted to means (U, D) of classes (U,).

        Raises:
            Broken: It cannot be fitted.
        """
        head = self.build(True, seed=seed)
        if not isinstance(head, FittedHead):
            raise Broken(f"a head that is declared as fitted must be a FittedHead, but is a {type(head).__name__}")
        head.fit(means, classes, FIT_SETTINGS)
        return head

    def scores(self, head: Head, utterances: Sequence[Tensor], pools: bool) -> list[Tensor]:
        """The scores of each utterance (F, D) of one batch: (F, O), or (O,) where it pools."""
        counts = torch.tensor([len(each) for each in utterances])
        with torch.no_grad():
            scores = head(torch.cat(list(utterances)), counts)
        # (U, O) -> U of (O,), or (N, O) -> U of (F, O)
        return list(scores if pools else scores.split(counts.tolist()))

    def hold_equal(self, reference: Tensor, other: Tensor, what: str) -> float:
        """Their largest difference over the root mean square of `reference`; both (N, O) or (U, O) scores.

        Raises:
            Broken: It is too large; `what` names the two.
        """
        if reference.shape != other.shape:
            raise Broken(f"{what} have the shapes {tuple(reference.shape)} and {tuple(other.shape)}")
        scale = float(reference.square().mean().sqrt()) or 1.0
        found = float((reference - other).abs().max()) / scale
        # Not `>`: a NaN fails both comparisons, and must not pass.
        if not found <= TOLERANCE:
            raise Broken(f"{what} differ by {found:.1e} of their root mean square", measured=found, allowed=TOLERANCE)
        return found


def frames_of(counts: Sequence[int] = COUNTS, seed: int = 0) -> list[Tensor]:
    """(F, D) frames of each utterance, normal."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, WIDTH, generator=generator) for count in counts]


def means_of_training(seed: int) -> tuple[Tensor, Tensor]:
    """(U, D) means of training utterances, normal around the centre of their class, and (U,) their classes."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(NUM_TRAINING) % NUM_OUTPUTS
    centres = torch.randn(NUM_OUTPUTS, WIDTH, generator=generator)
    return centres[classes] + torch.randn(NUM_TRAINING, WIDTH, generator=generator), classes


HEAD_CHECKS: Suite[HeadSubject] = Suite()
"""Every check of a head, in order."""

_check = HEAD_CHECKS.check


@_check("declaration")
def _declaration(subject: HeadSubject) -> Held:
    """The heads that it makes are of the declaration of their factory, and have what the declaration needs."""
    for pools in subject.forms:
        head: object = subject.build(pools)
        if not isinstance(head, Head):
            raise Broken(f"the factory must return a Head, but returns a {type(head).__name__}")
        if head.info != subject.info:
            raise Broken("`info` of the head is not that of its factory")
    if subject.info.context_frames and "utterances" in subject.info.gives:
        raise Broken("a head that gives utterances has no `context_frames`")
    return Held(", ".join(subject.info.gives))


_DECLARED = ("declaration",)


@_check("scores-as-declared", after=_DECLARED)
def _scores_as_declared(subject: HeadSubject) -> Held:
    """Scores are (N, O), or (U, O) where it pools, finite floats, also of utterances of one frame."""
    for pools in subject.forms:
        head = subject.build(pools)
        for counts in (COUNTS, (1,), (40, 1, 1)):
            with torch.no_grad():
                scores: object = head(torch.cat(frames_of(counts)), torch.tensor(counts))
            wanted = (len(counts) if pools else sum(counts), subject.num_outputs)
            if not isinstance(scores, Tensor) or tuple(scores.shape) != wanted:
                found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
                raise Broken(f"{counts} frames of utterances must give scores of shape {wanted}, but give {found}")
            if not scores.is_floating_point() or not bool(scores.isfinite().all()):
                raise Broken(f"the scores of {counts} frames of utterances are not finite floats")
    return Held(f"{subject.num_outputs} outputs")


_SHAPED = (*_DECLARED, "scores-as-declared")


@_check("deterministic", after=_SHAPED)
def _deterministic(subject: HeadSubject) -> Held:
    """In eval mode the same frames give the same scores, whatever was scored between."""
    for pools in subject.forms:
        head, utterances = subject.build(pools, dropout=DROPOUT), frames_of()
        first = torch.cat(subject.scores(head, utterances, pools))
        subject.scores(head, frames_of(seed=1), pools)
        subject.hold_equal(first, torch.cat(subject.scores(head, utterances, pools)), "two scorings of the same frames")
    return Held("twice, other frames between")


@_check("drawn-from-its-generator", after=_DECLARED)
def _drawn_from_its_generator(subject: HeadSubject) -> Held:
    """The initial weights depend on the generator alone: not on global random state, and they differ between seeds."""
    if subject.info.fitted:
        raise NotApplicable("it is fitted")
    for pools in subject.forms:
        states = []
        for global_seed, seed in ((0, 1), (1, 1), (0, 2)):
            torch.manual_seed(global_seed)
            states.append(subject.build(pools, seed=seed, dropout=DROPOUT).state_dict())
        first, again, other = states
        for name, weights in first.items():
            if not torch.equal(weights, again[name]):
                raise Broken(f"`{name}` differs between two heads of one seed")
        if first and all(torch.equal(weights, other[name]) for name, weights in first.items()):
            raise Broken("heads of two seeds have the same weights")
    return Held("two seeds, two global states")


@_check("fitted-to-its-data", after=_SHAPED)
def _fitted_to_its_data(subject: HeadSubject) -> Held:
    """Where `fitted` is declared, scores follow from the training utterances alone, in any order, without one class."""
    if not subject.info.fitted:
        raise NotApplicable("it is not declared")
    means, classes = means_of_training(0)
    (frames, *_), worst = frames_of((1, 1)), 0.0
    torch.manual_seed(0)
    reference = subject.fitted(means, classes, seed=1)
    torch.manual_seed(1)
    for what, order in (("again", slice(None)), ("in another order", torch.randperm(len(means)))):
        other = subject.fitted(means[order], classes[order], seed=2)
        first, second = (subject.scores(head, [frames], True)[0] for head in (reference, other))
        worst = max(worst, subject.hold_equal(first, second, f"scores fitted to the same utterances and {what}"))
    if torch.equal(reference(frames, torch.tensor([1])), subject.build(True, seed=3)(frames, torch.tensor([1]))):
        raise Broken("the scores are the same after a fit to other utterances")
    known = classes != NUM_OUTPUTS - 1
    scores = subject.scores(subject.fitted(means[known], classes[known]), [frames], True)[0]
    if not bool(scores.isfinite().all()) or int(scores.argmax()) == NUM_OUTPUTS - 1:
        raise Broken("a class without a training utterance has the highest score, or one that is not finite")
    return Held(f"{NUM_TRAINING} utterances", worst, TOLERANCE)


@_check("alone-and-in-a-batch", after=(*_SHAPED, "deterministic"))
def _alone_and_in_a_batch(subject: HeadSubject) -> Held:
    """The scores of an utterance do not depend on the others of its batch, on their lengths or on their order."""
    worst = 0.0
    for pools in subject.forms:
        head, utterances = subject.build(pools), frames_of()
        alone = [subject.scores(head, [each], pools)[0] for each in utterances]
        for order in ((0, 1, 2, 3), (3, 1, 0, 2), (2, 0)):
            together = subject.scores(head, [utterances[number] for number in order], pools)
            for number, scores in zip(order, together, strict=True):
                what = f"the scores of {COUNTS[number]} frames alone and in a batch of {len(order)}"
                worst = max(worst, subject.hold_equal(alone[number], scores, what))
    return Held(f"{len(COUNTS)} utterances of {min(COUNTS)} to {max(COUNTS)} frames", worst, TOLERANCE)


@_check("context-as-declared", after=(*_SHAPED, "deterministic"))
def _context_as_declared(subject: HeadSubject) -> Held:
    """The scores of a frame depend on as many frames on either side as `context_frames` states."""
    if subject.forms == (True,):
        raise NotApplicable("it gives utterances")
    if subject.info.whole_utterances:
        raise NotApplicable("it reads whole utterances")
    head, context = subject.build(False), subject.info.context_frames
    (frames,) = frames_of((4 * context + 9,))
    middle = len(frames) // 2
    reference = subject.scores(head, [frames], False)[0]
    changed = frames.clone()
    changed[middle] += 1.0
    difference = (subject.scores(head, [changed], False)[0] - reference).abs().amax(dim=-1)  # (F,)
    allowed = TOLERANCE * (float(reference.square().mean().sqrt()) or 1.0)
    far = (torch.arange(len(frames)) - middle).abs() > context
    if float(difference[far].max()) > allowed:
        raise Broken(f"a frame changes scores more than {context} frames away")
    # (F, D) -> (F (2 context + 1), D), as training gathers the frames of a batch
    rows = windows(torch.arange(len(frames)), torch.tensor([len(frames)]), context).flatten()
    with torch.no_grad():
        gathered = head(frames[rows])
    found = subject.hold_equal(reference, gathered, "the scores with counts, and without them on windows of frames,")
    return Held(f"{context} on either side", found, TOLERANCE)


@_check("linear-on-mean", after=(*_SHAPED, "deterministic"))
def _linear_on_mean(subject: HeadSubject) -> Held:
    """`linear_on_mean` states whether an utterance has the scores of the mean of its frames."""
    if True not in subject.forms:
        raise NotApplicable("it gives frames")
    head = subject.build(True)
    (frames,) = frames_of((23,))
    of_frames = subject.scores(head, [frames], True)[0]
    of_mean = subject.scores(head, [frames.mean(dim=0, keepdim=True)], True)[0]
    scale = float(of_frames.square().mean().sqrt()) or 1.0
    found = float((of_frames - of_mean).abs().max()) / scale
    if subject.info.linear_on_mean != (found <= TOLERANCE):
        stated = "declared" if subject.info.linear_on_mean else "not declared"
        raise Broken(
            f"it is {stated}, but the scores of frames and of their mean differ by {found:.1e}", measured=found
        )
    return Held("declared" if subject.info.linear_on_mean else "not declared", found)


@_check("mean-over-frames", after=(*_SHAPED, "deterministic"))
def _mean_over_frames(subject: HeadSubject) -> Held:
    """Where `mean_over_frames` is declared, frames in another order, each of them twice, have the same scores."""
    if not subject.info.mean_over_frames:
        raise NotApplicable("it is not declared")
    if True not in subject.forms:
        raise Broken("it is declared, but the head gives no scores of utterances")
    head = subject.build(True)
    (frames,) = frames_of((23,))
    reference = subject.scores(head, [frames], True)[0]
    others = torch.cat([frames.flip(0), frames])  # (F, D) -> (2 F, D)
    return Held("declared", subject.hold_equal(reference, subject.scores(head, [others], True)[0], "both"), TOLERANCE)


@_check("statistics-alone", after=(*_SHAPED, "deterministic"))
def _statistics_alone(subject: HeadSubject) -> Held:
    """Where `statistics_alone` is declared, other frames of the same mean and deviation have the same scores."""
    if not subject.info.statistics_alone:
        raise NotApplicable("it is not declared")
    head = subject.build(True)
    (frames,) = frames_of((23,))
    mirrored = 2 * frames.mean(dim=0) - frames  # (F, D): each frame on the other side of the mean
    of_frames, of_mirrored = (subject.scores(head, [each], True)[0] for each in (frames, mirrored.flip(0)))
    found = subject.hold_equal(of_frames, of_mirrored, "the scores of frames and of their mirror images at the mean")
    return Held("declared", found, TOLERANCE)


@_check("one-matrix", after=_SHAPED)
def _one_matrix(subject: HeadSubject) -> Held:
    """Where `one_matrix` is declared, `output` holds all parameters, and the scores are its product with its input."""
    if not subject.info.one_matrix:
        raise NotApplicable("it is not declared")
    for pools in subject.forms:
        head, utterances = subject.build(pools), frames_of()
        others = [name for name, _ in head.named_parameters() if name not in {"output.weight", "output.bias"}]
        if others or not isinstance(head.output, torch.nn.Linear):
            raise Broken(f"`{others[0]}` is a parameter outside of `output`" if others else "`output` is no nn.Linear")
        frames, counts = torch.cat(utterances), torch.tensor(COUNTS)
        with torch.no_grad():
            product = head.output(head.before_output(frames, counts))
            subject.hold_equal(head(frames, counts), product, "`forward`, and `output` of `before_output`,")
    return Held("`output` alone")


@_check("side-by-side", after=(*_SHAPED, "deterministic"))
def _side_by_side(subject: HeadSubject) -> Held:
    """Several heads that are scored in one pass have the scores of each alone."""
    worst = 0.0
    for pools in subject.forms:
        probes = [_probe_of(subject.build(pools, seed=seed), pools) for seed in range(3)]
        # (N, D) -> (1, N, D): one layer
        frames, counts = torch.cat(frames_of())[None], torch.tensor(COUNTS)
        with torch.no_grad():
            together = scores_side_by_side(probes, frames, counts)
            for probe, scores in zip(probes, together, strict=True):
                worst = max(worst, subject.hold_equal(probe(frames, counts), scores, "scores alone and in one pass"))
    return Held("three heads", worst, TOLERANCE)


@_check("gradient-reaches-every-weight", after=_SHAPED)
def _gradient_reaches_every_weight(subject: HeadSubject) -> Held:
    """In training a finite gradient that is not zero reaches every parameter."""
    if subject.info.fitted:
        raise NotApplicable("it is fitted")
    number = 0
    for pools in subject.forms:
        head = subject.build(pools).train()
        direction = torch.randn(subject.num_outputs, generator=torch.Generator().manual_seed(3))
        scores = head(torch.cat(frames_of()), torch.tensor(COUNTS))
        # A plain sum has no gradient through a softmax, and adds up to 0 after a normalisation.
        torch.autograd.backward((scores.square() * direction).sum())
        for name, weight in head.named_parameters():
            if weight.grad is None or not bool((weight.grad != 0).any()):
                raise Broken(f"no gradient reaches `{name}`")
            if not bool(weight.grad.isfinite().all()):
                raise Broken(f"the gradient of `{name}` is NaN or infinite")
            number += 1
    return Held(f"{number} parameters")


@_check("dropout-from-its-seed", after=_SHAPED)
def _dropout_from_its_seed(subject: HeadSubject) -> Held:
    """In training two heads of one seed drop the same, and after `restart_dropout` the same again."""
    for pools in subject.forms:
        for restart in (None, 5):
            first, other = (_trained_scores(subject, pools, global_seed, restart) for global_seed in (0, 1))
            if not torch.equal(first, other):
                raise Broken("the scores in training depend on global random state: drop with SeededDropout")
    return Held("two global states")


def _trained_scores(subject: HeadSubject, pools: bool, global_seed: int, restart: int | None) -> Tensor:
    """The scores of a second batch in training mode, with the masks restarted before it if `restart` is a seed."""
    torch.manual_seed(global_seed)
    head = subject.build(pools, dropout=DROPOUT).train()
    frames, counts = torch.cat(frames_of()), torch.tensor(COUNTS)
    with torch.no_grad():
        head(frames, counts)
        if restart is not None:
            restart_dropout(head, restart)
        scores: Tensor = head(frames, counts)
    return scores


@_check("saved-and-loaded", after=(*_SHAPED, "deterministic"))
def _saved_and_loaded(subject: HeadSubject) -> Held:
    """Its weights, saved with a probe and loaded into a head of another seed, give the same scores."""
    from safetensors.torch import load

    for pools in subject.forms:
        first, other = (_probe_of(subject.build(pools, seed=seed), pools) for seed in (1, 2))
        other.load_state_dict(load(encoded_probe(first, {})), strict=True)
        frames, counts = torch.cat(frames_of())[None], torch.tensor(COUNTS)
        with torch.no_grad():
            subject.hold_equal(first(frames, counts), other(frames, counts), "scores before saving and after loading")
    return Held("as safetensors")


@_check("global-state", after=_SHAPED)
def _global_state(subject: HeadSubject) -> Held:
    """Building, scoring and training leave the state of the process unchanged: dtype, threads, folder, and more.

    Building may use up numbers of torch's global generator, as every `nn.Linear` does before its weights are drawn.
    """
    for pools in subject.forms:
        with preserved_global_state() as changed:
            head = subject.build(pools, dropout=DROPOUT)
        _refuse_changes("building it", set(changed) - {"random generator of torch"})
        with preserved_global_state() as changed:
            subject.scores(head, frames_of(), pools)
        _refuse_changes("scoring", set(changed))
        if subject.info.fitted:
            continue
        with preserved_global_state() as changed:
            torch.autograd.backward(head.train()(torch.cat(frames_of()), torch.tensor(COUNTS)).sum())
        _refuse_changes("training", set(changed))
    return Held("unchanged")


def _refuse_changes(action: str, changed: set[str]) -> None:
    if changed:
        raise Broken(f"{action} changes {', '.join(sorted(changed))}")


def _probe_of(head: Head, pools: bool) -> Probe:
    """A probe on one layer with this head."""
    classes = tuple(map(str, range(NUM_OUTPUTS)))
    shape = ProbeShape(
        head="linear",
        pools=pools,
        num_layers=1,
        width=WIDTH,
        hidden_units=HIDDEN_UNITS,
        classes=classes,
        mix="mean",
    )
    probe = Probe(shape, torch.Generator().manual_seed(0))
    probe.head = head
    return probe.eval()


def check_head(factory: HeadFactory, advance: Callable[[int, int], None] | None = None) -> tuple[CheckResult, ...]:
    """The results of all checks; `advance` receives (done, total)."""
    return HEAD_CHECKS.results(HeadSubject(factory), advance)
