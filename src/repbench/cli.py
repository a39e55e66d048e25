"""The command line: parse, call, print. Imports nothing heavy before a command needs it."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from repbench.errors import EnvironmentFault, RepbenchError, UsageError, is_out_of_memory, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repbench.benchmark.plots.plotting import Kind
    from repbench.benchmark.run import Written
    from repbench.corpora.contract import DraftFeatures

app = typer.Typer(
    name="repbench",
    help="How good is a speech representation, for what, with how few labels, and is the difference real?",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
corpus_app = typer.Typer(help="Make and audit corpora.", invoke_without_command=True, rich_markup_mode=None)
app.add_typer(corpus_app, name="corpus")
plot_app = typer.Typer(help="Draw what an upstream makes of sound.", invoke_without_command=True, rich_markup_mode=None)
app.add_typer(plot_app, name="plot")
cache_app = typer.Typer(help="Look after stored features.", invoke_without_command=True, rich_markup_mode=None)
app.add_typer(cache_app, name="cache")

_ParsingError: Any = typer.BadParameter.__mro__[2]
"""What the parser raises for a command that cannot be meant; typer exports only a subclass of it."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; progress goes to stderr.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Checkpoint = Annotated[str | None, typer.Option(metavar="PATH|random", help="Weights of the upstream.")]
Sounds = Annotated[list[Path], typer.Argument(metavar="AUDIO", help="Sound files.")]
Model = Annotated[str, typer.Option("--upstream", metavar="U", help="The model.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")]
Resample = Annotated[bool, typer.Option("--resample", help="Resample sounds of another rate.")]
PictureFormats = Annotated[str, typer.Option("--format", metavar="png,svg", help="One or both.")]
PictureSeed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of what is drawn at random.")]


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"repbench {version('repbench')}")
        raise typer.Exit


@app.callback()
def _global(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    _help_if_alone(context)


@corpus_app.callback()
def _corpus(context: typer.Context) -> None:
    _help_if_alone(context)


@plot_app.callback()
def _plot_alone(context: typer.Context) -> None:
    _help_if_alone(context)


@cache_app.callback()
def _cache(context: typer.Context) -> None:
    _help_if_alone(context)


def _help_if_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list", short_help="What is installed: names, versions, origins.")
def list_(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="upstreams, downstreams or corpora.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List what is installed: name, kind, version and origin, from metadata alone."""
    from repbench.registry import PLURALS, registry

    kinds = {plural: singular for singular, plural in PLURALS.items()}
    if kind is not None and kind not in kinds:
        raise UsageError(f"There is no kind `{kind}`", key="list", do=f"Choose one of {', '.join(kinds)}")
    rows = registry().rows(None if kind is None else kinds[kind])
    problems = [problem._asdict() for problem in registry().problems]
    if as_json:
        _print_json({"plugins": rows, "problems": problems})
        return
    _print_columns(("name", "kind", "version", "origin", "note"), rows)
    for problem in registry().problems:
        _say(f"warning: {problem.distribution}: {problem.reason}. {problem.cure}.")


@app.command(short_help="What is broken, and how to mend it.")
def doctor(as_json: Json = False) -> None:
    """Import every plugin in a child process and say what is broken and how to mend it."""
    from repbench.doctor import examine

    diagnosis = examine()
    if as_json:
        _print_json(diagnosis.as_dict())
        raise typer.Exit(diagnosis.exit_code)
    rows = [
        {"what": check.name, "status": check.status, "detail": check.detail, "cure": check.cure or ""}
        for check in (*diagnosis.checks, *diagnosis.extras)
    ]
    rows += [
        {
            "what": f"{plugin.kind} {plugin.name}",
            "status": plugin.status,
            "cure": plugin.cure or "",
            "detail": plugin.reason or f"{plugin.distribution} {plugin.version}",
        }
        for plugin in diagnosis.plugins
    ]
    rows += [
        {"what": problem.distribution, "status": "ignored", "detail": problem.reason, "cure": problem.cure}
        for problem in diagnosis.problems
    ]
    _print_columns(("what", "status", "detail", "cure"), rows)
    raise typer.Exit(diagnosis.exit_code)


@corpus_app.command("prepare", short_help="Make a manifest of a corpus.")
def corpus_prepare(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="librispeech, timit, kaldi, csv, …: see `list corpora`.")],
    root: Annotated[Path, typer.Option(metavar="DIR", help="Where the corpus lies.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the manifest to make.")],
    alignments: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Phone alignments: a file or folder of a known format.")
    ] = None,
    splits: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Lists of utterances, train*.txt, dev*.txt, test*.txt, or their folder."),
    ] = None,
    dev_from_train: Annotated[
        str | None, typer.Option(metavar="SHARE:SEED", help="Make this share of the list of train the list of dev.")
    ] = None,
    min_utterances: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Keep only speakers with at least N utterances.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="csv, mosi, kaldi: the table, labels or data folder, if not in DIR."),
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=COLUMN", help="csv: what a field is called in the table.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="mosei: standard or mockingjay2020, its filter and split.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(metavar="TEXT", help="pattern: how files are named, '{speaker}_{emotion}_{_}.wav'.")
    ] = None,
    features_hop: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="csv: time between two frames of the column `features`.")
    ] = None,
    features_first_center: Annotated[
        float, typer.Option(metavar="SECONDS", help="csv: the time of which the first of these frames speaks.")
    ] = 0.0,
    features_name: Annotated[
        str, typer.Option(metavar="NAME", help="csv: what records are to call these features.")
    ] = "features",
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What tables call the corpus.")] = None,
    no_resample: Annotated[bool, typer.Option("--no-resample", help="Refuse upstreams of another rate.")] = False,
    as_json: Json = False,
) -> None:
    """Make a manifest of a corpus: every sound is read once and its labels are checked."""
    from dataclasses import replace

    from repbench.console import ConsoleReporter
    from repbench.corpora import manifest
    from repbench.corpora.contract import PrepareOptions
    from repbench.corpora.opening import load_layout
    from repbench.corpora.preparing import prepare

    columns = dict(_assignment(each, "--column") for each in column or [])
    layout = load_layout(kind)
    if variant is not None and not hasattr(layout, "variants"):
        raise UsageError(f"The layout `{kind}` has no variants", key="--variant", do="Leave it out")
    options = PrepareOptions(
        alignments=alignments,
        table=table,
        columns=columns,
        variant=variant,
        pattern=pattern,
        splits=tuple(splits or ()),
        dev_from_train=None if dev_from_train is None else _share_and_seed(dev_from_train, "--dev-from-train"),
        min_utterances=min_utterances,
        features=_declared_features(features_hop, features_first_center, features_name),
    )
    draft = prepare(layout, root, options)
    if features_hop is not None and draft.features is None:
        raise UsageError(f"The layout `{kind}` reads no features", key="--features-hop", do="Describe them to `csv`")
    draft = draft if name is None else replace(draft, name=name)
    with ConsoleReporter().stage(f"reading {draft.name}") as advance:
        corpus = manifest.write(draft, out, resample="refused" if no_resample else "allowed", progress=advance)
    seconds = sum(utterance.seconds for utterance in corpus.utterances)
    if as_json:
        _print_json(
            {
                "corpus": str(out),
                "name": corpus.name,
                "fingerprint": corpus.fingerprint,
                "seconds": seconds,
                "utterances": len(corpus.utterances),
                "notes": corpus.notes,
            }
        )
        return
    for note in corpus.notes:
        _say(f"note: {note}")
    typer.echo(f"{out}: {printable(corpus.name)}, {len(corpus.utterances)} utterances, {seconds / 60:.1f} minutes")


@corpus_app.command("check", short_help="Read every sound again; name what is broken.")
def corpus_check(
    corpus: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A registered corpus or a manifest's folder.")],
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the sounds of a manifest lie now, if they were moved.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Take every warning for a problem.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write check.json and a page of figures.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read every sound of a corpus again and name what is broken."""
    from repbench.console import ConsoleReporter
    from repbench.corpora.check import check
    from repbench.corpora.opening import open_corpus
    from repbench.errors import DataError, IntegrityError

    reporter = ConsoleReporter()
    with reporter.stage(f"corpus {corpus}") as advance:
        opened = open_corpus(corpus, root=root, progress=advance)
    with reporter.stage("checking") as advance:
        report = check(opened, strict=strict, progress=advance)
    page = None
    if out is not None:
        from repbench.corpora.page import write_page

        page = write_page(opened, report, out)
    if as_json:
        _print_json(report.as_dict())
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
        _say(f"warning: {warning}")
    if page is not None:
        typer.echo(page)
    if report.problems:
        for problem in report.problems:
            _say(f"problem: {problem}")
        fault = IntegrityError if report.exit_code == IntegrityError.exit_code else DataError
        raise fault(f"{len(report.problems)} problems were found in {report.name}", do="Mend them and prepare again")
    typer.echo("no problems found")


@corpus_app.command("move", short_help="Write down where the sounds lie now.")
def corpus_move(
    corpus: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a manifest.")],
    root: Annotated[Path, typer.Option(metavar="DIR", help="Where its sounds lie now.")],
    as_json: Json = False,
) -> None:
    """Write down where the sounds of a manifest lie now, after every one of them has been found there."""
    from repbench.corpora import manifest

    moved = manifest.move(corpus, root)
    if as_json:
        _print_json({"corpus": str(corpus), "root": str(root), "fingerprint": moved.fingerprint})
        return
    typer.echo(f"{corpus}: {moved.name}, {len(moved.utterances)} utterances under {root}")


@app.command(short_help="One upstream, one downstream: a record and a table.")
def run(
    upstream: Annotated[str, typer.Option(metavar="U", help="The model; see `repbench list upstreams`.")],
    downstream: Annotated[str, typer.Option(metavar="D", help="The task; see `repbench list downstreams`.")],
    checkpoint: Checkpoint = None,
    corpus: Annotated[
        str, typer.Option(metavar="C", help="A registered corpus with options, or a manifest's folder.")
    ] = "synthetic",
    layer: Annotated[
        str, typer.Option(metavar="last|first|mean|weighted|K|all", help="What the probe reads.")
    ] = "last",
    label_fraction: Annotated[
        list[float] | None, typer.Option(metavar="F", help="Share of the training labels; may be repeated.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(metavar="N", min=0, help="Seed of the probe; may be repeated.")
    ] = None,
    head: Annotated[str | None, typer.Option(metavar="linear|mlp1|mlp2", help="The probe's head.")] = None,
    preset: Annotated[str, typer.Option(metavar="P", help="Protocol that ships with repbench.")] = "default",
    config: Annotated[Path | None, typer.Option(metavar="F", help="YAML of what differs from the preset.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=V", help="One setting; may be repeated.")
    ] = None,
    device: Device = "auto",
    allow_excluded: Annotated[int, typer.Option(metavar="N", min=0, help="Test utterances that may go unscored.")] = 0,
    probe: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Score the corpus with the probe of this run; train nothing.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the records go.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Ask one downstream of one frozen upstream; write a record and print the table."""
    from repbench.benchmark.protocol import load_protocol
    from repbench.benchmark.run import RunRequest
    from repbench.benchmark.run import run as run_pair
    from repbench.console import ConsoleReporter

    request = RunRequest(
        upstream=upstream,
        downstream=downstream,
        checkpoint=checkpoint,
        corpus=corpus,
        layer=layer,
        label_fractions=tuple(label_fraction or (1.0,)),
        seeds=tuple(seed or (0,)),
        head=head,
        protocol=load_protocol(preset, config, set_ or []),
        device=device,
        allow_excluded=allow_excluded,
        probe=probe,
        out=out,
    )
    _print_results(run_pair(request, ConsoleReporter()), as_json)


@app.command(short_help="Train an upstream; checkpoints, a log.")
def pretrain(
    upstream: Annotated[str, typer.Argument(metavar="UPSTREAM", help="A model with an objective: mockingjay, apc, …")],
    corpus: Annotated[
        str, typer.Option(metavar="C", help="A registered corpus with options, or a manifest's folder.")
    ] = "synthetic",
    preset: Annotated[
        str | None, typer.Option(metavar="base|large|tiny", help="Sizes; default: base on a GPU, tiny without one.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="F", help="YAML of what differs from the preset.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=V", help="One setting; may be repeated.")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", min=1, help="Updates, as training.steps.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run folder; default: runs/pretrain/UPSTREAM/PRESET-seedN."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, if there is one.")
    ] = False,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of weights, order, masks and dropout.")] = 0,
    as_json: Json = False,
) -> None:
    """Pre-train an upstream on the train split of a corpus; write checkpoints and a TensorBoard log."""
    from repbench.benchmark.pretrain import PretrainRequest, run_pretraining
    from repbench.console import ConsoleReporter

    request = PretrainRequest(
        upstream=upstream,
        corpus=corpus,
        preset=preset,
        config=config,
        assignments=tuple(set_ or ()),
        steps=steps,
        out=out,
        resume=resume,
        device=device,
        seed=seed,
    )
    done = run_pretraining(request, ConsoleReporter())
    if as_json and done.leads:
        _print_json(done.as_dict())
    elif done.leads:
        loss = "" if done.dev_loss is None else f", dev loss {done.dev_loss:.4f}"
        typer.echo(f"{done.checkpoint}: step {done.step}{loss}")
    if done.signal is not None:
        if done.leads:
            _say("stopped by a signal after a checkpoint; go on with --resume")
        raise typer.Exit(128 + done.signal)


@app.command(short_help="A checkpoint of an older code, made one of repbench.")
def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Of the Mockingjay code, S3PRL or APC.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for weights and settings.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=V", help="A setting that the file cannot tell.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make safetensors and JSON of a checkpoint of an older code, running nothing that is in it."""
    from repbench.configs.loader import apply_overrides
    from repbench.upstream.conversion import convert as convert_file

    converted = convert_file(checkpoint, out, apply_overrides({}, set_ or []))
    if as_json:
        _print_json({"checkpoint": str(converted.path), **converted.fields})
        return
    for note in converted.fields["notes"]:
        _say(f"note: {note}")
    typer.echo(f"{converted.path}: {converted.fields['upstream']}")


@app.command(short_help="Write hidden states of sound files.")
def extract(
    audio: Sounds,
    upstream: Model,
    out: Out,
    checkpoint: Checkpoint = None,
    resample: Resample = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write the hidden states (L, F, D) of each sound to STEM.safetensors."""
    from repbench.benchmark.environment import choose_device
    from repbench.benchmark.extraction import extract_files
    from repbench.benchmark.loading import load_upstream
    from repbench.console import ConsoleReporter

    chosen = choose_device(device)
    model = load_upstream(upstream, checkpoint=checkpoint)
    model.to(chosen)
    written = extract_files(model, audio, out, resample=resample, device=chosen, reporter=ConsoleReporter())
    _print_files(written, as_json)


@plot_app.command("reconstruction", short_help="Spectrograms: predicted, true, filled in.")
def plot_reconstruction(
    audio: Sounds,
    upstream: Model,
    out: Out,
    checkpoint: Checkpoint = None,
    format_: PictureFormats = "png",
    seed: PictureSeed = 0,
    resample: Resample = False,
    as_json: Json = False,
) -> None:
    """Draw the spectrogram that a model predicts, the true one, and what it fills in where stretches are hidden.

    Of a linear spectrogram, as Mockingjay LARGE predicts it, sounds are written too.
    """
    _plot("reconstruction", audio, upstream, checkpoint, out, format_, seed, resample, None, as_json)


@plot_app.command("hidden", short_help="Hidden states: first, last, weighted sum.")
def plot_hidden(
    audio: Sounds,
    upstream: Model,
    out: Out,
    checkpoint: Checkpoint = None,
    format_: PictureFormats = "png",
    seed: PictureSeed = 0,
    resample: Resample = False,
    weights: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run with --layer weighted, whose weights sum the layers.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the hidden states of the first layer, the last, and the weighted sum of all (without RUN, their mean)."""
    _plot("hidden", audio, upstream, checkpoint, out, format_, seed, resample, weights, as_json)


@plot_app.command("attention", short_help="Attention maps of every layer and head.")
def plot_attention(
    audio: Sounds,
    upstream: Model,
    out: Out,
    checkpoint: Checkpoint = None,
    format_: PictureFormats = "png",
    seed: PictureSeed = 0,
    resample: Resample = False,
    as_json: Json = False,
) -> None:
    """Draw who attends to whom, a file for each layer and a panel for each head."""
    _plot("attention", audio, upstream, checkpoint, out, format_, seed, resample, None, as_json)


def _plot(
    kind: Kind,
    audio: Sequence[Path],
    upstream: str,
    checkpoint: str | None,
    out: Path,
    formats: str,
    seed: int,
    resample: bool,
    weights: Path | None,
    as_json: bool,
) -> None:
    from repbench.benchmark.plots.plotting import PlotRequest, plot
    from repbench.console import ConsoleReporter

    request = PlotRequest(
        kind=kind,
        files=tuple(audio),
        upstream=upstream,
        checkpoint=checkpoint,
        out=out,
        formats=formats,
        seed=seed,
        resample=resample,
        weights=weights,
    )
    _print_files(plot(request, ConsoleReporter()), as_json)


@cache_app.command("list", short_help="What is stored, by upstream.")
def cache_list(as_json: Json = False) -> None:
    """List the stored features: fingerprint and name of the upstream, layers, dtype, utterances, bytes."""
    from dataclasses import asdict

    from repbench.benchmark.cache import holdings
    from repbench.benchmark.shards import store_folder

    found = [asdict(holding) for holding in holdings(store_folder())]
    if as_json:
        _print_json({"folder": str(store_folder()), "bytes": sum(row["bytes"] for row in found), "upstreams": found})
        return
    columns = ("fingerprint", "names", "layers", "dtype", "utterances", "bytes")
    _print_columns(columns, [{name: _listed(row[name]) for name in columns} for row in found])


@cache_app.command("clear", short_help="Remove stored features.")
def cache_clear(
    upstream: Annotated[
        str | None, typer.Option(metavar="FP", help="Only those of the upstream whose fingerprint begins so.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove all stored features, or those of one upstream."""
    from repbench.benchmark.cache import clear
    from repbench.benchmark.shards import store_folder

    files, num_bytes = clear(store_folder(), upstream)
    if as_json:
        _print_json({"folder": str(store_folder()), "files": files, "bytes": num_bytes})
        return
    typer.echo(f"{store_folder()}: {files} files removed, {num_bytes} bytes")


@cache_app.command("verify", short_help="Read every stored byte again.")
def cache_verify(as_json: Json = False) -> None:
    """Hold every stored feature to its checksum, and name those that are damaged."""
    from dataclasses import asdict

    from repbench.benchmark.cache import verify
    from repbench.benchmark.shards import store_folder
    from repbench.console import ConsoleReporter
    from repbench.errors import IntegrityError

    folder = store_folder()
    with ConsoleReporter().stage("shards") as advance:
        count, damaged = verify(folder, progress=advance)
    code = IntegrityError.exit_code if damaged else 0
    if as_json:
        _print_json({"folder": str(folder), "entries": count, "damaged": [asdict(each) for each in damaged]})
        raise typer.Exit(code)
    for each in damaged:
        _say(f"damaged: {each.line()}")
    typer.echo(f"{folder}: {count} entries, {len(damaged)} damaged")
    if damaged:
        do = "They are computed again when they are needed; `repbench cache clear` removes all"
        raise IntegrityError(f"{len(damaged)} stored features are damaged", file=damaged[0].file, do=do)


@app.command(short_help="The whole story, in minutes on two cores.")
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the records go.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Tell the whole story on the synthetic corpus, in minutes on two cores."""
    from repbench.benchmark.demo import demo as tell
    from repbench.console import ConsoleReporter

    _print_results(tell(out, ConsoleReporter()), as_json)


def main() -> NoReturn:
    """Run the command line and exit with the code that `repbench.errors` gives the fault."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(prog_name="repbench", standalone_mode=False) or 0
        sys.stdout.flush()
        sys.exit(code)
    except RepbenchError as error:
        _fail(error)
    except _ParsingError as error:
        _fail(UsageError(error.format_message(), do=f"See `{_command_path(error)} --help`"))
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        sys.exit(130)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _fail(EnvironmentFault("Out of memory", do="Take a smaller model, smaller batches, or a larger machine"))
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EIO, errno.EPIPE}:
            raise
        _close_output()
        if error.errno == errno.EPIPE:
            sys.exit(141)
        _fail(EnvironmentFault(f"The output cannot be written: {error.strerror}", file=error.filename))


def _close_output() -> None:
    """Let go of a standard output that takes nothing more, so that the interpreter does not complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminated(signum: int, frame: object) -> NoReturn:
    _say("terminated")
    sys.exit(143)


def _fail(error: RepbenchError) -> NoReturn:
    if "--json" in sys.argv:
        _print_json(error.fields())
    _say(f"error: {error.line()}")
    sys.exit(error.exit_code)


def _command_path(error: Any) -> str:
    return error.ctx.command_path if error.ctx is not None else "repbench"


def _say(line: str) -> None:
    """A plain line on stderr; never wrapped, never coloured."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str) + "\n")


def _print_columns(headings: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    """Left-aligned columns of plain text; a column that is empty throughout is left out."""
    cells = [[printable(row.get(heading, "")) for heading in headings] for row in rows]
    shown = [index for index in range(len(headings)) if any(row[index] for row in cells)]
    widths = [max(len(text) for text in (headings[index], *(row[index] for row in cells))) for index in shown]
    for row in (list(headings), *cells):
        typer.echo("  ".join(row[index].ljust(width) for index, width in zip(shown, widths, strict=True)).rstrip())


def _print_results(results: Sequence[Written], as_json: bool) -> None:
    if as_json:
        _print_json(
            {
                "records": [str(written.path) for written in results],
                "results": [written.record.as_dict() for written in results],
            }
        )
        return
    from repbench.benchmark.table import results_table
    from repbench.console import print_table

    print_table(results_table([written.record for written in results]))
    for written in results:
        typer.echo(written.path)


def _print_files(files: Sequence[Path], as_json: bool) -> None:
    if as_json:
        _print_json({"files": [str(path) for path in files]})
        return
    for path in files:
        typer.echo(path)


def _listed(value: Any) -> str:
    return " ".join(str(each) for each in value) if isinstance(value, tuple) else str(value)


def _counts(counts: Any) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def _share_and_seed(text: str, option: str) -> tuple[float, int]:
    """The parts of `SHARE:SEED`."""
    share, _, seed = text.partition(":")
    try:
        return float(share), int(seed)
    except ValueError as error:
        what = f"`{text}` must be a share and a seed"
        raise UsageError(what, key=option, do="Write it like 0.1:1337") from error


def _declared_features(hop: float | None, first_center: float, name: str) -> DraftFeatures | None:
    from repbench.corpora.contract import DraftFeatures

    if hop is not None:
        return DraftFeatures(name=name, hop_seconds=hop, first_center_seconds=first_center)
    if first_center or name != "features":
        what = "Features are described, but their hop is not declared"
        raise UsageError(what, key="--features-hop", do="Give the time between two frames in seconds")
    return None


def _assignment(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise UsageError(f"`{text}` is not of the form FIELD=COLUMN", key=option, do=f"Write {option} path=file_name")
    return name, value


if __name__ == "__main__":
    main()
