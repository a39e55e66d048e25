"""`repbench check …`: hold a plugin to its promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repbench.cli.commands import Commands
from repbench.cli.options import Checkpoint, Device, Json, Plugins
from repbench.cli.output import help_if_alone, print_columns, print_json, say
from repbench.errors import EnvironmentFault, PluginError

if TYPE_CHECKING:
    from repbench.benchmark.loading.certificates import Certificate, CheckResult

check_app = Commands(help="Hold a plugin to its promises.", invoke_without_command=True, rich_markup_mode=None)


@check_app.callback()
def _check(context: typer.Context) -> None:
    help_if_alone(context)


@check_app.command("upstream", short_help="Each promise of a model, tried.")
def check_upstream(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model; see `repbench list upstreams`.")],
    checkpoint: Checkpoint = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of untrained weights.")] = 0,
    device: Device = "cpu",
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Try each promise of an upstream, and keep a certificate if none is broken."""
    take_plugins(plugin)
    from repbench.benchmark.environment import choose_device
    from repbench.console import ConsoleReporter
    from repbench.testing.certify import certify_upstream

    chosen = choose_device(device)
    certificate = certify_upstream(
        name, checkpoint=checkpoint, seed=seed, device=chosen, reporter=ConsoleReporter(), keeps=False
    )
    _tell(certificate, as_json)


@check_app.command("downstream", short_help="Each promise of a task, tried.")
def check_downstream(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The task; see `repbench list downstreams`.")],
    corpus: Annotated[
        str | None, typer.Option(metavar="C", help="Whose labels it is asked for; default: a small corpus of tones.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="task.A=V", help="An option of the task; may be repeated.")
    ] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Try each promise of a downstream, and keep a certificate if none is broken."""
    take_plugins(plugin)
    from repbench.benchmark.protocol import load_protocol
    from repbench.console import ConsoleReporter
    from repbench.testing.certify import certify_downstream

    options = load_protocol("default", None, set_ or []).task
    _tell(certify_downstream(name, options=options, corpus=corpus, reporter=ConsoleReporter(), keeps=False), as_json)


def take_plugins(files: list[Path] | None) -> None:
    """Take in what the files of `--plugin` declare."""
    from repbench.registry import registry

    for file in files or ():
        known = registry().problems
        registry().add_file(file)
        for problem in registry().problems[len(known) :]:
            say(f"note: {problem.reason}")


def _tell(certificate: Certificate, as_json: bool) -> None:
    """The table of checks; ends with 5 if one failed or was not tried, with 7 if the certificate cannot be kept."""
    unkept = _unkept(certificate)
    if as_json:
        told = {"passed": certificate.passed, "certificate": certificate.as_dict() | _id_if(certificate)}
        print_json(told if unkept is None else told | {"error": unkept.fields()})
        code = 0 if unkept is None else unkept.exit_code
        raise typer.Exit(code if certificate.passed else PluginError.exit_code)
    rows = [
        {
            "check": each.id,
            "status": each.status,
            "measured": _number(each.measured),
            "allowed": _number(each.allowed),
            "detail": each.detail,
        }
        for each in certificate.results
    ]
    print_columns(("check", "status", "measured", "allowed", "detail"), rows)
    if certificate.failed:
        what = f"The {certificate.kind} `{certificate.name}` breaks {len(certificate.failed)} of {len(rows)} promises"
        do = "Correct it, or tell its authors"
        raise PluginError(f"{what}: {_ids(certificate.failed)}", key=certificate.name, do=do)
    if certificate.untried:
        what = f"{len(certificate.untried)} of {len(rows)} promises of the {certificate.kind} `{certificate.name}`"
        why = f"could not be tried: {_ids(certificate.untried)}; {certificate.untried[0].detail}"
        raise PluginError(f"{what} {why}", key=certificate.name, do="There is no certificate of what was not tried")
    if unkept is not None:
        raise unkept
    typer.echo(f"certificate {certificate.id} of {certificate.kind} {certificate.name}")


def _unkept(certificate: Certificate) -> EnvironmentFault | None:
    """Keep the certificate; why it cannot be kept."""
    from repbench.benchmark.loading.certificates import keep

    try:
        keep(certificate)
    except EnvironmentFault as fault:
        what = f"The certificate was not kept: {fault.what}"
        return EnvironmentFault(what, file=fault.file, do="Let REPBENCH_CACHE name a folder that can be written to")
    return None


def _ids(results: Sequence[CheckResult]) -> str:
    return ", ".join(each.id for each in results)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _id_if(certificate: Certificate) -> dict[str, str | None]:
    """The id is given only to what is kept."""
    return {"id": certificate.id if certificate.passed else None}
