"""The budget problem as a mixed-integer linear programme: rows of constraints for HiGHS.

One binary variable for each unit and open precision; for each conversion of the data flow a
variable that is 1 where the forms on both sides differ, and for each join a variable by form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.decide.solve.problem import Limits
from core.decide.solve.search_tables import SearchTables

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

Doubles = NDArray[np.float64]
Term = tuple[int, float]


@dataclass(eq=False)
class Milp:
    """Variables: units by precision first (`pick(p, u)`), then forms of joins, then conversions.

    Rows are (terms, low, high). `ms` and `size` are the linear terms and constants of a map.
    """

    tables: SearchTables
    rows: list[tuple[list[Term], float, float]] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    ms: list[Term] = field(default_factory=list)
    ms_fixed: float = 0.0
    size: list[Term] = field(default_factory=list)
    size_fixed: float = 0.0

    def __post_init__(self) -> None:
        options = self.tables.choices.options
        self.precisions, self.units = options.shape
        self.upper = [float(x) for x in options.ravel()]
        self.whole = [True] * options.size
        for u in range(self.units):
            self.rows.append(([(self.pick(p, u), 1.0) for p in range(self.precisions)], 1, 1))
        self._sizes()
        self._times()

    def pick(self, p: int, u: int) -> int:
        """The variable that is 1 where unit u is in precision p."""
        return int(p) * int(self.units) + int(u)

    def variable(self, *, whole: bool = False) -> int:
        """A new variable between 0 and 1."""
        self.upper.append(1.0)
        self.whole.append(whole)
        return len(self.upper) - 1

    def limit(self, limits: Limits) -> None:
        """Add rows for limits on size and latency."""
        for terms, fixed, most in (
            (self.size, self.size_fixed, limits.size),
            (self.ms, self.ms_fixed, limits.ms),
        ):
            if np.isfinite(most):
                scale = max(most, 1e-12)
                self.rows.append(
                    ([(v, c / scale) for v, c in terms], -np.inf, (most - fixed) / scale)
                )

    def _sizes(self) -> None:
        size = self.tables.size
        self.size = [
            (self.pick(p, u), float(size[p, u]))
            for p in range(self.precisions)
            for u in range(self.units)
        ]
        base = self._base()
        self.size_fixed = float(self.tables.sizes_of(base[None])[0] - size[0].sum())

    def _base(self) -> NDArray[np.int8]:
        """The map with every unit in the reference."""
        return self.tables.choices.codes(np.zeros(self.units, dtype=np.int64))

    def _times(self) -> None:
        choices, latency = self.tables.choices, self.tables.latency
        own = self.tables.own_ms
        self.ms = [
            (self.pick(p, u), float(own[p, u]))
            for p in range(self.precisions)
            for u in range(self.units)
        ]
        fixed = np.flatnonzero((choices.unit_of < 0) & (choices.fixed >= 0))
        self.ms_fixed = float(latency.own_ms()[choices.fixed[fixed], fixed].sum())
        found = latency.crossings()
        layers = len(choices.unit_of)
        runs = [bool(code >= 0) for code in choices.fixed]
        leaves = [self._forms(found.leaves, i) for i in range(layers)]
        takes = [self._forms(found.takes, i) for i in range(layers)]
        for sources in found.into_joins:
            joined = self._join([leaves[s] for s in sources], found.quantized)
            leaves.append(joined)
            takes.append(joined)
            runs.append(True)
        # What runs in another layer's kernel takes its form: left out, which keeps a bound a bound.
        merged = {behind for _, behind in found.kernels}
        for before, behind in found.kernels:
            self._shared_kernel(before, behind, found.integer)
        for source, target, ms in zip(found.sources, found.targets, found.ms, strict=True):
            if runs[source] and runs[target] and not merged & {int(source), int(target)}:
                self._conversion(leaves[source], takes[target], float(ms))

    def _shared_kernel(self, before: int, behind: int, integer: NDArray[np.bool_]) -> None:
        """Take the time of `behind` away where it runs in the kernel of `before`."""
        own = self.tables.latency.own_ms()[:, behind]
        every = np.arange(self.precisions)[:, None].repeat(len(self.tables.choices.unit_of), 1)
        first, second = self._forms(every, before), self._forms(every, behind)
        for code, terms in second.items():
            saved = self.variable()
            self._row([(saved, 1.0), *((v, -c) for v, c in terms)], -np.inf, 0)
            with_it = [t for p, ts in first.items() if p == code or integer[p] for t in ts]
            self._row([(saved, 1.0), *((v, -c) for v, c in with_it)], -np.inf, 0)
            self.ms.append((saved, -float(own[code])))

    def _forms(self, table: NDArray[np.signedinteger], layer: int) -> dict[int, list[Term]]:
        """Form -> terms that add up to 1 where the layer has that form; -1 stands for "1"."""
        unit = int(self.tables.choices.unit_of[layer])
        if unit < 0:
            code = max(int(self.tables.choices.fixed[layer]), 0)
            return {int(table[code, layer]): [(-1, 1.0)]}
        found: dict[int, list[Term]] = {}
        for p in range(self.precisions):
            code = int(self.tables.choices.got(np.array(p), np.array(layer)))
            found.setdefault(int(table[code, layer]), []).append((self.pick(p, unit), 1.0))
        return found

    def _row(self, terms: list[Term], low: float, high: float) -> None:
        """Add a row; terms of variable -1 are constants."""
        constant = sum(c for v, c in terms if v < 0)
        self.rows.append(([t for t in terms if t[0] >= 0], low - constant, high - constant))

    def _join(self, into: list[dict[int, list[Term]]], quantized: int) -> dict[int, list[Term]]:
        """The form of a join: what all of its sources leave, or form 0."""
        shared = {f for f in into[0] if f not in {0, quantized}} if into else set()
        for forms in into[1:]:
            shared &= set(forms)
        found: dict[int, list[Term]] = {0: [(-1, 1.0)]}
        for form in sorted(shared):
            v = self.variable()
            for forms in into:
                self._row([(v, 1.0), *((t, -c) for t, c in forms[form])], -np.inf, 0)
            every = [term for forms in into for term in forms[form]]
            self._row([(v, -1.0), *every], -np.inf, len(into) - 1)
            found[form] = [(v, 1.0)]
            found[0].append((v, -1.0))
        return found

    def _conversion(
        self, left: dict[int, list[Term]], right: dict[int, list[Term]], ms: float
    ) -> None:
        if len(left) == len(right) == 1 and set(left) == set(right):
            return
        v = self.variable()
        for form in sorted(set(left) | set(right)):
            a, b = left.get(form, []), right.get(form, [])
            self._row([(v, -1.0), *a, *((t, -c) for t, c in b)], -np.inf, 0)
        self.ms.append((v, ms))

    def solve(
        self, objective: list[Term], extra: list[tuple[list[Term], float, float]],
        time_limit_s: float, *, relaxed: bool = False,
    ) -> OptimizeResult:  # fmt: skip
        """Minimise `objective` under the rows and `extra` ones, for at most `time_limit_s`."""
        # SciPy's optimizers take a second to import, and only a certificate needs them
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_array

        rows = [*self.rows, *extra]
        count = len(self.upper)
        at = [(r, v, c) for r, (terms, _, _) in enumerate(rows) for v, c in terms]
        index = np.array([(r, v) for r, v, _ in at], dtype=np.int32).reshape(-1, 2)
        matrix = coo_array(
            ([c for _, _, c in at], (index[:, 0], index[:, 1])), shape=(len(rows), count)
        )
        cost = np.zeros(count)
        for v, c in objective:
            cost[v] += c
        return milp(
            cost,
            constraints=LinearConstraint(
                matrix.tocsr(), [low for _, low, _ in rows], [high for _, _, high in rows]
            ),
            bounds=Bounds(0, np.array(self.upper)),
            integrality=np.array(self.whole, dtype=np.int64) * (not relaxed),
            options={"time_limit": max(time_limit_s, 0.05), "mip_rel_gap": 1e-4},
        )
