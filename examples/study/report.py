"""Pack the records of a study, and make its page and the tables of docs/study.md from the packed ones.

python report.py --pack DIR/runs    # records.tar.xz: each record and its predictions, without probes
python report.py --out PAGE         # repbench report on records.tar.xz, and the tables
"""

from __future__ import annotations

import argparse
import json
import lzma
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ARCHIVE = HERE / "records.tar.xz"
DOCUMENT = HERE.parent.parent / "docs" / "study.md"
BEGIN, END = "<!-- tables: made by examples/study/report.py -->", "<!-- end of tables -->"
PACKED = ("record.json", "predictions.jsonl")

NAMES = {
    "hf:models/whisper-tiny.en": "Whisper tiny.en",
    "hf:models/whisper-base": "Whisper base",
    "onnx:models/moonshine-tiny.ort": "Moonshine tiny",
    "py:ge2e:GE2E": "GE2E",
    "py:campplus:CAMPPlus": "CAM++",
    "apc": "APC",
    "mockingjay": "Mockingjay",
    "mel": "mel",
    "mel_no_cmvn": "mel, not normalised",
}


def pack(runs: Path) -> None:
    """Write the archive, the same bytes each time: sorted, without times and owners."""
    files = sorted(path for path in runs.rglob("*") if path.name in PACKED)
    with (
        lzma.open(ARCHIVE, "wb", preset=9 | lzma.PRESET_EXTREME) as stream,
        tarfile.open(fileobj=stream, mode="w") as tar,
    ):
        for path in files:
            entry = tarfile.TarInfo(str(path.relative_to(runs)))
            entry.size = path.stat().st_size
            with path.open("rb") as content:
                tar.addfile(entry, content)
    print(f"{len(files) // 2} records, {ARCHIVE.stat().st_size:,} bytes")


def unpack(folder: Path) -> Path:
    """The folder, with the records of the archive in it."""
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(folder, filter="data")
    return folder


def report(out: Path) -> dict[str, Any]:
    """Run `repbench report` on the packed records, which verifies each; its results."""
    with tempfile.TemporaryDirectory() as folder:
        records = unpack(Path(folder) / "records")
        options = ["--by", "gender", "--by", "age:16", "--format", "html,json", "--out", str(out)]
        subprocess.run([sys.executable, "-m", "repbench", "report", str(records), *options], check=True)
    results: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return results


def number(value: float, interval: list[float] | None) -> str:
    """A score with its interval: `0.443 [0.427, 0.460]`."""
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def system(upstream: str, *, untrained: bool) -> str:
    return NAMES.get(upstream, upstream) + (", untrained" if untrained else "")


def tables(results: dict[str, Any]) -> str:
    """All tables, as Markdown."""
    rows = {row["key"]: row for row in results["rows"]}
    columns = {column["key"]: column for column in results["columns"]}
    cells = {cell["key"]: cell for cell in results["cells"]}
    # (task, corpus, head) -> condition -> (system, layer) -> the score
    found: dict[tuple[str, str, str], dict[str, dict[tuple[str, str], str]]] = defaultdict(lambda: defaultdict(dict))
    arrows: dict[tuple[str, str, str], str] = {}
    for cell in results["cells"]:
        row, column = rows[cell["row"]], columns[cell["column"]]
        where = _where(column)
        who = system(row["upstream"], untrained=row["untrained"]), str(row["layer"])
        found[where][column["facts"].get("condition", "clean")][who] = number(cell["value"], cell["ci95"])
        arrows[where] = f"{column['metric']}{'' if column['higher_is_better'] else ' ↓'}"
    for heading, key, difference in _differences(results):
        cell = cells[key]
        row, column = rows[cell["row"]], columns[cell["column"]]
        who = system(row["upstream"], untrained=row["untrained"]), str(row["layer"])
        found[_where(column)][heading][who] = number(difference["value"], difference["ci95"])
    parts = [_models(results["rows"])]
    for where in sorted(found):
        parts.append(_scores(where, arrows[where], found[where]))
    parts += _groups(results, rows, columns)
    return "\n\n".join(parts)


def _where(column: dict[str, Any]) -> tuple[str, str, str]:
    return column["task"], column["corpus"], column["facts"].get("head") or ""


def _differences(results: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Heading, key of a cell of clean sound, and a paired difference with its interval."""
    for family in results["robustness"]:
        for row in family["rows"]:
            for condition, disturbed in row["conditions"].items():
                if disturbed["drop"]:
                    yield f"worse under {condition} by", row["clean"], disturbed["drop"]
    for control in results["controls"]:
        for entry in control["cells"]:
            if entry["gained_by_training"]:
                yield "better than its twin by", entry["cell"], entry["gained_by_training"]


def _models(rows: list[dict[str, Any]]) -> str:
    lines = ["| model | parameters | million products a second of sound | fingerprint |", "|---|--:|--:|---|"]
    seen = set()
    for row in sorted(rows, key=lambda row: (row["untrained"], system(row["upstream"], untrained=row["untrained"]))):
        name, cost = system(row["upstream"], untrained=row["untrained"]), row["cost"]
        if name not in seen:
            seen.add(name)
            products = cost["macs_per_second"]
            counted = f"{cost['parameters']:,} | {products / 1e6:,.0f}" if products else "– | –"
            fingerprint = f"`{row['fingerprint'][:16]}`" if row["fingerprint"] else "one a seed"
            lines.append(f"| {name} | {counted} | {fingerprint} |")
    return "\n".join(lines)


def _scores(where: tuple[str, str, str], metric: str, found: dict[str, dict[tuple[str, str], str]]) -> str:
    conditions = sorted(found, key=lambda each: (each.endswith(" by"), each != "clean", each))
    title = " · ".join(each for each in where if each not in {"", "none"})
    lines = [f"**{title}**, {metric}", "", f"| model | layer | {' | '.join(conditions)} |"]
    lines.append("|---|---|" + "--:|" * len(conditions))
    order = list(dict.fromkeys([*NAMES.values(), *(f"{name}, untrained" for name in NAMES.values())]))
    every = {who for scores in found.values() for who in scores}
    for who in sorted(every, key=lambda each: (order.index(each[0]) if each[0] in order else len(order), each)):
        lines.append(f"| {who[0]} | {who[1]} | {' | '.join(found[each].get(who, '') for each in conditions)} |")
    return "\n".join(lines)


def _groups(results: dict[str, Any], rows: dict[str, Any], columns: dict[str, Any]) -> Iterator[str]:
    cells = {cell["key"]: cell for cell in results["cells"]}
    for table in results.get("groups", []):
        column = columns[table["column"]]
        lines: list[str] = []
        for entry in table["cells"]:
            row = rows[cells[entry["cell"]]["row"]]
            shown = [each for each in entry["groups"] if each["shown"]]
            if not lines:
                names = [f"{each['name']} ({each['speakers']} speakers)" for each in shown]
                title = (
                    f"**{column['task']} · {column['corpus']} by {table['by'].partition(':')[0]}**, {column['metric']}"
                )
                lines = [title, "", f"| model | {' | '.join(names)} | gap | gap by chance |"]
                lines.append("|---|" + "--:|" * (len(names) + 2))
            scores = " | ".join(number(each["value"], each["ci95"]) for each in shown)
            gap = entry["gap"]
            gaps = f"{number(gap['value'], gap['ci95'])} | {gap['by_chance']:.3f}" if gap else "– | –"
            lines.append(f"| {system(row['upstream'], untrained=row['untrained'])} | {scores} | {gaps} |")
        yield "\n".join(lines)


def replaced(document: str, made: str) -> str:
    """The document with the tables between its two marks."""
    before, _, rest = document.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, metavar="RUNS", help="the folder of records to pack")
    parser.add_argument("--out", type=Path, help="folder of the page")
    options = parser.parse_args()
    if options.pack:
        pack(options.pack)
    if options.out:
        made = tables(report(options.out))
        DOCUMENT.write_text(replaced(DOCUMENT.read_text(encoding="utf-8"), made), encoding="utf-8")


if __name__ == "__main__":
    main()
