"""What one browser tab remembers, as data."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.decide.policy.policy import Policy
from core.errors import PolicyError, QuantscapeError
from dashboard.session.control import Clamped, Ends, Value
from dashboard.session.switch_model import SetAside

SESSION = "_session"
"""Key of a tab in the state of Streamlit's session."""


@dataclass(frozen=True, slots=True)
class TableRound:
    """One life of the layer table in the browser, which keeps edits by row number.

    `base` are the overrides it was drawn with and `names` its rows; both stay as they are while
    it lives, since an editor whose data change sends its edits anew. `text` is what its edits
    last made of the overrides.
    """

    number: int = 0
    base: tuple[tuple[str, str], ...] = ()
    names: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class ChartRound:
    """One life of a chart in the browser, and what was selected in it last."""

    number: int = 0
    layer: str = ""
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """A strategy that a person keeps."""

    name: str
    policy: Policy


@dataclass
class Tab:
    """One browser tab. `link` is the text of the URL's parameters when it was opened.

    By model: `pinned` is what maps are held against, `kept` the person's strategies, `deleted`
    the place and content of the one deleted last, `set_aside` the rules that only that model
    knows, put aside while another one is open. `layer` is the layer selected on every page.
    `last` is the last policy that has a map, which is on screen; `unkept` what was asked for where
    that is another one, and why it has none.
    `problem` is what a callback could not do, shown by the page that it belongs to. `in_browser`
    is what the browser's own store holds of an analysis, by the name of its place there, and
    `forgotten` the places that are let go of;
    `fitted` are numbers that were asked for and did not fit, by control, `ends` those between which
    the sliders of budgets were drawn last.
    `opened` names the expanders of the sidebar that opened by themselves.
    `offered` are the precisions that the model on screen holds, `redirected` the controls that name one
    which is not allowed: what they named, and where they go instead.
    """

    link: dict[str, str]
    link_read: bool = False
    model: str = ""
    history: list[dict[str, Value]] = field(default_factory=list)
    place: int = -1
    pinned: dict[str, Policy] = field(default_factory=dict)
    kept: dict[str, tuple[Named, ...]] = field(default_factory=dict)
    deleted: dict[str, tuple[int, Named]] = field(default_factory=dict)
    set_aside: dict[str, SetAside] = field(default_factory=dict)
    layer: str = ""
    rounds: dict[str, ChartRound] = field(default_factory=dict)
    problem: tuple[str, QuantscapeError] | None = None
    last: Policy = field(default_factory=Policy)
    unkept: tuple[Policy, PolicyError] | None = None
    repairs: dict[str, Value] = field(default_factory=dict)
    fitted: dict[str, Clamped] = field(default_factory=dict)
    ends: dict[str, Ends] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    table: TableRound = field(default_factory=TableRound)
    hint_seen: bool = False
    in_browser: dict[str, str] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)
    offered: tuple[str, ...] = ()
    redirected: dict[str, tuple[str, str]] = field(default_factory=dict)
