"""Every page opens for every shape of model."""

from __future__ import annotations

import pytest

from tests.dashboard.by_task import FIRST
from tests.dashboard.conftest import PAGES, SAMPLES, SHAPES, Open, failures, kpis, said


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("shape", [*SHAPES, *SAMPLES])
def test_every_page_opens_for_every_shape(shape: str, page: str, open_app: Open) -> None:
    """No page shows an error, and each begins with the four KPIs."""
    app = open_app(shape, page=page)

    assert failures(app) == []
    assert list(kpis(app))[:3] == ["Size", "Latency", FIRST.get(shape, "Accuracy loss")]


@pytest.mark.parametrize("page", PAGES)
def test_an_overflow_is_said_on_every_page(page: str, open_app: Open) -> None:
    """A map with an overflowing layer says so and projects nothing."""
    app = open_app("overflow", page=page, strategy="uniform", uniform="FP16")

    assert failures(app) == []
    assert kpis(app)["Accuracy loss"] == "n/a"
    assert "not finite with block.0.attention" in said(app)


@pytest.mark.parametrize("page", ["overview", "tune"])
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


def test_scorers_without_scores_cannot_be_weighed(open_app: Open) -> None:
    """The sliders of measured scorers are disabled where nothing was measured."""
    app = open_app("unmeasured")

    assert app.slider(key="w_output_error").disabled
    assert not app.slider(key="w_theory").disabled


def test_the_agreement_opens_on_demand(open_app: Open) -> None:
    """Opening the panel on Tune shows the rank agreement of every other scorer."""
    app = open_app("measured", page="tune")
    assert len(app.metric) == 4

    app.session_state["agreement"] = True
    app.run()

    assert failures(app) == []
    assert [m.label for m in app.metric[4:]] == [
        "Theory", "Importance", "Empirical rules", "Weight error",
    ]  # fmt: skip


def test_the_document_is_shown_for_its_own_model_alone(open_app: Open) -> None:
    """Figures of the document stand beside the Informer and beside no other model."""
    titles = [e.label for e in open_app("informer").expander]
    others = [e.label for e in open_app("measured").expander]

    assert any("document" in title for title in titles)
    assert not any("document" in title for title in others)
