"""The readers, and the inputs of theirs that are mutated: files as the tests of each reader write them.

Imports stand in the functions: a worker reads one kind of file and shall start fast.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repbench.errors import RepbenchError

Read = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """One file that a reader reads, in a folder of its own, and its content before it is mutated.

    Attributes:
        path: Of the file.
        read: Reads it where it lies.
        content: What it holds.
        may_be_refused: Whether the reader may refuse it unchanged: a format that it does not read yet.
        refuse_passed: Raises AssertionError where a changed content may not be read without an error.
    """

    path: Path
    read: Read
    content: bytes
    may_be_refused: bool = False
    refuse_passed: Callable[[bytes], None] | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self.path.name

    @property
    def is_json(self) -> bool:
        """Whether it holds JSON, or lines of it."""
        return self.path.suffix in (".json", ".jsonl")

    def read_unchanged(self, refusals: tuple[type[Exception], ...]) -> None:
        """Read it before it is mutated: what is refused already says nothing of its reader."""
        try:
            self.read()
        except refusals:
            if not self.may_be_refused:
                raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A reader.

    Attributes:
        name: On the command line.
        seeds: Writes its inputs into a folder.
        refusals: What it may raise.
        weight: The share of the budget: many for fast readers, few for slow ones.
    """

    name: str
    seeds: Callable[[Path], list[Seed]]
    refusals: tuple[type[Exception], ...] = (RepbenchError,)
    weight: float = 1.0


def _seed(path: Path, read: Read, **options: Any) -> Seed:
    return Seed(path=path, read=read, content=path.read_bytes(), **options)


def _sounds(folder: Path) -> list[Seed]:
    import numpy as np
    import soundfile

    from repbench.audio.sound import inspect, measure
    from tests.corpora.sounds import sphere_bytes

    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 1000)
    forms = {
        "pcm16.wav": ("WAV", "PCM_16"), "pcm24.wav": ("WAVEX", "PCM_24"), "float.wav": ("WAV", "FLOAT"),
        "ulaw.wav": ("WAV", "ULAW"), "rf64.wav": ("RF64", "PCM_16"), "a.flac": ("FLAC", "PCM_16"),
        "b.flac": ("FLAC", "PCM_24"), "a.mp3": ("MP3", "MPEG_LAYER_III"), "a.ogg": ("OGG", "VORBIS"),
        "a.opus": ("OGG", "OPUS"), "a.aiff": ("AIFF", "PCM_16"), "a.au": ("AU", "PCM_16"),
    }  # fmt: skip
    paths = []
    for name, (form, subtype) in forms.items():
        with (folder / name).open("wb") as stream:
            soundfile.write(stream, noise, 16_000, format=form, subtype=subtype)
        paths.append(folder / name)
    (folder / "sphere.wav").write_bytes(sphere_bytes((noise * 2**15).astype(np.int64)))
    paths.append(folder / "sphere.wav")

    def read(path: Path) -> Read:
        def both() -> None:
            inspect(path)
            measure(path, start=0.01, end=0.05)
            measure(path)

        return both

    return [_seed(path, read(path), may_be_refused=path.suffix not in (".wav", ".flac")) for path in paths]


def _textgrids(folder: Path) -> list[Seed]:
    from repbench.corpora.alignments.textgrid import read_phones
    from tests.corpora.sounds import long_textgrid, short_textgrid

    phones = [(0.0, 0.1, "sil"), (0.1, 0.25, "AA1"), (0.25, 0.4, 'S"'), (0.4, 0.5, "")]
    texts = {"long": long_textgrid(phones).encode(), "short": short_textgrid(phones).encode()}
    texts["wide"] = long_textgrid(phones).encode("utf-16")
    seeds = []
    for name, content in texts.items():
        path = folder / f"{name}.TextGrid"
        path.write_bytes(content)
        seeds.append(_seed(path, lambda path=path: read_phones(path, 0.5)))  # type: ignore[misc]
    return seeds


def _alignments(folder: Path) -> list[Seed]:
    from repbench.corpora.alignments import align
    from tests.corpora.alignment_files import FORMATS
    from tests.corpora.sounds import noise_draft

    draft = noise_draft(folder / "sounds", ["a", "b"])
    intervals = {name: [(0.0, 0.2, "sil"), (0.2, 0.35, "AA1"), (0.35, 0.5, "S")] for name in "ab"}
    seeds = []
    for number, form in enumerate(FORMATS.values()):
        place = form.save(folder / f"{number}", intervals)
        path = place if place.is_file() else sorted(place.iterdir())[0]
        seeds.append(_seed(path, lambda place=place: align(draft, place)))  # type: ignore[misc]
    return seeds


def _manifest(folder: Path) -> list[Seed]:
    from repbench.corpora import manifest
    from tests.corpora.sounds import noise_draft

    manifest.write(noise_draft(folder / "sounds"), folder / "manifest")
    return [
        _seed(folder / "manifest" / name, lambda: manifest.read(folder / "manifest"))
        for name in (manifest.MANIFEST_FILE, manifest.HEADER_FILE)
    ]


def _index(folder: Path) -> list[Seed]:
    from repbench.corpora import manifest
    from repbench.corpora.manifest import index, index_file, indexed
    from tests.corpora.test_manifest_index import RARE, written

    index.SMALLEST_BYTES = 0
    whole = written(folder, RARE) / index.INDEX_FILE
    manifest.read(whole.parent)
    content = whole.read_bytes()
    table, sealed = folder / "table.json", folder / "sealed.index"
    table_at = len(content) - 40 - struct.unpack("<Q", content[-40:-32])[0]
    table.write_bytes(content[table_at:-40])

    def read(path: Path) -> None:
        try:
            for utterance in indexed.Columns(index_file.IndexFile.open(path), "/").utterances():
                repr(utterance)
        except index_file.DamagedIndexError as error:
            raise NoticedError(str(error)) from error

    def read_sealed() -> None:
        changed = table.read_bytes()
        end = struct.pack("<Q", len(changed)) + hashlib.sha256(changed).digest()
        sealed.write_bytes(content[:table_at] + changed + end)
        read(sealed)

    def refuse_passed(changed: bytes) -> None:
        assert changed == content, "a changed index was read"

    return [_seed(whole, lambda: read(whole), refuse_passed=refuse_passed), _seed(table, read_sealed)]


def _tables(folder: Path) -> list[Seed]:
    import shutil

    from repbench.corpora import manifest
    from repbench.corpora.contract import CorpusLayout, PrepareOptions
    from repbench.corpora.layouts.commonvoice import COMMON_VOICE
    from repbench.corpora.layouts.csv_table import CSV
    from repbench.corpora.layouts.fleurs import FLEURS
    from repbench.corpora.layouts.iemocap import IEMOCAP
    from repbench.corpora.layouts.kaldi import KALDI
    from repbench.corpora.layouts.snips import LABELS, SNIPS
    from repbench.corpora.layouts.speech_commands import SPEECH_COMMANDS
    from repbench.corpora.layouts.voxceleb import VOXCELEB
    from repbench.corpora.manifest.subsets import read_lists
    from repbench.corpora.rttm import with_turns
    from tests.corpora.sounds import write_noise, write_text

    for seed, name in enumerate("ab"):
        write_noise(folder / f"{name}.wav", seed=seed)
        write_noise(folder / "vox" / "wav" / f"id1000{seed + 1}" / "x" / "00001.wav", seed=seed)

    def prepared(layout: CorpusLayout, root: Path, options: PrepareOptions) -> Read:
        def read() -> None:
            shutil.rmtree(folder / "manifest", ignore_errors=True)  # it may be of another corpus
            manifest.write(layout.prepare(root, options), folder / "manifest")

        return read

    rows = ("path,speaker,start,end,split,emotion", 'a.wav,"s, a",0.0,0.25,train,happy', "b.wav,sb,0.1,0.5,test,sad")
    seeds = [
        _seed(
            write_text(folder / "table.csv", *rows), prepared(CSV, folder, PrepareOptions(table=folder / "table.csv"))
        )
    ]
    jsonl = write_text(
        folder / "metadata.jsonl",
        '{"file_name": "a.wav", "speaker": "sa", "start": 0.0, "end": 0.25, "split": "train", "emotion": "happy"}',
        '{"file_name": "b.wav", "speaker": "sb", "start": 0.1, "end": 0.5, "split": "test", "emotion": "sad"}',
    )
    seeds.append(_seed(jsonl, prepared(CSV, folder, PrepareOptions(table=jsonl))))
    data = folder / "data"
    kaldi = {
        "wav.scp": ("a a.wav", "b b.wav"),
        "segments": ("u1 a 0.0 0.25", "u2 b 0.1 0.5"),
        "utt2spk": ("u1 s1", "u2 s2"),
        "text": ("u1 one word", "u2 two"),
        "spk2gender": ("s1 f", "s2 m"),
        "reco2file_and_channel": ("a a A", "b b 1"),
    }
    paths = [write_text(data / name, *lines) for name, lines in kaldi.items()]
    seeds += [_seed(path, prepared(KALDI, folder, PrepareOptions(table=data))) for path in paths]
    meta = write_text(
        folder / "vox" / "vox1_meta.csv",
        "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet",
        "id10001\tA\tm\tIreland\tdev",
        "id10002\tB\tf\tUSA\ttest",
    )
    seeds.append(_seed(meta, prepared(VOXCELEB, folder / "vox", PrepareOptions())))
    turn = "Ses01F_impro01_F000"
    write_noise(folder / "emotion" / "Session1" / "sentences" / "wav" / turn[:-5] / f"{turn}.wav", seed=2)
    labels = folder / "emotion" / "Session1" / "dialog" / "EmoEvaluation" / f"{turn[:-5]}.txt"
    write_text(labels, "% [START_TIME - END_TIME] TURN_NAME", f"[6.29 - 8.23]\t{turn}\tneu\t[2.5, 2.5, 2.5]")
    seeds.append(_seed(labels, prepared(IEMOCAP, folder / "emotion", PrepareOptions())))
    write_noise(folder / "snips" / "train" / "Ivy-snips-train-0.wav", seed=3)
    slots = write_text(folder / "snips" / LABELS, "Ivy-snips-train-0 BOS PLAY NINA EOS\tO O B-artist PlayMusic")
    seeds.append(_seed(slots, prepared(SNIPS, folder / "snips", PrepareOptions())))
    words = ("yes/0a7c2a8d_nohash_0.wav", "yes/0b40aa8e_nohash_1.wav", "no/0c40e715_nohash_0.wav")
    for seed, name in enumerate(words, start=4):
        write_noise(folder / "words" / name, seed=seed)
    write_text(folder / "words" / "testing_list.txt", words[2])
    validation = write_text(folder / "words" / "validation_list.txt", words[1])
    seeds.append(_seed(validation, prepared(SPEECH_COMMANDS, folder / "words", PrepareOptions())))
    for seed, part in enumerate(("train", "dev", "test"), start=7):
        write_noise(folder / "fleurs" / "en_us" / "audio" / part / f"{part}.wav", seed=seed)
        row = f"12\t{part}.wav\tA tree.\ta tree\ta | t r e e |\t8000\tFEMALE"
        tsv = write_text(folder / "fleurs" / "en_us" / f"{part}.tsv", row)
    seeds.append(_seed(tsv, prepared(FLEURS, folder / "fleurs", PrepareOptions())))
    for seed, part in enumerate(("train", "dev", "test"), start=10):
        write_noise(folder / "cv" / "clips" / f"{part}.wav", seed=seed)
        clips = write_text(
            folder / "cv" / f"{part}.tsv", "client_id\tpath\tsentence\tgender", f"c\t{part}.wav\tHi\tmale"
        )
    seeds.append(_seed(clips, prepared(COMMON_VOICE, folder / "cv", PrepareOptions())))
    spoken = ("SPEAKER a 1 0.1 0.2 <NA> <NA> x <NA> <NA>", "SPEAKER b 1 0 0.50 <NA> <NA> y <NA>")
    rttm = write_text(folder / "turns.rttm", *spoken, "SPEAKER b 1 .25 1e-1 <NA> <NA> x <NA> <NA>")
    table = PrepareOptions(table=folder / "table.csv")
    seeds.append(_seed(rttm, lambda: manifest.write(with_turns(CSV.prepare(folder, table), rttm), folder / "turns")))
    lists = write_text(folder / "lists" / "train.txt", "u1", "u2")
    seeds.append(_seed(lists, lambda: read_lists([folder / "lists"])))
    return seeds


def _exchange(folder: Path) -> list[Seed]:
    """Tables with sounds in them, and the manifests of lhotse, as an export writes them."""
    import gzip
    import shutil

    import pyarrow.parquet as pq
    from pyarrow import ipc

    from repbench.corpora import manifest
    from repbench.corpora.contract import CorpusLayout, PrepareOptions
    from repbench.corpora.export import export
    from repbench.corpora.layouts.huggingface import HUGGINGFACE
    from repbench.corpora.layouts.lhotse import LHOTSE
    from tests.corpora.rich_corpus import rich_corpus

    def prepared(layout: CorpusLayout, root: Path, table: Path) -> Read:
        def read() -> None:
            shutil.rmtree(folder / "again", ignore_errors=True)
            manifest.write(layout.prepare(root, PrepareOptions(table=table)), folder / "again")

        return read

    corpus = rich_corpus(folder)
    saved, cuts = (export(corpus, kind, folder / kind).folder for kind in ("huggingface", "lhotse"))
    arrow = saved / "train" / "data-00000-of-00001.arrow"
    parquet, footed = folder / "parquet" / "t.parquet", folder / "footed" / "t.arrow"
    table = ipc.open_stream(arrow.read_bytes()).read_all()
    for path in (parquet, footed):
        path.parent.mkdir()
    pq.write_table(table, parquet)
    with footed.open("wb") as stream, ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    plain = cuts / "cuts.jsonl"
    plain.write_bytes(gzip.decompress((cuts / "cuts.jsonl.gz").read_bytes()))
    (cuts / "cuts.jsonl.gz").unlink()
    packed = folder / "packed" / "cuts.jsonl.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    of_saved = [arrow, saved / "dataset_dict.json", saved / "train" / "state.json", saved / "repbench-corpus.json"]
    return [
        *(_seed(path, prepared(HUGGINGFACE, saved, saved)) for path in of_saved),
        *(_seed(path, prepared(HUGGINGFACE, path.parent, path)) for path in (parquet, footed)),
        *(_seed(path, prepared(LHOTSE, folder, path)) for path in (plain, packed)),
    ]


def _csd(folder: Path) -> list[Seed]:
    from repbench.corpora.layouts.csd import read_csd
    from tests.corpora.computational_sequences import PUBLISHED, pack, write_csd

    rows = [(0.0, 1.5, [1.0]), (1.5, 3.0, [-1.0])]
    plain = write_csd(folder / "plain.csd", {"video": rows, "other": rows})
    packed = pack(write_csd(folder / "packed.csd", {"video": rows * 20}), **PUBLISHED)
    sealed = pack(write_csd(folder / "sealed.csd", {"video": rows * 20}), shuffle=True, fletcher32=True)
    return [_seed(path, lambda path=path: read_csd(path)) for path in (plain, packed, sealed)]  # type: ignore[misc]


def _yaml(folder: Path) -> list[Seed]:
    from repbench.benchmark.protocol import Protocol
    from repbench.benchmark.sweep.plan import load_plan
    from repbench.configs.loader import build, load_yaml

    settings = folder / "settings.yaml"
    settings.write_text(
        "# a comment\nprobe:\n  steps: 100\n  learning_rate: 4e-4\n  hidden_units: 16\ntask: {attribute: sentiment, "
        "positive: ['1', \"two\"]}\nextraction:\n  dtype: float16\n",
        encoding="utf-8",
    )
    plan = folder / "plan.yaml"
    plan.write_text(
        "upstreams: [mel, fbank]\ndownstreams:\n- phone\n- speaker\ncorpora: [synthetic:noisy:tiny]\nseeds: [0, 1]\n",
        encoding="utf-8",
    )
    return [
        _seed(settings, lambda: build(Protocol, load_yaml(settings), settings)),
        _seed(plan, lambda: load_plan(plan)),
    ]


def _pickles(folder: Path) -> list[Seed]:
    import argparse
    import shutil

    import torch

    from repbench.upstream.checkpoints.safe_unpickle import read_pickle

    content = {
        "config": argparse.Namespace(width=3, name="x"),
        "weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)},
        "step": 7,
    }
    paths = []
    for name, is_zip in (("zip.ckpt", True), ("legacy.ckpt", False)):
        torch.save(content, folder / name, _use_new_zipfile_serialization=is_zip)
        paths.append(folder / name)
    golden = Path(__file__).parents[1] / "golden" / "apc" / "apc_original_noprenet.pt"
    paths.append(Path(shutil.copy(golden, folder)))
    return [_seed(path, lambda path=path: read_pickle(path)) for path in paths]  # type: ignore[misc]


def _ctranslate2(folder: Path) -> list[Seed]:
    import numpy as np

    from repbench.upstream.checkpoints.ctranslate2 import read_ctranslate2
    from tests.upstream.small_ctranslate2 import model_bin

    tensors: dict[str, Any] = {
        "encoder/num_heads": np.array(2, np.int16),
        "encoder/layer_norm/gamma": np.ones(3, np.float32),
        "decoder/embeddings/weight": np.arange(12, dtype=np.float32).reshape(4, 3),
    }
    path = folder / "model.bin"
    path.write_bytes(model_bin(tensors, "int8"))
    return [_seed(path, lambda: read_ctranslate2(path))]


def _checkpoints(folder: Path) -> list[Seed]:
    import torch

    from repbench.benchmark.probing.probe import Probe, ProbeShape, encoded_probe, load_probe
    from repbench.upstream.adapters.huggingface_files import read_weights as read_encoder
    from repbench.upstream.checkpoints.native import open_checkpoint, read_training, read_weights, save_checkpoint

    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}
    saved = save_checkpoint(folder, 1, weights=tensors, training=tensors, fields={"settings": {"width": 3}})

    def read() -> None:
        checkpoint = open_checkpoint(saved.path)
        read_weights(checkpoint)
        read_training(checkpoint)

    seeds = [_seed(path, read) for path in sorted(saved.path.iterdir()) if path.suffix in (".json", ".safetensors")]
    shape = ProbeShape(
        head="linear", pools=False, num_layers=2, width=3, hidden_units=4, classes=("a", "b"), mix="weighted"
    )
    probe = Probe(shape, torch.Generator().manual_seed(0))
    (folder / "probe.safetensors").write_bytes(encoded_probe(probe, {"layer": "last"}))
    seeds.append(_seed(folder / "probe.safetensors", lambda: load_probe(folder / "probe.safetensors")))
    encoder = folder / "encoder.safetensors"
    encoder.write_bytes((saved.path / "model.safetensors").read_bytes())
    return [*seeds, _seed(encoder, lambda: read_encoder([encoder]))]


def _features(folder: Path) -> list[Seed]:
    import numpy as np
    from safetensors.numpy import save_file

    from repbench.audio.feature_files import read_features, read_layers, read_vectors

    frames = np.random.default_rng(0).standard_normal((1, 5, 4)).astype(np.float32)
    paths = [folder / name for name in ("a.npy", "fortran.npy", "double.npy", "a.safetensors")]
    np.save(paths[0], frames[0])
    np.save(paths[1], np.asfortranarray(frames[0]))
    np.save(paths[2], frames.astype(np.float64))
    save_file({"features": frames[0]}, paths[3])

    def read(path: Path) -> Read:
        def both() -> None:
            read_layers(path)
            read_features(path)

        return both

    vector = folder / "vector.npy"
    np.save(vector, frames[0, 0])
    return [*(_seed(path, read(path)) for path in paths), _seed(vector, lambda: read_vectors(vector))]


def _shards(folder: Path) -> list[Seed]:
    """A shard, and the index of one alone: whoever changes that of a shard has to know its checksum."""
    from repbench.benchmark.features import shards

    origin = shards.ShardOrigin(fingerprint="f", sample_rate_hz=16_000, width=4, dtype="float32")
    drafts = [
        shards.UnwrittenLayer(sound="s@16000", layer=layer, batch="b", data=bytes(range(64))) for layer in range(2)
    ]
    whole = shards.write_shard(folder, origin, "mel", drafts)
    footer = shards._FOOTER
    content = whole.read_bytes()
    data_end = content.index(b'{"entries"')
    index = folder / "index.json"
    index.write_bytes(content[data_end : -footer.size])
    sealed = folder / "sealed"

    def read(path: Path) -> None:
        try:
            shard = shards.read_index(path)
            with shards.open_shard(path) as reader:
                for entry in shard.entries:
                    reader.read_into(entry, memoryview(bytearray(64)))
        except shards.DamagedShard as error:
            raise NoticedError(str(error)) from error

    def read_sealed() -> None:
        changed = index.read_bytes()
        end = footer.pack(len(changed), hashlib.sha256(changed).digest(), shards._MAGIC)
        sealed.write_bytes(content[:data_end] + changed + end)
        read(sealed)

    return [_seed(whole, lambda: read(whole)), _seed(index, read_sealed)]


def _records(folder: Path) -> list[Seed]:
    """Records with their predictions: a change of either that `verify` does not notice is a fault."""
    from repbench.benchmark.records.verify import verify_record
    from tests.benchmark.report_records import write

    seeds = []
    for task in ("phone", "sentiment"):
        place = write(folder, task=task, count=6).parent

        def read(place: Path = place) -> None:
            verdict = verify_record(place)
            if not verdict.holds:
                raise NoticedError(verdict.changes[0].sentence)

        for path in sorted(place.iterdir()):
            content = path.read_bytes()

            def refuse_passed(changed: bytes, content: bytes = content) -> None:
                assert _meaning(changed) == _meaning(content), "an altered record passed `verify`"

            seeds.append(_seed(path, read, refuse_passed=refuse_passed))
    return seeds


class NoticedError(Exception):
    """`verify`, the store or an index has noticed that a file was changed."""


def _meaning(content: bytes) -> object:
    """What JSON, or lines of it in any order, says; None where it cannot be read."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        pass
    try:
        lines = [json.loads(line) for line in content.splitlines() if line.strip()]
        return sorted(lines, key=lambda line: str(line["id"]))
    except (ValueError, RecursionError, KeyError, TypeError):
        return None


TARGETS = {
    target.name: target
    for target in (
        Target(name="sound", seeds=_sounds, weight=4),
        Target(name="textgrid", seeds=_textgrids, weight=4),
        Target(name="alignments", seeds=_alignments, weight=4),
        Target(name="manifest", seeds=_manifest, weight=4),
        Target(name="index", seeds=_index, weight=4, refusals=(RepbenchError, NoticedError)),
        Target(name="tables", seeds=_tables, weight=4),
        Target(name="exchange", seeds=_exchange, weight=2),
        Target(name="csd", seeds=_csd, weight=0.5),
        Target(name="yaml", seeds=_yaml, weight=2),
        Target(name="pickles", seeds=_pickles, weight=2),
        Target(name="ctranslate2", seeds=_ctranslate2, weight=1),
        Target(name="checkpoints", seeds=_checkpoints, weight=2),
        Target(name="features", seeds=_features, weight=4),
        Target(name="shards", seeds=_shards, weight=4, refusals=(RepbenchError, NoticedError)),
        Target(name="records", seeds=_records, weight=4, refusals=(RepbenchError, NoticedError)),
    )
}
