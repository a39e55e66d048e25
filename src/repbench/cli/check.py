"""`repbench check …`: the conformance checks of a plugin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repbench.cli import completion
from repbench.cli.commands import Commands
from repbench.cli.options import UPSTREAM_NAMES, Checkpoint, Device, Json, Plugins
from repbench.cli.output import help_if_alone, print_columns, print_json, say
from repbench.errors import EnvironmentFault, PluginError

if TYPE_CHECKING:
    from repbench.benchmark.loading.certificates import Certificate, CheckResult

check_app = Commands(help="Check a plugin against its contract.", invoke_without_command=True, rich_markup_mode=None)


@check_app.callback()
def _check(context: typer.Context) -> None:
    help_if_alone(context)


@check_app.command("upstream", short_help="Check a model against the contract of upstreams.")
def check_upstream(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help=f"The model: {UPSTREAM_NAMES}.", autocompletion=completion.upstreams)
    ],
    checkpoint: Checkpoint = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of untrained weights.")] = 0,
    device: Device = "cpu",
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Run every conformance check of an upstream, and keep a certificate if all pass."""
    take_plugins(plugin)
    from repbench.benchmark.environment import choose_device
    from repbench.console import ConsoleReporter
    from repbench.testing.certify import certify_upstream

    chosen = choose_device(device)
    certificate = certify_upstream(
        name, checkpoint=checkpoint, seed=seed, device=chosen, reporter=ConsoleReporter(), keeps=False
    )
    _report(certificate, as_json)


@check_app.command("downstream", short_help="Check a task against the contract of downstreams.")
def check_downstream(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The task; see `repbench list downstreams`.", autocompletion=completion.downstreams
        ),
    ],
    corpus: Annotated[
        str | None, typer.Option(metavar="C", help="Corpus whose labels it reads; default: a small corpus of tones.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="task.A=V", help="An option of the task; may be repeated.")
    ] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Run every conformance check of a downstream, and keep a certificate if all pass."""
    take_plugins(plugin)
    from repbench.benchmark.protocol import load_protocol
    from repbench.console import ConsoleReporter
    from repbench.testing.certify import certify_downstream

    options = load_protocol("default", None, set_ or []).task
    _report(certify_downstream(name, options=options, corpus=corpus, reporter=ConsoleReporter(), keeps=False), as_json)


@check_app.command("head", short_help="Check a head against the contract of heads.")
def check_head(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The head; see `repbench list heads`.", autocompletion=completion.heads),
    ],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Run every conformance check of a head."""
    take_plugins(plugin)
    from repbench.console import ConsoleReporter
    from repbench.downstream.heads import head_entry, head_factory
    from repbench.testing.heads import HEAD_CHECKS, HeadSubject

    subject = HeadSubject(head_factory(name))
    with ConsoleReporter().stage(f"checking {name}") as advance:
        results = HEAD_CHECKS.results(subject, advance)
    failed = tuple(each for each in results if each.status == "failed")
    if as_json:
        entry = head_entry(name)
        origin = {"distribution": entry.distribution, "version": entry.version, "file_sha256": entry.file_sha256()}
        checks = [each.as_dict() for each in results]
        print_json({"passed": not failed, "name": name, "origin": origin, "results": checks})
        raise typer.Exit(PluginError.exit_code if failed else 0)
    _print_checks(results)
    _refuse_failed("head", name, failed, len(results))


def take_plugins(files: list[Path] | None) -> None:
    """Add the plugins of the files of `--plugin` to the registry."""
    from repbench.registry import registry

    for file in files or ():
        known = registry().problems
        registry().add_file(file)
        for problem in registry().problems[len(known) :]:
            say(f"note: {problem.reason}")


def _report(certificate: Certificate, as_json: bool) -> None:
    """Print the checks; exit with 5 if one failed or was not tried, with 7 if the certificate cannot be kept."""
    unkept = _unkept(certificate)
    if as_json:
        content = {"passed": certificate.passed, "certificate": certificate.as_dict() | _id_if(certificate)}
        print_json(content if unkept is None else content | {"error": unkept.fields()})
        code = 0 if unkept is None else unkept.exit_code
        raise typer.Exit(code if certificate.passed else PluginError.exit_code)
    _print_checks(certificate.results)
    _refuse_failed(certificate.kind, certificate.name, certificate.failed, len(certificate.results))
    if certificate.untried:
        num_checks = f"{len(certificate.untried)} of {len(certificate.results)} promises"
        what = f"{num_checks} of the {certificate.kind} `{certificate.name}`"
        why = f"could not be tried: {_ids(certificate.untried)}; {certificate.untried[0].detail}"
        raise PluginError(f"{what} {why}", key=certificate.name, do="There is no certificate of what was not tried")
    if unkept is not None:
        raise unkept
    typer.echo(f"certificate {certificate.id} of {certificate.kind} {certificate.name}")


def _print_checks(results: Sequence[CheckResult]) -> None:
    rows = [
        {
            "check": each.id,
            "status": each.status,
            "measured": _number(each.measured),
            "allowed": _number(each.allowed),
            "detail": each.detail,
        }
        for each in results
    ]
    print_columns(("check", "status", "measured", "allowed", "detail"), rows)


def _refuse_failed(kind: str, name: str, failed: Sequence[CheckResult], num_checks: int) -> None:
    if failed:
        what = f"The {kind} `{name}` breaks {len(failed)} of {num_checks} promises: {_ids(failed)}"
        raise PluginError(what, key=name, do="Correct it, or tell its authors")


def _unkept(certificate: Certificate) -> EnvironmentFault | None:
    """Keep the certificate; the fault if it cannot be kept."""
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
