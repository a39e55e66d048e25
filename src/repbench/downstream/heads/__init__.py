"""Heads: the networks that turn features into scores of classes, built-in and of plugins."""

from repbench.downstream.heads.builtin import HIDDEN_LAYERS, ContextHead, LayeredHead, ProjectedHead, RecurrentHead
from repbench.downstream.heads.contract import FitSettings, FittedHead, Gives, Head, HeadFactory, HeadInfo
from repbench.downstream.heads.dropout import SeededDropout, restart_dropout
from repbench.downstream.heads.find import (
    HEADS,
    NO_HEAD,
    build_head,
    head_entry,
    head_factory,
    head_faults,
    head_info,
    head_origin,
    heads_for,
    is_fitted,
    refuse_head,
    refuse_other_head,
)
from repbench.downstream.heads.frames import deviation_of_each, initialise, mean_of_each, windows
from repbench.downstream.heads.products import each_part, fits, linear
from repbench.downstream.heads.workers import keep_freed_memory, worker_threads

__all__ = [
    "HEADS",
    "HIDDEN_LAYERS",
    "NO_HEAD",
    "ContextHead",
    "FitSettings",
    "FittedHead",
    "Gives",
    "Head",
    "HeadFactory",
    "HeadInfo",
    "LayeredHead",
    "ProjectedHead",
    "RecurrentHead",
    "SeededDropout",
    "build_head",
    "deviation_of_each",
    "each_part",
    "fits",
    "head_entry",
    "head_factory",
    "head_faults",
    "head_info",
    "head_origin",
    "heads_for",
    "initialise",
    "is_fitted",
    "keep_freed_memory",
    "linear",
    "mean_of_each",
    "refuse_head",
    "refuse_other_head",
    "restart_dropout",
    "windows",
    "worker_threads",
]
