"""Layers that share a precision: those of the model, and those that a person puts together."""

from __future__ import annotations

import fnmatch
import re
from functools import lru_cache

from core.layers import LayerTable

Groups = tuple[tuple[int, ...], ...]


def groups_of(layers: LayerTable, patterns: tuple[str, ...]) -> tuple[Groups, tuple[str, ...]]:
    """Positions of the layers of every group, and the wildcards that match no layer.

    Groups that share a layer are one.
    """
    if not patterns:
        return layers.groups, ()
    return _merged(layers.names, layers.groups, patterns)


@lru_cache(maxsize=64)
def _merged(
    names: tuple[str, ...], groups: Groups, patterns: tuple[str, ...]
) -> tuple[Groups, tuple[str, ...]]:
    gathered = [set(group) for group in groups]
    strangers = []
    for pattern in patterns:
        matches = re.compile(fnmatch.translate(pattern)).match
        hits = {i for i, name in enumerate(names) if matches(name)}
        if not hits:
            strangers.append(pattern)
            continue
        touching = [group for group in gathered if group & hits]
        gathered = [group for group in gathered if not group & hits]
        gathered.append(hits.union(*touching))
    return tuple(sorted(tuple(sorted(group)) for group in gathered)), tuple(strangers)
