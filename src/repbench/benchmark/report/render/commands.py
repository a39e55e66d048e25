"""The command line that reproduces a record."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from repbench.benchmark.protocol import Protocol
from repbench.benchmark.records.record import Record
from repbench.configs.settings import flat
from repbench.errors import printable
from repbench.registry import registry
from repbench.registry.names import UNPACKAGED

PROBE_SOURCE = re.compile(r"scored by the probe of ([0-9a-f]{16})$")
"""The part of a split policy that names the run whose probe scored the corpus."""

LONGEST_COMMAND = 1900
"""Most characters of a command that is shown; a longer one is not shown at all, because a part of it would be wrong."""

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")


def commands_of(records: Sequence[Record]) -> list[str]:
    """The commands that reproduce several records: one for all that differ in the seed alone."""
    seeds: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        seeds[command_of(record, seeds=())].append(record)
    return [command_of(several[0], seeds=[each.seed for each in several]) for several in seeds.values()]


def command_of(record: Record, seeds: Sequence[int] | None = None) -> str:
    """`repbench run …` with every option that differs from its default, as a shell reads it; with its seed, or `seeds`.

    A record has the name and fingerprint of a corpus folder and the names of the files of `--plugin` but not their
    paths, which the reader fills in.
    """
    parts = ["repbench", "run", *_pair(record)]
    probe = PROBE_SOURCE.search(record.corpus.split_policy)
    if probe is not None:
        parts += ["--probe", f"RUN-{probe[1]}"]
    else:
        parts += _training(record, (record.seed,) if seeds is None else seeds)
    if record.condition is not None:
        parts += _option("--condition", record.condition.name)
        parts += ["--matched"] if record.condition.training == "matched" else []
    if record.excluded:
        parts += ["--allow-excluded", str(len(record.excluded))]
    return " ".join(shlex.quote(part) for part in parts)


def shown_command(command: str) -> str | None:
    """A command as it is shown; None where it is too long."""
    line = printable(command)
    return line if len(line) <= LONGEST_COMMAND else None


def _pair(record: Record) -> Iterator[str]:
    yield from _option("--upstream", record.upstream.name)
    yield from _option("--downstream", record.downstream.name)
    if record.upstream.checkpoint is not None:
        yield from _option("--checkpoint", record.upstream.checkpoint)
    yield from _option("--corpus", corpus_argument(record))
    origins = (record.upstream.origin, record.downstream.origin, record.head_origin)
    files = {each.distribution for each in origins if each is not None and each.distribution.endswith(UNPACKAGED)}
    for file in sorted(files):
        yield from _option("--plugin", file.removesuffix(UNPACKAGED))


def corpus_argument(record: Record) -> str:
    """The registered name, or a placeholder for the folder of a manifest."""
    name = record.corpus.name
    if name.partition(":")[0] in {entry.name for entry in registry().entries("corpus")}:
        return name
    return f"FOLDER-OF-{name}"


def _training(record: Record, seeds: Sequence[int]) -> Iterator[str]:
    if record.mode == "finetune":
        yield "--finetune"
    yield from _option("--layer", record.layer)
    if record.label_fraction != 1.0:
        yield from _option("--label-fraction", f"{record.label_fraction!r}")
    for seed in seeds:
        yield from _option("--seed", str(seed))
    yield from _option("--head", record.head)
    defaults = _defaults()
    for path, value in flat(record.protocol).items():
        if path not in defaults or defaults[path] != value:
            yield from _option("--set", f"{path}={as_yaml(value)}")


@cache
def _defaults() -> Mapping[str, Any]:
    return flat(Protocol().model_dump(mode="json"))


def _option(name: str, value: str) -> tuple[str, ...]:
    # A value that begins with a dash would be read as an option.
    return (f"{name}={value}",) if value.startswith("-") else (name, value)


def as_yaml(value: Any) -> str:
    """A value as `--set` reads it back; a mapping only within a list, as its keys are set one at a time."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{as_yaml(str(key))}: {as_yaml(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_yaml, value))}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str) and (not _PLAIN.fullmatch(value) or value.lower() in {"true", "false", "null"}):
        # Quotes of one kind are doubled within it; only the other kind can hold line breaks and other controls.
        return f"""'{value.replace("'", "''")}'""" if value.isprintable() else json.dumps(value)
    return str(value)
