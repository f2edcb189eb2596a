"""Templates of charts, and the data that fills them.

A chart is an Altair template, built once per look and shape, and the data that fills it: building
and checking an Altair chart takes longer than everything else that a slider sets off, and with an
unchanged template the browser only swaps data.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import altair as alt
import pandas as pd

Spec = dict[str, Any]
Chart = alt.Chart | alt.LayerChart | alt.FacetChart


def template(chart: Chart) -> Spec:
    """The Vega-Lite of a chart whose data are named, not inline."""
    spec: Spec = chart.to_dict(validate=False)
    spec.pop("config", None)  # Altair's default sizes; Streamlit brings its own
    return spec


def filled(spec: Spec, **datasets: pd.DataFrame) -> Spec:
    """A template with its data. A copy: templates are shared between sessions."""
    return {**deepcopy(spec), "datasets": datasets}


def named(name: str) -> alt.Chart:
    """A chart of the dataset `name`."""
    return alt.Chart(alt.NamedData(name=name))
