"""Weight error: what rounding the stored weights loses.

Source: SQNR per layer, as in Lin, Talathi and Annapureddy 2016, "Fixed point quantization of deep
convolutional networks", arXiv:1511.06393.
"""

from __future__ import annotations

from core.evidence.evidence import Evidence
from core.evidence.scorers.contract import Doubles, Scorer, sqnr_to_score
from core.layers import LayerTable


def _score(layers: LayerTable, evidence: Evidence | None, precision: str) -> Doubles | None:
    at = evidence.position(precision) if evidence is not None else None
    return None if evidence is None or at is None else sqnr_to_score(evidence.weight_sqnr_db[at])


SCORER = Scorer(
    name="weight_error",
    title="Weight error",
    kind="weights",
    description="Rounding error of the stored weights alone: SQNR from 60 dB (0) to 10 dB (1). "
    "Needs no data; 0 for a layer without weights to round.",
    needs="weights",
    source="SQNR per layer, as in Lin, Talathi and Annapureddy 2016, arXiv:1511.06393",
    score=_score,
)
