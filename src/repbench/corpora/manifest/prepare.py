"""The draft of a manifest from a folder on disk: a layout describes the folder, and options select and split."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from repbench.audio.sound import Channel
from repbench.corpora.contract import CorpusLayout, Draft, PrepareOptions
from repbench.corpora.layouts.file_search import excluded_files, is_excluded
from repbench.corpora.manifest.subsets import dev_from_train, read_lists, with_frequent_speakers, with_splits
from repbench.corpora.rttm import with_turns
from repbench.errors import DataError, UsageError


def prepare(layout: CorpusLayout, root: Path, options: PrepareOptions) -> Draft:
    """Describe the corpus under `root`, with the utterances and splits that the options select.

    Speakers are counted over all utterances of the corpus, listed or not. Faults of single utterances are in the draft:
    `repbench.corpora.manifest.write` reports them with those of the sounds.

    Raises:
        UsageError: An option needs another one, or has a value that is not allowed.
        DataError: As `CorpusLayout.prepare`, or the lists of splits are broken or of another corpus.
    """
    _refuse_options(options, has_alignments=getattr(layout, "has_alignments", False))
    lists = read_lists(options.splits) if options.splits else None
    if lists is not None and options.dev_from_train is not None:
        lists = dev_from_train(lists, *options.dev_from_train)
    # Lists before the layout: a wrong option is refused before a large corpus is searched.
    draft = layout.prepare(root, replace(options, gather_faults=True))
    draft = replace(_without_excluded(draft, options), follow_links=options.follow_links)
    if options.channel is not None:
        draft = _with_channel(draft, options.channel)
    if options.rttm is not None:
        draft = with_turns(draft, options.rttm)
    if options.min_utterances is not None:
        draft = with_frequent_speakers(draft, options.min_utterances)
    return draft if lists is None else with_splits(draft, lists)


def _without_excluded(draft: Draft, options: PrepareOptions) -> Draft:
    """The draft without what `options.exclude` names; a note for each glob counts its files.

    Raises:
        DataError: A glob names nothing.
    """
    if not options.exclude:
        return draft
    counts = excluded_files(draft.root, options)
    utterances = tuple(draft.utterances)
    kept = tuple(each for each in utterances if not _is_excluded(each.audio, draft, options))
    for glob in options.exclude:
        if not counts[glob] and len(kept) == len(utterances):
            what = f"`--exclude {glob}` names no file under the root"
            do = "A glob without `/` names files or folders anywhere, one with `/` their place from the root"
            raise DataError(what, file=draft.root, key="--exclude", do=do)
    faults = tuple(each for each in draft.faults if not _is_excluded(each.file or "", draft, options))
    notes = [f"{counts[glob]} files are left out by --exclude {glob}" for glob in options.exclude]
    return replace(draft, utterances=kept, faults=faults, notes=(*draft.notes, *notes))


def _is_excluded(path: str | Path, draft: Draft, options: PrepareOptions) -> bool:
    absolute, root = (Path(os.path.abspath(each)) for each in (path, draft.root))  # noqa: PTH100 - keeps links
    return absolute.is_relative_to(root) and is_excluded(absolute.relative_to(root).as_posix(), options.exclude)


def _with_channel(draft: Draft, channel: Channel) -> Draft:
    """The draft with `channel` for each utterance whose channel the layout does not give."""
    utterances = [each if each.channel is not None else replace(each, channel=channel) for each in draft.utterances]
    return replace(draft, utterances=utterances)


def _refuse_options(options: PrepareOptions, *, has_alignments: bool) -> None:
    if options.min_utterances is not None and options.min_utterances < 1:
        what = f"`--min-utterances` must be at least 1, but is {options.min_utterances}"
        raise UsageError(what, key="--min-utterances", do="Give a number of utterances")
    if options.alignments is None and not has_alignments:
        for flag, value in (
            ("--tier", options.tier),
            ("--relabel", options.relabel),
            ("--keep-labels", options.keep_labels),
        ):
            if value:
                what = f"`{flag}` is an option of `--alignments`, but there are none"
                raise UsageError(what, key=flag, do="Give --alignments, the file or folder of them, or leave it out")
    if options.dev_from_train is None:
        return
    if not options.splits:
        what = "`--dev-from-train` divides a list of `--splits`, but there is none"
        raise UsageError(what, key="--dev-from-train", do="Give --splits, or leave it out: a run cuts its own dev")
    if not 0 < options.dev_from_train[0] < 1:
        what = f"The share of dev must be between 0 and 1, but is {options.dev_from_train[0]:g}"
        raise UsageError(what, key="--dev-from-train", do="Write SHARE:SEED, like 0.1:1337")
