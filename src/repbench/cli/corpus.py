"""`repbench corpus …`: make and audit corpora."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repbench.cli import completion
from repbench.cli.commands import Commands
from repbench.cli.option_objects import takes
from repbench.cli.options import Json, Quiet
from repbench.cli.output import help_if_alone, print_json, reporter_for, say
from repbench.errors import RepbenchError, UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from repbench.audio.sound import Channel
    from repbench.corpora.contract import Corpus, DraftFeatures, PrepareOptions
    from repbench.progress import Reporter

corpus_app = Commands(help="Make and audit corpora.", invoke_without_command=True, rich_markup_mode=None)


@corpus_app.callback()
def _corpus(context: typer.Context) -> None:
    help_if_alone(context)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareArguments:
    """The arguments and options of `repbench corpus prepare`."""

    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="librispeech, huggingface, lhotse, kaldi, csv, …: see `list corpora`.",
            autocompletion=completion.corpora,
        ),
    ]
    root: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the corpus.")]
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the manifest to make.")]
    alignments: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Phone alignments: a file or folder of a known format.")
    ] = None
    tier: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="TextGrids, MFA, lhotse: the tier of phones, such as MAU or 'Ann - phones'."),
    ] = None
    relabel: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=PHONE", help="Alignments: phone of a label; `LABEL=`: no label."),
    ] = None
    keep_labels: Annotated[
        bool, typer.Option("--keep-labels", help="Alignments: keep every label as it is, without folding.")
    ] = False
    rttm: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Who speaks when: an RTTM file, or a folder of them.")
    ] = None
    splits: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Lists of utterances, train*.txt, dev*.txt, test*.txt, or their folder."),
    ] = None
    dev_from_train: Annotated[
        str | None, typer.Option(metavar="SHARE:SEED", help="Make this share of the list of train the list of dev.")
    ] = None
    min_utterances: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Keep only speakers with at least N utterances.")
    ] = None
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="csv, mosi, kaldi, lhotse, …: the table, labels or data folder, if not in DIR."
        ),
    ] = None
    column: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=COLUMN", help="csv, huggingface: column that holds a field.")
    ] = None
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="mosei: standard or mockingjay2020, its filter and split.")
    ] = None
    pattern: Annotated[
        str | None, typer.Option(metavar="TEXT", help="pattern: names of files, '{speaker}_{emotion}_{_}.wav'.")
    ] = None
    features_hop: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="csv: time between two frames of the column `features`.")
    ] = None
    features_first_center: Annotated[
        float, typer.Option(metavar="SECONDS", help="csv: centre of the first of these frames.")
    ] = 0.0
    features_name: Annotated[
        str,
        typer.Option(metavar="NAME", help="csv: name of these features in records."),
    ] = "features"
    channel: Annotated[
        str | None,
        typer.Option(metavar="N|mix", help="Channel to read of sounds of several, from 1 on, or their mean."),
    ] = None
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the corpus in tables.")] = None
    no_resample: Annotated[bool, typer.Option("--no-resample", help="Refuse upstreams of another rate.")] = False
    drop_faulty: Annotated[
        int, typer.Option(metavar="N", min=0, help="Leave out at most N faulty utterances; the manifest names them.")
    ] = 0
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the manifest of another corpus in --out.")] = (
        False
    )
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Leave out files or folders, such as _background_noise_.")
    ] = None
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links out of DIR, as caches of Hugging Face have them.")
    ] = False
    quiet: Quiet = False
    as_json: Json = False

    def options(self) -> PrepareOptions:
        """The options for a layout.

        Raises:
            UsageError: A text of an option is not of its form, or features are described without a hop.
        """
        from repbench.corpora.contract import PrepareOptions

        return PrepareOptions(
            alignments=self.alignments,
            tier=self.tier,
            relabel=_relabellings(self.relabel or []),
            keep_labels=self.keep_labels,
            table=self.table,
            columns=_assignments(self.column or [], "--column"),
            variant=self.variant,
            pattern=self.pattern,
            splits=tuple(self.splits or ()),
            dev_from_train=None if self.dev_from_train is None else _share_and_seed(self.dev_from_train),
            min_utterances=self.min_utterances,
            channel=None if self.channel is None else _channel(self.channel),
            rttm=self.rttm,
            features=_declared_features(self.features_hop, self.features_first_center, self.features_name),
            exclude=tuple(self.exclude or ()),
            follow_links=self.follow_links,
        )


@corpus_app.command("prepare", short_help="Make a manifest of a corpus.")
@takes(PrepareArguments)
def corpus_prepare(arguments: PrepareArguments) -> None:
    """Make a manifest of a corpus: every sound is read once, labels are checked, and all faults are reported."""
    from dataclasses import replace

    from repbench.corpora import manifest
    from repbench.corpora.manifest.prepare import prepare
    from repbench.corpora.open import load_layout

    kind, out = arguments.kind, arguments.out
    layout = load_layout(kind)
    if arguments.variant is not None and not hasattr(layout, "variants"):
        raise UsageError(f"The layout `{kind}` has no variants", key="--variant", do="Leave it out")
    draft = prepare(layout, arguments.root, arguments.options())
    if arguments.features_hop is not None and draft.features is None:
        raise UsageError(f"The layout `{kind}` reads no features", key="--features-hop", do="Describe them to `csv`")
    draft = draft if arguments.name is None else replace(draft, name=arguments.name)
    # Before the manifest is written over it.
    older = manifest.lines_digest(out)
    reporter = reporter_for(arguments.quiet)
    with reporter.stage(f"reading {draft.name}") as advance, _faults_named():
        corpus = manifest.write(
            draft,
            out,
            resample="refused" if arguments.no_resample else "allowed",
            progress=advance,
            drop_faulty=arguments.drop_faulty,
            overwrite=arguments.overwrite,
        )
    replaced = older is not None and older != manifest.lines_digest(out)
    _print_prepared(corpus, out, reporter, replaced=replaced, as_json=arguments.as_json)


def _print_prepared(corpus: Corpus, out: Path, reporter: Reporter, *, replaced: bool, as_json: bool) -> None:
    seconds = sum(utterance.seconds for utterance in corpus.utterances)
    if as_json:
        print_json(
            {
                "corpus": str(out),
                "name": corpus.name,
                "fingerprint": corpus.fingerprint,
                "seconds": seconds,
                "utterances": len(corpus.utterances),
                "notes": corpus.notes,
                "dropped": corpus.dropped,
                "replaced": replaced,
            }
        )
        return
    for note in (*corpus.notes, *([f"replaced another manifest in {out}"] if replaced else [])):
        reporter.say(f"note: {note}")
    typer.echo(f"{out}: {printable(corpus.name)}, {len(corpus.utterances)} utterances, {seconds / 60:.1f} minutes")


@corpus_app.command("check", short_help="Read every sound again and report faults.")
def corpus_check(
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="NAME|DIR", help="A registered corpus or a manifest's folder.", autocompletion=completion.corpora
        ),
    ],
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the sounds of a manifest, if they were moved.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Count every warning as a problem.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for check.json and a page of figures.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read every sound of a corpus again and report problems and warnings."""
    from repbench.console import ConsoleReporter
    from repbench.corpora.audit.check import check
    from repbench.corpora.open import open_corpus
    from repbench.errors import DataError, IntegrityError

    reporter = ConsoleReporter()
    with reporter.stage(f"corpus {corpus}") as advance:
        opened = open_corpus(corpus, root=root, progress=advance, say=reporter.say)
    if out is not None:
        from repbench.corpora.audit.page import refuse_other_page

        refuse_other_page(opened, out)
    with reporter.stage("checking") as advance:
        report = check(opened, strict=strict, progress=advance)
    page = None
    if out is not None:
        from repbench.corpora.audit.page import write_page

        page = write_page(opened, report, out)
    if as_json:
        print_json(report.as_dict())
        raise typer.Exit(report.exit_code)
    typer.echo(
        f"{report.name}: {report.num_utterances} utterances, {report.seconds / 60:.1f} minutes, "
        f"{report.num_speakers} speakers, splits {_counts(report.splits)}, rates {_counts(report.rates)} Hz"
    )
    typer.echo(
        f"durations: {report.shortest_seconds:.2f} s to {report.longest_seconds:.2f} s, "
        f"median {report.median_seconds:.2f} s"
    )
    for warning in report.warnings:
        say(f"warning: {warning}")
    if page is not None:
        typer.echo(page)
    if report.problems:
        for problem in report.problems:
            say(f"problem: {problem}")
        fault = IntegrityError if report.exit_code == IntegrityError.exit_code else DataError
        raise fault(f"{len(report.problems)} problems were found in {report.name}", do="Mend them and prepare again")
    typer.echo("no problems found")


@corpus_app.command("move", short_help="Set the folder of moved sounds.")
def corpus_move(
    corpus: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a manifest.")],
    root: Annotated[Path, typer.Option(metavar="DIR", help="Folder of its sounds now.")],
    as_json: Json = False,
) -> None:
    """Write the new folder of the sounds into a manifest, after every sound has been found there."""
    from repbench.corpora import manifest

    moved = manifest.move(corpus, root)
    if as_json:
        print_json({"corpus": str(corpus), "root": str(root), "fingerprint": moved.fingerprint})
        return
    typer.echo(f"{corpus}: {moved.name}, {len(moved.utterances)} utterances under {root}")


@corpus_app.command("export", short_help="Write a corpus for lhotse, datasets or Kaldi.")
def corpus_export(
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="NAME|DIR", help="A registered corpus or a manifest's folder.", autocompletion=completion.corpora
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder to write.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="huggingface, kaldi or lhotse.")],
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the sounds of a manifest, if they were moved.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a corpus in the format of another tool; what the format cannot hold is named."""
    from repbench.corpora.export import export
    from repbench.corpora.open import open_corpus

    reporter = reporter_for(quiet)
    with reporter.stage(f"corpus {corpus}") as advance:
        opened = open_corpus(corpus, root=root, progress=advance, say=reporter.say)
    with reporter.stage(f"writing {opened.name}") as advance:
        written = export(opened, to, out, progress=advance)
    if as_json:
        print_json(
            {
                "folder": str(written.folder),
                "format": written.kind,
                "fingerprint": opened.fingerprint,
                "utterances": written.num_utterances,
                "notes": written.notes,
            }
        )
        return
    for note in written.notes:
        reporter.say(f"note: {note}")
    typer.echo(f"{out}: {printable(opened.name)} for {to}, {written.num_utterances} utterances")


@contextlib.contextmanager
def _faults_named() -> Iterator[None]:
    """Print the first faults of an error that sums up several, one a line, before the error."""
    try:
        yield
    except RepbenchError as error:
        from repbench.corpora.faults import MOST_NAMED

        for fault in error.faults[:MOST_NAMED]:
            say(f"fault: {fault.line()}")
        if len(error.faults) > MOST_NAMED:
            say(f"fault: … and {len(error.faults) - MOST_NAMED} more; --json names all")
        raise


def _counts(counts: Any) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def _channel(text: str) -> Channel:
    """The channel that `--channel` names."""
    if text == "mix":
        return "mix"
    if not text.isdecimal() or int(text) < 1:
        what = f"`--channel` must be a number from 1 on or `mix`, but is `{text}`"
        raise UsageError(what, key="--channel", do="Write it like --channel 1")
    return int(text)


def _share_and_seed(text: str) -> tuple[float, int]:
    """The parts of `SHARE:SEED`."""
    share, _, seed = text.partition(":")
    try:
        return float(share), int(seed)
    except ValueError as error:
        what = f"`{text}` must be a share and a seed"
        raise UsageError(what, key="--dev-from-train", do="Write it like 0.1:1337") from error


def _declared_features(hop: float | None, first_center: float, name: str) -> DraftFeatures | None:
    from repbench.corpora.contract import DraftFeatures

    if hop is not None:
        return DraftFeatures(name=name, hop_seconds=hop, first_center_seconds=first_center)
    if first_center or name != "features":
        what = "Features are described, but their hop is not declared"
        raise UsageError(what, key="--features-hop", do="Give the time between two frames in seconds")
    return None


def _assignments(texts: Sequence[str], option: str) -> dict[str, str]:
    """From each field to its column; a field has one."""
    columns: dict[str, str] = {}
    for field, name in (_assignment(text, option) for text in texts):
        if columns.setdefault(field, name) != name:
            what = f"`{field}` is given two columns, `{columns[field]}` and `{name}`"
            raise UsageError(what, key=option, do="Give it once")
    return columns


def _assignment(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise UsageError(f"`{text}` is not of the form FIELD=COLUMN", key=option, do=f"Write {option} path=file_name")
    return name, value


def _relabellings(texts: Sequence[str]) -> dict[str, str | None]:
    """From label to phone of each `LABEL=PHONE`, divided at the last `=`: labels of X-SAMPA (`n=`) may hold one."""
    meant: dict[str, str | None] = {}
    for text in texts:
        label, equals, phone = text.rpartition("=")
        if not equals or label in meant:
            what = f"`{text}` names a label twice" if equals else f"`{text}` is not of the form LABEL=PHONE"
            do = "Write --relabel '[breath]=sil' once for each label, or '[breath]=' where it is none"
            raise UsageError(what, key="--relabel", do=do)
        meant[label] = phone or None
    return meant
