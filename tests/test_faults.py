"What may go wrong while a chain runs: killed, stopped, no room, no rights, twenty at once; afterwards the record is true and the run goes on."

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from chain_project import edit, make_project, write_notebook

import mlbench.chain.cache
import mlbench.chain.record
from mlbench.chain import Run, list_runs, run_chain
from mlbench.chain.plan import RunOptions
from mlbench.chain.recovery import last_attempt, mend_stale
from mlbench.core.errors import MlbenchError, StageError
from mlbench.core.files import NotWritable, read_json, read_lines

RUNNER = """
import json, sys
import mlbench.chain.cache, mlbench.chain.record
mlbench.chain.cache.mlbench_source = mlbench.chain.record.mlbench_source = lambda: "m" * 64
from mlbench.chain import run_chain
from mlbench.chain.plan import RunOptions
from mlbench.core.errors import MlbenchError
given = json.loads(sys.argv[2])
try:
    print(run_chain(sys.argv[1], force=given.pop("force", False), options=RunOptions(**given)).folder)
except MlbenchError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.fixture(autouse=True)
def _source_held_fixed(monkeypatch):
    "Whoever edits mlbench while the tests run does not make its results outdated."
    for name in ("MLBENCH_RUN", "MLBENCH_STAGE", "MLBENCH_PROJECT", "MLBENCH_PARAMETERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLBENCH_FORK_SERVER", "0")  # these kernels import next to nothing
    monkeypatch.setattr(mlbench.chain.cache, "mlbench_source", lambda: "m" * 64)
    monkeypatch.setattr(mlbench.chain.record, "mlbench_source", lambda: "m" * 64)


def start(project: Path, **options) -> subprocess.Popen:
    "Start a run in a process of its own."
    given = json.dumps(options)
    return subprocess.Popen([sys.executable, "-c", RUNNER, str(project), given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition, what: str, seconds: float = 60):
    "Wait for a condition to hold; gives what it gave."
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come")


def only_stage(folder: Path, *sources: str) -> Path:
    "A project of one stage."
    make_project(folder, stages=())
    write_notebook(folder / "01_problem.ipynb", "rows: int = 3", ["stage = Stage.open('01_problem', globals(), writes=[])", *sources])
    (folder / "params.yaml").write_text("")
    return folder


# ---------------------------------------------------------------------------------------------- what must hold after any fault


def orphans(run: Run) -> list[str]:
    "Processes of the run's kernels that are still there."
    kernels = {e["pid"]: e["process"] for e in run.events if e["type"] == "kernel_started" and e.get("process")}
    found = []
    for process in psutil.process_iter(["pid", "status", "cmdline"]):
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            leader = os.getsid(process.pid)
            own = kernels.get(leader)
            late = own is not None and process.create_time() >= own["started"] - 1
            if late and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid}: {process.info['cmdline']}")
    return found


def must_be_sound(project: Path) -> Run:
    "Nothing half-written, nothing left behind, and nothing called complete that did not run; gives the newest run."
    run = list_runs(project)[0]
    record = run.record
    assert record["status"] != "running" and record["exit_code"] is not None
    assert (record["status"] == "done") == (record["exit_code"] == 0) == (record["error"] is None)
    left = [p.relative_to(project) for p in project.rglob("*") if p.name.endswith(".tmp") or p.name in (".lock", ".room", ".numbering")]
    assert not left, left
    wait_until(lambda: not orphans(run), f"the end of {orphans(run)}", 10)
    for event in run.events:
        assert event["type"] != "kernel_started" or not Path(event["folder"]).exists(), event
    for stage, entry in record["stages"].items():
        manifest = run.stage_folder(stage) / "manifest.json"
        assert (entry["status"] in ("done", "reused")) == (manifest.exists() and bool(read_json(manifest)["key"])), (stage, entry["status"])
        if manifest.exists():
            assert mlbench.chain.cache.intact(run, stage, read_json(manifest)), stage
        if (run.stage_folder(stage) / "notebook.ipynb").exists() and entry["status"] not in ("waiting", "reused"):
            must_agree(run, stage)
    return run


def must_agree(run: Run, stage: str) -> None:
    "The executed notebook calls no cell complete that the events do not."
    begun = [n for n, e in enumerate(run.events) if e["type"] == "stage_started" and e["stage"] == stage]
    ended = {e["cell"] for e in run.events[begun[-1] :] if e["type"] == "cell_ended" and e["stage"] == stage}
    executed = json.loads((run.stage_folder(stage) / "notebook.ipynb").read_text())
    number = 0
    for cell in executed["cells"]:
        if cell["cell_type"] != "code" or "injected-parameters" in cell["metadata"].get("tags", []):
            continue
        number += 1
        status = cell["metadata"].get("papermill", {}).get("status", "pending")
        assert status != "running" and (status != "completed" or number in ended or not "".join(cell["source"]).strip()), (stage, number, status)
    well = run.record["stages"][stage]["status"] == "done"
    assert executed["metadata"].get("papermill", {}).get("exception") is (not well), stage


# ---------------------------------------------------------------------------------------------- every way to end, once


def ended(project: Path, code: int, **expected) -> dict:
    "The facts of the newest run's error, compared with what is expected."
    run = must_be_sound(project)
    record = run.record
    assert record["exit_code"] == code, record["error"]
    assert record["error"]["stage"] == "01_problem" and {k: record["error"][k] for k in expected} == expected, record["error"]
    status = {3: "refused", 130: "interrupted", 143: "interrupted", 129: "interrupted", 137: "interrupted"}.get(code, "failed")
    assert record["status"] == record["stages"]["01_problem"]["status"] == status
    last = [e for e in run.events if e["type"] == "run_ended"][-1]
    assert last["exit_code"] == code and last["error"]["kind"] == record["error"]["kind"] and last["status"] == status
    assert {"kind", "type", "message", "cell", "line", "traceback", "exit_code", "stage"} == set(record["error"])
    return record["error"]


@pytest.mark.parametrize(
    ("source", "kind", "code", "more"),
    [
        ("raise KeyError('age')", "exception", 1, {"type": "KeyError", "cell": 4, "exit_code": None}),
        ("import sys; sys.exit(0)", "exit", 1, {"cell": 4}),
        ("import sys; sys.exit(3)", "exit", 1, {"cell": 4}),
        ("import os; os.kill(os.getpid(), 9)", "kernel died", 1, {"cell": 4, "exit_code": -9}),
        ("import os; os._exit(7)", "kernel died", 1, {"cell": 4, "exit_code": 7}),
        ("raise MemoryError('no more')", "out of memory", 1, {"cell": 4}),
        ("import time; time.sleep(60)", "cell timeout", 1, {"cell": 4}),
        ("1 + 1", "not closed", 1, {"cell": None}),
        ("from mlbench.core.errors import GateRefused; raise GateRefused('0.7 misses 0.8')", "gate", 3, {"cell": 4}),
        ("import os; raise OSError(28, 'No space left on device')", "disk full", 1, {"cell": 4}),
    ],
)
def test_each_way_to_end_is_recorded(tmp_path, source, kind, code, more):
    project = only_stage(tmp_path / "p", source)
    with pytest.raises(MlbenchError) as caught:
        run_chain(project, options=RunOptions(cell_timeout=1 if kind == "cell timeout" else None))
    assert caught.value.exit_code == code
    error = ended(project, code, kind=kind, **more)
    text = str(caught.value)
    assert len(text.splitlines()) < 24 and "to go on        mlbench run" in text and "01_problem" in text
    assert ("what to change" in text) == (kind in ("out of memory", "cell timeout", "disk full")), text
    assert error["message"].splitlines()[0][:60] in text
    edit(project / "01_problem.ipynb", source.replace('"', '\\"'), "stage.close()")
    assert run_chain(project) == list_runs(project)[0]
    assert must_be_sound(project).status == "done" and len(list_runs(project)) == 1


def test_a_stage_that_takes_too_long(tmp_path):
    project = only_stage(tmp_path / "p", "import time; time.sleep(0.4)", "time.sleep(0.4)", "time.sleep(60)")
    with pytest.raises(StageError, match="stage took longer than 1.5 s"):
        run_chain(project, options=RunOptions(stage_timeout=1.5))
    ended(project, 1, kind="stage timeout")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGKILL", 137)])
def test_each_signal_is_recorded(tmp_path, name, code):
    project = only_stage(tmp_path / "p", "import subprocess, time", "child = subprocess.Popen(['sleep', '60'])", "time.sleep(60)")
    runner = start(project)
    wait_until(lambda: reached(project, "01_problem", 6), "the last cell")
    runner.send_signal(getattr(signal, name))
    _, said = runner.communicate(timeout=30)
    if name == "SIGKILL":
        run = list_runs(project)[0]
        assert runner.returncode == -9 and run.status == "interrupted" and run.record["status"] == "running"
        assert mend_stale(project) == [run] and mend_stale(project) == []
        ended(project, code, kind="killed", cell=6, line="time.sleep(60)")
    else:
        assert runner.returncode == code and "To go on: mlbench run" in said
        ended(project, code, kind="interrupted", message=f"01_problem was stopped by {name}.")


def only_first(folder: Path) -> Path:
    "A project of the first stage alone."
    make_project(folder, ("01_problem",))
    (folder / "params.yaml").write_text("")
    return folder


def reached(project: Path, stage: str, cell: int) -> bool:
    "Whether the newest run has come to a cell in its present attempt."
    for run in list_runs(project)[:1]:
        events = last_attempt(run.events)
        return any(e["type"] == "cell_started" and e["stage"] == stage and e["cell"] >= cell for e in events)
    return False


def test_a_result_that_was_just_complete_is_kept_when_a_signal_comes(tmp_path):
    project = make_project(tmp_path / "p")
    edit(project / "01_problem.ipynb", '"stage.close()"', '"stage.close()\\nimport os, signal\\nos.kill(os.getppid(), 0)"')
    stopped = 0
    while stopped < 1:
        runner = start(project)
        wait_until(lambda: list(project.glob("runs/*/stages/01_problem/manifest.json")), "the manifest")
        runner.send_signal(signal.SIGTERM)
        runner.communicate(timeout=30)
        stopped += runner.returncode == 143
    run = must_be_sound(project)
    assert run.status == "interrupted" and run.record["exit_code"] == 143
    run_chain(project)
    assert must_be_sound(project).status == "done"


def test_an_old_run_without_a_process_is_not_called_running_by_anybody(tmp_path, capsys):
    from mlbench.cli.app import said

    project = only_stage(tmp_path / "p", "import time", "time.sleep(60)")
    runner = start(project)
    wait_until(lambda: reached(project, "01_problem", 5), "the last cell")
    runner.kill()
    runner.communicate()
    code, text = said("runs", str(project))
    assert code == 0 and "interrupted" in text and "running" not in text
    assert list_runs(project)[0].record["status"] == "interrupted"
    code, text = said("show", "--project", str(project))
    assert code == 0 and "killed" in text


# ---------------------------------------------------------------------------------------------- checkpoints, numbers, clock


def test_checkpoints_stay_for_the_next_attempt_and_go_with_the_stage(tmp_path):
    keep = "from pathlib import Path\nkept = stage.run.folder / 'checkpoints' / stage.name / 'x'\nfound = kept.exists()\nkept.parent.mkdir(parents=True, exist_ok=True)\nkept.write_text('')"
    project = only_stage(tmp_path / "p", keep, "assert found, 'not yet'", "stage.close()")
    with pytest.raises(StageError, match="not yet"):
        run_chain(project)
    run = list_runs(project)[0]
    assert (run.folder / "checkpoints" / "01_problem" / "x").exists()
    assert run_chain(project) == run and not (run.folder / "checkpoints").exists()


def test_the_clock_is_set_back(tmp_path, monkeypatch):
    project = only_first(tmp_path / "p")
    first = run_chain(project)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() - 3 * 365 * 86400)
    edit(project / "data.csv", "1,yes", "1,no")
    second = run_chain(project)
    assert second.id < first.id and list_runs(project) == [second, first] and [r.number for r in list_runs(project)] == [2, 1]
    assert run_chain(project) == second  # the newest that fits, and none is made
    for record in (first.record, second.record):
        assert 0 < record["seconds"] < 120 and 0 < record["stages"]["01_problem"]["seconds"] < 120
    worked = [e["at"] for e in second.events if "at" in e]
    assert worked == sorted(worked)
    assert mend_stale(project) == []


def test_a_run_that_lives_is_not_taken_for_dead_when_the_clock_is_set(tmp_path, monkeypatch):
    project = only_stage(tmp_path / "p", "import time", "time.sleep(60)")
    runner = start(project)
    wait_until(lambda: reached(project, "01_problem", 5), "the last cell")
    monkeypatch.setattr(psutil, "boot_time", lambda: 0.0)
    assert list_runs(project)[0].status == "running" and mend_stale(project) == []
    runner.terminate()
    runner.communicate(timeout=30)


# ---------------------------------------------------------------------------------------------- many at once


def many_at_once(project: Path, n: int) -> None:
    "Start runs in the same moment; each must end well in a folder of its own."
    running = [start(project, force=True) for _ in range(n)]
    said = [p.communicate(timeout=400) for p in running]
    assert [p.returncode for p in running] == [0] * n, "\n".join(err for _, err in said)
    folders = {out.strip().splitlines()[-1] for out, _ in said}
    runs = list_runs(project)
    assert len(folders) == n == len(runs) and sorted(r.number for r in runs) == list(range(1, n + 1))
    for run in runs:
        assert run.status == "done" and run.record["error"] is None
        assert {e["run"] for e in run.events if "run" in e} == {run.id}
        assert [e["type"] for e in run.events].count("run_ended") == 1 and read_json(run.folder / "run.json")["id"] == run.id
        for stage, manifest in run.manifests.items():
            assert manifest["run"] == run.id and mlbench.chain.cache.intact(run, stage, manifest)
            must_agree(run, stage)
    must_be_sound(project)


def test_two_runs_of_one_project_at_once(tmp_path):
    many_at_once(make_project(tmp_path / "p"), 2)


@pytest.mark.slow
def test_twenty_runs_of_one_project_at_once(tmp_path):
    many_at_once(only_first(tmp_path / "p"), 20)
