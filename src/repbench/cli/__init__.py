"""The command line: parse, call, print. Nothing heavy is imported before a command needs it.

This module holds the program and its exit codes; each command is in another module of the package.
"""

from __future__ import annotations

import errno
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer

from repbench import foreign_plugins
from repbench.cli import (
    cache,
    check,
    comparing,
    completion,
    corpus,
    exporting,
    extracting,
    installed,
    invariance,
    leaderboard,
    new,
    planning,
    plots,
    report,
    running,
    show,
    streams,
    sweeping,
    verify,
)
from repbench.cli.commands import Commands
from repbench.cli.output import help_if_alone, print_json, say
from repbench.errors import (
    EnvironmentFault,
    PluginError,
    RepbenchError,
    Terminated,
    UsageError,
    is_out_of_memory,
)

app = Commands(
    name="repbench",
    help="Benchmark speech representations: probe or fine-tune them on labelled tasks, with intervals and controls.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(corpus.corpus_app, name="corpus")
app.add_typer(plots.plot_app, name="plot")
app.add_typer(cache.cache_app, name="cache")
app.add_typer(leaderboard.leaderboard_app, name="leaderboard")
app.add_typer(check.check_app, name="check")
app.add_typer(new.new_app, name="new")
app.command("list", short_help="List installed upstreams, downstreams, corpora and heads.")(installed.list_)
app.command(short_help="Check the installation and every plugin.")(installed.doctor)
app.command(short_help="Evaluate an upstream on a downstream task.")(running.run)
app.command(short_help="State what difference a test set could show, before a run.")(planning.plan)
app.command(short_help="Evaluate the pairs of a plan that have no record yet.")(sweeping.sweep)
app.command(short_help="Pre-train an upstream.")(running.pretrain)
app.command(short_help="Compare the layers of two models.")(comparing.compare)
app.command(short_help="Measure how far noise, rooms and codecs move the states of a model.")(invariance.invariance)
app.command(short_help="Write tables, curves and an HTML page from records.")(report.report)
app.command(short_help="Show one record.")(show.show)
app.command(short_help="Recompute the scores of records from their predictions.")(verify.verify)
app.command(short_help="Convert a checkpoint of the Mockingjay code, S3PRL, APC or CTranslate2.")(running.convert)
app.command(short_help="Write the upstream of a fine-tuned run.")(exporting.export)
app.command(short_help="Write the hidden states of audio files, or store features of a corpus.")(extracting.extract)
app.command(short_help="Pre-train, evaluate and report on a small synthetic corpus.")(running.demo)

_SHOWN_CHARACTERS = 60

_ParsingError: Any = typer.BadParameter.__mro__[2]
"""The class of the parser's errors; typer exports only a subclass of it."""


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
    help_if_alone(context)


def main() -> NoReturn:
    """Run the command line and exit with the code that `repbench.errors` gives an error."""
    signal.signal(signal.SIGTERM, _terminated)
    foreign_plugins.keep_out()
    streams.fit_streams()
    try:
        code = _run_and_report()
        sys.stdout.flush()
    except OSError as error:
        code = _unwritable(error)
    except Terminated as end:
        if end.code == streams.BROKEN_PIPE:
            streams.let_go()
        raise
    sys.exit(code)


def _run_and_report() -> int:
    """Run the command and print its error, if there is one; returns the exit code."""
    try:
        return _run_command()
    except RepbenchError as error:
        return _fail(error)
    except _ParsingError as error:
        return _fail(UsageError(error.format_message(), do=f"See `{_command_path(error)} --help`"))
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return 130
    except OSError as error:
        # Raised by whichever call is first to look at a path, far from the argument that named it.
        if error.errno != errno.ENAMETOOLONG:
            raise
        name = str(error.filename)
        what = f"The name `{name[:_SHOWN_CHARACTERS]}…` is too long for the file system: {len(name)} characters"
        return _fail(UsageError(what, do="Check the arguments that name a file or a folder"))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _fail(EnvironmentFault("Out of memory", do="Take a smaller model, smaller batches, or a larger machine"))


def _run_command() -> int:
    """Run the command; returns its exit code.

    Raises:
        BrokenPipeError: The reader of the output is gone.
        PluginError: Code of a plugin called `sys.exit` where no other handler caught it.
    """
    try:
        return app(prog_name="repbench", standalone_mode=False) or 0
    except Terminated:
        raise
    except SystemExit as error:
        if completion.is_wanted():  # typer ends the process after it; no code of a plugin has run
            return error.code if isinstance(error.code, int) else 0
        if isinstance(error.__context__, BrokenPipeError):  # typer turns it into SystemExit
            raise error.__context__ from None
        what = f"A plugin would end the process: SystemExit: {error}"
        raise PluginError(
            what, do="Find it with `repbench check` or `repbench doctor`, and tell its authors"
        ) from error


def _unwritable(error: OSError) -> int:
    """The exit code for an output that cannot be written; prints the error to stderr where that is possible."""
    if error.errno == errno.EPIPE and streams.reader_is_gone():
        streams.let_go()
        return streams.BROKEN_PIPE
    if error.errno not in {errno.ENOSPC, errno.EIO}:
        raise error
    streams.let_go()
    fault = EnvironmentFault(f"The output cannot be written: {error.strerror}", file=error.filename)
    say(f"error: {fault.line()}")
    return fault.exit_code


def _terminated(signum: int, frame: object) -> NoReturn:
    say("terminated")
    raise Terminated(143)


def _fail(error: RepbenchError) -> int:
    if "--json" in sys.argv:
        print_json(error.fields())
    say(f"error: {error.line()}")
    for line in error.text().splitlines()[1:]:
        say(line)
    return error.exit_code


def _command_path(error: Any) -> str:
    return error.ctx.command_path if error.ctx is not None else "repbench"
