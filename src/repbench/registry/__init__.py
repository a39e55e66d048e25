"""Installed upstreams, downstreams, corpora and heads: found by their names, imported when first used."""

from repbench.registry.entries import DOORS, Door, Entry, LoadedEntry, side_effects
from repbench.registry.find import FoundEntry, Registry, registry
from repbench.registry.names import (
    BUILTIN_DISTRIBUTION,
    GROUPS,
    NEVER_DRAWN,
    PLURALS,
    RESERVED_PREFIXES,
    UNPACKAGED,
    DistributionFault,
    Kind,
    declared_name,
    identity_of_code,
    is_packaged,
    last_line,
    normalised,
    short_name,
)

__all__ = [
    "BUILTIN_DISTRIBUTION",
    "DOORS",
    "GROUPS",
    "NEVER_DRAWN",
    "PLURALS",
    "RESERVED_PREFIXES",
    "UNPACKAGED",
    "DistributionFault",
    "Door",
    "Entry",
    "FoundEntry",
    "Kind",
    "LoadedEntry",
    "Registry",
    "declared_name",
    "identity_of_code",
    "is_packaged",
    "last_line",
    "normalised",
    "registry",
    "short_name",
    "side_effects",
]
