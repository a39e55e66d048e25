"""Fit probes whose head is computed from the means of the training utterances, without steps.

Such a probe has no learning rate and nothing to select: dev gives its value, and decides nothing.

Axes: L layers, U utterances, D width, O outputs, R probes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from repbench.benchmark.probing.means import UtteranceMeans
from repbench.benchmark.probing.probe import Probe
from repbench.benchmark.probing.training import ProbeJob, ProbeTraining, Selection, TrainedProbe
from repbench.benchmark.protocol import ProbeSettings
from repbench.downstream.heads import FitSettings, FittedHead, head_faults
from repbench.errors import EnvironmentFault, NonFiniteError, is_out_of_memory
from repbench.progress import Advance


def fit_probes(
    shared: ProbeTraining, jobs: Sequence[ProbeJob], progress: Advance = lambda done, total: None
) -> list[TrainedProbe]:
    """Fit a probe for each job.

    Args:
        shared: What all probes share; its learning rates are not read.
        jobs: The utterances, layers and seed of each probe.
        progress: Called with the probes done and all probes.

    Returns:
        One for each job, with its value on dev.

    Raises:
        NonFiniteError: The scores of a probe on dev are NaN or infinite.
        EnvironmentFault: The memory does not suffice.
    """
    own_statistics = any(job.statistics is not None for job in jobs)
    # The mean of normalised frames is not the normalised mean: it is computed again for each job's statistics.
    computed_again = own_statistics and shared.shape.layer_norm
    tables = _means_of(shared, standardised=not own_statistics)
    fitted = []
    for number, job in enumerate(jobs, start=1):
        started = time.monotonic()
        of_job = _means_of(shared, standardised=True) if computed_again else tables
        probe, selection, warnings = _fitted(shared, job, *of_job)
        fitted.append(TrainedProbe(probe.eval(), selection, time.monotonic() - started, warnings))
        progress(number, len(jobs))
    return fitted


def fit_settings(settings: ProbeSettings) -> FitSettings:
    """The settings of a protocol that fitted heads read."""
    return FitSettings(
        neighbours=settings.neighbours,
        temperature=settings.temperature,
        inverse_penalty=settings.inverse_penalty,
    )


def _means_of(shared: ProbeTraining, *, standardised: bool) -> tuple[UtteranceMeans, UtteranceMeans]:
    train = UtteranceMeans(shared.train, standardised=standardised)
    # Folds read train and dev in one table.
    return train, train if shared.dev is shared.train else UtteranceMeans(shared.dev, standardised=standardised)


def _fitted(
    shared: ProbeTraining, job: ProbeJob, train_means: UtteranceMeans, dev_means: UtteranceMeans
) -> tuple[Probe, Selection, tuple[str, ...]]:
    predictor, settings = shared.predictor, shared.settings
    probe = Probe(shared.shape, torch.Generator().manual_seed(job.seed))
    if settings.standardise:
        statistics = job.statistics or shared.statistics
        assert statistics is not None
        mean, std = statistics
        probe.set_statistics(mean[job.layers], std[job.layers])
    probe.to(shared.device)
    head = probe.head
    assert isinstance(head, FittedHead)
    try:
        with torch.no_grad():
            train = train_means.of(job.train, job.layers, probe)
            (every,) = train.table.spans([[(0, len(job.train))]])  # (L, U, D)
            means = probe.mixed(every)  # (L, U, D) -> (U, D)
            # U of (1,) -> (U,)
            classes = torch.cat([predictor.targets(example, 1) for example in job.train]).to(shared.device)
            with head_faults(shared.shape.head):
                warnings = tuple(head.fit(means, classes, fit_settings(settings)))
            dev_set = predictor.dev_set(dev_means.of(job.dev, job.layers, probe), shared.device)

            def scores_of(frames: Tensor, counts: Tensor) -> Tensor:
                """(L, U, D), one mean for each utterance -> (1, U, O)."""
                return probe.eval().scores(frames, counts)[None]

            (value,) = predictor.primaries(scores_of, dev_set)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        what = f"The memory does not suffice to fit `{shared.shape.head}` to {len(job.train)} utterances"
        do = "Take fewer utterances by probe.shots or --label-fraction, or --head linear"
        raise EnvironmentFault(what, key="--head", do=do) from error
    if value is None:
        what = f"The scores of the head `{shared.shape.head}` on dev are NaN or infinite"
        raise NonFiniteError(what, key="--head", do="Are all features finite, and of a usual size?")
    return probe, Selection(({"dev_value": value},), {}, value), warnings
