"""Files of alignments as their programs write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.corpora.sounds import RATE_HZ, long_textgrid, short_textgrid

Intervals = Sequence[tuple[float, float, str]]


@dataclass(frozen=True, kw_only=True)
class Format:
    """How a format is written.

    Attributes:
        name: The file of an utterance (`{}` is its id), or of all of them.
        write: The text of one utterance.
        unit_s: The grid on which its times lie, in seconds.
        holds_gaps: Whether it can leave time without a label.
        holds_repeats: Whether two phones of one label can follow each other.
        prefix: What a file begins with that holds many utterances; None where each has a file of its own.
    """

    name: str
    write: Callable[[str, Intervals], str]
    unit_s: float
    holds_gaps: bool = True
    holds_repeats: bool = True
    prefix: str | None = None

    def save(self, folder: Path, utterances: Mapping[str, Intervals]) -> Path:
        """Write every utterance into a new folder; the folder, or the file of all."""
        folder.mkdir()
        if self.prefix is not None:
            path = folder / self.name
            text = self.prefix + "".join(self.write(name, intervals) for name, intervals in utterances.items())
            path.write_text(text, encoding="utf-8")
            return path
        for name, intervals in utterances.items():
            (folder / self.name.format(name)).write_text(self.write(name, intervals), encoding="utf-8")
        return folder


def seconds_lines(_: str, intervals: Intervals) -> str:
    return "".join(f"{start:.4f} {end:.4f} {label}\n" for start, end, label in intervals)


def phn(_: str, intervals: Intervals) -> str:
    return "".join(f"{round(start * RATE_HZ)} {round(end * RATE_HZ)} {label}\n" for start, end, label in intervals)


def hts(_: str, intervals: Intervals) -> str:
    return "".join(f"{round(start * 1e7)} {round(end * 1e7)} {label}\n" for start, end, label in intervals)


def hts_in_context(_: str, intervals: Intervals) -> str:
    labels = ["x", "x", *(label for *_, label in intervals), "x", "x"]
    return "".join(
        f"{round(start * 1e7):>10} {round(end * 1e7):>10} "
        f"{labels[k]}^{labels[k + 1]}-{label}+{labels[k + 3]}={labels[k + 4]}@1_2/A:0_0_0/B:1-0-1@1-1&1-6#1-5$1-4|x\n"
        for k, (start, end, label) in enumerate(intervals)
    )


def xlabel(name: str, intervals: Intervals) -> str:
    head = [f"signal {name}", "type 0", "color 121", "separator ;", "nfields 1", "#"]
    return "\n".join([*head, *(f"    {end:.5f}  121 {label}" for _, end, label in intervals)]) + "\n"


def ctm(name: str, intervals: Intervals) -> str:
    return "".join(f"{name} 1 {start:.4f} {end - start:.4f} {label}\n" for start, end, label in intervals)


def label_line(name: str, intervals: Intervals) -> str:
    labels = [label for start, end, label in intervals for _ in range(round(100 * end) - round(100 * start))]
    return " ".join([name, *labels]) + "\n"


def mlf(name: str, intervals: Intervals) -> str:
    return f'"*/{name}.lab"\n{hts(name, intervals)}.\n'


def item(name: str, intervals: Intervals) -> str:
    return "".join(f"{name} {start:.4f} {end:.4f} {label} x y s1\n" for start, end, label in intervals)


def mfa_json(_: str, intervals: Intervals) -> str:
    entries = [[round(start, 4), round(end, 4), label] for start, end, label in intervals]
    tiers = {"words": {"type": "interval", "entries": []}, "phones": {"type": "interval", "entries": entries}}
    return json.dumps({"start": 0.0, "end": intervals[-1][1], "tiers": tiers})


FORMATS = {
    "long TextGrid": Format(name="{}.TextGrid", write=lambda _, intervals: long_textgrid(intervals), unit_s=1e-4),
    "short TextGrid": Format(name="{}.TextGrid", write=lambda _, intervals: short_textgrid(intervals), unit_s=1e-4),
    "start end phone": Format(name="{}.txt", write=seconds_lines, unit_s=1e-4),
    "TIMIT": Format(name="{}.PHN", write=phn, unit_s=1 / RATE_HZ),
    "HTS": Format(name="{}.lab", write=hts, unit_s=1e-4),
    "HTS in context": Format(name="{}.lab", write=hts_in_context, unit_s=1e-4),
    "xlabel": Format(name="{}.lab", write=xlabel, unit_s=1e-4, holds_gaps=False),
    "CTM": Format(name="all.ctm", write=ctm, unit_s=1e-4, prefix=";; made by hand\n"),
    "CTM in a .txt": Format(name="ali.txt", write=ctm, unit_s=1e-4, prefix=""),
    "master label file": Format(name="all.mlf", write=mlf, unit_s=1e-4, prefix="#!MLF!#\n"),
    "items": Format(name="all.item", write=item, unit_s=1e-4, prefix="#file onset offset #phone prev next speaker\n"),
    "MFA's JSON": Format(name="{}.json", write=mfa_json, unit_s=1e-4),
    "label lines": Format(
        name="converted_aligned_phones.txt",
        write=label_line,
        unit_s=0.01,
        holds_gaps=False,
        holds_repeats=False,
        prefix="",
    ),
}
