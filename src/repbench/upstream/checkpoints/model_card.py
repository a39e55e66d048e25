"""The model card (README.md) of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def model_card(fields: Mapping[str, Any]) -> str:
    """The README.md of a checkpoint, from the fields of its manifest."""
    corpus = fields["corpus"]
    loss = fields.get("dev_loss")
    return f"""# {fields["upstream"]}, step {fields["step"]}

Pre-trained by {fields["origin"]["distribution"]} {fields["origin"]["version"]}, preset `{fields["preset"]}`, seed \
{fields["seed"]}, {fields["step"]} of {fields["training"]["steps"]} steps.

- Heard: the train split of {corpus["name"]} ({corpus["split_policy"]}), {corpus["n_train"]} utterances, \
{corpus["train_seconds"] / 3600:.2f} hours. `heard.txt` lists the SHA-256 of the samples of each{_and_before(fields)}.
{_history(fields)}- Loss on held-out utterances: {"not asked" if loss is None else f"{loss:.4f}"}
- Licence of the model: {fields["licence"]}. Licence of the corpus: {corpus["licence"]}
- Published in: {fields["citation"]}

Use it with `repbench run --upstream {fields["upstream"]} --checkpoint FOLDER --downstream phone`.

## Settings

```json
{json.dumps({"config": fields["config"], "training": fields["training"]}, indent=2)}
```
"""


def _history(fields: Mapping[str, Any]) -> str:
    """Earlier events in the history of the weights, a line each."""
    return "".join(f"- {_sentence(event)}\n" for event in fields.get("history", ()))


def _sentence(event: Mapping[str, Any]) -> str:
    if event["event"] == "more steps":
        return f"Planned for {event['steps_before']} steps; from step {event['step']} on for {event['steps']}"
    corpus = event["corpus"]
    heard = (
        "what it learned from is not known" if corpus is None else f"trained on {corpus['name']} ({corpus['licence']})"
    )
    step = "" if event["step"] is None else f", step {event['step']}"
    return f"Began with the weights of {event['checkpoint']}{step}: {heard}"


def _and_before(fields: Mapping[str, Any]) -> str:
    began = any(event["event"] == "from" for event in fields.get("history", ()))
    return ", with those of the checkpoint that it began from as far as they are known" if began else ""
