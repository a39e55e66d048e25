"""The manifest: a corpus written down, and opened again.

A manifest is a folder with `corpus.json` (name, licence, root, label sets, what made it) and `manifest.jsonl` (one
utterance a line, its sound by a path relative to the root). `write` reads every sound once and refuses what is broken;
`read` believes nothing it can check without decoding sound.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import itertools
import os
import platform
import secrets
import shutil
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from repbench.audio.sound import Measure, inspect, measure, sample_range
from repbench.corpora.alignments import validate_phones
from repbench.corpora.contract import (
    AttributeValue,
    Corpus,
    Draft,
    DraftUtterance,
    FeatureDeclaration,
    Phone,
    Progress,
    Resample,
    Utterance,
)
from repbench.corpora.features import fault_of_declaration, with_features
from repbench.corpora.lines import Line, format_line, is_attribute, parse_line, portable_line, strict_json
from repbench.corpora.places import Root, is_encodable
from repbench.corpora.sounds import notes_on_sounds
from repbench.corpora.textfiles import nfc
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
}
_OPTIONAL = {"features"}


def write(draft: Draft, out: Path, *, resample: Resample = "allowed", progress: Progress | None = None) -> Corpus:
    """Read every sound of a draft, check all that it says, and write the manifest folder `out`.

    A new folder appears whole or not at all; in one that is a manifest already, each file is replaced whole.

    Args:
        draft: What a layout made of a folder.
        out: The folder of the manifest. It may be an older manifest, empty, or hold the root of the corpus.
        resample: Whether the sound may be resampled to the rate of an upstream.
        progress: Called with (utterances read, all utterances).

    Returns:
        The corpus, as `read` would open it.

    Raises:
        UsageError: `out` holds something else than a manifest.
        DataError: A sound is missing or broken, an id stands twice, the same sound stands under two ids, an alignment
            contradicts its sound, a label is unknown, or a place leads out of the root.
        EnvironmentFault: The disk is full or the place may not be written to.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 - collapses `..` as text, keeps links
    root = _open_root(draft.root)
    _refuse_other_folder(out, root.folder)
    drafts = _unique(draft.utterances)
    measures = _measures_or_first_fault(drafts, progress)
    utterances = tuple(_utterance(item, measure, draft, root) for item, measure in zip(drafts, measures, strict=True))
    _refuse_same_samples(utterances, out)
    utterances, features = with_features(utterances, drafts, draft.features, root)
    label_sets = _label_sets(draft, utterances)
    header = {
        "schema": SCHEMA,
        "name": draft.name,
        "licence": draft.licence,
        "root": _written_root(root.folder, out),
        "label_sets": {kind: list(labels) for kind, labels in label_sets.items()},
        "phone_map": None if draft.phone_map is None else dict(sorted(draft.phone_map.items())),
        "resample": resample,
        "samples_sha256": _samples_digest(utterances),
        "notes": [*draft.notes, *notes_on_sounds(utterances, measures)],
        "tools": _tools(),
    }
    if features is not None:
        header["features"] = asdict(features)
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
    sounds = _open_root(folder / header["root"] if root is None else root)
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


def measure_all(
    utterances: Sequence[Utterance | DraftUtterance], progress: Progress | None = None
) -> Generator[Measure | DataError, None, None]:
    """Decode the sound of each utterance, in their order and a few at a time; a broken one yields its error."""

    def measured(utterance: Utterance | DraftUtterance) -> Measure | DataError:
        try:
            return measure(
                utterance.audio,
                start=utterance.start,
                end=utterance.end,
                utterance=utterance.id,
                channel=utterance.channel,
            )
        except DataError as error:
            return error

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for done, result in enumerate(pool.map(measured, utterances), start=1):
            if progress is not None:
                progress(done, len(utterances))
            yield result


def _measures_or_first_fault(drafts: Sequence[DraftUtterance], progress: Progress | None) -> list[Measure]:
    measures = []
    with contextlib.closing(measure_all(drafts, progress)) as results:
        for result in results:
            if isinstance(result, DataError):
                raise result
            measures.append(result)
    return measures


def _open_root(folder: Path) -> Root:
    if not folder.is_dir():
        do = "Give the folder where the sounds lie now as `root`, or prepare the corpus again"
        raise DataError("The root folder of the corpus does not exist", file=folder, do=do)
    return Root(folder)


def _unique(utterances: Iterable[DraftUtterance]) -> list[DraftUtterance]:
    """The utterances in the order of their ids, which are NFC-normalised and stand once."""
    drafts = sorted((_normalised(utterance) for utterance in utterances), key=lambda utterance: utterance.id)
    if not drafts:
        raise DataError("The corpus has no utterance", do="Check the root")
    for first, second in itertools.pairwise(drafts):
        if first.id == second.id:
            what = f"The id `{first.id}` stands twice: for {first.audio} and for {second.audio}"
            do = "Give every utterance an id of its own; ids that differ only in Unicode form are one"
            raise DataError(what, utterance=first.id, do=do)
    return drafts


def _normalised(draft: DraftUtterance) -> DraftUtterance:
    """The draft under its NFC-normalised id and speaker, after its names have been found fit to be written."""
    for name in ("id", "speaker", "group", "text"):
        value = getattr(draft, name)
        if value is not None and not is_encodable(value):
            do = "Rename it"
            raise DataError(f"`{name}` is not valid UTF-8", file=draft.audio, utterance=draft.id, key=name, do=do)
        if value == "" and name != "text":
            do = "Leave out what is not known; an id must stand"
            raise DataError(f"`{name}` is empty", file=draft.audio, utterance=draft.id, key=name, do=do)
    return replace(draft, id=nfc(draft.id), speaker=None if draft.speaker is None else nfc(draft.speaker))


def _utterance(item: DraftUtterance, measured: Measure, draft: Draft, root: Root) -> Utterance:
    duration_s = measured.num_samples / measured.sample_rate_hz
    place = root.relative(item.audio, utterance=item.id)
    return Utterance(
        id=item.id,
        audio=root.place(place, utterance=item.id),
        start=None if item.start is None else float(item.start),
        end=None if item.end is None else float(item.end),
        sample_rate_hz=measured.sample_rate_hz,
        num_samples=measured.num_samples,
        speaker=item.speaker,
        text=item.text,
        phones=None if item.phones is None else _folded(item.phones, duration_s, item.id, draft.phone_map),
        attributes=_attributes(item),
        group=item.group,
        split=item.split,
        samples_sha256=measured.samples_sha256,
        channel=item.channel if measured.num_channels > 1 else None,
    )


def _written_line(utterance: Utterance, root: Root) -> str:
    features = None if utterance.features is None else root.relative(utterance.features, utterance=utterance.id)
    return format_line(utterance, root.relative(utterance.audio, utterance=utterance.id), features) + "\n"


def _attributes(item: DraftUtterance) -> dict[str, AttributeValue]:
    for name, value in item.attributes.items():
        if not is_attribute(name, value):
            what = f"The attribute `{name}` must be a string or a finite number, but is {value!r}"
            raise DataError(what, utterance=item.id, key="attributes", do="Leave out what is not known")
    return dict(sorted(item.attributes.items()))


def _folded(
    phones: tuple[Phone, ...], duration_s: float, utterance: str, phone_map: Mapping[str, str | None] | None
) -> tuple[Phone, ...]:
    """The phones checked against their sound, under the labels of the corpus; what is not labelled becomes a gap."""
    checked = validate_phones(phones, duration_s, utterance=utterance)
    met = {phone.label for phone in checked}
    known = {label: label for label in met - {""}} if phone_map is None else phone_map
    unknown = sorted(met - set(known))
    if unknown:
        listed = ", ".join(f"`{label}`" for label in unknown)
        what = f"The alignment has phones that the phone map does not know: {listed}"
        raise DataError(what, utterance=utterance, key="phone_map", do="Add them to the map")
    labelled = ((phone, known[phone.label]) for phone in checked)
    return tuple(Phone(phone.start_s, phone.end_s, label) for phone, label in labelled if label is not None)


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


def _refuse_same_samples(utterances: Iterable[Utterance], file: Path) -> None:
    """Refuse the same sound under two ids: one could be trained on and the other scored."""
    seen: dict[str, Utterance] = {}
    for utterance in utterances:
        other = seen.setdefault(utterance.samples_sha256, utterance)
        if other is not utterance:
            named = [f"`{item.id}`" + (f" ({item.split})" if item.split else "") for item in (other, utterance)]
            what = f"The same sound stands under two ids, {named[0]} and {named[1]}"
            raise DataError(what, file=file, utterance=utterance.id, do="Remove one of them")


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
        utterances=utterances,
        label_sets=label_sets,
        resample=header["resample"],
        fingerprint=_fingerprint(utterances, label_sets, features),
        notes=tuple(header["notes"]),
        features=features,
    )


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


def _refuse_other_folder(out: Path, root: Path) -> None:
    """Refuse to write into a folder that is neither new, empty, a manifest, nor the corpus's own."""
    if not os.path.lexists(out) or root.is_relative_to(out):
        return
    if not out.is_dir():
        raise UsageError("The manifest is a folder, but this is not", file=out, key="--out", do="Choose another place")
    names = {path.name for path in out.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)}
    if names and not _is_manifest(out):
        what = "The folder is not empty and is not a manifest"
        raise UsageError(what, file=out, key="--out", do="Choose another place, or empty the folder")


def _is_manifest(folder: Path) -> bool:
    try:
        _read_header(folder)
    except DataError:
        return False
    return True


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
    if not all(isinstance(note, str) for note in header["notes"]):
        raise fault("`notes` must be a list of strings", "notes")
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
    _refuse_same_samples(utterances, path)
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
