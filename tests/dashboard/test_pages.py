"""Every page opens for every shape of model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from core.analysis import store
from core.estimate.size import fixed_bytes
from core.evidence.evidence import Outputs
from core.evidence.scorers import SCORERS
from core.layers import TensorSpec
from core.quantity import written
from dashboard.frame.sidebar import IN_VIEW
from dashboard.pages import PAGES
from tests.conftest import REPOSITORY
from tests.core.synthetic import synthetic_analysis
from tests.dashboard.by_task import FIRST
from tests.dashboard.conftest import SAMPLES, SHAPES, Open, failures, kpis, said, walk
from tests.dashboard.test_policy import view


def test_every_folder_of_pages_is_a_page() -> None:
    """The table of pages names what lies in `app_pages`, and all of it."""
    scripts = (REPOSITORY / "dashboard" / "app_pages").glob("*/page.py")

    assert {script.parent.name for script in scripts} == set(PAGES)


@pytest.mark.parametrize("shape", [*SHAPES, *SAMPLES])
def test_every_page_opens_for_every_shape(shape: str, open_app: Open) -> None:
    """No page shows an error, and each begins with the four KPIs."""
    app = open_app(shape)
    seen = {page: (failures(app), list(kpis(app))[:3]) for page in walk(app)}

    wanted = ["Size", "Latency", FIRST.get(shape, "Accuracy loss")]
    assert len(seen) == len(PAGES)
    assert {page: found for page, found in seen.items() if found != ([], wanted)} == {}


def test_an_overflow_is_said_on_every_page(open_app: Open) -> None:
    """A map with an overflowing layer says so and projects nothing."""
    app = open_app("overflow", strategy="uniform", uniform="FP16")

    for page in walk(app):
        assert failures(app) == [], page
        assert kpis(app)["Accuracy loss"] == "n/a", page
        assert "not finite with block.0.attention" in said(app), page


def test_what_calibration_never_reached_is_named_on_every_page(
    open_app: Open, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Modules that are no layers because no sample came by stand in the sidebar."""
    analysis = synthetic_analysis(3, samples=20)
    weight = TensorSpec("experts.3.weight", (4, 4), "float")
    layers = replace(analysis.layers, uncalled=("experts.3", "drop"), glue_tensors=(weight,))
    store.save(replace(analysis, layers=layers), tmp_path / "a")
    folders["unreached"] = tmp_path / "a"
    app = open_app("unreached")

    for page in walk(app):
        assert "never reached: experts.3]" in said(app), page


def test_reduced_outputs_are_told_and_open_every_page(
    open_app: Open, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Overview says which classes of a large output were kept; no page takes the rest for one."""
    analysis = synthetic_analysis(3, samples=20)
    evidence = analysis.evidence
    assert evidence is not None
    assert evidence.targets is not None
    kept = evidence.baseline.shape[1] - 1
    entries = np.tile(np.arange(kept, dtype=np.int32) * 7, (20, 1, 1))
    reduced = replace(evidence, entries=entries, targets=evidence.targets.clip(max=kept - 1),
                      outputs=Outputs("logits", 1, 18_710, 18_710))  # fmt: skip
    store.save(replace(analysis, evidence=reduced), tmp_path / "a")
    folders["reduced"] = tmp_path / "a"
    app = open_app("reduced")

    assert f"**Outputs of a sample**: {kept} of 18,710 classes, " in said(app)
    assert [failures(app) for _ in walk(app)] == [[]] * len(PAGES)


@pytest.mark.parametrize("page", [name for name, page in PAGES.items() if page.needs == "layers"])
def test_a_model_without_layers_is_explained(page: str, open_app: Open) -> None:
    """An empty model says what was found and what to do, in place of an empty chart."""
    app = open_app("empty", page=page)

    assert "No layer that can be quantized was found" in said(app)
    assert "Choose another model" in said(app)


def test_unknown_is_na_and_never_zero(open_app: Open) -> None:
    """Before anything is measured the projected loss reads n/a."""
    app = open_app("unmeasured")

    assert kpis(app)["Accuracy loss"] == "n/a"
    assert "projected accuracy loss n/a" in said(app)
    assert "prior only" in said(app)


@pytest.mark.parametrize(("shape", "known"), [("int8", True), ("measured", False)])
def test_bytes_of_no_layer_are_a_row(shape: str, known: bool, open_app: Open) -> None:
    """Where sizes are broken down, what no layer owns has a row, and the sidebar says it too; n/a for
    an analysis that did not count all of it.
    """
    app = open_app(shape)
    study = view(app).study
    fixed = fixed_bytes(study.layers)
    text = written(fixed, "bytes")
    (row,) = (
        frame[frame["Role"] == "in no layer"]
        for frame in (element.value for element in app.dataframe)
        if "Role" in frame
    )

    assert (fixed is not None) == known
    assert bool(row["Size (kB)"].isna().all()) != known
    assert f"In no layer: {text}" in said(app)
    assert f" (in no layer: {text})" in said(app)


def test_scorers_without_scores_cannot_be_weighed(open_app: Open) -> None:
    """The sliders of measured scorers are disabled where nothing was measured."""
    app = open_app("unmeasured")

    assert app.slider(key="w_output_error").disabled
    assert not app.slider(key="w_theory").disabled


def frames(app: AppTest, column: str) -> list[pd.DataFrame]:
    """The tables on the page that have `column`."""
    return [d.value for d in app.dataframe if column in d.value.columns]


def test_every_scorer_has_a_slider_and_the_common_ones_come_first(open_app: Open) -> None:
    """All scorers can be weighed; the rarer ones are behind an expander of their own."""
    app = open_app("measured")
    panels = {e.label: [s.key for s in e.slider] for e in app.sidebar.expander}

    assert panels["Scorer weights"] == [f"w_{name}" for name in IN_VIEW]
    rest = [f"w_{name}" for name in SCORERS if name not in IN_VIEW]
    assert panels["More scorers"] == rest
    assert not any(app.slider(key=key).disabled for key in rest)


def test_a_scorer_behind_the_expander_decides(open_app: Open) -> None:
    """A weight in a link counts wherever its slider stands."""
    weights = dict.fromkeys(("w_theory", "w_importance", "w_empirical"), "0")
    app = open_app("measured", **weights, w_gradient_error="1", high_at="0.3", medium_at="0.3")

    shown = view(app)
    assert shown.policy.weights == (("gradient_error", 1.0),)
    assert (shown.now.chosen.scores == shown.study.scores["gradient_error"].round(9)).all()


def test_the_agreement_opens_on_demand(open_app: Open) -> None:
    """Opening the panel on Tune shows every scorer's rank agreement and what it would change."""
    app = open_app("measured", page="tune")
    assert not frames(app, "Scorer")

    app.session_state["agreement"] = True
    app.run()

    assert failures(app) == []
    (table,) = frames(app, "Scorer")
    assert list(table["Scorer"]) == [s.title for s in SCORERS.values()]
    unknown = table["Scorer"][table["Agreement"].isna()]
    assert list(unknown) == ["Weight error"]  # the same for every layer here: no rank
    assert (table["More bits"] + table["Fewer bits"] == table["Layers that change"]).all()
    app.selectbox(key="agreement_scorer").set_value("kl").run()
    (changes,) = frames(app, "Then")
    row = table.set_index("Scorer").loc["Divergence"]
    assert len(changes) == row["Layers that change"] > 0
    assert (changes["Now"] != changes["Then"]).all()


def test_without_a_judge_only_changes_are_shown(open_app: Open) -> None:
    """Before anything was measured there is no agreement, and scorers without scores are n/a."""
    app = open_app("unmeasured", page="tune")
    app.session_state["agreement"] = True
    app.run()

    assert failures(app) == []
    assert "no judge of the rules" in said(app)
    table = frames(app, "Scorer")[0].set_index("Scorer")
    assert table["Agreement"].isna().all()
    assert table["Layers that change"].notna().sum() == 3


def test_the_document_is_shown_for_its_own_model_alone(open_app: Open) -> None:
    """Figures of the document stand beside the Informer and beside no other model."""
    titles = [e.label for e in open_app("informer").expander]
    others = [e.label for e in open_app("measured").expander]

    assert any("document" in title for title in titles)
    assert not any("document" in title for title in others)
