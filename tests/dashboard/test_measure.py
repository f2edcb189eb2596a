"""The page Measure: what it offers, and how it shows jobs in every state."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from streamlit.testing.v1 import AppTest

from core.analysis import store
from core.cli import main as cli
from core.jobs import job_folder, jobs, processes
from core.jobs.job_folder import Request
from core.jobs.progress import Progress
from core.numerics import quantizers, scheme
from core.numerics.calibrate import calibrators
from core.quantity import duration
from core.records import user_folders
from core.source import samples
from dashboard import SOURCES_VARIABLE
from dashboard.__main__ import main
from dashboard.app_pages.measure import job_list
from dashboard.app_pages.measure import options as measure_options
from dashboard.pages import PAGES
from dashboard.session import launched
from dashboard.session.measure_form import SCHEME, SOURCE, UNITS
from sample_models.informer.ohlcv_csv import minimum_rows
from tests.core.partial import partial_analysis
from tests.core.synthetic import synthetic_analysis
from tests.dashboard.conftest import Open, failures, go, kpis, said, walk

MINE = "/models/mine.py:load"
Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A jobs folder for one test, and one function named at launch."""
    monkeypatch.setenv(user_folders.VARIABLE, str(tmp_path / "jobs"))
    monkeypatch.setenv(SOURCES_VARIABLE, json.dumps({"sources": [MINE], "cwd": str(tmp_path)}))
    return tmp_path / "jobs"


@pytest.fixture
def make(home: Path) -> Iterator[Make]:
    """Write the folder of a job in some state; a running one has a process that only waits."""
    waiting: list[subprocess.Popen[bytes]] = []

    def made(
        name: str, state: str, *, source: str = MINE, alive: bool = False, log: str = "",
        request: dict[str, Any] | None = None, **known: Any,
    ) -> Path:  # fmt: skip
        folder = home / name
        folder.mkdir(parents=True)
        pid = 0
        if alive:
            child = subprocess.Popen(
                [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
            )
            waiting.append(child)
            pid = child.pid
        record = {
            "request": {"source": source, "precisions": ["FP16", "INT8"], **(request or {})},
            "pid": pid, "stamp": processes.stamp(pid) if pid else "", "started": time.time(),
        }  # fmt: skip
        now = time.time()
        seen = {"pid": pid, "started": now - 12, "updated": now, "elapsed": 12.0, **known}
        progress = msgspec.convert({"state": state, **seen}, Progress)
        (folder / "job.json").write_bytes(msgspec.json.encode(record))
        (folder / "progress.json").write_bytes(msgspec.json.encode(progress))
        (folder / "log.txt").write_text(log, encoding="utf-8")
        return folder

    yield made
    for child in waiting:
        child.kill()
        child.communicate()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What the page asked to start, in place of starting it."""
    asked: list[Request] = []
    monkeypatch.setattr(jobs, "start", lambda request, csv=b"": asked.append(request))
    return asked


def bars(count: int) -> bytes:
    """A CSV with `count` good rows."""
    return b"open,high,low,close,volume\n" + b"1,2,1,2,5\n" * count


def buttons(app: AppTest) -> dict[str, bool]:
    """Buttons of the page by title: whether each can be pressed."""
    return {b.label: not b.disabled for b in app.main.button}


def test_named_functions_come_first_and_samples_after(open_page: Open) -> None:
    """The select offers what was named at launch, the bundled samples, and an upload."""
    app = open_page("measured", page="measure")

    options = app.selectbox(key=SOURCE).options
    assert options[0] == "mine.py:load (named at launch)"
    assert options[1] == "informer (bundled sample)"
    assert len(options) == 1 + len(samples.names()) + 1
    assert options[-1] == "An ONNX file (upload)"
    assert buttons(app)["Start"]
    assert "Measured before" not in [s.value for s in app.subheader]


def test_start_asks_for_what_the_form_says(
    open_page: Open, started: list[Request], tmp_path: Path
) -> None:
    """Source, precisions, units and the folder of the launch reach the job as they were chosen."""
    app = open_page("measured", page="measure")
    app.checkbox(key="measure_BF16").uncheck().run()
    app.checkbox(key=UNITS).check().run()

    app.button(key="_measure_start").click().run()
    app.button(key="_measure_predict").click().run()

    wanted = Request(MINE, ("FP16", "INT8", "INT4-g32"), expand_units=True, cwd=str(tmp_path))
    assert started == [wanted, msgspec.structs.replace(wanted, dry_run=True)]
    assert failures(app) == []


def test_no_precision_is_nothing_to_measure(open_page: Open) -> None:
    """Without a precision nothing can be started, and the reason stands beside the buttons."""
    app = open_page("measured", page="measure")
    for name in ("FP16", "BF16", "INT8", "INT4-g32"):
        app.checkbox(key=f"measure_{name}").uncheck()
    app.run()

    assert not buttons(app)["Start"]
    assert not buttons(app)["Predict time and size"]
    assert "Choose a precision" in said(app)


def test_choices_survive_a_page_switch(open_page: Open) -> None:
    """Source and precisions are as they were when one comes back."""
    app = open_page("measured", page="measure")
    app.selectbox(key=SOURCE).set_value("sample:digits_vit").run()
    app.checkbox(key="measure_FP16").uncheck().run()

    go(app, "tune")
    go(app, "measure")

    assert app.selectbox(key=SOURCE).value == "sample:digits_vit"
    assert not app.checkbox(key="measure_FP16").value


def test_a_running_job_shows_its_progress(open_page: Open, make: Make) -> None:
    """Name, layer, count, time so far and time left; Stop is there, and a second start is not."""
    make("mine-run-1", "running", alive=True, done=37, total=163, label="head in INT8", left=40.0)

    app = open_page("measured", page="measure")

    assert failures(app) == []
    text = progress_text(app)
    pattern = r"37 of 163 · head in INT8 · [1-3]\d s so far · about [2-4]\d s left"
    assert re.fullmatch(pattern, text), text
    assert not buttons(app)["Start"]
    assert buttons(app)["Stop"]
    assert "mine-run-1 measures this model already" in said(app)
    app.selectbox(key=SOURCE).set_value("sample:digits_vit").run()
    assert buttons(app)["Start"]


def progress_text(app: AppTest) -> str:
    """The text of the first progress bar."""
    return str(app.get("progress")[0].proto.text)


def test_what_the_command_says_is_passed_on(open_page: Open, make: Make) -> None:
    """That finished layers were found again is said in the command's own words, or not at all."""
    make("mine-run-1", "running", alive=True, done=3, total=9)
    assert "Resuming" not in said(open_page("measured", page="measure"))
    make("other-run-1", "stopped", done=3, total=9, notes=("Resuming: 2 of 3 layers found.",))

    assert "Resuming: 2 of 3 layers found." in said(open_page("measured", page="measure"))


def test_before_the_first_run_the_bar_says_what_is_done(open_page: Open, make: Make) -> None:
    """While the model is loaded there is no count, and no time left is made up."""
    make("mine-run-1", "running", alive=True)

    text = progress_text(open_page("measured", page="measure"))

    assert re.fullmatch(r"loading the model · \d+ s so far", text), text
    assert "left" not in text


def test_other_pages_say_what_runs_in_one_line(open_app: Open, make: Make) -> None:
    """Wherever one is, a line says how far the job is; without a job there is none."""
    others = [name for name, page in PAGES.items() if not page.shows_jobs]
    app = open_app("measured")
    assert [page for page in walk(app, others) if "Measuring" in said(app)] == []
    make("mine-run-1", "running", alive=True, done=3, total=9, label="head in INT8")

    app = open_app("measured")
    for page in walk(app, others):
        assert failures(app) == [], page
        assert "Measuring mine-run-1: 3 of 9 · head in INT8" in said(app), page


def test_jobs_that_cannot_be_read_are_named_below_the_others(open_page: Open, make: Make) -> None:
    """A broken record or progress file takes no other job from the list, and is named."""
    make("mine-run-1", "done")
    (make("mine-run-2", "done") / job_folder.RECORD).write_bytes(b'{"x":' * 100_000)
    (make("mine-run-3", "failed") / job_folder.PROGRESS).write_bytes(b'"\xff"')
    app = open_page("measured", page="measure")

    assert "mine-run-1" in said(app)
    assert "mine-run-2/job.json cannot be read" in said(app).replace("\\", "")
    assert any("mine-run-3/progress.json cannot be read" in one.replace("\\", "")
               for one in failures(app))  # fmt: skip


def test_stop_ends_the_process_and_offers_resume(open_page: Open, make: Make) -> None:
    """After Stop the process is gone, and the job is listed as stopped where it stood."""
    folder = make("mine-run-1", "running", alive=True, done=3, total=9, label="head in INT8")
    app = open_page("measured", page="measure")

    app.button(key="_stop_mine-run-1").click().run()
    app.run()

    job = jobs.read(folder)
    assert job is not None
    assert job.state == "stopped"
    assert failures(app) == []
    assert "Stopped at 3 of 9 runs, after 12 s." in said(app)
    assert buttons(app)["Resume"]
    assert "Stop" not in buttons(app)


def test_a_failure_shows_cause_next_step_and_log(open_page: Open, make: Make) -> None:
    """The command's own words are shown, Markdown in them is not, and the log is at hand."""
    make("mine-run-1", "failed", cause="mine.py failed: *no* weights.", next_step="Mend the file.",
         log="quantscape: mine.py failed")  # fmt: skip

    app = open_page("measured", page="measure")

    (error,) = app.error
    assert "mine.py failed: \\*no\\* weights." in error.value
    assert "Mend the file." in error.value
    assert [code.value for code in app.main.code][-1] == "quantscape: mine.py failed"
    assert buttons(app)["Try again"]


def test_a_process_that_vanished_is_told(open_page: Open, make: Make) -> None:
    """A job whose process is gone without a word is stopped, and says so."""
    make("mine-run-1", "running", done=3, total=9)

    app = open_page("measured", page="measure")

    assert "without being asked to" in failures(app)[0]
    assert buttons(app)["Resume"]


def test_a_finished_job_is_opened_in_one_click(
    open_page: Open, make: Make, folders: dict[str, Path]
) -> None:
    """Its analysis is in the model select; Open it makes it the model on Overview."""
    folder = make("mine-run-1", "done", done=9, total=9, result={"layers": 1, "samples": 20})
    shutil.copytree(folders["single"], folder / "analysis")
    app = open_page("measured", page="measure")
    assert "1 layer over 20 samples, measured in 12 s." in said(app)
    assert app.selectbox(key="model").options[-1] == "mine-run-1"

    app.button(key="_open_mine-run-1").click().run()

    assert failures(app) == []
    assert app.selectbox(key="model").value == "mine-run-1"
    assert app.query_params["model"] == "mine-run-1"
    assert "Is this map a good idea?" in said(app)


def test_removing_the_model_on_screen_opens_another(
    open_page: Open, make: Make, folders: dict[str, Path]
) -> None:
    """A job can be removed while its analysis is open: the first model takes its place."""
    folder = make("mine-run-1", "done", done=9, total=9)
    shutil.copytree(folders["single"], folder / "analysis")
    app = open_page("measured", page="measure", model="mine-run-1")
    assert app.selectbox(key="model").value == "mine-run-1"

    app.button(key="_remove_mine-run-1").click().run()

    assert failures(app) == []
    assert not folder.exists()
    assert app.selectbox(key="model").value == "measured"
    assert kpis(app)


def test_an_analysis_that_goes_away_leaves_the_others(
    open_app: Open, make: Make, folders: dict[str, Path]
) -> None:
    """Removed by somebody else, the model on screen gives way to the first one."""
    folder = make("mine-run-1", "done", done=9, total=9)
    shutil.copytree(folders["single"], folder / "analysis")
    app = open_app("measured", model="mine-run-1")

    shutil.rmtree(folder)
    app.run()

    assert failures(app) == []
    assert app.selectbox(key="model").value == "measured"


def test_what_was_not_named_at_launch_is_not_run(
    open_page: Open, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of an earlier launch is listed, but its file is not run again unless it is named."""
    monkeypatch.setattr(jobs, "restart", lambda _: pytest.fail("ran it"))
    folder = make("other-run-1", "stopped", source="/elsewhere/other.py:load")

    app = open_page("measured", page="measure")
    assert not buttons(app)["Resume"]

    job = jobs.read(folder)
    assert job is not None
    with pytest.raises(jobs.JobError, match="not named at launch"):
        launched.check_allowed(job.request.source)


def test_a_refused_start_is_said_beside_the_buttons(
    open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps a job from starting is a cause and a next step; the page stays."""

    def refused(*_: object) -> None:
        raise jobs.JobError("It is being measured already.", "Wait until it is done.")

    monkeypatch.setattr(jobs, "start", refused)
    app = open_page("measured", page="measure")

    app.button(key="_measure_start").click().run()

    assert failures(app) == ["**It is being measured already.**\n\nWait until it is done."]
    assert "Start" in buttons(app)


def test_a_prediction_is_shown_for_the_choices_it_was_made_for(
    open_page: Open, make: Make, tmp_path: Path
) -> None:
    """The plan of a dry run stands below the form, and goes when the form asks for other things."""
    make("mine-run-1", "done", request={
        "precisions": ["BF16", "FP16", "INT8", "INT4-g32"], "dry_run": True, "cwd": str(tmp_path),
    }, result={"layers": 57, "runs": 163, "samples": 1500, "predicted_seconds": 75.2,
               "adds_seconds": {"INT8": 30.0, "INT4-g32": 2.0},
               "perturbation_bytes": 2_500_000, "outputs": "128 of 18,710 classes"})  # fmt: skip
    app = open_page("measured", page="measure")

    (shown,) = app.info
    assert (
        "Predicted: about 1 min 15 s on an idle machine**, 2.50 MB of changed outputs"
        in shown.value
    )
    assert "Of it for each precision: INT8 30 s, INT4-g32 2 s." in shown.value
    assert "57 layers, 163 runs over 1,500 samples" in shown.value
    assert "outputs of a sample: 128 of 18,710 classes." in shown.value
    app.checkbox(key="measure_BF16").uncheck().run()
    assert not app.info


def test_a_prediction_without_figures_says_na(open_page: Open, make: Make, tmp_path: Path) -> None:
    """A plan that lacks a figure reads n/a there, never 0."""
    make("mine-run-1", "done", request={
        "precisions": ["BF16", "FP16", "INT8", "INT4-g32"], "dry_run": True, "cwd": str(tmp_path),
    }, result={"layers": 57})  # fmt: skip

    (shown,) = open_page("measured", page="measure").info

    assert "Predicted: time n/a**, n/a of changed outputs" in shown.value
    assert "57 layers, n/a runs over n/a samples" in shown.value
    assert "outputs of a sample: n/a." in shown.value


def informer_form(open_page: Open) -> AppTest:
    """The form with the Informer chosen, which takes a CSV."""
    app = open_page("measured", page="measure")
    app.selectbox(key=SOURCE).set_value("sample:informer").run()
    return app


def test_a_csv_is_offered_where_it_can_be_read(open_page: Open) -> None:
    """The uploader is there for the Informer and for no other model."""
    assert not open_page("measured", page="measure").get("file_uploader")
    assert len(informer_form(open_page).get("file_uploader")) == 1


def test_a_bad_cell_is_named_by_row_and_column(open_app: Open, started: list[Request]) -> None:
    """The sample's own check speaks, with the person's file name, and nothing can be started."""
    app = informer_form(open_app)
    app.get("file_uploader")[0].set_value(
        ("my *.csv", b"open,high,low,close,volume\n1,2,1,lots,5\n", "text/csv")
    ).run()

    (shown,) = failures(app)
    assert "Row 2, column close: 'lots' is not a plain number." in shown
    assert not buttons(app)["Start"]
    assert "Mend the CSV" in said(app)


def test_a_good_csv_goes_along_and_can_be_left_out(open_app: Open, started: list[Request]) -> None:
    """Rows are counted, name and fingerprint reach the job, and a button takes it out again."""
    content, rows = bars(minimum_rows()), f"{minimum_rows():,}"
    app = informer_form(open_app)
    app.get("file_uploader")[0].set_value(("prices.csv", content, "text/csv")).run()

    assert failures(app) == []
    assert f"Measured with prices.csv: {rows} rows." in said(app)
    app.button(key="_measure_start").click().run()
    app.button(key="_measure_drop").click().run()
    app.button(key="_measure_start").click().run()

    assert [(r.csv, r.csv_digest) for r in started] == [
        ("prices.csv", job_folder.digest(content)), ("", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("wrote", [True, False])
def test_a_job_that_was_stopped_says_how_long_it_ran(
    wrote: bool, open_page: Open, make: Make
) -> None:
    """Stopped while the model was loading it had reported nothing: the stop tells its time."""
    folder = make("mine-run-1", "running", elapsed=0.0)
    if not wrote:
        (folder / "progress.json").unlink()
    (folder / jobs.STOPPED).touch()
    stopped = time.time() + 75
    os.utime(folder / jobs.STOPPED, (stopped, stopped))

    app = open_page("measured", page="measure")

    assert "Stopped before the first run, after 1 min 15 s." in said(app)


def test_a_csv_that_is_too_short_is_refused_before_a_job_starts(open_app: Open) -> None:
    """The uploader names rows found and needed, without loading the model."""
    app = informer_form(open_app)
    app.get("file_uploader")[0].set_value(("short.csv", bars(40), "text/csv")).run()

    (shown,) = failures(app)
    assert "short.csv has 40 rows" in shown
    assert f"at least {minimum_rows():,}" in shown
    assert not buttons(app)["Start"]


def test_many_jobs_are_not_all_drawn(open_page: Open, make: Make) -> None:
    """A long list shows the newest and counts the rest, so that the page stays quick."""
    for number in range(job_list.SHOWN + 3):
        make(f"mine-run-{number + 1}", "stopped", done=1, total=2)

    app = open_page("measured", page="measure")

    assert sum(b.label == "Resume" for b in app.button) == job_list.SHOWN
    assert "3 earlier ones are not shown" in said(app)


def test_the_page_opens_without_a_model(
    open_page: Open, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Measure works where no analysis can be opened: that is what it is for."""
    folders["missing"] = tmp_path / "missing"
    app = open_page("missing", page="measure")
    del folders["missing"]

    assert "Start" in buttons(app)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "less than 1 s"), (59.4, "59 s"), (60, "1 min"), (75.2, "1 min 15 s"), (899, "14 min"),
     (3_600, "1 h 0 min"), (8_130, "2 h 15 min")],
)  # fmt: skip
def test_durations_in_words(seconds: float, text: str) -> None:
    """Seconds, minutes and hours as a person says them."""
    assert duration(seconds) == text


def test_a_missing_file_at_launch_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m dashboard FILE.py:FUNCTION` ends with code 2 where there is no such file."""
    assert main([f"{tmp_path}/nothing.py:load"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "There is no file" in error


def test_more_options_reach_the_command(
    open_page: Open, started: list[Request], tmp_path: Path
) -> None:
    """Memory, processes and device are flags of the command that the job runs."""
    app = open_page("measured", page="measure")
    app.text_input(key=measure_options.MEMORY).input("1.5 GB").run()
    app.number_input(key=measure_options.PROCESSES).set_value(2).run()

    app.button(key="_measure_start").click().run()

    (asked,) = started
    assert (asked.memory_bytes, asked.processes, asked.device) == (1_500_000_000, 2, "cpu")
    words = job_folder.command(asked, tmp_path)
    assert words[words.index("--memory") + 1] == "1500000000"
    assert words[words.index("--jobs") + 1] == "2"
    assert "--device" not in words
    given = cli.parser().parse_args(words[words.index("core") + 1 :])
    assert (given.memory, given.jobs, given.device) == (1_500_000_000, 2, "cpu")


def test_scheme_calibrator_and_quantizer_reach_the_command(
    open_page: Open, started: list[Request], tmp_path: Path
) -> None:
    """Every scheme, calibrator and quantizer is offered by name; a percentile has its share of the
    values.
    """
    app = open_page("measured", page="measure")
    assert tuple(app.selectbox(key=SCHEME).options) == scheme.names()
    assert tuple(app.selectbox(key=measure_options.CALIBRATOR).options) == calibrators.names()
    app.selectbox(key=SCHEME).select("tensorrt").run()
    app.selectbox(key=measure_options.CALIBRATOR).select("percentile").run()
    assert tuple(app.selectbox(key=measure_options.QUANTIZER).options) == quantizers.names()
    app.selectbox(key=measure_options.QUANTIZER).select("ort-hqq").run()
    app.button(key="_measure_start").click().run()
    app.number_input(key=measure_options.PERCENT).set_value(99.9).run()
    app.button(key="_measure_start").click().run()

    assert [(r.scheme, r.calibrator, r.quantizer) for r in started] == [
        ("tensorrt", "percentile", "ort-hqq"), ("tensorrt", "percentile:99.9", "ort-hqq"),
    ]  # fmt: skip
    words = job_folder.command(started[1], tmp_path)
    given = cli.parser().parse_args(words[words.index("core") + 1 :])
    assert given.scheme == "tensorrt"
    assert given.calibrator == "percentile:99.9"
    assert given.quantizer == "ort-hqq"
    assert failures(app) == []


def test_how_far_to_measure_reaches_the_command(
    open_page: Open, started: list[Request], tmp_path: Path
) -> None:
    """All samples are measured unless a first look or a settled ranking is asked for."""
    app = open_page("measured", page="measure")
    app.button(key="_measure_start").click().run()
    for far in ("ranked", "first look"):
        app.selectbox(key=measure_options.UNTIL).set_value(far).run()
        app.button(key="_measure_start").click().run()

    assert [r.until for r in started] == ["", "ranked", "first look"]
    asked = []
    for request in started:
        words = job_folder.command(request, tmp_path)
        asked.append(cli.parser().parse_args(words[words.index("core") + 1 :]).until)
    assert asked == ["exact", "ranked", "first-look"]
    assert failures(app) == []


@pytest.mark.parametrize("text", ["much", "-1 GB", "0", "2 gigs", "9" * 30])
def test_an_amount_that_is_none_is_said_and_starts_nothing(open_page: Open, text: str) -> None:
    """A memory limit that cannot be read is named beside the closed buttons, with an example."""
    app = open_page("measured", page="measure")
    app.text_input(key=measure_options.MEMORY).input(text).run()

    assert not buttons(app)["Start"]
    assert "Memory limit: " in said(app)
    assert failures(app) == []


def test_a_card_is_one_processs_alone(open_page: Open, started: list[Request]) -> None:
    """CUDA with two processes is refused before anything starts; with one it is asked for."""
    app = open_page("measured", page="measure")
    app.selectbox(key=measure_options.DEVICE).select("cuda").run()
    app.number_input(key=measure_options.PROCESSES).set_value(2).run()
    assert not buttons(app)["Start"]
    assert "Choose 1 process" in said(app)

    app.number_input(key=measure_options.PROCESSES).set_value(1).run()
    app.button(key="_measure_start").click().run()
    assert started[0].device == "cuda"


def test_a_running_job_offers_what_it_has_measured(open_page: Open, make: Make) -> None:
    """What a running job has so far can be opened: the select offers it, pages say how far it is,
    and a slider moves its map.
    """
    folder = make("mine-run-1", "running", alive=True, done=30, total=90, label="block.3 in INT8")
    partial = partial_analysis(28, 15)
    store.save(partial, folder / "analysis")
    app = open_page("measured", page="measure")
    assert buttons(app)["Open what is measured"]

    app.button(key="_open_mine-run-1").click().run()

    assert app.selectbox(key="model").value == "mine-run-1"
    text = said(app)
    assert partial.partial is not None
    assert partial.partial.in_words() in text
    late = int(partial.layers.computes[15:].sum())
    assert f"{late} layers not measured yet stay in FP32." in text
    assert "Confidence: **partial**" in text
    before = kpis(app)
    app.slider(key="high_at").set_value(1.0).run()
    assert kpis(app) != before
    assert failures(app) == []


def test_the_whole_result_takes_the_place_of_the_partial_one(open_app: Open, make: Make) -> None:
    """When a job ends the open page shows the whole analysis with the policy that was chosen."""
    folder = make("mine-run-1", "running", alive=True, done=30, total=90, label="block.3 in INT8")
    store.save(partial_analysis(28, 15), folder / "analysis")
    app = open_app("measured", model="mine-run-1")
    app.slider(key="high_at").set_value(0.9).run()
    app.text_input(key="overrides").input("block.20.other=FP16").run()
    assert "partial" in said(app)

    store.save(synthetic_analysis(28, samples=40), folder / "analysis")
    app.run()

    assert app.selectbox(key="model").value == "mine-run-1"
    assert app.slider(key="high_at").value == 0.9
    assert app.text_input(key="overrides").value == "block.20.other=FP16"
    assert "partial" not in said(app)
    assert "Confidence: **projected**" in said(app)
    assert failures(app) == []
