"""The manifest: a corpus written down, and opened again.

A manifest is a folder with `corpus.json` (name, licence, root, label sets, what made it) and `manifest.jsonl` (one
utterance a line, its sound by a path relative to the root). `write` reads every sound once and refuses what is broken;
`read` believes nothing it can check without decoding sound.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import platform
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from repbench.audio.sound import inspect, sample_range
from repbench.corpora.contract import (
    Corpus,
    Draft,
    FeatureDeclaration,
    Progress,
    Resample,
    Utterance,
)
from repbench.corpora.faults import leaks, refuse_faults
from repbench.corpora.manifest.feature_column import fault_of_declaration
from repbench.corpora.manifest.intake import Intake
from repbench.corpora.manifest.lines import Line, format_line, is_attribute, parse_line, portable_line, strict_json
from repbench.corpora.safe_paths import Root, is_encodable
from repbench.errors import DataError, UsageError
from repbench.files import TEMPORARY_PREFIX, canonical_json, environment_faults, write_json, write_text

SCHEMA = "repbench.corpus/1"
MANIFEST_FILE = "manifest.jsonl"
HEADER_FILE = "corpus.json"

_HEADER_TYPES: dict[str, type | tuple[type, ...]] = {
    "schema": str,
    "name": str,
    "licence": str,
    "root": str,
    "label_sets": dict,
    "phone_map": (dict, type(None)),
    "resample": str,
    "samples_sha256": str,
    "notes": list,
    "tools": dict,
    "features": dict,
    "links": str,
    "dropped": dict,
    "scales": dict,
}
_OPTIONAL = {"features", "links", "dropped", "scales"}
_CLASSES_OF_OPINION = {"sentiment", "sentiment2", "sentiment3", "sentiment7", "sentiment7_rounded"}


def write(
    draft: Draft,
    out: Path,
    *,
    resample: Resample = "allowed",
    progress: Progress | None = None,
    drop_faulty: int = 0,
    overwrite: bool = False,
) -> Corpus:
    """Read every sound of a draft, check all that it says, and write the manifest folder `out`.

    A new folder appears whole or not at all; in one that is a manifest already, each file is replaced whole. Every
    utterance is looked at before a fault is raised, so that all of them are named at once.

    Args:
        draft: What a layout made of a folder.
        out: The folder of the manifest. It may be an older manifest of the same corpus, empty, or hold the root of the
            corpus.
        resample: Whether the sound may be resampled to the rate of an upstream.
        progress: Called with (utterances read, all utterances).
        drop_faulty: How many faulty utterances may be left out; `corpus.json` names each with the reason.
        overwrite: Whether the manifest of another corpus may be replaced.

    Returns:
        The corpus, as `read` would open it.

    Raises:
        UsageError: `out` holds something else than a manifest, or the manifest of another corpus.
        DataError: A sound is missing or broken, an id stands twice, the same sound stands in two splits, an alignment
            contradicts its sound, a label is unknown, or a place leads out of the root. Several faults are one error
            that counts them by kind and holds each in `faults`.
        IntegrityError: Features are truncated, lie about their size or need code to load.
        EnvironmentFault: The disk is full or the place may not be written to.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 - collapses `..` as text, keeps links
    root = _open_root(draft.root, follow_links=draft.follow_links)
    _refuse_other_folder(out, root.folder, draft.name, overwrite=overwrite)
    intake = Intake(draft, root)
    utterances, features = intake.utterances(progress)
    refuse_faults(
        intake.faults, name=draft.name, num_utterances=intake.num_listed, root=draft.root, allowed=drop_faulty
    )
    label_sets = _label_sets(draft, utterances)
    header: dict[str, Any] = {
        "schema": SCHEMA,
        "name": draft.name,
        "licence": draft.licence,
        "root": _written_root(root.folder, out),
        "label_sets": {kind: list(labels) for kind, labels in label_sets.items()},
        "phone_map": None if draft.phone_map is None else dict(sorted(draft.phone_map.items())),
        "resample": resample,
        "samples_sha256": _samples_digest(utterances),
        "notes": [*draft.notes, *intake.notes(utterances)],
        "tools": _tools(),
    }
    if features is not None:
        header["features"] = asdict(features)
    if draft.follow_links:
        header["links"] = "followed"
    if dropped := intake.dropped():
        header["dropped"] = dropped
    if draft.scales:
        header["scales"] = {name: float(middle) for name, middle in sorted(draft.scales.items())}
    _write_folder(out, "".join(_written_line(item, root) for item in utterances), header)
    return _corpus(header, utterances, label_sets)


def read(folder: Path, *, root: Path | None = None) -> Corpus:
    """Open a manifest. No sound is decoded; a sound that has gone missing is found where it is used.

    Args:
        folder: The folder of the manifest.
        root: The folder under which the sounds lie now; None for the one written in `corpus.json`.

    Raises:
        DataError: The folder is not a manifest, a line is wrong (names file, line and utterance), a place leads out of
            the root, an id or a sound stands twice, or the root is gone.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - collapses `..` as text, keeps links
    header = _read_header(folder)
    sounds = _open_root(folder / header["root"] if root is None else root, follow_links="links" in header)
    utterances = _read_lines(folder / MANIFEST_FILE, sounds)
    if _samples_digest(utterances) != header["samples_sha256"]:
        what = f"`{MANIFEST_FILE}` does not list the sounds that `{HEADER_FILE}` speaks of"
        raise DataError(what, file=folder / MANIFEST_FILE, key="samples_sha256", do="Prepare the corpus again")
    label_sets = {kind: tuple(labels) for kind, labels in header["label_sets"].items()}
    _refuse_unlisted_labels(utterances, label_sets, folder / MANIFEST_FILE)
    _refuse_undeclared_features(utterances, header, folder / MANIFEST_FILE)
    return _corpus(header, utterances, label_sets)


def move(folder: Path, root: Path) -> Corpus:
    """Write into `corpus.json` where the sounds lie now, after every file has been found there.

    Args:
        folder: The folder of the manifest.
        root: The folder under which the sounds lie now.

    Returns:
        The corpus, whose fingerprint is what it was.

    Raises:
        DataError: The folder is not a manifest; or a sound is missing under the new root, or has another rate or
            length than the manifest says. Nothing was written.
        EnvironmentFault: The manifest may not be written to.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - collapses `..` as text, keeps links
    header = _read_header(folder)
    corpus = read(folder, root=root)
    for utterance in corpus.utterances:
        _refuse_other_files(utterance)
    header["root"] = _written_root(_open_root(root).folder, folder)
    write_json(folder / HEADER_FILE, header)
    return corpus


def _refuse_other_files(utterance: Utterance) -> None:
    """Refuse a sound whose header is not what the manifest says, and features that are gone."""
    info = inspect(utterance.audio, utterance=utterance.id, channel=utterance.channel)
    first, last = sample_range(info, utterance.start, utterance.end, path=utterance.audio, utterance=utterance.id)
    found, expected = (last - first, info.sample_rate_hz), (utterance.num_samples, utterance.sample_rate_hz)
    do = "Give the folder that holds the same sounds, or prepare the corpus again"
    if found != expected:
        what = (
            f"The sound has {found[0]} samples at {found[1]} Hz, but the manifest says {expected[0]} at "
            f"{expected[1]} Hz"
        )
        raise DataError(what, file=utterance.audio, utterance=utterance.id, do=do)
    if utterance.features is not None and not utterance.features.is_file():
        raise DataError("The file of features is missing", file=utterance.features, utterance=utterance.id, do=do)


def _open_root(folder: Path, *, follow_links: bool = False) -> Root:
    if not os.path.isdir(folder):  # noqa: PTH112 - `Path.is_dir` raises at names that no file system takes
        do = "Give the folder where the sounds lie now as `root`, or prepare the corpus again"
        raise DataError("The root folder of the corpus does not exist", file=folder, do=do)
    return Root(folder, follow_links=follow_links)


def _written_line(utterance: Utterance, root: Root) -> str:
    features = None if utterance.features is None else root.relative(utterance.features, utterance=utterance.id)
    return format_line(utterance, root.relative(utterance.audio, utterance=utterance.id), features) + "\n"


def _label_sets(draft: Draft, utterances: Sequence[Utterance]) -> dict[str, tuple[str, ...]]:
    label_sets: dict[str, tuple[str, ...]] = {}
    met = {phone.label for utterance in utterances for phone in utterance.phones or ()}
    known = draft.phone_set
    if known is None and draft.phone_map is not None:
        known = tuple({label for label in draft.phone_map.values() if label is not None})
    if known is not None and met - set(known):
        what = f"The alignments have phones that the phone set does not know: {', '.join(sorted(met - set(known)))}"
        raise DataError(what, key="phone_set", do="Add them to the set")
    if known or met:
        label_sets["phones"] = tuple(sorted(set(known or met)))
    speakers = {utterance.speaker for utterance in utterances if utterance.speaker is not None}
    if speakers:
        label_sets["speakers"] = tuple(sorted(speakers))
    return label_sets


def _refuse_unlisted_labels(
    utterances: Iterable[Utterance], label_sets: Mapping[str, tuple[str, ...]], file: Path
) -> None:
    phones, speakers = set(label_sets.get("phones", ())), set(label_sets.get("speakers", ()))
    for utterance in utterances:
        unknown = sorted({phone.label for phone in utterance.phones or ()} - phones)
        if utterance.speaker is not None and utterance.speaker not in speakers:
            unknown.append(utterance.speaker)
        if unknown:
            what = f"Labels that `label_sets` of `{HEADER_FILE}` does not list: {', '.join(unknown)}"
            raise DataError(what, file=file, utterance=utterance.id, do="Prepare the corpus again")


def _refuse_undeclared_features(utterances: Iterable[Utterance], header: Mapping[str, Any], file: Path) -> None:
    having = next((utterance for utterance in utterances if utterance.features is not None), None)
    if having is not None and "features" not in header:
        what = f"The utterance has features, but `{HEADER_FILE}` does not declare what they are"
        raise DataError(what, file=file, utterance=having.id, key="features", do="Prepare the corpus again")


def _corpus(
    header: Mapping[str, Any], utterances: tuple[Utterance, ...], label_sets: Mapping[str, tuple[str, ...]]
) -> Corpus:
    features = FeatureDeclaration(**header["features"]) if "features" in header else None
    return Corpus(
        name=header["name"],
        licence=header["licence"],
        utterances=_on_scales(utterances, header),
        label_sets=label_sets,
        resample=header["resample"],
        fingerprint=_fingerprint(utterances, label_sets, features),
        notes=tuple(header["notes"]),
        features=features,
        dropped=header.get("dropped", {}),
    )


def _on_scales(utterances: tuple[Utterance, ...], header: Mapping[str, Any]) -> tuple[Utterance, ...]:
    """The utterances with the scales that the corpus declares.

    A manifest of `mosi` or `mosei` that was made before scales were declared is known by the classes that these layouts
    put beside the number. Scales are no part of the fingerprint: they say how a number is read, and without one it is
    not read at all.
    """
    scales = header.get("scales")
    if scales is None:
        scales = {"sentiment": 0.0} if utterances[0].attributes.keys() >= _CLASSES_OF_OPINION else {}
    return tuple(replace(utterance, scales=scales) for utterance in utterances) if scales else utterances


def _fingerprint(
    utterances: Iterable[Utterance],
    label_sets: Mapping[str, tuple[str, ...]],
    features: FeatureDeclaration | None,
) -> str:
    """SHA-256 of the label sets, the declared features, and what is true of every utterance wherever its sound lies."""
    digest = hashlib.sha256(canonical_json({kind: list(labels) for kind, labels in label_sets.items()}))
    if features is not None:
        digest.update(b"\n" + canonical_json(asdict(features)))
    for utterance in utterances:
        digest.update(b"\n")
        digest.update(portable_line(utterance).encode("utf-8"))
    return digest.hexdigest()


def _samples_digest(utterances: Iterable[Utterance]) -> str:
    """SHA-256 over the hashes of all samples, in the order of the ids."""
    return hashlib.sha256("\n".join(item.samples_sha256 for item in utterances).encode("ascii")).hexdigest()


def _tools() -> dict[str, str]:
    import soundfile

    return {
        "repbench": metadata.version("repbench"),
        "python": platform.python_version(),
        "soundfile": soundfile.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
    }


def _written_root(root: Path, out: Path) -> str:
    """The root as `corpus.json` holds it: relative where the sounds lie in the manifest's folder and move with it."""
    text = root.relative_to(out).as_posix() if root.is_relative_to(out) else str(root)
    if not is_encodable(text):
        raise DataError("The name of the root folder is not valid UTF-8", file=root, do="Rename it")
    return text


def _refuse_other_folder(out: Path, root: Path, name: str, *, overwrite: bool) -> None:
    """Refuse to write into a folder that holds anything but an older manifest of the corpus, or the corpus itself."""
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise UsageError("The manifest is a folder, but this is not", file=out, key="--out", do="Choose another place")
    names = {path.name for path in out.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)}
    header = manifest_header(out)
    if header is not None:
        _refuse_other_corpus(header, out, root, name, overwrite=overwrite)
    elif root.is_relative_to(out):
        _refuse_foreign_files(names & {MANIFEST_FILE, HEADER_FILE}, out)
    elif names:
        what = "The folder is not empty and is not a manifest"
        raise UsageError(what, file=out, key="--out", do="Choose another place, or empty the folder")


def _refuse_other_corpus(header: Mapping[str, Any], out: Path, root: Path, name: str, *, overwrite: bool) -> None:
    """Refuse to replace the manifest of another corpus: one of another name, or whose sounds lie elsewhere."""
    lies = Path(os.path.abspath(out / header["root"]))  # noqa: PTH100 - as above
    if overwrite or (header["name"] == name and os.path.realpath(lies) == os.path.realpath(root)):
        return
    what = f"The folder holds the manifest of another corpus, {header['name']} of {lies}"
    do = "Choose another --out, or replace it with --overwrite"
    raise UsageError(what, file=out, key="--out", do=do)


def _refuse_foreign_files(names: set[str], out: Path) -> None:
    """Refuse to replace a file of the corpus that only bears the name of a manifest's."""
    for name in sorted(names):
        what = f"The folder of the corpus has a `{name}` of its own, which the manifest would replace"
        raise UsageError(what, file=out / name, key="--out", do="Choose another place")


def _write_folder(out: Path, lines: str, header: Mapping[str, Any]) -> None:
    if out.exists():
        _fill(out, lines, header)
        return
    with environment_faults(out):
        temporary = out.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        temporary.mkdir(parents=True)
    try:
        _fill(temporary, lines, header)
        with environment_faults(out):
            temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary)
        raise


def _fill(folder: Path, lines: str, header: Mapping[str, Any]) -> None:
    """Write the two files; the header comes last, because a folder that has one is a manifest."""
    write_text(folder / MANIFEST_FILE, lines)
    write_json(folder / HEADER_FILE, header)


def lines_digest(folder: Path) -> str | None:
    """SHA-256 of the lines of the manifest in a folder; None where it holds none."""
    path = folder / MANIFEST_FILE
    if manifest_header(folder) is None or not path.is_file():
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def manifest_header(folder: Path) -> dict[str, Any] | None:
    """What the `corpus.json` of a folder says; None where the folder holds no manifest."""
    try:
        return _read_header(folder)
    except DataError:
        return None


def _read_header(folder: Path) -> dict[str, Any]:
    path = folder / HEADER_FILE
    try:
        header = strict_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        do = "Make one with `repbench corpus prepare`"
        raise DataError(f"The folder is not a manifest: it has no `{HEADER_FILE}`", file=folder, do=do) from error
    except ValueError as error:
        raise DataError(f"This is not valid JSON: {error}", file=path, do="Prepare the corpus again") from error
    _refuse_header(header, path)
    checked: dict[str, Any] = header
    return checked


def _refuse_header(header: Any, path: Path) -> None:
    def fault(what: str, key: str) -> DataError:
        return DataError(what, file=path, key=key, do="Prepare the corpus again")

    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise fault(f"`schema` must be `{SCHEMA}`", "schema")
    for key in sorted((set(header) ^ set(_HEADER_TYPES)) - (_OPTIONAL - set(header))):
        raise fault(f"Unknown key `{key}`" if key in header else f"`{key}` is missing", key)
    for key, kind in _HEADER_TYPES.items():
        if key in header and not isinstance(header[key], kind):
            raise fault(f"`{key}` has the wrong type, {type(header[key]).__name__}", key)
    if header["resample"] not in ("allowed", "refused"):
        raise fault("`resample` must be `allowed` or `refused`", "resample")
    if "features" in header and (wrong := fault_of_declaration(header["features"])) is not None:
        raise fault(f"`features`: {wrong}", "features")
    for name, middle in header.get("scales", {}).items():
        if not is_attribute(name, middle) or isinstance(middle, str):
            raise fault(f"`scales.{name}` must be the finite number in the middle of the scale", "scales")
    if not all(isinstance(note, str) for note in header["notes"]):
        raise fault("`notes` must be a list of strings", "notes")
    if header.get("links", "followed") != "followed":
        raise fault("`links` must be `followed`, or left out", "links")
    if not all(isinstance(reason, str) for reason in header.get("dropped", {}).values()):
        raise fault("`dropped` must give a reason for each utterance", "dropped")
    for kind, labels in header["label_sets"].items():
        is_text = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        if not is_text or labels != sorted(set(labels)):
            raise fault(f"`label_sets.{kind}` must be a sorted list of strings, each of them once", "label_sets")


def _read_lines(path: Path, root: Root) -> tuple[Utterance, ...]:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        do = "Make one with `repbench corpus prepare`"
        raise DataError(f"The folder is not a manifest: it has no `{MANIFEST_FILE}`", file=path, do=do) from error
    with _collector_paused():
        parsed = [
            parse_line(line, root, f"{path}:{number}")
            for number, line in enumerate(content.split(b"\n"), start=1)
            if line.strip()
        ]
    if not parsed:
        raise DataError("The manifest lists no utterance", file=path, do="Prepare the corpus again")
    _refuse_same_ids(parsed)
    utterances = tuple(sorted((line.utterance for line in parsed), key=lambda utterance: utterance.id))
    for leak in leaks(utterances):
        raise DataError(leak.what, file=path, utterance=leak.utterance, do="Prepare the corpus again")
    return utterances


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Millions of small objects without a cycle are about to be made; looking through them takes half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _refuse_same_ids(lines: Sequence[Line]) -> None:
    counts = Counter(line.utterance.id for line in lines)
    for line in lines:
        if counts[line.utterance.id] > 1:
            places = ", ".join(other.where for other in lines if other.utterance.id == line.utterance.id)
            what = f"The id `{line.utterance.id}` stands {counts[line.utterance.id]} times: {places}"
            do = "Give every utterance an id of its own; ids that differ only in Unicode form are one"
            raise DataError(what, file=line.where, utterance=line.utterance.id, do=do)
