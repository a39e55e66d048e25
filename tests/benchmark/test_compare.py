"""`repbench compare`: from models and a corpus to `similarity.json`, its figures, and the section of a report."""

from __future__ import annotations

import json
import xml.etree.ElementTree as Xml
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repbench.benchmark.comparison.request import CompareRequest
from repbench.benchmark.comparison.run import Comparison, compare
from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.report import ReportRequest, assemble, write_report
from repbench.benchmark.report.render import html
from repbench.benchmark.report.render.similarity import figures_of, tables_of
from repbench.benchmark.similarity.document import (
    SIMILARITY_FILE,
    ComparedUpstream,
    LayerMatrix,
    Similarity,
    Value,
    read_similarity,
    sealed,
)
from repbench.errors import DataError, IntegrityError, PluginError, UsageError
from repbench.testing import Envelope, tone_corpus
from tests.benchmark.report_records import small_grid, write
from tests.commands import repbench

ENVELOPE = "py:repbench.testing.fakes:envelope"
TRAINED = "py:tests.benchmark.test_compare:trained"


def trained(*, checkpoint: str | None = None, seed: int = 0) -> Envelope:
    """An `Envelope` whose projection is another one where it is untrained."""
    model = Envelope().eval()
    if checkpoint == "random":
        torch.nn.init.normal_(model.projection, generator=torch.Generator().manual_seed(seed + 1))
    return model


class Notes:
    """A reporter that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage(self, title: str) -> Any:
        from repbench.progress import Silence

        return Silence().stage(title)

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("compared") / "tones"
    tone_corpus(folder, num_speakers=6)
    return str(folder)


def request(corpus: str, out: Path, **changes: Any) -> CompareRequest:
    given: dict[str, Any] = {"first": ENVELOPE, "second": "mel", "most_frames": 1500, "num_clusters": 8}
    return CompareRequest(corpus=corpus, out=out, device="cpu", **{**given, **changes})


@pytest.fixture(scope="module")
def compared(tones: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    """Every measure of two models, with mel, phones and controls."""
    out = tmp_path_factory.mktemp("compared") / "all"
    every = ("cka", "cca", "svcca", "pwcca")
    wanted = request(tones, out, measures=every, against=("mel", "phones"), controls=True)
    return compare(wanted), out


def matrix_of(similarity: Similarity, measure: str) -> list[list[float | None]]:
    found = next(each for each in similarity.matrices if each.measure == measure)
    return [[value.value for value in row] for row in found.values]


def profile_of(similarity: Similarity, against: str, measure: str, labels: str = "given") -> list[float]:
    found = [
        each
        for each in similarity.profiles
        if (each.against, each.measure, each.labels, each.upstream) == (against, measure, labels, 0)
    ]
    assert len(found) == 1
    return [value.value or 0.0 for value in found[0].values]


# Numbers


def test_each_layer_is_compared_with_each_by_every_measure(compared: tuple[Comparison, Path]) -> None:
    similarity, _ = compared[0].similarity, compared[1]
    assert [each.measure for each in similarity.matrices] == ["cka", "cca", "svcca", "pwcca"]
    assert [(each.title, each.role, each.layers) for each in similarity.upstreams[:2]] == [
        ("py:envelope", "a", ("energy", "projected")),
        ("mel", "b", ("mel",)),
    ]
    for matrix in similarity.matrices:
        assert (len(matrix.values), len(matrix.values[0])) == (2, 1)
        for (value,) in matrix.values:
            assert value.value is not None
            assert value.ci95 is not None
            assert value.ci95[0] < value.value < value.ci95[1]
    # A projection by an invertible matrix changes CKA, and no canonical correlation.
    energy, projected = (row[0] for row in matrix_of(similarity, "cca"))
    assert energy == pytest.approx(projected, abs=1e-3)
    energy, projected = (row[0] for row in matrix_of(similarity, "cka"))
    assert energy != pytest.approx(projected, rel=1e-4)


def test_profiles_are_higher_than_those_of_shuffled_labels(compared: tuple[Comparison, Path]) -> None:
    similarity = compared[0].similarity
    for measure in ("cka", "pwcca", "mi"):
        given = profile_of(similarity, "phones", measure)
        shuffled = profile_of(similarity, "phones", measure, "shuffled")
        assert min(given) > max(shuffled) + 0.1, measure
    assert profile_of(similarity, "mel", "cka") == [row[0] for row in matrix_of(similarity, "cka")]
    assert not [each for each in similarity.profiles if each.against == "mel" and each.upstream == 1]


def test_mel_is_loaded_once_and_profiled_where_it_is_compared(compared: tuple[Comparison, Path]) -> None:
    similarity = compared[0].similarity
    assert [each.role for each in similarity.upstreams] == ["a", "b"]
    assert {each.upstream for each in similarity.profiles if each.against == "phones"} == {0, 1}


def test_a_model_with_itself(tones: str, tmp_path: Path) -> None:
    wanted = request(tones, tmp_path, second=ENVELOPE, against=("mel",))
    similarity = compare(wanted).similarity
    assert [each.role for each in similarity.upstreams] == ["a", "reference"]
    cka, pwcca = matrix_of(similarity, "cka"), matrix_of(similarity, "pwcca")
    for values in (cka, pwcca):
        assert [values[0][0], values[1][1]] == pytest.approx([1.0, 1.0], abs=1e-9)
    assert cka[0][1] == cka[1][0]
    assert pwcca[0][1] == pytest.approx(1.0, abs=1e-3)
    assert {each.upstream for each in similarity.profiles} == {0}


def test_the_sample_is_the_same_for_other_models(compared: tuple[Comparison, Path], tones: str, tmp_path: Path) -> None:
    other = compare(request(tones, tmp_path, first="mfcc", measures=("cka",))).similarity
    assert other.sample.sha256 == compared[0].similarity.sample.sha256
    assert other.sample.n_frames == 1500
    assert other.sample.interval_unit == "speaker"
    assert other.sample.n_clusters == 6
    changed = compare(request(tones, tmp_path / "seed", first="mfcc", measures=("cka",), seed=1)).similarity
    assert changed.sample.sha256 != other.sample.sha256


def test_the_same_comparison_has_the_same_numbers(
    compared: tuple[Comparison, Path], tones: str, tmp_path: Path
) -> None:
    every = compared[0].similarity
    again = compare(request(tones, tmp_path, measures=("pwcca",), against=("phones",))).similarity
    assert matrix_of(again, "pwcca") == matrix_of(every, "pwcca")
    assert profile_of(again, "phones", "mi") == profile_of(every, "phones", "mi")


@pytest.mark.slow
def test_words_are_compared_by_their_means(tmp_path: Path) -> None:
    wanted = request("synthetic:words:tiny", tmp_path, first="mel_no_cmvn", measures=("cka",), against=("words",))
    similarity = compare(replace(wanted, controls=True)).similarity
    assert similarity.sample.n_classes["words"] > 5
    assert 0 < similarity.sample.n_labelled["words"] <= similarity.sample.n_utterances
    for measure in ("cka", "mi"):
        given, shuffled = (profile_of(similarity, "words", measure, labels) for labels in ("given", "shuffled"))
        assert given[0] > 1.2 * shuffled[0], measure


def test_untrained_twins_are_controls_once(tones: str, tmp_path: Path) -> None:
    wanted = request(tones, tmp_path, first=TRAINED, measures=("cka",), against=("phones",), controls=True)
    similarity = compare(wanted).similarity
    assert [(each.title, each.role) for each in similarity.upstreams] == [
        ("py:trained", "a"),
        ("mel", "b"),
        ("py:trained (untrained)", "control"),
    ]
    given = [each for each in similarity.profiles if (each.measure, each.labels) == ("cka", "given")]
    cka = {each.upstream: each.values for each in given}
    assert cka[0][0] == cka[2][0]
    assert cka[0][1] != cka[2][1]
    with_twin = compare(replace(wanted, second=TRAINED, second_checkpoint="random", out=tmp_path / "twin")).similarity
    assert [each.role for each in with_twin.upstreams] == ["a", "b"]


def test_a_model_that_is_its_own_twin_is_told(tones: str, tmp_path: Path) -> None:
    notes = Notes()
    wanted = request(tones, tmp_path, measures=("cka",), against=("phones",), controls=True)
    assert len(compare(wanted, notes).similarity.upstreams) == 2
    assert f"note: `{ENVELOPE}` has the same weights where it is to be untrained" in notes.lines


def test_one_layer_of_each(tones: str, tmp_path: Path) -> None:
    wanted = request(tones, tmp_path, second=ENVELOPE, layers=("last", "energy"), measures=("cka",))
    assert compare(wanted).similarity.upstreams[0].layers == ("energy", "projected")
    wanted = request(tones, tmp_path / "one", second=ENVELOPE, layers=("last",), measures=("cka",))
    assert compare(wanted).similarity.upstreams[0].layers == ("projected",)


# Faults


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measures": ("cak",)}, r"no `cak`.*Did you mean `cka`\? Choose of cka, cca, svcca, pwcca"),
        ({"measures": ("mi",)}, "no `mi`"),
        ({"measures": ()}, "no measure"),
        ({"against": ("phone",)}, "Did you mean `phones`"),
        ({"controls": True}, "Controls are of the profiles"),
        ({"layers": ("7",)}, "has no layer `7`"),
        ({"layers": ("mean",)}, "a mix of all"),
        ({"second": "mell"}, "mell"),
    ],
)
def test_what_does_not_exist_is_refused_before_the_corpus_is_opened(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        compare(request("no-such-corpus", tmp_path, **changes))


def test_a_corpus_without_labels_is_refused(tones: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No utterance of tones has an attribute word"):
        compare(request(tones, tmp_path, against=("words",)))


def test_too_few_utterances_for_cca_are_refused(tmp_path: Path) -> None:
    tone_corpus(tmp_path / "few", num_speakers=2, sessions=1)
    with pytest.raises(DataError, match=r"10 parts, but there are 8.*--measure cka"):
        compare(request(str(tmp_path / "few"), tmp_path / "out"))
    few = compare(request(str(tmp_path / "few"), tmp_path / "out", measures=("cka",)))
    assert matrix_of(few.similarity, "cka")[0][0] is not None


def test_one_speaker_has_no_interval_and_a_note(tmp_path: Path) -> None:
    tone_corpus(tmp_path / "one", num_speakers=1, sessions=1)
    notes = Notes()
    similarity = compare(request(str(tmp_path / "one"), tmp_path / "out", measures=("cka",)), notes).similarity
    assert similarity.matrices[0].values[0][0].ci95 is None
    assert "note: there are no two speakers or groups, so there are no intervals" in notes.lines
    assert similarity.warnings[-1].startswith("there are no two speakers")


# Files


def test_the_files_are_those_that_are_said(compared: tuple[Comparison, Path]) -> None:
    comparison, out = compared
    assert sorted(comparison.files) == sorted(out.iterdir())
    assert {each.name for each in comparison.files} >= {SIMILARITY_FILE, "cka.svg", "phones-mi.svg", "mel-pwcca.svg"}
    assert read_similarity(out / SIMILARITY_FILE) == comparison.similarity
    fields = json.loads((out / SIMILARITY_FILE).read_text(encoding="utf-8"))
    assert fields["schema"] == "repbench.similarity/1"
    assert fields["settings"]["epsilons"][0] == 1e-11
    for path in out.glob("*.svg"):
        root = Xml.fromstring(path.read_bytes())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        text = "".join(root.itertext())
        assert "layer of" in text or "layer" in text


def test_a_heat_map_has_a_value_in_each_cell_and_both_names(compared: tuple[Comparison, Path]) -> None:
    figure = figures_of(compared[0].similarity)[0]
    root = Xml.fromstring(figure.svg)
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    for row in matrix_of(compared[0].similarity, "cka"):
        assert f"{row[0]:.2f}" in texts
    assert {"energy", "projected", "mel", "layer of mel"} <= set(texts)


def test_results_go_to_a_folder_that_follows_from_the_comparison(
    tones: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = replace(request(tones, tmp_path, first="mfcc", measures=("cka",)), out=None)
    first, second = compare(wanted), compare(wanted)
    assert first.files == second.files
    assert first.files[0].parent.parent == Path("runs/similarity")
    assert first.files[0].parent.name.startswith("mfcc-mel-tones-")
    assert compare(replace(wanted, seed=1)).files != first.files


def test_files_of_an_earlier_comparison_are_replaced_with_a_note(tones: str, tmp_path: Path) -> None:
    notes = Notes()
    compare(request(tones, tmp_path, measures=("cka",)), notes)
    compare(request(tones, tmp_path, measures=("cka",), seed=3), notes)
    assert f"note: 2 files of an earlier comparison in {tmp_path} were replaced" in notes.lines


@pytest.mark.parametrize("name", [SIMILARITY_FILE, "cka.svg"])
def test_files_of_others_are_not_replaced(tones: str, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="`repbench compare` did not make this file"):
        compare(request(tones, tmp_path, measures=("cka",)))
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["mine"]


def test_a_changed_number_is_found(compared: tuple[Comparison, Path], tmp_path: Path) -> None:
    fields = json.loads((compared[1] / SIMILARITY_FILE).read_text(encoding="utf-8"))
    fields["matrices"][0]["values"][0][0]["value"] = 0.99
    path = tmp_path / SIMILARITY_FILE
    path.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(IntegrityError, match="changed: its content calls for the id"):
        read_similarity(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields.pop("sample"), "Field required.*key sample"),
        (lambda fields: fields["matrices"][0].update(second=9), "does not exist"),
        (lambda fields: fields["matrices"][0]["values"].pop(), "one value for each pair of layers"),
        (lambda fields: fields["matrices"][0]["values"][0].pop(), "one value for each pair of layers"),
        (lambda fields: fields["profiles"][0]["values"].pop(), "one value for each layer"),
        (lambda fields: fields["profiles"][0].update(measure="guess"), "does not exist"),
        (lambda fields: fields.update(schema="repbench.similarity/9"), "similarity/1"),
    ],
)
def test_a_file_that_is_none_is_refused(
    change: Any, message: str, compared: tuple[Comparison, Path], tmp_path: Path
) -> None:
    fields = json.loads((compared[1] / SIMILARITY_FILE).read_text(encoding="utf-8"))
    change(fields)
    path = tmp_path / SIMILARITY_FILE
    path.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_similarity(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="no file of `repbench compare`"):
        read_similarity(path)


# The report


@pytest.fixture(scope="module")
def runs(compared: tuple[Comparison, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records, and beside them the comparison."""
    folder = tmp_path_factory.mktemp("reported")
    small_grid(folder / "records")
    target = folder / "records" / "similarity" / SIMILARITY_FILE
    target.parent.mkdir()
    target.write_bytes((compared[1] / SIMILARITY_FILE).read_bytes())
    return folder / "records"


@pytest.mark.slow
def test_a_report_shows_the_comparisons_below_its_folders(
    runs: Path, compared: tuple[Comparison, Path], tmp_path: Path
) -> None:
    written = write_report(ReportRequest(runs=(runs,), out=tmp_path))
    (found,) = written.report.similarities
    assert found.similarity == compared[0].similarity
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert '<h2 id="similarity">Similarity of layers</h2>' in page
    assert '<a href="#similarity">' in page
    for figure in figures_of(found.similarity, "0-"):
        assert f'aria-labelledby="{figure.key}-title' in page
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    latex = (tmp_path / "report.tex").read_text(encoding="utf-8")
    for table in tables_of(found.similarity):
        assert f"## {table.title}".replace("_", r"\_").replace("(", r"\(").replace(")", r"\)") in markdown
        assert table.title in latex
    fields = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    (entry,) = fields["similarities"]
    assert Path(entry.pop("path")).name == SIMILARITY_FILE
    assert entry == compared[0].similarity.as_dict()


@pytest.mark.slow
def test_a_report_without_comparisons_has_no_word_of_them(tmp_path: Path) -> None:
    small_grid(tmp_path / "records")
    write_report(ReportRequest(runs=(tmp_path / "records",), out=tmp_path / "report"))
    for path in (tmp_path / "report").iterdir():
        assert "similarit" not in path.read_text(encoding="utf-8").lower(), path


def test_a_comparison_that_was_changed_is_left_out_of_a_report(runs: Path, tmp_path: Path) -> None:
    small_grid(tmp_path / "records")
    fields = json.loads((runs / "similarity" / SIMILARITY_FILE).read_text(encoding="utf-8"))
    fields["sample"]["n_frames"] += 1
    changed = tmp_path / "records" / SIMILARITY_FILE
    changed.write_text(json.dumps(fields), encoding="utf-8")
    report = assemble([tmp_path / "records"])
    assert not report.similarities
    assert "was changed" in report.gathered.unreadable[changed]


def test_a_comparison_can_be_named_itself_and_counts_once(runs: Path, tmp_path: Path) -> None:
    record = write(tmp_path)
    one, copy = runs / "similarity" / SIMILARITY_FILE, tmp_path / "copy" / SIMILARITY_FILE
    copy.parent.mkdir()
    copy.write_bytes(one.read_bytes())
    report = assemble([record, one, one.parent, copy])
    assert len(report.similarities) == 1
    assert report.num_records == 1


@pytest.mark.slow
def test_names_of_a_comparison_are_text(compared: tuple[Comparison, Path], tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    base = compared[0].similarity
    parts = tuple(each.model_copy(update={"title": f"{hostile} {n}"}) for n, each in enumerate(base.upstreams))
    path = tmp_path / SIMILARITY_FILE
    path.write_bytes(sealed(base.model_copy(update={"upstreams": parts})).content())
    write(tmp_path)
    assert hostile not in html.results(assemble([tmp_path]))


def many_layers(base: Similarity, count: int) -> Similarity:
    layers = tuple(f"layer{number}" for number in range(count))
    model = ComparedUpstream(
        title="big", name="big", checkpoint=None, fingerprint="f", origin={}, layers=layers, width=8, role="a"
    )
    values = tuple(tuple(Value(value=1 - abs(r - c) / count, ci95=None) for c in range(count)) for r in range(count))
    matrix = LayerMatrix(first=0, second=0, measure="cka", values=values)
    return sealed(base.model_copy(update={"upstreams": (model,), "matrices": (matrix,), "profiles": ()}))


@pytest.mark.parametrize(("count", "has_numbers"), [(25, True), (49, False)])
def test_a_large_matrix_is_a_few_elements_with_numbers_or_a_scale(
    compared: tuple[Comparison, Path], count: int, has_numbers: bool
) -> None:
    (figure,) = figures_of(many_layers(compared[0].similarity, count))
    root = Xml.fromstring(figure.svg)
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert (sum(text == "1.00" for text in texts) == count) == has_numbers
    assert ("0.25" in texts) == (not has_numbers)
    filled = [element for element in root.iter() if element.tag.endswith("path") and "f-s0" in element.get("class", "")]
    assert 10 < len(filled) < 30


# The command


def test_the_command_prints_tables_or_one_object(tones: str, tmp_path: Path) -> None:
    common = ("mfcc", "mel", "--corpus", tones, "--measure", "cka", "--frames", "400", "--out", tmp_path)
    printed = repbench("compare", *common)
    assert printed.code == 0, printed.err
    assert "CKA: mfcc and mel, tones" in printed.out
    assert str(tmp_path / SIMILARITY_FILE) in printed.out
    as_json = repbench("compare", *common, "--json")
    assert as_json.json["files"][0] == str(tmp_path / SIMILARITY_FILE)
    value = np.float64(as_json.json["similarity"]["matrices"][0]["values"][0][0]["value"])
    assert f"{value:.3f}" in printed.out


def test_a_setting_that_has_no_effect_is_refused(tmp_path: Path) -> None:
    refused = repbench("compare", "mel", "mfcc", "--set", "probe.steps=3", "--out", tmp_path)
    assert refused.code == 2
    assert "`probe.steps` has no effect here" in refused.err


def test_features_are_rounded_as_the_protocol_has_it(tones: str, tmp_path: Path) -> None:
    protocol = load_protocol("default", None, ["extraction.dtype=bfloat16"])
    rounded = compare(request(tones, tmp_path, measures=("cka",), protocol=protocol)).similarity
    assert rounded.settings["extraction"]["dtype"] == "bfloat16"
    exact = compare(request(tones, tmp_path / "exact", measures=("cka",))).similarity
    assert matrix_of(rounded, "cka")[0][0] != matrix_of(exact, "cka")[0][0]


def test_a_model_that_breaks_its_contract_is_named(tones: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no_such"):
        compare(request(tones, tmp_path, first="py:repbench.testing.fakes:no_such"))
