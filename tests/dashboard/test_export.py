"""Export: every format, the checklist, maps and sessions that come back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from core.analysis import store
from core.decide import answer
from core.decide.policy.decision import PrecisionMap
from core.decide.policy.policy import Policy
from core.decide.study import Study
from core.export.map import csv_table, precision_map
from core.export.map.session_file import Session, entry
from core.export.map.session_file import to_json as session_json
from core.export.report import html, markdown
from core.source import samples
from dashboard.app_pages.export import map_file
from dashboard.app_pages.export.imports import MAP_UPLOADER, SESSION_UPLOADER
from dashboard.display.text import plain
from dashboard.session import exports, state, strategies, uploads
from dashboard.session.exports import FORMATS
from dashboard.session.tab import Named, Tab
from tests.core.hostile import EVIL, named
from tests.core.synthetic import synthetic_analysis
from tests.dashboard.conftest import Open, failures, go, kpis, said
from tests.dashboard.test_policy import view

LEAN = Policy(strategy="top-k", top_k=30, high="FP32", pins=(("block.1?.*", "FP16"),),
              overrides=(("block.0.attention", "INT8"),))  # fmt: skip


def study() -> Study:
    """The study that the shape *measured* is of."""
    return Study(synthetic_analysis(57, samples=60))


def raw(policy: Policy = LEAN) -> bytes:
    """A map file of the shape *measured*."""
    one = study()
    return precision_map.to_json(one, answer.decide(one, policy))


def upload(app: AppTest, content: bytes, name: str = "map.json", to: str = MAP_UPLOADER) -> None:
    """Choose a file in an uploader."""
    app.file_uploader(key=to).set_value((name, content, "application/json")).run()


def tab(app: AppTest) -> Tab:
    """What the session remembers."""
    found = app.session_state[state.SESSION]
    assert isinstance(found, Tab)
    return found


def edited(**changes: Any) -> bytes:
    """A map file with keys exchanged."""
    return json.dumps({**json.loads(raw()), **changes}).encode()


def file_of(app: AppTest, form: str) -> bytes:
    """What the page gives for the current map in a format."""
    shown = view(app)
    return exports.made(shown.opened, shown.policy, form)


def commands(app: AppTest) -> str:
    """The commands that the page shows."""
    (found,) = (str(c.value) for c in app.code if str(c.value).startswith("python -m core"))
    return found


@pytest.mark.parametrize(("form", "make"), [
    ("json", precision_map.to_json), ("csv", csv_table.to_csv),
    ("markdown", markdown.to_markdown), ("html", html.to_html),
])  # fmt: skip
def test_every_format_is_the_cores_own_file(form: str, make: Any, open_page: Open) -> None:
    """A chosen format says what it is for and how large it is; its bytes are those of `core`."""
    app = open_page("measured", page="export", pins="block.1*=FP32")

    app.segmented_control(key="export_format").set_value(form).run()

    assert failures(app) == []
    content = file_of(app, form)
    assert content == make(view(app).study, view(app).now.chosen)
    assert FORMATS[form].purpose in said(app)
    assert f"{content.count(10):,} lines" in said(app)
    labels = [button.label for button in app.download_button]
    assert labels.count(f"Download {FORMATS[form].title}") == 1
    assert {kind.title for kind in FORMATS.values()} - {FORMATS[form].title} <= set(labels)


@pytest.mark.parametrize("form", FORMATS)
def test_the_preview_is_the_beginning_of_the_file(form: str, open_page: Open) -> None:
    """As text every format shows its first 30 lines, and says of how many."""
    app = open_page("measured", page="export")
    app.segmented_control(key="export_format").set_value(form).run()
    if form in {"markdown", "html"}:
        app.segmented_control(key=f"export_preview_{form}").set_value("Text").run()

    lines = file_of(app, form).decode().splitlines()
    assert "\n".join(lines[:30]) in [block.value for block in app.code]
    assert f"The first 30 of {len(lines):,} lines" in said(app)


def test_markdown_is_also_rendered(open_page: Open) -> None:
    """The report is shown as it reads, bounded, with headings smaller than the page's."""
    app = open_page("measured", page="export")
    app.segmented_control(key="export_format").set_value("markdown").run()

    (report,) = (m.value for m in app.markdown if "Quantization sensitivity of" in m.value)
    assert report.startswith("### Quantization sensitivity of")
    assert len(report.splitlines()) == map_file.RENDERED_LINES


def test_html_is_shown_live_unless_it_is_large(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is embedded whole; a large one is offered as a download alone."""
    app = open_page("measured", page="export")
    app.segmented_control(key="export_format").set_value("html").run()

    def frames() -> list[str]:
        return [e.proto.srcdoc for e in app.get("iframe")]  # type: ignore[attr-defined]

    assert frames() == [file_of(app, "html").decode()]
    assert "Quantization sensitivity of Synthetic, 57 layers, as the file opens" in said(app)
    monkeypatch.setattr(map_file, "MOST_LIVE_BYTES", 1000)
    app.run()
    assert frames() == []
    assert "download it to look at it" in said(app)


def test_expensive_formats_are_made_once_and_only_when_asked(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page makes JSON alone; a report is made when chosen, and not again by a rerun."""
    made: list[str] = []

    def counted(name: str) -> exports.Format:
        def make(given: Study, chosen: PrecisionMap) -> bytes:
            made.append(name)
            return kind.make(given, chosen)

        kind = FORMATS[name]
        return replace(kind, make=make)

    fresh = {name: counted(name) for name in FORMATS}
    for module in (exports, map_file):
        monkeypatch.setattr(module, "FORMATS", fresh)
    app = open_page("measured", page="export", high_at="0.61")
    assert made == ["json"]

    app.segmented_control(key="export_format").set_value("markdown").run()
    app.run()

    assert made == ["json", "markdown"]


def test_the_choice_survives_page_switches_and_lost_strategies(open_page: Open) -> None:
    """A chosen strategy stays; one that is deleted gives way to the current map with a word."""
    app = open_page("measured", page="export")
    tab(app).kept["measured"] = (Named("Mine", LEAN),)
    app.run()
    app.selectbox(key="export_strategy").set_value("Mine").run()
    go(app, "tune")
    go(app, "export")
    assert app.selectbox(key="export_strategy").value == "Mine"
    counts = ", ".join(
        f"{answer.decide(study(), LEAN).count(p)} {p}" for p in ("FP32", "FP16", "INT8")
    )
    assert counts in said(app)

    tab(app).kept["measured"] = ()
    app.run()

    assert failures(app) == []
    assert app.selectbox(key="export_strategy").value == strategies.CURRENT
    assert "Mine is no longer there" in said(app)


def test_the_checklist_counts_and_puts_the_worst_first(open_page: Open) -> None:
    """Warnings come before what passed, and the head counts both."""
    app = open_page("measured", page="export", pins="ghost*=FP16")

    (lines,) = (m.value for m in app.markdown if "**Layers**" in m.value)
    statuses = [line.split("]")[0].rsplit(" ", 1)[1] for line in lines.split("\n\n")]
    assert statuses == sorted(statuses, reverse=True)
    assert statuses.count("warning") == 3
    assert f"{statuses.count('passed')} of 10 passed, 3 warnings" in said(app)
    assert plain("No layer matches ghost*.") in said(app)


def test_the_command_line_makes_the_same_map(open_page: Open) -> None:
    """The commands name the format; too many choices point to the file."""
    app = open_page("measured", page="export", pins="block.1*=FP32")
    assert "'--pin=block.1*=FP32' --out map.json" in commands(app)

    app.segmented_control(key="export_format").set_value("csv").run()
    assert commands(app).splitlines()[1] == (
        "python -m core export DIR map.json --format csv --out measured.current.layers.csv"
    )
    names = [layer.name for layer in view(app).study.layers if layer.computes_at_inference]
    hand = ", ".join(f"{name}=FP32" for name in names[:30])
    app.text_input(key="overrides").set_value(hand).run()
    assert commands(app).startswith("python -m core export DIR map.json")
    assert "more choices than a command line can say" in said(app)


def test_a_map_comes_back_to_equality(open_page: Open) -> None:
    """What was exported loads into the controls layer by layer, and undo takes it back."""
    app = open_page("measured", page="export")
    before = kpis(app)

    upload(app, raw(), "lean.json")
    shown = said(app)
    assert failures(app) == []
    assert kpis(app) == before
    assert "figures are recomputed, not believed" in shown
    assert "top-k 30 + 2 rules" in shown
    assert "1: block.0.attention" in shown
    app.button(key="_import_load").click().run()

    assert failures(app) == []
    assert view(app).policy == LEAN
    assert file_of(app, "json") == raw()
    assert "Against the current map**: no layer differs" in said(app)
    app.button(key="_undo").click().run()
    assert kpis(app) == before


def test_a_map_edited_by_hand_says_which_layers(open_page: Open) -> None:
    """A precision that the policy would not give is shown as set by hand, and is loaded so."""
    rows = json.loads(raw())["layers"]
    rows[4]["precision"] = "FP16" if rows[4]["precision"] != "FP16" else "INT8"
    rows[4]["size_bytes"] += 1
    app = open_page("measured", page="export")

    upload(app, edited(layers=rows, totals={}))
    assert f"2: block.0.attention, {rows[4]['name']}" in said(app)
    app.button(key="_import_load").click().run()

    assert view(app).now.chosen.by_layer[rows[4]["name"]] == rows[4]["precision"]
    row = json.loads(file_of(app, "json"))["layers"][4]
    assert row["size_bytes"] < rows[4]["size_bytes"]


def test_large_weights_load_as_their_ratios(open_page: Open) -> None:
    """Weights beyond the sliders' end give the same map."""
    wide = Policy(weights=(("theory", 8.0), ("output_error", 2.0)))
    app = open_page("measured", page="export")

    upload(app, raw(wide))
    app.button(key="_import_load").click().run()

    assert failures(app) == []
    assert dict(view(app).policy.weights) == {"theory": 1.0, "output_error": 0.25}
    assert view(app).now.chosen.assigned == answer.decide(study(), wide).assigned


def test_a_map_the_controls_cannot_say_is_not_loaded_wrong(open_page: Open) -> None:
    """Layer names with commas do not fit the rules' text; the controls stay as they were."""
    odd = Policy(pins=(("block.0.*, really", "FP16"), ("block.0.*", "FP32")))
    app = open_page("measured", page="export")
    before = kpis(app)

    upload(app, raw(odd))
    app.button(key="_import_load").click().run()
    assert "controls cannot say this map exactly" in said(app)
    assert kpis(app) == before
    app.button(key="_import_keep").click().run()

    assert failures(app) == []
    assert tab(app).kept["measured"] == (Named("map", odd),)


def test_a_map_is_kept_for_compare_under_the_files_name(open_page: Open) -> None:
    """The name comes from the file, numbered where it is taken, and can be exported again."""
    app = open_page("measured", page="export")
    for _ in range(2):
        upload(app, raw(), "measured.lean.precision_map.json")
        app.button(key="_import_keep").click().run()

    assert failures(app) == []
    assert tab(app).kept["measured"] == (Named("lean", LEAN), Named("lean 2", LEAN))
    assert "Kept as lean 2" in said(app)
    app.selectbox(key="export_strategy").set_value("lean 2").run()
    app.button(key="_import_dismiss").click().run()
    assert "fits this model" not in said(app)


def test_one_strategy_too_many_is_said(open_page: Open) -> None:
    """At the limit a map is not kept, the reason stands at the uploader, and the map stays."""
    app = open_page("measured", page="export")
    full = tuple(Named(f"S{i}", LEAN) for i in range(50))
    tab(app).kept["measured"] = full
    upload(app, raw())

    app.button(key="_import_keep").click().run()

    assert "There are 50 strategies already." in failures(app)[0]
    assert tab(app).kept["measured"] == full
    assert app.button(key="_import_load")


OTHER = {"name": "resnet", "weights_sha256": "0" * 64, "data_sha256": "1" * 64}


@pytest.mark.parametrize(("content", "message"), [
    (edited(model=OTHER), "belongs to model 'resnet', not to 'synthetic'"),
    (edited(model={**OTHER, "name": "synthetic", "weights_sha256": "f" * 64}),
     "made for other weights of 'synthetic' (ffffffffffff, here 000000000000)"),
    (edited(layers=[{"name": "ghost", "precision": "INT8"}]),
     "1 unknown layers: ghost; 57 missing layers: block.0.attention"),
    (edited(schema_version=9), "schema version 9; this program reads 1"),
    (b"{]", "is no precision map"),
    (b"\x80\x04\x95 pickle", "is no precision map"),
    (b"", "is no precision map"),
])  # fmt: skip
def test_a_map_that_does_not_fit_is_refused(content: bytes, message: str, open_page: Open) -> None:
    """The difference is named with a next step, nothing else is lost, and another file clears."""
    app = open_page("measured", page="export", pins="block.1*=FP32")
    before = kpis(app)

    upload(app, content)

    assert not app.exception
    (shown,) = (str(e.value) for e in app.error)
    assert plain(message) in shown
    assert shown.split("\n\n")[1]
    assert kpis(app) == before
    assert not [b for b in app.button if b.key == "_import_load"]
    upload(app, raw())
    assert failures(app) == []
    assert app.button(key="_import_load")


def test_a_map_that_is_too_large_is_refused(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit stands at the uploader and is checked again in Python."""
    app = open_page("measured", page="export")
    for key in (MAP_UPLOADER, SESSION_UPLOADER):
        assert "at most 64 MB" in app.file_uploader(key=key).label
        assert app.file_uploader(key=key).proto.max_upload_size_mb == 64
    small = replace(precision_map.MAPS, most_bytes=1000)
    monkeypatch.setattr(precision_map, "MAPS", small)

    upload(app, raw())

    assert "map.json is larger than" in failures(app)[0]


def test_names_in_a_refusal_are_not_acted_on(open_page: Open) -> None:
    """An unknown layer that is Markdown is quoted and loads no picture."""
    app = open_page("measured", page="export")

    upload(app, edited(layers=[{"name": f"![x](http://evil/){EVIL}", "precision": "INT8"}]))

    assert r"!\[x\](http://evil/)\</script\>" in failures(app)[0]


def test_a_title_that_is_markup_is_shown_as_it_is(
    open_page: Open, folders: dict[str, Path], tmp_path: Path
) -> None:
    """A hostile title and layer name reach the preview's caption and the checklist as text."""
    store.save(named(EVIL).analysis, tmp_path / "hostile")
    folders["hostile"] = tmp_path / "hostile"
    app = open_page("hostile", page="export", overrides=f"{EVIL}=FP16")
    del folders["hostile"]

    app.segmented_control(key="export_format").set_value("html").run()

    assert failures(app) == []
    assert f"Quantization sensitivity of {plain(EVIL)}" in said(app)
    assert EVIL not in app.get("iframe")[0].proto.srcdoc  # type: ignore[attr-defined]


def test_what_was_read_belongs_to_its_model(open_page: Open) -> None:
    """Another model shows neither the imported map nor the refusal of the first one."""
    app = open_page("measured", "single", page="export")
    upload(app, b"{]")
    upload(app, raw(), to=SESSION_UPLOADER)
    assert len(app.error) == 1

    app.selectbox(key="model").set_value("single").run()
    assert failures(app) == []
    app.selectbox(key="model").set_value("measured").run()
    upload(app, raw())
    app.selectbox(key="model").set_value("single").run()
    assert "fits this model" not in said(app)


def kept_session(app: AppTest) -> bytes:
    """The session file of what the app holds."""
    shown = view(app)
    return uploads.saved(
        shown.study, shown.policy, tab(app).pinned.get("measured"), tab(app).kept["measured"]
    )


def test_a_session_comes_back_to_equality(open_page: Open) -> None:
    """Policy, pin and strategies of one tab are those of another after a restore."""
    mine = (Named("Lean", LEAN), Named("Wide", Policy(strategy="uniform", uniform="FP16")))
    app = open_page("measured", page="export", high_at="0.55", pins="block.1*=FP32")
    tab(app).kept["measured"] = mine
    app.button(key="_pin").click().run()
    app.slider(key="high_at").set_value(0.8).run()
    assert "Holds the policy, the pinned map and 2 strategies." in said(app)
    content, policy, pinned = kept_session(app), view(app).policy, tab(app).pinned["measured"]

    fresh = open_page("measured", page="export")
    assert "Holds the policy; nothing is pinned or kept." in said(fresh)
    upload(fresh, content, "s.json", SESSION_UPLOADER)
    assert "Strategies: Lean, Wide." in said(fresh)
    assert not [b for b in fresh.button if b.key == "_session_merge"]
    fresh.button(key="_session_replace").click().run()

    assert failures(fresh) == []
    assert view(fresh).policy == policy != pinned
    assert tab(fresh).pinned["measured"] == pinned
    assert tab(fresh).kept["measured"] == mine
    assert kept_session(fresh) == content
    assert "Session restored from s.json" in said(fresh)


def test_a_session_joins_or_replaces_what_is_there(open_page: Open) -> None:
    """Added, equal strategies come once, equal names are numbered and the pin stays."""
    one = study()
    pin, other = Policy(strategy="uniform", uniform="FP16"), Policy(strategy="manual")
    content = session_json(Session(
        one.analysis.identity, LEAN, entry(one, "Pinned", answer.decide(one, pin)),
        (entry(one, "A", answer.decide(one, LEAN)), entry(one, "B", answer.decide(one, pin))),
    ))  # fmt: skip
    for button, strategies_after, pinned_after in (
        ("_session_merge", (Named("A", LEAN), Named("B", other), Named("B 2", pin)), other),
        ("_session_replace", (Named("A", LEAN), Named("B", pin)), pin),
    ):
        app = open_page("measured", page="export")
        tab(app).kept["measured"] = (Named("A", LEAN), Named("B", other))
        tab(app).pinned["measured"] = other
        upload(app, content, to=SESSION_UPLOADER)
        app.button(key=button).click().run()

        assert failures(app) == []
        assert tab(app).kept["measured"] == strategies_after
        assert tab(app).pinned["measured"] == pinned_after
        assert view(app).policy == LEAN


def test_too_many_strategies_together_are_refused_whole(open_page: Open) -> None:
    """Where a merge would exceed the limit nothing changes."""
    one = study()
    content = session_json(Session(
        one.analysis.identity, LEAN, None,
        tuple(entry(one, f"S{i}", answer.decide(one, LEAN)) for i in range(50)),
    ))  # fmt: skip
    app = open_page("measured", page="export")
    tab(app).kept["measured"] = (Named("A", LEAN),)
    upload(app, content, to=SESSION_UPLOADER)
    before = view(app).policy

    app.button(key="_session_merge").click().run()

    assert "more than 50 strategies" in said(app)
    assert tab(app).kept["measured"] == (Named("A", LEAN),)
    assert view(app).policy == before


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: d["model"].update(name="resnet"), "belongs to model 'resnet'"),
    (lambda d: d["strategies"][0]["model"].update(weights_sha256="f" * 64),
     "'A' in map.json was made for other weights"),
    (lambda d: d["strategies"][0]["layers"].pop(), "1 missing layers"),
    (lambda d: d.pop("policy"), "is no session file"),
])  # fmt: skip
def test_a_session_that_does_not_fit_is_refused_whole(
    change: Any, message: str, open_page: Open
) -> None:
    """Another model's or a damaged session changes nothing and says what is wrong."""
    one = study()
    kept = Session(one.analysis.identity, LEAN, None, (entry(one, "A", answer.decide(one, LEAN)),))
    data = json.loads(session_json(kept))
    change(data)
    app = open_page("measured", page="export")
    before = kpis(app)

    upload(app, json.dumps(data).encode(), to=SESSION_UPLOADER)

    assert plain(message) in failures(app)[0]
    assert kpis(app) == before
    assert tab(app).kept.get("measured", ()) == ()
    assert not [b for b in app.button if str(b.key).startswith("_session_")]


def test_a_map_is_no_session(open_page: Open) -> None:
    """Each uploader keeps its own error, and says where the other kind of file belongs."""
    app = open_page("measured", page="export")

    upload(app, raw(), to=SESSION_UPLOADER)

    assert "a single map is opened as a map" in failures(app)[0]


def test_a_model_without_layers_still_has_files(open_page: Open) -> None:
    """An empty map is exported and read back, and the page says that it is empty."""
    app = open_page("empty", page="export")

    assert "every file below holds an empty map" in said(app)
    for form in FORMATS:
        app.segmented_control(key="export_format").set_value(form).run()
        assert failures(app) == []
    upload(app, file_of(app, "json"))
    assert failures(app) == []
    assert "fits this model" in said(app)


def test_names_of_files_suit_every_system() -> None:
    """Names of strategies become lower-case words, and come back as names."""
    assert exports.file_name("my model", "Top-k 25%", "report.md") == "my-model.top-k-25.report.md"
    assert exports.file_name("../etc", "a/b\\c:d", "x") == "etc.a-b-c-d.x"
    assert uploads.strategy_name("informer.lean.precision_map.json", "informer") == "lean"
    assert uploads.strategy_name("C:\\maps\\two words.json", "informer") == "two words"
    assert uploads.strategy_name(".json", "informer") == uploads.DEFAULT_NAME
    assert len(uploads.strategy_name("x" * 300, "informer")) == 60


def test_samples_are_named_by_their_folder_in_commands(open_page: Open) -> None:
    """A command for a bundled sample can be typed in the project's folder as it stands."""
    app = open_page("measured", page="export")
    app.selectbox(key="model").set_value("informer").run()

    folder = samples.get("informer").analysis.relative_to(Path.cwd())
    assert commands(app).startswith(f"python -m core plan {folder} ")
