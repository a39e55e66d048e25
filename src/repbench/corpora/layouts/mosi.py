"""CMU-MOSI and CMU-MOSEI: opinions in videos, with labels as mmsdk distributes them and sound files.

Reference: Zadeh et al., "MOSI: Multimodal Corpus of Sentiment Intensity and Subjectivity Analysis in Online Opinion
Videos" (arXiv:1606.06259); Zadeh et al., "Multimodal Language Analysis in the Wild: CMU-MOSEI Dataset and Interpretable
Dynamic Fusion Graph" (ACL 2018).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from repbench.audio.sound import ENDINGS, SoundInfo, inspect
from repbench.corpora.alignments import align
from repbench.corpora.contract import AttributeValue, Draft, DraftUtterance, PrepareOptions, Split
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.csd import SUFFIX, SequenceRow, read_csd, standard_folds
from repbench.corpora.layouts.file_search import refuse_missing_root
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.layouts.sentiment_scales import (
    seven_classes,
    seven_classes_rounded,
    strongest_emotion,
    three_classes,
    two_classes,
)
from repbench.errors import DataError, UsageError

EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
"""The columns of CMU-MOSEI's labels after the sentiment, in their order."""

STANDARD = "standard"
MOCKINGJAY = "mockingjay2020"

_MAX_SENTIMENT = 3.0
_MAX_INTENSITY = 3.0
_SEGMENT_TOLERANCE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SentimentVideos:
    """The layouts `mosi` and `mosei`: one `.csd` of labels in the root (or `--table`), sounds in `wav/` or the root.

    The sound of a video is `VIDEO.wav`, out of which its intervals are cut, or one file an interval: `VIDEO[3].wav`,
    counted from 0 as in the labels, or `VIDEO_4.wav`, counted from 1 as in the segments that CMU distributes. Each
    interval is an utterance `VIDEO[3]`. There is one speaker a video, so that `speaker` and `group` are the video.

    A segment whose interval has length 0 (so CMU marks what it took back) or is that of an earlier segment of its video
    is left out and named; labels of which that is more than half are refused. One whose times or labels cannot be, that
    has no sound or that ends behind it is a fault.

    The attributes are `sentiment`, its classes `sentiment2`, `sentiment3`, `sentiment7` and `sentiment7_rounded`
    (`layouts.sentiment_scales`) and, where the labels have seven columns, the six intensities and the strongest
    `emotion`. The splits are mmsdk's standard folds, or those of a variant.

    Attributes:
        name: mosi or mosei.
        dataset: What mmsdk calls it.
        has_emotions: Whether the labels may have the six emotions after the sentiment.
        padding_seconds: How far an interval may reach beyond either end of its sound, where it is cut off.
        variants: Ways to choose and divide the utterances; the first is the default.
    """

    name: str
    dataset: Literal["cmu_mosi", "cmu_mosei"]
    has_emotions: bool
    padding_seconds: float
    variants: tuple[str, ...]

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the labelled intervals and their sounds.

        Raises:
            UsageError: The variant is unknown, or an option is given that is not read.
            IntegrityError: The `.csd` is refused by the guard.
            DataError: Labels or sounds are missing, broken or do not belong together, or most segments are left out.
            EnvironmentFault: mmsdk or h5py is not installed.
        """
        refuse_options(self.name, options, reads=("alignments", "table", "variant"))
        variant = self._variant(options)
        refuse_missing_root(root)
        labels = _find_labels(root) if options.table is None else options.table
        listed = self._labelled_segments(read_csd(labels), labels)
        collector = FaultCollector(gather=options.gather_faults)
        usable, left_out = self._usable(listed, labels, collector)
        _refuse_most(left_out, len(listed), labels)
        chosen = [each for each in usable if variant != MOCKINGJAY or mockingjay_filter(each.seconds, each.sentiment)]
        if not chosen and not collector.faults:
            raise DataError(f"No opinion is left of {len(listed)}", file=labels, do="Check the labels and the variant")
        utterances = self._with_sound(chosen, root, labels, collector)
        ids = {each.id for each in utterances}
        kept = [each for each in chosen if each.id in ids]
        splits = self._splits(variant, kept)
        draft = Draft(
            name=self.name if variant == STANDARD else f"{self.name}-{variant}",
            licence="unknown",
            root=root,
            utterances=[replace(each, split=splits.get(each.group or "")) for each in utterances],
            scales={"sentiment": 0.0},
            notes=(
                "Each video is taken to have one speaker: `speaker` and `group` are the video",
                *self._notes_on_splits(variant, kept, splits),
                *_notes_on_the_choice(variant, usable, chosen),
                *_notes_on_left_out(left_out, len(listed)),
                *_notes_on_ends(kept, utterances),
            ),
            faults=tuple(collector.faults),
            left_out=left_out,
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)

    def _variant(self, options: PrepareOptions) -> str:
        variant = options.variant or self.variants[0]
        if variant not in self.variants:
            what = f"The layout `{self.name}` has no variant `{variant}`"
            raise UsageError(what, key="--variant", do=f"Choose from {', '.join(self.variants)}")
        return variant

    def _labelled_segments(self, videos: Mapping[str, Sequence[SequenceRow]], labels: Path) -> list[LabelledSegment]:
        return [
            self._labelled_segment(video, number, interval, labels)
            for video, intervals in videos.items()
            for number, interval in enumerate(intervals)
        ]

    def _labelled_segment(self, video: str, number: int, interval: SequenceRow, labels: Path) -> LabelledSegment:
        if "[" in video:
            what, do = f"`{video}` is an interval, not a video", "Give the labels as distributed, not aligned ones"
            raise DataError(what, file=labels, key=video, do=do)
        widths = (1, 1 + len(EMOTIONS)) if self.has_emotions else (1,)
        if len(interval.values) not in widths:
            what = f"`features` must have {' or '.join(map(str, widths))} columns, but has {len(interval.values)}"
            raise DataError(what, file=labels, key=video, do="Give the opinion labels; sentiment comes first")
        sentiment, *intensities = interval.values
        return LabelledSegment(video, number, interval.start_s, interval.end_s, sentiment, tuple(intensities))

    def _usable(
        self, listed: Sequence[LabelledSegment], labels: Path, collector: FaultCollector
    ) -> tuple[list[LabelledSegment], dict[str, str]]:
        """The segments with usable labels, cut at the start of their video; and those left out."""
        usable: list[LabelledSegment] = []
        left_out: dict[str, str] = {}
        # by exact times: they are the shortest decimals of what the file holds
        seen: dict[tuple[str, float, float], LabelledSegment] = {}
        for segment in listed:
            interval = (segment.video, segment.start_s, segment.end_s)
            earlier = seen.get(interval)
            # before the labels are checked: what CMU took back may have any label
            if segment.start_s == segment.end_s:
                left_out[segment.id] = f"its interval, at {segment.start_s:g} s, has length 0"
                continue
            with collector.each():
                self._refuse_labels(segment, labels)
                if earlier is not None:
                    labelled = f"labelled {earlier.sentiment:g} there and {segment.sentiment:g} here"
                    left_out[segment.id] = f"{earlier.id} has the same interval, {labelled}"
                    continue
                seen[interval] = segment
                usable.append(segment if segment.start_s >= 0 else segment._replace(start_s=0.0, cut_at_start=True))
        return usable, left_out

    def _refuse_labels(self, segment: LabelledSegment, labels: Path) -> None:
        if not -self.padding_seconds <= segment.start_s < segment.end_s or segment.end_s <= 0:
            what = f"The interval from `{segment.start_s:g}` to `{segment.end_s:g}` s is reversed or negative"
            raise DataError(what, file=labels, utterance=segment.id, do="Times in seconds? Correct the labels")
        intensities = segment.intensities
        if abs(segment.sentiment) > _MAX_SENTIMENT or not all(0 <= value <= _MAX_INTENSITY for value in intensities):
            values = ", ".join(f"{value:g}" for value in (segment.sentiment, *intensities))
            what = f"Sentiment must be in [-3, 3] and emotions in [0, 3], but they are `{values}`"
            raise DataError(what, file=labels, utterance=segment.id, do="Correct the labels")

    def _with_sound(
        self, segments: Sequence[LabelledSegment], root: Path, labels: Path, collector: FaultCollector
    ) -> list[DraftUtterance]:
        """Each segment as an utterance with its sound, whose length fits the labels."""
        folder = root / "wav" if (root / "wav").is_dir() else root
        sounds = _sounds(folder)
        lengths: dict[Path, SoundInfo] = {}
        utterances: list[DraftUtterance] = []
        for segment in segments:
            with collector.each():
                path = _sound_of(segment, sounds)
                if path is None:
                    looked = f"{segment.video}.wav, {segment.id}.wav or {segment.video}_{segment.number + 1}.wav"
                    what, do = "The segment has no sound", f"Put it there as {looked}"
                    raise DataError(what, file=folder, utterance=segment.id, do=do)
                if path not in lengths:
                    # once a file: a video has some tens of segments
                    lengths[path] = inspect(path, utterance=segment.id, any_channels=True)
                utterances.append(self._utterance(segment, path, lengths[path].seconds, labels))
        return utterances

    def _utterance(self, segment: LabelledSegment, path: Path, held_s: float, labels: Path) -> DraftUtterance:
        if path.stem != segment.video:
            self._refuse_other_segment(segment, path, held_s, labels)
            return _utterance(segment, path, None, None)
        if segment.end_s <= held_s:
            return _utterance(segment, path, segment.start_s, segment.end_s)
        if segment.end_s - held_s <= self.padding_seconds and segment.start_s < held_s:
            return _utterance(segment, path, segment.start_s, None)
        what = f"The interval ends at {segment.end_s:g} s, but the sound of `{segment.video}` lasts {held_s:g} s"
        raise DataError(what, file=labels, utterance=segment.id, do="Times in seconds? Is it the sound of this video?")

    def _refuse_other_segment(self, segment: LabelledSegment, path: Path, held_s: float, labels: Path) -> None:
        """Refuse a file of one segment that has not its length: it is numbered otherwise, and so has another label."""
        # the widened part of a segment at either end of its video is missing from its file
        shortest_s = segment.seconds - (self.padding_seconds if self.padding_seconds > _SEGMENT_TOLERANCE_S else 0)
        if shortest_s - _SEGMENT_TOLERANCE_S <= held_s <= segment.seconds + _SEGMENT_TOLERANCE_S:
            return
        what = f"{path.name} lasts {held_s:g} s, but its interval {segment.seconds:g} s"
        do = "Are the segments numbered otherwise? VIDEO[3] counts from 0, VIDEO_4 from 1"
        raise DataError(what, file=labels, utterance=segment.id, do=do)

    def _splits(self, variant: str, kept: Sequence[LabelledSegment]) -> dict[str, Split]:
        if variant == MOCKINGJAY:
            return split_by_video(each.video for each in kept)
        folds = standard_folds(self.dataset)
        return {each.video: folds[each.video] for each in kept if each.video in folds}

    def _notes_on_splits(
        self, variant: str, kept: Sequence[LabelledSegment], splits: Mapping[str, Split]
    ) -> Iterator[str]:
        unlisted = Counter(each.video for each in kept if each.video not in splits)
        if variant == MOCKINGJAY:
            yield "Split 90/10 by video as Mockingjay's release does; no dev"
        elif not splits:
            yield "No video stands in mmsdk's standard folds: there are no official splits"
        elif unlisted:
            few = f"{unlisted.total()} opinions of {len(unlisted)} videos stand in none"
            yield f"Splits are mmsdk's standard folds; {few}"
        else:
            yield "Splits are mmsdk's standard folds"
        if neutral := sum(each.sentiment == 0 for each in kept):
            yield f"{neutral} of {len(kept)} opinions have a sentiment of exactly 0, of which no sign can be asked"


MOSI = SentimentVideos(name="mosi", dataset="cmu_mosi", has_emotions=False, padding_seconds=0.01, variants=(STANDARD,))
# CMU widened the segments of MOSEI by half a second at both ends: neighbours share a second, and the first ones start
# up to 0.4876 s before their video (CMU-MultimodalSDK#164, #198). S3PRL cuts them at 0, too.
MOSEI = SentimentVideos(
    name="mosei", dataset="cmu_mosei", has_emotions=True, padding_seconds=0.5, variants=(STANDARD, MOCKINGJAY)
)


class LabelledSegment(NamedTuple):
    """One labelled interval of a video; `number` counts from 0 in the order of the labels."""

    video: str
    number: int
    start_s: float
    end_s: float
    sentiment: float
    intensities: tuple[float, ...]
    cut_at_start: bool = False

    @property
    def id(self) -> str:
        """As mmsdk names it: `VIDEO[3]`."""
        return f"{self.video}[{self.number}]"

    @property
    def seconds(self) -> float:
        """Its duration by the labels."""
        return self.end_s - self.start_s

    @property
    def attributes(self) -> dict[str, AttributeValue]:
        """Sentiment, its classes and the emotions."""
        known: dict[str, AttributeValue] = {
            "sentiment": self.sentiment,
            "sentiment2": two_classes(self.sentiment),
            "sentiment3": three_classes(self.sentiment),
            "sentiment7": seven_classes(self.sentiment),
            "sentiment7_rounded": seven_classes_rounded(self.sentiment),
        }
        if not self.intensities:
            return known
        intensities = dict(zip(EMOTIONS, self.intensities, strict=True))
        # no attribute where no emotion is above 0, rather than one that is empty
        strongest = strongest_emotion(intensities)
        return {**known, **intensities, **({} if strongest is None else {"emotion": strongest})}


def mockingjay_filter(seconds: float, sentiment: float) -> bool:
    """Whether Mockingjay's release keeps a segment of CMU-MOSEI: 1 s to 20 s long and |sentiment| at least 0.1."""
    return 1.0 <= seconds <= 20.0 and abs(sentiment) >= 0.1


def split_by_video(videos: Iterable[str], *, seed: int = 29, train_share: float = 0.9) -> dict[str, Split]:
    """From each video to train or test, as Mockingjay's release divides CMU-MOSEI.

    The names are sorted and permuted by NumPy's legacy generator; the first `train_share` of them, rounded down, are
    train.
    """
    names = sorted(set(videos))
    order = np.random.RandomState(seed).permutation(len(names))
    # NumPy's `RandomState` and the rounding down are part of the published split
    num_train = int(train_share * len(names))
    return {names[index]: "train" if place < num_train else "test" for place, index in enumerate(order)}


def _find_labels(root: Path) -> Path:
    found = sorted(path for path in root.glob(f"*{SUFFIX}") if path.is_file() and not path.name.startswith("."))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        what = f"The root must hold one {SUFFIX} file of labels, but there are: {names}"
        raise DataError(what, file=root, do="Name it with --table FILE")
    return found[0]


def _sounds(folder: Path) -> dict[str, Path]:
    """From the name of each sound, without its ending, to its path."""
    sounds: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in ENDINGS or path.name.startswith("."):
            continue
        if path.stem in sounds:
            what = f"The sound occurs twice: {sounds[path.stem].name} and {path.name}"
            raise DataError(what, file=path, do="Keep one of them")
        sounds[path.stem] = path
    return sounds


def _sound_of(segment: LabelledSegment, sounds: Mapping[str, Path]) -> Path | None:
    """The file of the whole video or of the interval; None where there is none."""
    # whole videos, segments counted from 0, segments counted from 1
    names = (segment.video, segment.id, f"{segment.video}_{segment.number + 1}")
    found = [sounds[name] for name in names if name in sounds]
    if len(found) > 1:
        what = f"Two files could be its sound: {found[0].name} and {found[1].name}"
        raise DataError(what, file=found[0], utterance=segment.id, do="Keep the whole videos or the segments")
    return found[0] if found else None


def _utterance(segment: LabelledSegment, path: Path, start: float | None, end: float | None) -> DraftUtterance:
    return DraftUtterance(
        id=segment.id,
        audio=path,
        start=start,
        end=end,
        speaker=segment.video,
        attributes=segment.attributes,
        group=segment.video,
    )


def _notes_on_the_choice(
    variant: str, usable: Sequence[LabelledSegment], chosen: Sequence[LabelledSegment]
) -> Iterator[str]:
    if variant == MOCKINGJAY:
        yield (
            f"{len(usable) - len(chosen)} of {len(usable)} opinions are left out: shorter than 1 s, longer than 20 s "
            "or |sentiment| below 0.1"
        )


def _refuse_most(left_out: Mapping[str, str], num_listed: int, labels: Path) -> None:
    """Refuse labels that rule out more than half of their own segments: they are taken for other ones."""
    if 2 * len(left_out) > num_listed:
        name, reason = next(iter(left_out.items()))
        what = f"{len(left_out)} of {num_listed} labelled segments cannot be used, such as {name}: {reason}"
        raise DataError(what, file=labels, utterance=name, do="Are these the labels as distributed?")


def _notes_on_left_out(left_out: Mapping[str, str], num_listed: int) -> Iterator[str]:
    if left_out:
        yield f"{len(left_out)} of {num_listed} labelled segments are left out by their labels: {', '.join(left_out)}"


def _notes_on_ends(kept: Sequence[LabelledSegment], utterances: Sequence[DraftUtterance]) -> Iterator[str]:
    """A note that counts the intervals cut at either end of their sound."""
    num_starts = sum(each.cut_at_start for each in kept)
    num_ends = sum(each.start is not None and each.end is None for each in utterances)
    if num_starts or num_ends:
        yield f"{num_starts} intervals start before their sound and {num_ends} end behind it, and are cut off there"
