"""Certifies a small random model of every family that `hf:` supports, and writes the table of docs/models.md.

Usage: python tools/families.py [--render]

A model of each kind in tests/upstream/speech_encoders.py is built by transformers, saved, and put through all checks of
`repbench check upstream hf:FOLDER` (some 5 s each). The result is benchmarks/results/families.json, of which the block
`<!-- numbers: families -->` in docs/models.md is made. With `--render` nothing is certified: the block alone is made
anew. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # the small models are those of the tests

from tests.upstream.speech_encoders import KINDS, save_small  # noqa: E402

from readme_numbers import BLOCK  # noqa: E402
from repbench.benchmark.loading.certificates import CheckResult  # noqa: E402
from repbench.benchmark.loading.upstreams import build_upstream  # noqa: E402
from repbench.registry import registry  # noqa: E402
from repbench.testing.upstreams import UPSTREAM_CHECKS, UpstreamSubject  # noqa: E402
from repbench.upstream.adapters.huggingface_families import FAMILIES  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "families.json"
PAGE = ROOT / "docs" / "models.md"
NAME = "families"

TITLES = {
    "wav2vec2": "wav2vec 2.0, `feat_extract_norm: group`",
    "wav2vec2-layer": "wav2vec 2.0 and XLS-R, `feat_extract_norm: layer`",
    "wav2vec2-adapters": "the same with adapters (MMS, `adapter_attn_dim`)",
    "hubert": "HuBERT, `group`",
    "wavlm": "WavLM, `group`",
    "wavlm-layer": "WavLM, `layer`",
    "data2vec-audio": "data2vec-audio",
    "wav2vec2-conformer": "wav2vec 2.0 Conformer, `layer`",
    "unispeech": "UniSpeech, `group`",
    "unispeech-layer": "UniSpeech, `layer`",
    "unispeech-sat": "UniSpeech-SAT, `layer`",
    "sew": "SEW, `group`",
    "sew-d": "SEW-D, `group`",
    "speecht5": "SpeechT5, the speech encoder",
    "whisper": "Whisper, the encoder",
    "moonshine": "Moonshine, the encoder",
    "wav2vec2-bert": "w2v-BERT 2.0",
    "parakeet_ctc": "Parakeet (FastConformer), the encoder",
}
"""What each kind of small model is, in the table."""

COLUMNS = ("layers-and-width", "num-frames", "deterministic", "batch-invariant", "padding-invariant")
"""Checks with a column of their own."""

MARKS = {"passed": "yes", "failed": "**no**", "not measurable": "–", "not applicable": "–"}


def certified(kind: str, folder: Path, *, in_a_worker: bool) -> dict[str, Any]:
    """The results of all checks of a small model, saved in `folder`; one that transformers lacks has none.

    Args:
        kind: One of `KINDS`.
        folder: An empty one.
        in_a_worker: Whether the check `works-in-a-worker` is made, which starts a process.
    """
    import transformers

    try:
        save_small(kind, folder)
    except AttributeError as error:
        return {"kind": kind, "lacking": f"transformers {transformers.__version__}: {error}"}
    entry = registry().find("upstream", f"hf:{folder}").entry
    subject = UpstreamSubject(lambda place: build_upstream(entry, place, 0), entry=entry)
    if not in_a_worker:
        skipped = CheckResult(id="works-in-a-worker", status="not measurable", detail="not made")
        subject.results[skipped.id] = skipped
    results = UPSTREAM_CHECKS.results(subject)
    model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    info, preprocessor = subject.info, getattr(subject.upstream, "preprocessor")  # noqa: B009
    return {
        "kind": kind,
        "model_type": model_type,
        "model": FAMILIES[model_type].model,
        "hop_samples": info.hop_samples,
        "first_center_samples": info.first_center_samples,
        "min_samples": info.min_samples,
        "pads": preprocessor.pads,
        "checks": {each.id: each.status for each in results},
        "details": {each.id: each.detail for each in results if each.status != "passed"},
    }


def table(result: dict[str, Any]) -> str:
    """The table of a result, in Markdown."""
    head = ["family", "class of transformers", "hop", "first frame at", "batches", *(f"`{each}`" for each in COLUMNS)]
    lines = [f"| {' | '.join([*head, 'all checks'])} |", f"|---|---|--:|--:|---|{'---|' * (len(COLUMNS) + 1)}"]
    for row in result["rows"]:
        title = TITLES[row["kind"]]
        if "lacking" in row:
            lines.append(f"| {title} | {row['lacking']} |{' |' * (len(COLUMNS) + 4)}")
            continue
        batches = "padded" if row["pads"] else "each alone"
        checks = row["checks"]
        counts = Counter(checks.values())
        whole = ", ".join(f"{counts[status]} {status}" for status in MARKS if counts[status])
        failed = [f"`{id_}`: {row['details'][id_]}" for id_, status in checks.items() if status == "failed"]
        cells = [
            title,
            f"`{row['model']}`",
            row["hop_samples"],
            row["first_center_samples"],
            batches,
            *(MARKS[checks[id_]] for id_ in COLUMNS),
            "; ".join([whole, *failed]),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    odd = {id_ for row in result["rows"] for id_, each in row.get("checks", {}).items() if each.startswith("not ")}
    source = f"[families.json](../{RESULT.relative_to(ROOT)})"
    note = (
        f"Small random models of transformers {result['transformers']}, by `python tools/families.py` ({source}). "
        f"Not measurable: {', '.join(f'`{each}`' for each in sorted(odd)) or 'none'}."
    )
    return "\n".join([*lines, "", note])


def with_table(text: str) -> str:
    """The page with its table made anew from the result."""
    made = table(json.loads(RESULT.read_text(encoding="utf-8")))
    return BLOCK.sub(lambda block: f"{block[1]}{made}\n{block[3]}" if block[2] == NAME else block[0], text)


def main() -> int:
    """Certify, write the result and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="certify nothing; make the table of the result")
    if not parser.parse_args().render:
        import transformers

        rows = []
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(certified(kind, Path(folder) / kind, in_a_worker=True))
            print(kind, rows[-1].get("details", rows[-1]), file=sys.stderr)
        result = {"transformers": transformers.__version__, "rows": rows}
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
