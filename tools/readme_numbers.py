"""Writes the numbers of README.md from the files that hold them.

Usage: python tools/readme_numbers.py [--check]

A block between `<!-- numbers: NAME -->` and `<!-- end -->` is what the function of `BLOCKS` under that name makes of a
result in benchmarks/results/ or a table of docs/design/, which it names. With `--check` nothing is written, and the
exit code is 1 if a block is not that of its file.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULTS = "benchmarks/results"
BLOCK = re.compile(r"(<!-- numbers: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def what_pretraining_is_worth() -> str:
    """Mean accuracy of a linear phone probe, of the page on the preset `tiny`."""
    page = "docs/design/0006-tiny-mockingjay.md"
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(
        r"^\| (\w+) \| (–|untrained|pre-trained) (?:\| [\d.]+ ){3}\| \*\*([\d.]+)\*\* \| ([\d.]+) \|", text, re.M
    )
    lines = [
        f"| {' '.join([name, state]).removesuffix(' –')} | {mean} | {speech} |" for name, state, mean, speech in found
    ]
    source = f"Means of three seeds; how they were measured: [{Path(page).stem}]({page})."
    return "\n".join(["| representation | accuracy | without silence |", "|---|--:|--:|", *lines, "", source])


def cost_beside_s3prl() -> str:
    """Seconds of one pair, and how many times as long S3PRL takes."""
    result = _result("probing")
    rows = {
        "nothing stored": "float32 cold",
        "nothing stored, `extraction.precision=bfloat16`": "bfloat16 cold",
        "features stored": "float32 warm",
    }
    lines = []
    for title, key in rows.items():
        one = result["repbench"][key]
        ratios = f"{one['ratio']:.0f} × | {one['ratio_with_test_each_time']:.0f} ×"
        lines.append(f"| {title} | {one['seconds']:.0f} s | {ratios} |")
    machine, s3prl = result["machine"], result["s3prl"]
    what = (
        f"Mockingjay BASE and a linear phone probe of {result['epochs']} epochs on "
        f"{result['seconds_of_sound'] / 60:.0f} minutes of speech, {machine['threads']} threads of {machine['cpu']};\n"
        f"S3PRL {machine['s3prl']} with the same weights, which runs the network again in every epoch, takes\n"
        f"{s3prl['seconds']:,.0f} s, or {s3prl['seconds_with_test_each_time']:,.0f} s with the test split scored at\n"
        f"each evaluation, as in its recipes ({_source('probing')})."
    )
    head = ["| `repbench run` | takes | S3PRL | S3PRL, test each time |", "|---|--:|--:|--:|"]
    return "\n".join([what, "", *head, *lines])


def cost_of_many() -> str:
    """Ratio of many probes to one, time of a report, growth of memory."""
    lines = []
    for steps, one in _result("many_probes")["by_steps"].items():
        records = one["runs"]["many"]["records"]
        lines.append(
            f"* Seven label fractions, five seeds and five learning rates of one pair ({records} records, probes of "
            f"{steps} steps) take {one['ratio']:.1f} × the time of the pair alone ({_source('many_probes')})."
        )
    report = _result("report")
    lines.append(
        f"* `repbench report` recomputes and reports {report['records']:,} records of {report['utterances_each']} "
        f"utterances in {report['seconds']:.0f} s ({_source('report')})."
    )
    memory = _result("memory")
    few, most = (memory["runs"][f"{part}, empty store"] for part in ("half", "whole"))
    lines.append(
        f"* Peak memory grows by {100 * memory['growth']['empty store']:.1f} % when the corpus grows from "
        f"{few['utterances']:,} to {most['utterances']:,} utterances ({_source('memory')})."
    )
    return "\n".join(lines)


def scores_under_conditions() -> str:
    """Phone accuracy of seven systems on clean sound and under some conditions, and the mean over all."""
    result = _result("robustness")
    shown = {
        "clean": "clean",
        "white noise, 10 dB": "noise:white:s3",
        "babble, 0 dB": "noise:babble:s5",
        "reverberation, 1.3 s": "reverb:s5",
        "telephone": "telephone:s3",
    }
    lines = []
    for system, tasks in result["systems"].items():
        scores = tasks["phone"]["scores"]
        others = [value for name, value in scores.items() if name != "clean"]
        numbers = [scores[name] for name in shown.values()] + [sum(others) / len(others)]
        lines.append(f"| {system.replace(',', '')} | {' | '.join(f'{each:.3f}' for each in numbers)} |")
    heading = f"| phone accuracy, {result['corpus']} | {' | '.join(shown)} | mean of {len(others)} |"
    source = f"Means of three seeds ({_source('robustness')})."
    return "\n".join([heading, f"|---|{'--:|' * (len(shown) + 1)}", *lines, "", source])


BLOCKS: dict[str, Callable[[], str]] = {
    "pretraining": what_pretraining_is_worth,
    "cost": cost_beside_s3prl,
    "many": cost_of_many,
    "robustness": scores_under_conditions,
}


def _result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _source(name: str) -> str:
    return f"[{name}.json]({RESULTS}/{name}.json)"


def with_numbers(text: str) -> str:
    """The text with every block made anew.

    Raises:
        KeyError: A block has a name that no function has.
    """
    return BLOCK.sub(lambda block: f"{block[1]}{BLOCKS[block[2]]()}\n{block[3]}", text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a block is an old one")
    args = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    made = with_numbers(text)
    if args.check and made != text:
        print("README.md: numbers are not those of their files: run `python tools/readme_numbers.py`", file=sys.stderr)
        return 1
    if not args.check:
        README.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
