"""Splits by lists of utterances, and speakers with enough of them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from repbench.corpora.contract import Draft, DraftUtterance, PrepareOptions, Split
from repbench.corpora.manifest.prepare import prepare
from repbench.corpora.manifest.subsets import dev_from_train, read_lists, with_frequent_speakers, with_splits
from repbench.errors import DataError, UsageError


def draft_of(counts: dict[str | None, int]) -> Draft:
    """Utterances `SPEAKER-0`, `SPEAKER-1`, … that no sound is behind."""
    utterances = [
        DraftUtterance(id=f"{speaker}-{k}", audio=Path(f"{speaker}-{k}.wav"), speaker=speaker, split="train")
        for speaker, count in counts.items()
        for k in range(count)
    ]
    return Draft(name="x", licence="x", root=Path(), utterances=utterances, notes=("a note",))


class Layout:
    """A layout that describes one draft, wherever it looks."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        return self.draft


def splits_of(draft: Draft) -> dict[str, Split | None]:
    return {utterance.id: utterance.split for utterance in draft.utterances}


def save(folder: Path, **lists: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in lists.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def test_lists_go_before_the_splits_of_the_layout(tmp_path: Path) -> None:
    lists = save(tmp_path / "lists", train_split="a-0\n\n a-1 \r\n", test_split="b-0\ngone-1\ngone-2\n", notes="x y z")
    draft = prepare(Layout(draft_of({"a": 2, "b": 2})), tmp_path, PrepareOptions(splits=(lists,)))
    assert splits_of(draft) == {"a-0": "train", "a-1": "train", "b-0": "test", "b-1": None}
    assert draft.notes == (
        "a note",
        "splits by test_split.txt, train_split.txt: 2 train, 1 test",
        "2 of 5 listed utterances are not there",
        "1 of 4 utterances are in no list, so in no split",
    )


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.txt", "train"),
        ("train-clean-360.txt", "train"),
        ("dev.txt", "dev"),
        ("valid_split.txt", "dev"),
        ("validation.TXT", "dev"),
        ("Test.txt", "test"),
    ],
)
def test_the_name_of_a_list_says_its_split(tmp_path: Path, name: str, split: Split) -> None:
    (tmp_path / name).write_text("a-0\n")
    assert read_lists([tmp_path / name]).split_of == read_lists([tmp_path]).split_of == {"a-0": split}


def test_lists_of_one_split_add_up(tmp_path: Path) -> None:
    save(tmp_path, **{"train-1": "a\n", "train-2": "b\n"})
    assert read_lists([tmp_path / "train-2.txt", tmp_path / "train-1.txt"]).split_of == {"b": "train", "a": "train"}


def test_ids_are_one_in_every_unicode_form(tmp_path: Path) -> None:
    save(tmp_path, train="u\u0308-0\n")
    assert splits_of(with_splits(draft_of({"\u00fc": 1}), read_lists([tmp_path]))) == {"\u00fc-0": "train"}


@pytest.mark.parametrize("names", [("train", "test"), ("train_a", "train_b")])
def test_fault_24_an_id_in_two_lists_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    first, second = sorted(names)
    save(tmp_path, **{first: "a\nb\n", second: "c\nd\nb\n"})
    with pytest.raises(DataError, match=rf"twice, here and in .*{first}\.txt:2 .*{second}\.txt:3, utterance b"):
        read_lists([tmp_path])


def test_broken_lists_are_refused(tmp_path: Path) -> None:
    save(tmp_path, train="a\nb 1\n")
    with pytest.raises(DataError, match=r"must be one utterance id, but is `b 1` .*train\.txt:2"):
        read_lists([tmp_path])
    save(tmp_path, train="\n")
    with pytest.raises(DataError, match="lists of splits are empty"):
        read_lists([tmp_path])
    with pytest.raises(DataError, match=r"holds no list of a split; looked for train\*\.txt"):
        read_lists([save(tmp_path / "none", notes="a")])
    with pytest.raises(DataError, match=r"missing.*train_gone\.txt"):
        read_lists([tmp_path / "train_gone.txt"])
    with pytest.raises(UsageError, match=r"must begin with its split; looked for train\*\.txt.*ids\.txt"):
        read_lists([tmp_path / "ids.txt"])


def test_lists_of_another_corpus_are_refused(tmp_path: Path) -> None:
    lists = read_lists([save(tmp_path, train="x\n")])
    shown = r"None of the 2 utterances .* is in train\.txt: the lists name `x`, the corpus `a-0` \(a-0\.wav\)"
    with pytest.raises(DataError, match=shown):
        with_splits(draft_of({"a": 2}), lists)


def words(root: Path, *places: str) -> Draft:
    """Utterances by their places, as the pattern of Speech Commands names them."""
    utterances = [DraftUtterance(id=place.rpartition(".")[0].replace("/", "-"), audio=root / place) for place in places]
    return Draft(name="x", licence="x", root=root, utterances=utterances)


@pytest.mark.parametrize(
    "listed",
    ["cat/aa_nohash_0.wav", "cat/aa_nohash_0", "./cat/aa_nohash_0.wav", "cat-aa_nohash_0", "cat-aa_nohash_0.wav",
     "aa_nohash_0.wav", "cat\\aa_nohash_0.wav"],
)  # fmt: skip
def test_lists_name_utterances_by_id_or_place(tmp_path: Path, listed: str) -> None:
    draft = words(tmp_path, "cat/aa_nohash_0.wav", "dog/bb_nohash_0.wav")
    lists = read_lists([save(tmp_path / "lists", testing_list=f"{listed}\n", train_list="dog/bb_nohash_0.wav\n")])
    assert splits_of(with_splits(draft, lists)) == {"cat-aa_nohash_0": "test", "dog-bb_nohash_0": "train"}


def test_folders_above_the_root_may_stand_in_a_list(tmp_path: Path) -> None:
    draft = words(tmp_path / "v2", "cat/aa.wav", "dog/bb.wav")
    lists = read_lists([save(tmp_path / "one", test="sets/v1/cat/aa.wav\n", train="sets/v1/dog/bb.wav\n")])
    assert splits_of(with_splits(draft, lists)) == {"cat-aa": "test", "dog-bb": "train"}
    flat = words(tmp_path / "cat", "aa.wav", "bb.wav")
    found = with_splits(flat, read_lists([save(tmp_path / "two", test="cat/aa.wav\n", train="cat/bb.wav\n")]))
    assert splits_of(found) == {"aa": "test", "bb": "train"}


@pytest.mark.parametrize("listed", ["dog/aa.wav\n", "dog/aa.wav\ncat/zz.wav\n"])
def test_a_sound_of_another_folder_is_not_taken_for_one_of_the_root(tmp_path: Path, listed: str) -> None:
    lists = read_lists([save(tmp_path / "lists", test=listed)])
    with pytest.raises(DataError, match=r"None of the 2 utterances"):
        with_splits(words(tmp_path / "cat", "aa.wav", "bb.wav"), lists)


def test_what_no_list_names_is_train_where_no_list_is_of_train(tmp_path: Path) -> None:
    draft = words(tmp_path, "cat/aa.wav", "cat/bb.wav", "dog/aa.wav", "dog/cc.wav")
    lists = read_lists([save(tmp_path / "lists", testing_list="cat/aa.wav\n", validation_list="dog/aa.wav\n")])
    found = with_splits(draft, lists)
    assert splits_of(found) == {"cat-aa": "test", "dog-aa": "dev", "cat-bb": "train", "dog-cc": "train"}
    assert found.notes[-1] == "no list is of train: the 2 of 4 utterances in no list are train"
    with pytest.raises(UsageError, match="name no train split"):
        dev_from_train(replace(lists, split_of={"cat/aa.wav": "test"}), 0.1, 1337)


def test_a_name_of_two_sounds_and_two_names_of_one_are_refused(tmp_path: Path) -> None:
    draft = words(tmp_path, "cat/aa.wav", "dog/aa.wav")
    with pytest.raises(DataError, match=r"`aa\.wav` could be 2 sounds of the corpus, such as cat/aa\.wav and dog/aa"):
        with_splits(draft, read_lists([save(tmp_path / "one", train="aa.wav\n")]))
    lists = read_lists([save(tmp_path / "two", train="cat/aa.wav\n", test="cat-aa\n")])
    with pytest.raises(DataError, match=r"listed twice, as `cat-aa` and as `cat/aa\.wav` \(utterance cat-aa\)"):
        with_splits(draft, lists)


def test_a_recording_in_a_list_names_all_that_is_cut_from_it(tmp_path: Path) -> None:
    cut = [DraftUtterance(id=f"u{k}", audio=tmp_path / "r.wav", start=float(k), end=k + 1.0) for k in range(2)]
    other = DraftUtterance(id="u2", audio=tmp_path / "s.wav")
    draft = Draft(name="x", licence="x", root=tmp_path, utterances=[*cut, other])
    lists = read_lists([save(tmp_path / "lists", train="r.wav\n", test="u2\n")])
    assert splits_of(with_splits(draft, lists)) == {"u0": "train", "u1": "train", "u2": "test"}


@pytest.mark.parametrize("num_listed", [10, 19, 22_830])
def test_dev_from_train_is_the_division_of_s3prl(tmp_path: Path, num_listed: int) -> None:
    names = [f"u{number}\n" for number in range(num_listed)]
    random.Random(7).shuffle(names)
    save(tmp_path, train_split="".join(names), test_split="t\n")
    usage_list = (tmp_path / "train_split.txt").read_text().splitlines(keepends=True)
    random.Random(1337).shuffle(usage_list)
    percent = int(len(usage_list) * 0.9)
    found = dev_from_train(read_lists([tmp_path]), 0.1, 1337).split_of
    by_split = {split: [name for name, other in found.items() if other == split] for split in ("train", "dev", "test")}
    assert sorted(by_split["train"]) == sorted(name.strip() for name in usage_list[:percent])
    assert sorted(by_split["dev"]) == sorted(name.strip() for name in usage_list[percent:])
    assert by_split["test"] == ["t"]
    if num_listed == 22_830:
        assert (len(by_split["train"]), len(by_split["dev"])) == (20_547, 2_283)


def test_dev_from_train_needs_lists_without_a_dev(tmp_path: Path) -> None:
    save(tmp_path, train="a-0\na-1\n", dev="b-0\n")
    layout = Layout(draft_of({"a": 2, "b": 1}))
    with pytest.raises(UsageError, match="name a dev split already"):
        prepare(layout, tmp_path, PrepareOptions(splits=(tmp_path,), dev_from_train=(0.5, 0)))
    with pytest.raises(UsageError, match="divides a list of `--splits`, but there is none"):
        prepare(layout, tmp_path, PrepareOptions(dev_from_train=(0.5, 0)))
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(UsageError, match="must be between 0 and 1"):
            prepare(layout, tmp_path, PrepareOptions(splits=(tmp_path,), dev_from_train=(share, 0)))


def test_speakers_with_too_few_utterances_are_left_out() -> None:
    draft = with_frequent_speakers(draft_of({"a": 122, "b": 121, "c": 130, None: 200}), 122)
    assert {utterance.speaker for utterance in draft.utterances} == {"a", "c"}
    assert draft.notes == (
        "a note",
        "2 of 3 speakers have at least 122 utterances; 252 of 573 utterances are left",
    )


def test_speakers_are_counted_before_the_lists_choose(tmp_path: Path) -> None:
    save(tmp_path, train="a-0\n", test="a-1\nb-0\n")
    options = PrepareOptions(splits=(tmp_path,), min_utterances=2)
    draft = prepare(Layout(draft_of({"a": 2, "b": 1})), tmp_path, options)
    assert splits_of(draft) == {"a-0": "train", "a-1": "test"}
    assert draft.notes[1:] == (
        "1 of 2 speakers have at least 2 utterances; 2 of 3 utterances are left",
        "splits by test.txt, train.txt: 1 train, 1 test",
        "1 of 3 listed utterances are not there",
    )


def test_a_minimum_that_nobody_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="None of 2 speakers has 4 utterances; the most is 3"):
        with_frequent_speakers(draft_of({"a": 3, "b": 2}), 4)
    with pytest.raises(DataError, match="names no speaker"):
        with_frequent_speakers(draft_of({None: 3}), 1)
    with pytest.raises(UsageError, match="must be at least 1, but is 0"):
        prepare(Layout(draft_of({"a": 1})), tmp_path, PrepareOptions(min_utterances=0))
