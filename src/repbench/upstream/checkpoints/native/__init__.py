"""Checkpoints on disk: written whole or not at all, verified before they are read, deleted only when newer ones exist.

A run folder holds `checkpoints/step-00000040/` with the weights, the training state (optional), small texts and
`checkpoint.json`, the manifest: the step, the fields of the trainer, and the size and SHA-256 of every other file. A
checkpoint appears under its name in one step, so a kill at any moment leaves the old one or the new. The meaning of the
fields is the caller's.
"""

from repbench.upstream.checkpoints.native.listing import list_checkpoints, newest_intact, newest_under, remove_leftovers
from repbench.upstream.checkpoints.native.reading import (
    CHECKPOINTS_FOLDER,
    MANIFEST_FILE,
    SCHEMA,
    TRAINING_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    open_checkpoint,
    read_training,
    read_weights,
)
from repbench.upstream.checkpoints.native.writing import save_checkpoint, save_weights

__all__ = [
    "CHECKPOINTS_FOLDER",
    "MANIFEST_FILE",
    "SCHEMA",
    "TRAINING_FILE",
    "WEIGHTS_FILE",
    "Checkpoint",
    "list_checkpoints",
    "newest_intact",
    "newest_under",
    "open_checkpoint",
    "read_training",
    "read_weights",
    "remove_leftovers",
    "save_checkpoint",
    "save_weights",
]
