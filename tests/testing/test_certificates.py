"""Certificates: kept under a fingerprint, carried by records, void when anything they speak of changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from repbench.benchmark.loading import certificates as certificates
from repbench.benchmark.loading.certificates import Certificate, CheckResult, certificate_file, certificate_id, keep
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.run import RunRequest, run
from repbench.errors import UsageError
from repbench.registry import registry
from repbench.testing import Envelope, tone_corpus
from repbench.testing.certify import certify_downstream, certify_upstream
from tests.commands import repbench

ENVELOPE = "py:repbench.testing.fakes:envelope"
QUICK = Protocol(probe=ProbeSettings(steps=10, batch_frames=64, hidden_units=8, selection_points=1))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))


def made(*statuses: certificates.Status) -> Certificate:
    upstream = Envelope()
    return Certificate(
        kind="upstream",
        name="envelope",
        checkpoint=None,
        fingerprint=upstream.fingerprint(),
        origin={"distribution": "py", "version": "", "file_sha256": None},
        info=certificates.declared_as_json(upstream.info),
        device="cpu",
        repbench="0.1.0",
        results=tuple(CheckResult(id=f"c{n}", status=status, detail="") for n, status in enumerate(statuses)),
    )


def found(upstream: Envelope | None = None, *, file_sha256: str | None = None) -> str | None:
    upstream = upstream or Envelope()
    return certificate_id("upstream", upstream.fingerprint(), upstream.info, file_sha256)


def test_a_certificate_is_found_by_its_fingerprint() -> None:
    certificate = made("passed", "not applicable")

    assert found() is None
    keep(certificate)

    assert found() == certificate.id
    assert found(Envelope(hop_samples=160)) is None


def test_a_certificate_is_of_one_file_and_void_for_another() -> None:
    keep(dataclasses.replace(made("passed"), origin={"distribution": "d", "version": "1", "file_sha256": "a" * 64}))

    assert found(file_sha256="a" * 64) is not None
    assert found(file_sha256="b" * 64) is None


def test_the_id_is_a_digest_of_everything_else() -> None:
    certificate = made("passed")

    assert certificate.id == made("passed").id
    assert len({made("passed", "passed").id, dataclasses.replace(certificate, repbench="9").id, certificate.id}) == 3


def test_what_failed_has_no_certificate_and_loses_an_earlier_one() -> None:
    keep(made("passed"))

    assert keep(made("passed", "failed")) is None
    assert found() is None


def test_what_could_not_be_tried_has_no_certificate_but_for_what_one_can_do_without() -> None:
    certificate = made("passed", "not measurable")
    assert [each.id for each in certificate.untried] == ["c1"]
    assert keep(certificate) is None

    spread = dataclasses.replace(certificate.results[1], id="hop-and-first-centre")
    certificate = dataclasses.replace(certificate, results=(certificate.results[0], spread))
    assert certificate.untried == ()
    assert keep(certificate) is not None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"id": 1}', "edited"])
def test_a_certificate_that_is_not_what_it_says_is_none(damage: str) -> None:
    path = keep(made("passed"))
    assert path is not None
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("0.1.0", "0.2.0") if damage == "edited" else damage, encoding="utf-8")

    assert found() is None


def test_a_suite_that_asks_more_voids_earlier_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(made("passed"))
    monkeypatch.setitem(certificates.SUITES, "upstream", certificates.SUITES["upstream"] + 1)

    assert found() is None


def test_another_declaration_is_not_covered() -> None:
    keep(made("passed"))
    upstream = Envelope()
    upstream.info = dataclasses.replace(upstream.info, first_center_samples=0)

    assert found(upstream) is None


@pytest.mark.slow
def test_a_record_carries_the_id_of_the_certificate_there_is(tmp_path: Path) -> None:
    tone_corpus(tmp_path / "tones", num_speakers=3)
    request = RunRequest(
        upstream=ENVELOPE, downstream="sentiment", corpus=str(tmp_path / "tones"), out=tmp_path, protocol=QUICK
    )

    (before,) = run(request)
    certificate = certify_upstream(ENVELOPE)
    (after,) = run(request)

    assert certificate.passed
    assert (before.record.certificate, after.record.certificate) == (None, certificate.id)


def test_a_record_carries_the_certificate_of_its_task(tmp_path: Path) -> None:
    tone_corpus(tmp_path / "tones", num_speakers=3)
    asked = RunRequest(
        upstream=ENVELOPE, downstream="sentiment", corpus=str(tmp_path / "tones"), out=tmp_path, protocol=QUICK
    )
    other = dataclasses.replace(asked, protocol=QUICK.model_copy(update={"task": {"positive": ["positive"]}}))

    certificate = certify_downstream("sentiment")
    (plain,), (optioned,) = run(asked), run(other)

    assert plain.record.downstream.certificate == certificate.id
    assert optioned.record.downstream.certificate is None


def test_every_record_says_which_files_made_it(tmp_path: Path) -> None:
    tone_corpus(tmp_path / "tones", num_speakers=3)
    (written,) = run(
        RunRequest(upstream="mel", downstream="sentiment", corpus=str(tmp_path / "tones"), out=tmp_path, protocol=QUICK)
    )

    upstream, task = written.record.upstream.origin, written.record.downstream.origin
    assert task is not None
    assert (upstream.distribution, task.distribution) == ("repbench", "repbench")
    assert len({upstream.file_sha256, task.file_sha256, None}) == 3
    assert len(str(upstream.file_sha256)) == 64


def test_a_tasks_certificate_is_kept_under_its_file_and_options() -> None:
    plain = certify_downstream("sentiment")
    other = certify_downstream("sentiment", options={"positive": ["positive"]})

    assert plain.passed
    assert plain.fingerprint != other.fingerprint
    assert certificate_file("downstream", plain.fingerprint).is_file()


def test_frames_of_a_corpus_cannot_be_checked_without_one() -> None:
    with pytest.raises(UsageError, match="`precomputed` reads its frames from a corpus"):
        certify_upstream("precomputed")


@pytest.mark.slow
def test_the_command_prints_a_table_and_the_certificate() -> None:
    done = repbench("check", "upstream", ENVELOPE)

    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split() == ["check", "status", "measured", "allowed", "detail"]
    assert any(line.startswith("num-frames ") and " passed " in line for line in lines)
    file_sha256 = registry().find("upstream", ENVELOPE).entry.file_sha256()
    assert lines[-1] == f"certificate {found(file_sha256=file_sha256)} of upstream {ENVELOPE}"


@pytest.mark.slow
def test_the_command_ends_with_5_and_one_line_if_a_promise_is_broken(tmp_path: Path) -> None:
    plugin = tmp_path / "louder.py"
    plugin.write_text(
        "from repbench.testing import Envelope\n"
        "class Louder(Envelope):\n"
        "    def num_frames(self, num_samples):\n"
        "        return super().num_frames(num_samples) + 1\n"
        "upstreams = {'louder': lambda *, checkpoint=None, seed=0: Louder()}\n"
    )
    told = repbench("check", "upstream", "louder", "--plugin", plugin)
    as_json = repbench("check", "upstream", "louder", "--plugin", plugin, "--json")

    assert (told.code, as_json.code) == (5, 5)
    errors = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: The upstream `louder` breaks 1 of 22 promises: num-frames (key louder). "
        "Correct it, or tell its authors."
    ]
    statuses = {each["id"]: each["status"] for each in as_json.json["certificate"]["results"]}
    assert [id_ for id_, status in statuses.items() if status == "failed"] == ["num-frames"]
    assert (as_json.json["passed"], as_json.json["certificate"]["id"]) == (False, None)
    assert as_json.json["certificate"]["origin"]["distribution"] == "louder.py (unpackaged)"


def test_the_command_checks_tasks_too() -> None:
    done = repbench("check", "downstream", "speaker", "--json")

    assert done.code == 0, done.err
    assert done.json["passed"] is True
    assert done.json["certificate"]["id"]


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_fault_what_a_check_found_is_printed_where_the_certificate_cannot_be_kept(
    as_json: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    place = {"REPBENCH_CACHE": str(tmp_path / "file" / "cache")}
    done = repbench("check", "downstream", "speaker", *as_json, env=place)
    assert done.code == 7
    if as_json:
        assert done.json["passed"]
        assert done.json["error"]["exit_code"] == 7
        assert len(done.json["certificate"]["results"]) > 5
    else:
        assert done.out.count(" passed") > 5
        assert "error: The certificate was not kept: Cannot write here" in done.err
        assert "REPBENCH_CACHE" in done.err


def test_the_command_gives_no_certificate_for_what_it_could_not_try() -> None:
    done = repbench("check", "downstream", "sentiment", "--set", "task.attribute=mood")

    assert done.code == 5
    (line,) = [each for each in done.err.splitlines() if each.startswith("error: ")]
    assert "promises of the downstream `sentiment` could not be tried: " in line
    assert "classes-sorted, labels-inside-the-set" in line
    assert "no attribute mood; take one that has with --corpus, for example `--corpus synthetic:tiny`" in line
    assert "certificate" not in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("check", "upstream", "mell"), 2, ["mell", "Did you mean `mel`"]),
        (("check", "upstream", "mel", "--checkpoint", "x.pt"), 2, ["`mel` has no weights"]),
        (("check", "upstream", "mel", "--plugin", "none.py"), 2, ["no such file", "none.py"]),
        (("check", "downstream", "speaker", "--set", "task.colour=red"), 2, ["cannot take its options"]),
    ],
)
def test_what_cannot_be_checked_is_one_line(arguments: tuple[str, ...], code: int, words: list[str]) -> None:
    done = repbench(*arguments)

    assert (done.code, done.out) == (code, "")
    (line,) = [each for each in done.err.splitlines() if each.startswith("error: ")]
    for word in words:
        assert word in line
