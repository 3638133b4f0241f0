"Sweeps: checked before anything starts, shared stages once, a crash costs one trial, the same command goes on."

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from chain_project import edit, make_project, write_notebook
from lab_browser import browser_page, wait_until

import mlbench.chain.cache
import mlbench.chain.record
import mlbench.chain.trial
from mlbench.chain import Project, Run, Sweep, list_runs, run_chain, run_sweep
from mlbench.chain.compare import Story, compare_runs
from mlbench.chain.grid import read_grid, search_end
from mlbench.chain.report import report_html
from mlbench.chain.sidebyside import write_comparison
from mlbench.chain.sweep import plan_sweep, thin_run
from mlbench.cli.app import said
from mlbench.core.errors import ParameterError, StageError, UsageError
from mlbench.core.files import read_json

HELD = "import mlbench.chain.cache as c, mlbench.chain.record as r; c.mlbench_source = r.mlbench_source = lambda: 'm' * 64"
WORKER = ["-c", f"{HELD}; from mlbench.chain.trial import main; raise SystemExit(main())"]
SWEEPER = f"""
import sys, mlbench.chain.trial
{HELD}
mlbench.chain.trial.COMMAND[1:] = {WORKER!r}
from mlbench.chain import run_sweep
from mlbench.core.errors import MlbenchError
try:
    print(run_sweep(sys.argv[1], {{"training.factor": sys.argv[2]}}, workers=2, on_progress=lambda e: print(e["type"], e.get("trial"), flush=True)).folder)
except MlbenchError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
FIGURE = "stage.figure(go.Figure(go.Scatter(x=[1, 2], y=[0, factor]), layout={'title': {'text': f'factor {factor:g}'}}), 'line', 'A line.')"
LEARN = [
    "stage = Stage.open('04_training', globals(), reads=['train'], writes=['model', 'timings'])",
    "import os\nimport time\nfrom pathlib import Path\n\nimport plotly.graph_objects as go",
    "stage.load('train')\nwhile Path('wait').exists():\n    time.sleep(0.05)",
    "assert factor != 7, 'seven is not to be had'",
    "score = 0.6 + 0.03 * factor\nstage.metric('cross-validated roc_auc', score, score - 0.04, score + 0.04)",
    "stage.metric('cross-validated log_loss', 1 / (1 + factor))",
    FIGURE,
    "stage.save('timings', {'now': time.time(), 'threads': os.environ.get('OMP_NUM_THREADS'), 'wait': os.environ.get('OMP_WAIT_POLICY')}, volatile=True)",
    "with stage.folder('model') as path:\n    (path / 'weights.txt').write_text(str(factor))\n    (path / 'rows.txt').write_text('8')",
    "stage.close()",
]


@pytest.fixture(autouse=True)
def _source_held_fixed(monkeypatch):
    "Whoever edits mlbench while the tests run does not make its results outdated, neither here nor in a worker."
    monkeypatch.setattr(mlbench.chain.cache, "mlbench_source", lambda: "m" * 64)
    monkeypatch.setattr(mlbench.chain.record, "mlbench_source", lambda: "m" * 64)
    monkeypatch.setattr(mlbench.chain.trial, "COMMAND", [sys.executable, *WORKER])


def sweep_project(folder: Path) -> Path:
    "The small project, with a figure of merit in its training."
    make_project(folder)
    write_notebook(folder / "04_training.ipynb", "factor: float = 2.0  # multiplies [0..10]\nseed: int = 0  # of every draw", LEARN)
    (folder / "params.yaml").write_text("")
    return folder


@pytest.fixture
def project(tmp_path):
    return sweep_project(tmp_path / "a {small} pröject")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "A sweep of four trials, one of which fails, and all that was told."
    patch = pytest.MonkeyPatch()
    for name in ("MLBENCH_RUN", "MLBENCH_STAGE", "MLBENCH_PROJECT", "MLBENCH_PARAMETERS"):
        patch.delenv(name, raising=False)
    patch.setattr(mlbench.chain.cache, "mlbench_source", lambda: "m" * 64)
    patch.setattr(mlbench.chain.record, "mlbench_source", lambda: "m" * 64)
    patch.setattr(mlbench.chain.trial, "COMMAND", [sys.executable, *WORKER])
    folder, heard = sweep_project(tmp_path_factory.mktemp("sweep") / "small"), []
    sweep = run_sweep(folder, {"training.factor": "1,3,7,5", "problem.rows": [6]}, workers=2, keep=2, on_progress=heard.append)
    patch.undo()
    return folder, sweep, heard


def trial_states(sweep: Sweep) -> dict[float, str]:
    return {line["values"]["training.factor"]: line["status"] for line in sweep.trials}


def kernels_of(project: Path) -> list[int]:
    "Processes of kernels that runs of the project started and that still live."
    found = []
    for events in (project / "runs").glob("*/events.jsonl"):
        for line in events.read_text().splitlines():
            event = json.loads(line) if line.endswith("}") else {}
            if event.get("type") == "kernel_started" and psutil.pid_exists(event["pid"]) and psutil.Process(event["pid"]).status() != "zombie":
                found.append(event["pid"])
    return found


def workers_of(project: Path) -> list[psutil.Process]:
    "Processes of trials of this project."
    found = []
    for path in (project / "runs").glob("*/run.json"):
        mark = read_json(path)["process"]
        if psutil.pid_exists(mark["pid"]) and mark["pid"] != os.getpid():
            process = psutil.Process(mark["pid"])
            found += [process] if process.status() != "zombie" and "trial" in " ".join(process.cmdline()) else []
    return found


# --- before anything starts --------------------------------------------------------------------------------------------------------


def test_every_mistake_of_a_grid_is_named_and_nothing_starts(project):
    grid = {"training.factor": "1,11,x", "training.fctor": "1,2", "problem.rows": "[0, 5]", "seed": [1], "nowhere.x": "1"}
    with pytest.raises(ParameterError) as error:
        run_sweep(project, grid)
    for word in ("factor", "fctor is not a parameter", "rows = 0", "Write training.seed", "no stage 'nowhere'"):
        assert word in str(error.value), word
    assert not (project / "runs").exists() and not (project / "sweeps").exists()


@pytest.mark.parametrize(
    ("grid", "options", "words"),
    [
        ({}, {}, "nothing to try"),
        ({"training.factor": []}, {}, "no value to try"),
        ({"training.factor": [1, 2]}, {"to": "problem"}, "ends before the stage of training.factor"),
        ({"training.factor": [1, 2]}, {"by": "weight"}, "--by max:weight"),
        ({"training.factor": [1, 2]}, {"workers": 0}, "at least 1"),
        ({"training.factor": [1, 2]}, {"keep": -1}, "from 0 on"),
        ({"training.factor": [n / 1000 for n in range(200)], "training.seed": list(range(200))}, {}, "40,000 trials"),
    ],
)
def test_what_cannot_be_tried_is_said(project, grid, options, words):
    with pytest.raises(UsageError, match=words):
        plan_sweep(project, grid, **options)


def test_the_five_ways_to_write_values(project):
    grid = read_grid(Project.open(project), {"training.factor": "0.01..1 log 3", "problem.rows": "1..9 step 4", "evaluation.view": "all"})
    assert grid.values == {"training.factor": [0.01, 0.1, 1.0], "problem.rows": [1, 5, 9], "evaluation.view": ["bars", "boxes"]}
    assert len(grid.trials) == 18 and len({trial.label for trial in grid.trials}) == 18


def test_a_search_does_not_open_the_sealed_rows(project):
    opened = Project.open(project)
    assert search_end(opened) == "04_training" and plan_sweep(project, {"training.factor": "1,2"}).to == "04_training"
    late = plan_sweep(project, {"evaluation.threshold": "0.4,0.5"})
    assert late.to == "05_evaluation" and late.shared == "04_training" and late.ranking.until == "04_training"


# --- a whole sweep -----------------------------------------------------------------------------------------------------------------


def test_shared_stages_run_once_and_no_trial_opens_sealed_rows(finished):
    folder, sweep, heard = finished
    assert [e["trial"] for e in heard if e["type"] == "stage_started" and e["stage"] == "01_problem"] == [0]
    assert sorted(e["trial"] for e in heard if e["type"] == "stage_reused" and e["stage"] == "01_problem") == [1, 2, 3, 4]
    runs = [run for run in list_runs(folder) if run.record.get("sweep") == sweep.id]
    assert sorted(run.record["trial"] for run in runs) == [0, 1, 2, 3, 4]
    assert all(not run.openings and "05_evaluation" not in run.stages for run in runs)
    assert all(run.record["stages"]["01_problem"]["parameters"]["rows"]["value"] == 6 for run in runs)


def test_a_trial_that_fails_is_recorded_with_its_cause_and_the_others_go_on(finished):
    folder, sweep, heard = finished
    assert sweep.status == "done" and trial_states(sweep) == {1.0: "done", 3.0: "done", 5.0: "done", 7.0: "failed"}
    failed = next(line for line in sweep.trials if line["status"] == "failed")
    assert "seven is not to be had" in failed["error"]["message"] and failed["error"]["stage"] == "04_training"
    assert (folder / "runs" / failed["run"] / "stages" / "04_training" / "notebook.ipynb").exists()
    assert "seven is not to be had" in repr(sweep) and "1 trial failed" in sweep.notes[0]
    assert [e["status"] for e in heard if e["type"] == "trial_ended"].count("failed") == 1


def test_order_noise_and_display(finished):
    _, sweep, _ = finished
    assert [line["values"]["training.factor"] for line in sweep.ranked] == [5.0, 3.0, 1.0]
    assert sweep.sentence == "factor=5 is better by 0.06 than factor=3, which is within the noise. Take the one that is simpler or faster."
    assert sweep.rows[0][:3] == (1, "factor=5", "0.75 (0.71 to 0.79)") and "0.75 (0.71 to 0.79)" in sweep._repr_html_()
    assert sweep.best.load("model").joinpath("weights.txt").read_text() == "5.0"
    assert sweep.command == "mlbench run small -p training.factor=5.0 -p problem.rows=6"


def test_threads_are_capped_in_the_kernels(finished):
    _, sweep, heard = finished
    started = next(e for e in heard if e["type"] == "sweep_started")
    timings = sweep.best.load("timings")
    assert timings["threads"] == str(started["threads"]) and timings["wait"] == "PASSIVE"
    assert started["workers"] * started["threads"] <= max(2, mlbench.chain.record.cpu_count())


def test_notebooks_of_the_best_are_kept_and_the_rest_is_thinned(finished):
    folder, sweep, _ = finished
    first, second, third = (Run.open(folder / "runs" / line["run"]) for line in sweep.ranked)
    for run in (first, second):
        stage = run.stage_folder("04_training")
        assert (stage / "notebook.ipynb").exists() and (stage / "figures").is_dir() and (run.folder / "report.html").exists() and not run.record.get("thinned")
    stage = third.stage_folder("04_training")
    assert not (stage / "notebook.ipynb").exists() and not (stage / "figures").exists()
    assert "not among the best 2" in third.record["thinned"]["why"] and "stages/04_training/notebook.ipynb" in third.record["thinned"]["removed"]
    assert third.cards["04_training"]["metrics"] and third.record["metrics"]["04_training"] and third.load("model").is_dir()
    base = next(run for run in list_runs(folder) if run.record.get("trial") == 0)
    assert (base.stage_folder("01_problem") / "notebook.ipynb").exists()
    assert "cross-validated roc_auc" in report_html(third)
    for words in (["runs", folder], ["show", third.id, "--project", folder], ["compare", third.id, first.id, "--project", folder]):
        code, text = said(*map(str, words))
        assert code == 0, text


def test_a_thinned_run_still_verifies(finished):
    from mlbench.chain.verification import verify_run

    folder, sweep, _ = finished
    assert verify_run(Run.open(folder / "runs" / sweep.ranked[-1]["run"])).ok


def test_thinned_results_are_not_taken_for_a_later_run(finished, tmp_path):
    import shutil

    folder, sweep, _ = finished
    copy = Path(shutil.copytree(folder, tmp_path / "small"))
    run = run_chain(copy, None, "training", {"training.factor": 1.0, "problem.rows": 6})
    assert run.record.get("sweep") is None and (run.stage_folder("04_training") / "notebook.ipynb").exists()


def test_the_same_command_has_only_the_failed_trial_to_do_and_a_change_makes_all_old(finished, tmp_path):
    import shutil

    folder, sweep, _ = finished
    copy, heard = Path(shutil.copytree(folder, tmp_path / "small")), []
    again = run_sweep(copy, {"training.factor": [1, 3, 7, 5], "problem.rows": "6"}, workers=2, keep=2, on_progress=heard.append)
    assert again.id == sweep.id and [e["trial"] for e in heard if e["type"] == "trial_started"] == [3]
    assert not any(e["type"] == "stage_started" and e["stage"] == "01_problem" for e in heard)
    edit(copy / "04_training.ipynb", "seven is not to be had", "seven is not to be had here")
    plan = plan_sweep(copy, {"training.factor": [1, 3, 7, 5], "problem.rows": "6"})
    assert plan.identity == read_json(sweep.folder / "sweep.json")["identity"]
    assert all(line["surroundings"] != plan.surroundings() for line in again.trials)


def test_ranking_by_a_metric_of_which_less_is_better(finished, tmp_path):
    import shutil

    folder, _, _ = finished
    copy, heard = Path(shutil.copytree(folder, tmp_path / "small")), []
    grid = {"training.factor": [1, 3, 7, 5], "problem.rows": [6]}
    by_loss = run_sweep(copy, grid, by="log_loss", keep=2, on_progress=heard.append)
    assert [line["values"]["training.factor"] for line in by_loss.ranked] == [5.0, 3.0, 1.0] and not by_loss.ranking.larger
    edit(by_loss.folder / "sweep.json", '"larger": false', '"larger": true')
    assert [line["values"]["training.factor"] for line in Sweep.open(by_loss.folder).ranked] == [1.0, 3.0, 5.0]


# --- accidents ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_one_trial(project):
    (project / "wait").touch()
    killed, heard = [], []

    def hear(event):
        heard.append(event)
        if event["type"] == "stage_started" and event["stage"] == "04_training" and event["trial"] == 1:
            os.kill(next(e["pid"] for e in heard if e["type"] == "trial_started" and e["trial"] == 1), signal.SIGKILL)
            killed.append(event)
            (project / "wait").unlink()

    sweep = run_sweep(project, {"training.factor": "2,3"}, workers=2, on_progress=hear)
    assert killed and trial_states(sweep) == {2.0: "failed", 3.0: "done"}
    error = sweep.trials[0]["error"]
    assert error["kind"] == "killed" and "SIGKILL" in error["message"] and error["exit_code"] == 137
    assert Run.open(project / "runs" / sweep.trials[0]["run"]).status == "interrupted"
    wait_until(lambda: not kernels_of(project))
    again = run_sweep(project, {"training.factor": "2,3"}, workers=2)
    assert trial_states(again) == {2.0: "done", 3.0: "done"} and again.trials[0]["run"] == sweep.trials[0]["run"]


def start_sweeper(project: Path, values: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SWEEPER, str(project), values], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_whatever_ends_the_sweep_no_worker_stays_and_the_same_command_goes_on(project, sign, code):
    process = start_sweeper(project, "1,2,3")
    told = next((line for line in process.stdout if line.startswith("trial_ended")), "")  # one trial is done, others go on
    assert told, process.stderr.read()
    (project / "wait").touch()
    wait_until(lambda: workers_of(project), 60)
    os.kill(process.pid, sign)
    process.communicate(timeout=60)
    assert process.returncode == code
    wait_until(lambda: not workers_of(project) and not kernels_of(project), 40)
    sweep = Sweep.open(next((project / "sweeps").glob("2*")))
    done = [line["trial"] for line in sweep.trials if line["status"] == "done"]
    assert sweep.status == "interrupted" and 1 <= len(done) < 3
    (project / "wait").unlink()
    heard = []
    again = run_sweep(project, {"training.factor": "1,2,3"}, workers=2, on_progress=heard.append)
    assert again.id == sweep.id and set(trial_states(again).values()) == {"done"}
    assert not {e["trial"] for e in heard if e["type"] == "trial_started"} & set(done)
    assert not any(e["type"] == "stage_started" and e["stage"] == "01_problem" for e in heard)
    assert not [run for run in list_runs(project) if run.status == "running"]


def test_a_shared_stage_that_fails_ends_the_sweep_with_its_cause(project):
    edit(project / "01_problem.ipynb", "stage.save('facts'", "raise ValueError('no facts')\\nstage.save('facts'")
    with pytest.raises(StageError, match="no facts"):
        run_sweep(project, {"training.factor": "1,2"})
    sweep = Sweep.open(next((project / "sweeps").glob("2*")))
    assert sweep.status == "failed" and not sweep.trials and "no facts" in sweep.record["error"]["message"]


def test_two_of_the_same_sweep_at_once_are_refused(project):
    (project / "wait").touch()
    process = start_sweeper(project, "1,2")
    try:
        told = next((line for line in process.stdout if line.startswith("trial_started")), "")
        assert told, process.stderr.read()
        with pytest.raises(UsageError, match="running already"):
            run_sweep(project, {"training.factor": "1,2"})
    finally:
        (project / "wait").unlink()
        process.communicate(timeout=60)
    assert process.returncode == 0


# --- pages -------------------------------------------------------------------------------------------------------------------------


def test_the_page_shows_everything_and_asks_nobody(finished):
    _, sweep, _ = finished
    with browser_page() as page:
        page.goto(f"file://{sweep.page}")
        page.wait_for_function("document.documentElement.dataset.ready === 'yes'")
        assert page.inner_text("h1") == "Which factor is best?" and "within the noise" in page.inner_text(".banner")
        assert "seven is not to be had" in page.inner_text("#parameters") and "All cells are the same." in page.inner_text("#code-differences")
        page.evaluate("drawAll()")
        assert page.locator(".main-svg").count() >= 3
        title = ".chooser[data-chooser='metrics'] .gtitle"
        assert "roc_auc" in page.text_content(title)
        page.select_option("select[data-axis='metric']", "1")
        page.wait_for_function(f"document.querySelector(\"{title}\").textContent.includes('log_loss')")
        figures = ".chooser[data-chooser='figures'] .gtitle"
        assert [page.locator(figures).nth(n).text_content() for n in (0, 1)] == ["factor 5", "factor 3"]
        page.select_option("select[data-axis='left']", "1")
        page.wait_for_function(f"document.querySelectorAll(\"{figures}\")[0].textContent === 'factor 3'")
        assert page.outside == [] and page.mistakes == []


def test_code_that_differs_is_shown_cell_by_cell(finished, tmp_path):
    import shutil

    folder, sweep, _ = finished
    copy = Path(shutil.copytree(folder, tmp_path / "small"))
    edit(copy / "04_training.ipynb", "score = 0.6 + 0.03 * factor", "score = 0.7 + 0.02 * factor  # <b>steeper</b>")
    run = run_chain(copy, None, "training", {"training.factor": 5.0, "problem.rows": 6})
    before = Run.open(copy / "runs" / sweep.ranked[0]["run"])
    found = compare_runs(before, run)
    (runs, lines), *rest = found.code["04_training"]
    assert runs == [1] and not rest and "+score = 0.7 + 0.02 * factor  # <b>steeper</b>" in lines and "-score = 0.6 + 0.03 * factor" in lines
    text = write_comparison(before, run, path=tmp_path / "page.html").read_text()
    assert (
        "<span class='minus'>-score = 0.6" in text and "<b>steeper" not in text and not re.search(r"(src|href)=['\"]?https?:", text[: text.index("<script>")])
    )
    thinned = Run.open(copy / "runs" / sweep.ranked[-1]["run"])
    assert compare_runs(thinned, run).code["04_training"][0][1] == lines, "the sources of a thinned run are kept"


def test_a_page_of_many_runs(finished, tmp_path):
    folder, sweep, _ = finished
    runs = [Run.open(folder / "runs" / line["run"]) for line in sweep.ranked] * 4
    labels = {run.id: "the same" for run in runs}
    text = write_comparison(*runs, path=tmp_path / "many.html", story=Story(labels=labels)).read_text()
    assert "12 runs side by side" in text and len(text) < 8_000_000 and "data-axis='left'" in text


# --- the command line --------------------------------------------------------------------------------------------------------------


def test_the_command(project):
    code, text = said("sweep", str(project), "-p", "training.factor=1,99", "--dry-run")
    assert code == 2 and "factor = 99" in text
    code, text = said("sweep", str(project), "-p", "training.factor=7,4", "--workers", "2", "--by", "min:log_loss", "--keep", "1")
    lines = text.splitlines()
    assert code == 0 and Path(lines[-1]).name == Sweep.open(lines[-1]).id and lines[0].startswith("2 trials; 2 at once")
    assert any(line.startswith("✗  factor=7  ") and "seven is not to be had" in line for line in lines) and any(
        line.startswith("✓  factor=4  ") for line in lines
    )
    code, text = said("sweep", str(project), "-p", "training.factor=7")
    assert code == 1 and "No trial is done" in text


def test_compare_writes_and_names_a_page(finished, tmp_path):
    folder, sweep, _ = finished
    names = [line["run"] for line in sweep.ranked]
    code, text = said("compare", *names, "--project", str(folder), "--html", str(tmp_path / "three.html"))
    assert code == 0 and Path(text.splitlines()[-1]).resolve() == tmp_path / "three.html" and "factor=5" in text
    code, text = said("compare", names[0], names[1], "--project", str(folder))
    assert code == 0 and text.splitlines()[-1].endswith(f"compare-with-{names[0]}.html") and Path(text.splitlines()[-1]).exists()


# --- real templates ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_sweep_of_a_bundled_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said("new", "iris", "--example", "iris")[0] == 0
    heard: list[dict] = []
    grid = {"training.max_rows": "60,100", "training.choose": "all", "training.models": [["dummy", "linear"]]}
    sweep = run_sweep("iris", grid, to="training", workers=2, keep=1, on_progress=heard.append)
    assert {line["status"] for line in sweep.trials} == {"done"} and len(sweep.ranked) == 4, sweep
    for stage in ("01_problem", "02_eda", "03_features"):
        assert [e["trial"] for e in heard if e["type"] == "stage_started" and e["stage"] == stage] == [0]
    metric = Project.open("iris").problem.metric
    assert all(line["score"]["name"] == f"cross-validated {metric}" and line["score"]["low"] is not None for line in sweep.ranked)
    assert sweep.page.stat().st_size < 8e6
    assert thin_run(sweep.best, "enough") and not thin_run(sweep.best, "again")
