"""Measured against projected figures of verified maps."""

from __future__ import annotations

from functools import lru_cache

import altair as alt
import pandas as pd

from core.decide.advise.corrections import Residual
from dashboard.charts.template import Spec, filled, named, template
from dashboard.display.text import format_quantity
from dashboard.display.theme import Mode, Theme, by_mode

HEIGHT = 260
MAPS, EQUAL = "maps", "equal"


def residual_chart(found: list[Residual], name: str, title: str, look: Theme) -> Spec | None:
    """A mark for every map on powers of ten, with the line where both are equal; None where
    nothing can be drawn.
    """
    rows = [
        {
            "map": one.verification.label or one.verification.created[:16],
            "projected": one.projected[name].value,
            "measured": measured.value,
            "projected_said": format_quantity(one.projected[name]),
            "measured_said": format_quantity(measured),
        }
        for one in found
        if one.log_error(name) is not None and (measured := one.measured(name)) is not None
    ]
    if not rows:
        return None
    values = [row[key] for row in rows for key in ("projected", "measured")]
    ends = (min(values) / 1.5, max(values) * 1.5)  # type: ignore[type-var, operator]
    equal = pd.DataFrame({"projected": ends, "measured": ends})
    return filled(_chart(look.mode, title), **{MAPS: pd.DataFrame(rows), EQUAL: equal})


@lru_cache(maxsize=16)
def _chart(mode: Mode, title: str) -> Spec:
    look = by_mode(mode)
    scale = alt.Scale(type="log", nice=False)
    x = alt.X("projected:Q", scale=scale, axis=alt.Axis(format="~e"), title=f"Projected {title}")
    y = alt.Y("measured:Q", scale=scale, axis=alt.Axis(format="~e"), title=f"Measured {title}")
    line = named(EQUAL).mark_line(strokeDash=[4, 4], color=look.muted).encode(x=x, y=y)
    tip = [alt.Tooltip("map:N", title="Map"), alt.Tooltip("projected_said:N", title="Projected"),
           alt.Tooltip("measured_said:N", title="Measured")]  # fmt: skip
    marks = named(MAPS).mark_point(filled=True, size=80, color=look.accent)
    return template(alt.layer(line, marks.encode(x=x, y=y, tooltip=tip)).properties(height=HEIGHT))
