"""A model whose names try to break out of where they are written."""

from __future__ import annotations

from dataclasses import replace

from core.decide.study import Study
from tests.core.synthetic import synthetic_analysis

EVIL = '</script><img src=x onerror="alert(1)">{{=cmd()}}'


def named(name: str) -> Study:
    """A synthetic study whose first layer, title and texts are `name`."""
    analysis = synthetic_analysis(3, samples=20)
    first, *rest = analysis.layers.layers
    layers = replace(analysis.layers, layers=(replace(first, name=name), *rest))
    return Study(
        replace(analysis, layers=layers, title=name, description=name, data_description=name)
    )
