"""`repbench leaderboard …`: a folder of submitted records and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from repbench.cli.commands import Commands
from repbench.cli.options import By, GroupCorpora, Json, LeastSpeakers, least_speakers_of
from repbench.cli.output import help_if_alone, print_files, print_json, say
from repbench.errors import RepbenchError, printable

leaderboard_app = Commands(
    help="A folder of submitted records and its page.", invoke_without_command=True, rich_markup_mode=None
)


@leaderboard_app.callback()
def _leaderboard(context: typer.Context) -> None:
    help_if_alone(context)


@leaderboard_app.command("init", short_help="Write the leaderboard.yaml of a new one.")
def leaderboard_init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the new leaderboard.")],
    records: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RECORD", help="Records, or folders that hold some, whose tasks and corpora it accepts."
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Shown at the top of the page; default: the folder's name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the leaderboard.yaml that `add` and `build` read: title, rules, and the accepted tasks, from records.

    Without a record there is one task, whose corpus is left to fill in.
    """
    from repbench.benchmark.leaderboard.settings import write_head
    from repbench.benchmark.records.record import read_records

    known = read_records(records) if records else ()
    file = write_head(folder, title or folder.resolve().name, known)
    print_files([file], as_json)
    if not known:
        say("next: write the fingerprint of the corpus into its questions, then repbench leaderboard add")


@leaderboard_app.command("add", short_help="Verify records and add them.")
def leaderboard_add(
    records: Annotated[list[Path], typer.Argument(metavar="RECORD", help="Records or their folders.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The leaderboard: a folder with leaderboard.yaml.")],
    corpus: Annotated[
        str | None, typer.Option(metavar="C", help="Take the references from this corpus, not from submissions.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute the numbers of records from their predictions, and add those that pass.

    A record that is refused does not stop the others; the exit code is the highest of all.
    """
    from repbench.benchmark.leaderboard import Leaderboard
    from repbench.console import ConsoleReporter
    from repbench.corpora.open import open_corpus

    board = Leaderboard(to)
    opened = None
    if corpus is not None:
        with ConsoleReporter().stage(f"corpus {corpus}") as advance:
            opened = open_corpus(corpus, progress=advance)
    code = 0
    results: list[dict[str, Any]] = []
    for place in records:
        try:
            admitted = board.add(place, opened)
        except RepbenchError as error:
            code = max(code, error.exit_code)
            say(f"error: {error.line()}")
            results.append({"path": printable(place), "submission": None, "new": False, "error": error.fields()})
            continue
        results.append(
            {"path": printable(place), "submission": str(admitted.path), "new": admitted.is_new, "error": None}
        )
        if not as_json:
            typer.echo(f"{printable(admitted.path)}{'' if admitted.is_new else ': already there'}")
    if as_json:
        print_json({"leaderboard": str(to), "records": results})
    raise typer.Exit(code)


@leaderboard_app.command("build", short_help="Write the page from the folder.")
def leaderboard_build(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The leaderboard.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the page goes; default: page/ in the leaderboard.")
    ] = None,
    by: By = None,
    corpus: GroupCorpora = None,
    least_speakers: LeastSpeakers = None,
    as_json: Json = False,
) -> None:
    """Check every submission again, and write the page of those that pass.

    Submissions that fail are named and left out; the exit code is then the highest of all, and the page is written.
    """
    from repbench.benchmark.leaderboard import Leaderboard
    from repbench.benchmark.leaderboard.page import PageGroups, build
    from repbench.console import ConsoleReporter

    board = Leaderboard(folder)
    groups = PageGroups(tuple(by or ()), tuple(corpus or ()), least_speakers_of(least_speakers))
    built = build(board, out or folder / "page", ConsoleReporter(), groups)
    for error in built.refused.values():
        say(f"error: {error.line()}")
    if as_json:
        print_json(
            {
                "files": [str(path) for path in built.files],
                "accepted": [str(path) for path in built.accepted],
                "refused": {printable(path): error.fields() for path, error in built.refused.items()},
            }
        )
    else:
        for path in built.files:
            typer.echo(path)
    raise typer.Exit(max((error.exit_code for error in built.refused.values()), default=0))
