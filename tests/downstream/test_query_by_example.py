"""The task `query-by-example`: relevance, the recipe of SUPERB, runs, and what verification and intervals read."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from repbench.benchmark.scoring.metrics import measure_clusters
from repbench.corpora import manifest
from repbench.corpora.contract import PrepareOptions, Utterance
from repbench.corpora.layouts.csv_table import CSV
from repbench.corpora.open import open_corpus
from repbench.downstream.contract import FrozenFeatures, LabelledUtterance, TaskContext
from repbench.downstream.problems.query_by_example import QUERY_BY_EXAMPLE, SearchLabels, SearchPrediction
from repbench.downstream.query_by_example import QueryByExample
from repbench.errors import DataError, Unlabelled, UsageError
from repbench.testing import tone_corpus
from repbench.testing.downstreams import DOWNSTREAM_CHECKS, DownstreamSubject
from tests.commands import repbench
from tests.downstream.test_abx_task import Frames, Times

WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot")


def an_utterance(number: int, role: str, text: str | None, **attributes: str) -> Utterance:
    return Utterance(
        id=f"{role}{number:02d}",
        audio=Path("a.wav"),
        sample_rate_hz=16_000,
        num_samples=16_000,
        speaker=f"s{number % 3}",
        text=text,
        attributes={"role": role, **attributes},
        samples_sha256="0",
    )


def features(*, noise: float = 0.3, first_frames: int = 20) -> FrozenFeatures:
    """Twenty documents of three words and six queries; a word is five directions, one after the other.

    SUPERB scales distances in each document, so that every frame of a query has a match in it: the order tells words.
    """
    random = np.random.default_rng(0)
    task = QueryByExample()
    sounds = torch.from_numpy(random.standard_normal((len(WORDS), 5, 8))).float()

    def spoken(words: Sequence[int]) -> Tensor:
        own = torch.cat(
            [sounds[word].repeat_interleave(torch.from_numpy(random.integers(2, 4, 5)), dim=0) for word in words]
        )
        return own + noise * torch.from_numpy(random.standard_normal(own.shape)).float()

    examples, frames = [], []
    for number in range(20):
        words = random.choice(len(WORDS), 3, replace=False).tolist()
        examples.append(an_utterance(number, "document", " ".join(WORDS[word] for word in words)))
        frames.append(spoken(words))
    for number in range(len(WORDS)):
        examples.append(an_utterance(number, "query", WORDS[number].title()))
        frames.append(spoken([number])[:first_frames] if number == 0 else spoken([number]))
    return FrozenFeatures(
        context=TaskContext(task, (), Times()),
        train=None,
        dev=None,
        test=Frames([LabelledUtterance(each, task.labels(each)) for each in examples], frames),
        seed=0,
        device=torch.device("cpu"),
        memory_bytes=10**8,
    )


def superb_cost(query: NDArray[Any], document: NDArray[Any]) -> float:
    distances = np.exp(cdist(query, document, "cosine")) - 1
    least, most = distances.min(axis=1, keepdims=True), distances.max(axis=1, keepdims=True)
    distances = (distances - least) / (most - least)
    total = distances[0]
    for row in distances[1:]:
        total = np.array([row[place] + total[max(0, place - 2) : place + 1].min() for place in range(len(row))])
    return float(total.min() / len(query))


def queries_of(given: FrozenFeatures, task: QueryByExample) -> list[SearchPrediction]:
    predictions = cast(list[SearchPrediction], task.outcome(given).predictions)
    return [each for each in predictions if each.document is None]


def test_scores_are_those_of_the_recipe_of_superb() -> None:
    given = features()
    every = torch.cat(list(given.test.each()))
    frames = [((each - every.mean(dim=0)) / every.std(dim=0)).numpy() for each in given.test.each()]
    for number, query in enumerate(queries_of(given, QueryByExample())):
        scores = np.array([-superb_cost(frames[20 + number], document) for document in frames[:20]])
        np.testing.assert_allclose(query.scores, (scores - scores.mean()) / scores.std(), atol=1e-3)


def test_terms_are_found_without_noise_and_not_in_noise() -> None:
    task = QueryByExample()
    clean, noisy = (task.measure(task.outcome(features(noise=noise)).predictions, ()) for noise in (0.01, 50.0))
    assert clean["mtwv"].value is not None
    assert clean["mtwv"].value > 0.9
    assert noisy["mtwv"].value is not None
    assert noisy["mtwv"].value < 0.3
    assert clean["mtwv"].counts == {"queries": 6, "documents": 20, "occurrences": 60}


def test_a_query_of_a_few_frames_scores_alike_in_all_documents() -> None:
    first, second, *_ = queries_of(features(first_frames=4), QueryByExample())
    assert set(first.scores) == {0}
    assert len(set(second.scores)) > 10


@pytest.mark.parametrize(
    ("document", "holds"),
    [
        (SearchLabels("document", (), ("THE", "ART", "SHOW")), True),
        (SearchLabels("document", (), ("THE", "SHOW", "ART")), False),
        (SearchLabels("document", (), ("PART", "SHOW")), False),
        (SearchLabels("document", ("ART SHOW", "TEA")), True),
        (SearchLabels("document", ("ART", "SHOW")), False),
    ],
)
def test_a_document_holds_whole_words_in_order(document: SearchLabels, holds: bool) -> None:
    assert document.holds("ART SHOW") is holds


def test_labels_are_read_from_the_attributes_that_are_named() -> None:
    task = QueryByExample(role="part", term="word", terms="words")
    assert task.labels(an_utterance(0, "x", None, part="query", word="Art show!")) == SearchLabels(
        "query", ("ART SHOW",)
    )
    assert task.labels(an_utterance(0, "x", None, part="document", words="art; Art show")) == SearchLabels(
        "document", ("ART", "ART SHOW")
    )
    assert task.labels(an_utterance(0, "x", None, part="noise")) is None
    with pytest.raises(Unlabelled, match="no attribute part"):
        task.labels(an_utterance(0, "x", None))
    with pytest.raises(Unlabelled, match="its term has no words"):
        task.labels(an_utterance(0, "x", None, part="query", word="…"))
    with pytest.raises(Unlabelled, match="no text"):
        QueryByExample().labels(an_utterance(0, "document", None))
    with pytest.raises(UsageError, match=r"`task\.distance` must be cosine_exp or"):
        QueryByExample(distance="kl")


def test_a_speaker_that_is_left_out_takes_its_queries_and_documents() -> None:
    task, given = QueryByExample(), features(noise=1.0)
    predictions = cast(list[SearchPrediction], task.outcome(given).predictions)
    documents = [each.document for each in predictions if each.document is not None and each.speaker != "s1"]
    renumbered = {number: place for place, number in enumerate(documents)}
    # The same search among fewer documents, in which scores keep their standard.
    fewer = [
        replace(
            each,
            document=renumbered.get(each.document) if each.document is not None else None,
            relevant=tuple(renumbered[number] for number in each.relevant if number in renumbered),
            scores=tuple(each.scores[number] for number in documents) if each.scores else (),
        )
        for each in predictions
        if each.speaker != "s1"
    ]
    without = measure_clusters(task, (), predictions).values.without[1]
    expected = task.measure(fewer, ())
    assert without == {name: each.value for name, each in expected.items()}
    assert without != {name: each.value for name, each in task.measure(predictions, ()).items()}


def test_a_search_in_which_nothing_can_be_told_is_refused() -> None:
    given = features()
    of_documents = replace(given, test=Frames(given.test.examples[:20], list(given.test.each())[:20]))
    with pytest.raises(DataError, match="No term of 0 queries occurs in some of 20 documents and not in others"):
        QueryByExample().outcome(of_documents)


def test_shuffled_labels_move_the_terms_of_queries() -> None:
    query, document = SearchLabels("query", ("ART",)), SearchLabels("document", (), ("ART",))
    assert QUERY_BY_EXAMPLE.values(query) == ("ART",)
    assert QUERY_BY_EXAMPLE.with_values(query, iter(["TEA"])) == SearchLabels("query", ("TEA",))
    assert QUERY_BY_EXAMPLE.values(document) == ()
    assert QUERY_BY_EXAMPLE.with_values(document, iter([])) is document


def test_forged_lines_are_found() -> None:
    query = SearchPrediction(
        id="q", speaker="s", group=None, reference="ART", document=None, relevant=(0,), scores=(1.5, -0.5)
    )
    document = SearchPrediction(id="d", speaker="s", group=None, reference=None, document=0, relevant=(), scores=())
    assert SearchPrediction.of_line(json.loads(json.dumps(query.as_line()))) == query
    assert list(QUERY_BY_EXAMPLE.faults([query, document], 0)) == [None, None]
    changes: list[tuple[SearchPrediction, dict[str, Any], str]] = [
        (query, {"relevant": (2,)}, "a relevant document has no score"),
        (query, {"scores": (float("inf"), 0.0)}, "a score is not a finite number"),
        (query, {"reference": None}, "the term is None"),
        (document, {"document": -1}, "the document -1 is none, or one of several of this number"),
        (document, {"scores": (1.0,)}, "a document has scores of its own"),
    ]
    for made, change, fault in changes:
        assert list(QUERY_BY_EXAMPLE.faults([replace(made, **change)], 0)) == [fault]
    assert "one of several" in str(next(iter(QUERY_BY_EXAMPLE.faults([document, document], 0))))


def searched(folder: Path) -> Path:
    """Documents of several tones, each of which stands for a phone, and single tones that are cut as queries."""
    tones = tone_corpus(folder / "tones")
    rows = []
    for number, each in enumerate(tones.utterances):
        phones = [phone for phone in each.phones or () if phone.label != "sil"]
        row = {"path": each.audio.relative_to(folder), "speaker": each.speaker}
        if number % 3:
            rows.append(
                {**row, "id": each.id, "role": "document", "terms": ";".join({phone.label for phone in phones})}
            )
        else:
            cut = phones[number % len(phones)]
            rows.append(
                {
                    **row,
                    "start": str(cut.start_s),
                    "end": str(cut.end_s),
                    "id": f"{each.id}-query",
                    "role": "query",
                    "term": cut.label,
                }
            )
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["path", "speaker", "id", "role", "terms", "start", "end", "term"])
        writer.writeheader()
        writer.writerows(rows)
    manifest.write(CSV.prepare(folder, PrepareOptions(table=folder / "table.csv")), folder / "corpus")
    return folder / "corpus"


@pytest.mark.slow
def test_a_run_is_verified_from_its_predictions(tmp_path: Path) -> None:
    corpus = searched(tmp_path)
    task = QueryByExample(term="term", terms="terms")
    results = {each.id: each for each in DOWNSTREAM_CHECKS.results(DownstreamSubject(task, open_corpus(str(corpus))))}
    assert {id_ for id_, each in results.items() if each.status != "passed"} == {"collapse"}, results
    done = repbench(
        "run", "--upstream", "mfcc", "--downstream", "query-by-example", "--corpus", corpus, "--out", tmp_path / "out",
        "--json", "--set", "task.term=term", "--set", "task.terms=terms",
        env={"REPBENCH_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.code == 0, done.err
    (record,) = done.json["results"]
    assert record["metrics"]["mtwv"]["counts"]["queries"] == 16
    assert record["metrics"]["mtwv"]["ci_unit"] == "speaker"
    verified = repbench("verify", tmp_path / "out")
    assert (verified.code, verified.out.count(": holds (2 metrics")) == (0, 1), verified.err
