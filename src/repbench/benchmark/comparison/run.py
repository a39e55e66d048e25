"""`compare` calls the steps in order: models, corpus, sample, features, numbers, files.

Whatever can be refused without reading data is refused first.
"""

from __future__ import annotations

import functools
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from repbench.benchmark import environment
from repbench.benchmark.comparison.models import Loader, Model
from repbench.benchmark.comparison.numbers import NUM_DRAWS, LabelsOfSample, Numbers
from repbench.benchmark.comparison.request import CompareRequest
from repbench.benchmark.features.extraction import ExtractionOptions
from repbench.benchmark.features.invariance_check import check_invariance
from repbench.benchmark.features.source import exclusions, notes_of
from repbench.benchmark.loading.upstreams import say_side_effects
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.report.render.similarity import figures_of
from repbench.benchmark.report.render.svg import Figure
from repbench.benchmark.similarity.cca import EPSILONS, SVCCA_VARIANCE
from repbench.benchmark.similarity.document import (
    MADE_BY,
    SIGNATURE,
    SIMILARITY_FILE,
    ComparedCorpus,
    ComparisonCost,
    SamplePart,
    SealedFile,
    Similarity,
    sealed,
)
from repbench.benchmark.similarity.frames import LayerFrames, read_frames
from repbench.benchmark.similarity.sample import NUM_PARTS, Sample, draw_sample, draw_utterances
from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.open import entry_of_corpus, open_corpus
from repbench.errors import DataError, UsageError
from repbench.files import canonical_json, ensure_writable, refuse_of_others, replaced_ours
from repbench.progress import Reporter, Silence
from repbench.training.distributed import local_device

RUNS = Path("runs/similarity")
"""Where results go without `--out`, each in a folder of its own."""

_FIGURE_SIGNATURE = b'aria-labelledby="similarity-'


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a comparison, and its files."""

    similarity: Similarity
    files: tuple[Path, ...]


def compare(request: CompareRequest, reporter: Reporter | None = None) -> Comparison:
    """Compare the layers of two models; write `similarity.json` and a figure of each matrix and profile.

    Args:
        request: The arguments.
        reporter: Receives progress and notes.

    Raises:
        UsageError: A measure, layer or model does not exist, or a file of others would be replaced.
        DataError: The corpus lacks the labels, or has too few utterances.
        PluginError: A model breaks its contract.
        EnvironmentFault: The folder cannot be written to.
    """
    reporter = reporter or Silence()
    request.refuse_unknown()
    if request.out is not None:
        _prepare(request.out)
    device = local_device(environment.choose_device(request.device))
    opened = functools.cache(lambda: opened_corpus(request.corpus, reporter))
    models = Loader(request, device, opened, reporter).models()
    vectors = next((model for model in models.each if model.upstream.info.one_vector), None)
    if vectors is not None and "phones" in request.against:
        what = f"`{vectors.part.name}` gives one vector an utterance, and a phone is of a span of frames"
        raise UsageError(what, key="--against", do="Take words (of one-word utterances) or mel, or a model of frames")
    corpus = opened()
    for model in models.each:
        check_invariance(model.upstream, model.entry, model.part.fingerprint, device)
    notes = tuple(dict.fromkeys(note for model in models.each for note in notes_of(corpus, model.upstream)))
    usable, excluded = usable_by_all(corpus, models.each)
    salt = f"similarity {corpus.fingerprint}"
    draw = draw_sample if vectors is None else draw_utterances
    sample = draw(usable, request.most_frames, seed=request.seed, salt=salt)
    labels = LabelsOfSample.of(request, sample, corpus.name, salt)
    warnings = (*notes, *_warnings(request, sample, models.each, excluded, vectors))
    for warning in warnings:
        reporter.say(f"note: {warning}")
    out = request.out or RUNS / _folder_name(request, models.each, corpus)
    _prepare(out)

    started = time.monotonic()
    of_utterances = vectors is not None
    frames = [_read(model, sample, request, device, reporter, of_utterances) for model in models.each]
    extracted = time.monotonic()
    with reporter.stage("similarities") as advance:
        numbers = Numbers(request, models, frames, sample=sample, labels=labels, salt=salt, advance=advance)
        matrices, profiles = tuple(numbers.matrices()), tuple(numbers.profiles())
    cost = ComparisonCost(
        extract_seconds=extracted - started,
        measure_seconds=time.monotonic() - extracted,
        peak_rss_bytes=environment.peak_rss_bytes(),
    )
    fitting = {"draws": NUM_DRAWS, "parts": NUM_PARTS, "epsilons": list(EPSILONS), "svcca_variance": SVCCA_VARIANCE}
    similarity = sealed(
        Similarity(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            upstreams=tuple(model.part for model in models.each),
            corpus=ComparedCorpus(name=corpus.name, fingerprint=corpus.fingerprint, notes=notes),
            sample=_sample_part(sample, labels, excluded),
            settings={**request.settings(), **(fitting if request.needs_parts else {})},
            matrices=matrices,
            profiles=profiles,
            warnings=warnings,
            cost=cost,
            environment=environment.describe(device, request.protocol.extraction.precision),
        )
    )
    return Comparison(similarity, _write(similarity, out, reporter))


def opened_corpus(name: str, reporter: Reporter) -> Corpus:
    """The corpus of a name or folder; errors as `open_corpus`."""
    entry = entry_of_corpus(name)
    if entry is not None:
        say_side_effects(entry, reporter.say)
    with reporter.stage(f"corpus {name}") as advance:
        return open_corpus(name, progress=advance, say=reporter.say)


def usable_by_all(corpus: Corpus, models: Sequence[Model]) -> tuple[list[Utterance], dict[str, str]]:
    """The utterances that every model can take, and of the others the reason.

    Raises:
        DataError: There is none.
    """
    find = [exclusions(model.upstream) for model in models]
    excluded: dict[str, str] = {}
    usable: list[Utterance] = []
    for utterance in corpus.utterances:
        why = next((reason for each in find if (reason := each(utterance)) is not None), None)
        if why is None:
            usable.append(utterance)
        else:
            excluded[utterance.id] = why
    if not usable:
        if not excluded:
            raise DataError(f"The corpus {corpus.name} has no utterance", key="--corpus", do="Take another corpus")
        id_, reason = next(iter(excluded.items()))
        what = f"No utterance of {corpus.name} can be taken by all models; of this one: {reason}"
        raise DataError(what, utterance=id_, do="Take another corpus")
    return usable, excluded


def _warnings(
    request: CompareRequest, sample: Sample, models: Sequence[Model], excluded: dict[str, str], vectors: Model | None
) -> list[str]:
    warnings = []
    if vectors is not None:
        warnings.append(
            f"`{vectors.part.name}` gives one vector an utterance, so utterances are compared: of a model of "
            "frames the mean over the frames of each"
        )
    if excluded:
        id_, reason = min(excluded.items())
        warnings.append(f"{len(excluded)} utterances are left out, such as {id_}: {reason}")
    if sample.clusters.unit is None:
        warnings.append("there are no two speakers or groups, so there are no intervals")
    widest = max(model.part.width for model in models)
    num_frames = len(sample.owners)
    if request.needs_parts and num_frames < 10 * widest:
        warnings.append(
            f"{num_frames} {'frames' if vectors is None else 'utterances'} are few for CCA of {widest} dimensions: "
            "directions are fitted to noise, and held-out correlations are too low"
        )
    return warnings


def _sample_part(sample: Sample, labels: LabelsOfSample, excluded: dict[str, str]) -> SamplePart:
    return SamplePart(
        n_frames=len(sample.owners),
        n_utterances=len(sample.utterances),
        sha256=sample.sha256,
        interval_unit=sample.clusters.unit,
        n_clusters=sample.clusters.count,
        n_labelled={kind: each["given"].num_labelled for kind, each in labels.kinds.items()},
        n_classes={kind: len(each["given"].classes) for kind, each in labels.kinds.items()},
        excluded=excluded,
    )


def extraction_options(protocol: Protocol, device: torch.device) -> ExtractionOptions:
    """How the features of a model are computed."""
    settings = protocol.extraction
    return ExtractionOptions(
        batch_seconds=settings.batch_seconds, device=device, dtype=settings.dtype, precision=settings.precision
    )


def _read(
    model: Model,
    sample: Sample,
    request: CompareRequest,
    device: torch.device,
    reporter: Reporter,
    of_utterances: bool,
) -> LayerFrames:
    options = extraction_options(request.protocol, device)
    with reporter.stage(f"features of {model.part.title}") as advance:
        return read_frames(
            model.upstream,
            sample,
            model.layers,
            options,
            store=model.store,
            of_utterances=of_utterances,
            progress=advance,
        )


# Files


def _folder_name(request: CompareRequest, models: Sequence[Model], corpus: Corpus) -> str:
    facts = [[model.part.fingerprint for model in models], corpus.fingerprint, request.settings()]
    return folder_name(f"{request.first}-{request.second}-{corpus.name}", facts)


def folder_name(names: str, facts: Any) -> str:
    """A name that follows from models, corpus and settings: the same comparison has the same folder."""
    digest = hashlib.sha256(canonical_json(facts)).hexdigest()[:8]
    return f"{re.sub(r'[^a-z0-9._]+', '-', names.casefold()).strip('-.')[:80]}-{digest}"


def _prepare(out: Path) -> None:
    """Refuse a folder that holds another's `similarity.json`, or cannot be written to."""
    refuse_of_others(out / SIMILARITY_FILE, SIGNATURE, made_by=MADE_BY)
    ensure_writable(out)


def _write(similarity: Similarity, out: Path, reporter: Reporter) -> tuple[Path, ...]:
    figures = {f"{each.key.removeprefix('similarity-')}.svg": each for each in figures_of(similarity)}
    return written(similarity, Written(SIMILARITY_FILE, SIGNATURE, MADE_BY, _FIGURE_SIGNATURE), figures, out, reporter)


class Written(NamedTuple):
    """The files of a command: the name of the main one, bytes that identify it, the command, bytes of its figures."""

    name: str
    signature: bytes
    made_by: str
    signature_of_figures: bytes


def written(
    file: SealedFile, kind: Written, figures: Mapping[str, Figure], out: Path, reporter: Reporter
) -> tuple[Path, ...]:
    """Write the figures, by their names, then the file: where it is, all of them are.

    Raises:
        UsageError: A file of others has one of the names.
    """
    drawn = {name: figure.as_file().encode("utf-8") for name, figure in figures.items()}
    for name in drawn:
        refuse_of_others(out / name, kind.signature_of_figures, made_by=kind.made_by)
    replaced = [
        *(
            replaced_ours(out / name, kind.signature_of_figures, each, made_by=kind.made_by)
            for name, each in drawn.items()
        ),
        replaced_ours(out / kind.name, kind.signature, file.content(), made_by=kind.made_by),
    ]
    if any(replaced):
        reporter.say(f"note: {sum(replaced)} files of an earlier comparison in {out} were replaced")
    return tuple(out / name for name in (kind.name, *drawn))
