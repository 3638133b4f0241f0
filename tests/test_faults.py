"What may go wrong while a chain runs: killed, stopped, no room, no rights, twenty at once; afterwards the record is true and the run goes on."

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from chain_project import edit, make_project, start, write_notebook
from rights import as_nobody, open_to_all

import mlbench.chain.cache
import mlbench.chain.record
from mlbench.chain import Run, list_runs, run_chain
from mlbench.chain.plan import RunOptions
from mlbench.chain.recovery import last_attempt, mend_stale
from mlbench.chain.run import process_alive
from mlbench.core.errors import MlbenchError, StageError
from mlbench.core.files import NotWritable, read_json, sha256_file


@pytest.fixture(autouse=True)
def _quick(source_held_fixed, monkeypatch):
    monkeypatch.setenv("MLBENCH_FORK_SERVER", "0")  # these kernels import next to nothing


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


def attempts(project: Path) -> int:
    "How often the newest run was started."
    return sum(e["type"] == "run_started" for run in list_runs(project)[:1] for e in run.events)


def reached(project: Path, stage: str, cell: int, after: int = 0) -> bool:
    "Whether the newest run has come to a cell in its present attempt, which is a later one than number `after`."
    for run in list_runs(project)[:1]:
        events = last_attempt(run.events)
        return attempts(project) > after and any(e["type"] == "cell_started" and e["stage"] == stage and e["cell"] >= cell for e in events)
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


def test_a_kernel_that_is_held_is_told_and_goes_when_the_run_goes_on(tmp_path):
    project = only_stage(tmp_path / "p", "answer = 42", "raise RuntimeError('look')")
    with pytest.raises(StageError, match=r"to look inside  mlbench open .*its kernel is kept until") as caught:
        run_chain(project, options=RunOptions(on_error="hold", hold_minutes=5))
    run = list_runs(project)[0]
    held = next(e for e in run.events if e["type"] == "kernel_held")
    assert psutil.pid_exists(held["pid"]) and "to go on        mlbench run" in str(caught.value)
    assert mend_stale(project) == [] and psutil.pid_exists(held["pid"])
    edit(project / "01_problem.ipynb", "raise RuntimeError('look')", "stage.close()")
    assert run_chain(project) == run and must_be_sound(project).status == "done"
    assert not process_alive(next(e["process"] for e in run.events if e["type"] == "kernel_started" and e["pid"] == held["pid"]))


# ---------------------------------------------------------------------------------------------- checkpoints, numbers, clock


KEEP = """from pathlib import Path
kept = stage.run.folder / 'checkpoints' / stage.name / 'x'
found = kept.exists()
kept.parent.mkdir(parents=True, exist_ok=True)
kept.write_text('')"""


def test_checkpoints_stay_for_the_next_attempt_and_go_with_the_stage(tmp_path):
    project = only_stage(tmp_path / "p", KEEP, "assert found, 'not yet'", "stage.close()")
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
    many_at_once(only_stage(tmp_path / "p", "stage.metric('nought', 0.0)", "stage.close()"), 20)


# ---------------------------------------------------------------------------------------------- no room on the disk

WRITERS = """
import json, os, resource, sys
from pathlib import Path
import numpy as np, pandas as pd
from mlbench.chain import Project, Stage, list_runs
from mlbench.chain.execution import Execution
from mlbench.chain.plan import plan_chain
from mlbench.chain.proof import keep_source, write_proof
from mlbench.chain.record import create_run
from mlbench.chain.report import write_report
from mlbench.core.resuming import Checkpoints
from mlbench.core.errors import MlbenchError
from mlbench.core.files import sha256_file
from mlbench.core.progress import log_metrics, report

project = Path(sys.argv[1])
os.chdir(project)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
opened = Project.open(project)
run = list_runs(opened)[0]
recorder = create_run(plan_chain(opened))
notebook = json.loads((run.stage_folder("01_problem") / "notebook.ipynb").read_text())
names = ["facts", "train", "note", "raw", "model"]
stage = Stage.open("01_problem", {}, writes=names)
frame = pd.DataFrame({"x": np.arange(5000.0)})
checkpoints = Checkpoints(recorder.run.folder / "checkpoints" / "04_training")
evaluation = Stage.open("05_evaluation", {}, reads=[], writes=[], opens=["test"])
execution = Execution(notebook, recorder.run.folder / "executed.ipynb")


def folder():
    with stage.folder("model") as path:
        (path / "small").write_text("small")
        (path / "weights").write_bytes(bytes(50_000))


writers = {
    "run.json": (lambda: recorder.save(), 200),
    "events.jsonl": (lambda: recorder.event("x", y="z" * 4000), (recorder.run.folder / "events.jsonl").stat().st_size + 50),
    "progress": (lambda: report("long " * 1000), 50),
    "metrics.jsonl": (lambda: log_metrics({"x" * 500: 0.5}), 50),
    "openings.jsonl": (lambda: evaluation.unseal("test"), 50),
    "notebook": (lambda: execution.save(), 1000),
    "artifact of JSON": (lambda: stage.save("facts", {"x": list(range(5000))}), 1000),
    "artifact of a table": (lambda: stage.save("train", frame), 1000),
    "artifact of text": (lambda: stage.save("note.md", "x" * 50_000), 1000),
    "artifact of bytes": (lambda: stage.save("raw.bin", bytes(50_000)), 1000),
    "artifact that is a folder": (folder, 1000),
    "sealed rows": (lambda: stage.seal("test", frame), 1000),
    "card and manifest": (lambda: stage.close(), 100),
    "params.yaml": (lambda: opened.set_parameter("04_training", "factor", 4.0), 20),
    "report": (lambda: write_report(run), 10_000),
    "proof": (lambda: write_proof(run), 100),
    "source": (lambda: keep_source(recorder.run, plan_chain(opened)), 1000),
    "checkpoint": (lambda: checkpoints.save("a" * 64, {"x": np.zeros(50_000)}, {}), 100_000),
}


def content():
    return {str(p): sha256_file(p) for p in sorted(project.rglob("*")) if p.is_file() and p.stat().st_size}


for name, (write, size) in writers.items():
    before, said = content(), None
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        write()
    except BaseException as error:
        said = [type(error).__name__, str(error)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    after = content()
    changed = sorted(Path(p).name for p in before.keys() | after.keys() if before.get(p) != after.get(p))
    checkpoints.broken = False
    write()
    print(json.dumps([name, said, changed]))
"""


def test_each_writer_without_room(tmp_path):
    project = make_project(tmp_path / "p")
    run_chain(project)
    done = subprocess.run([sys.executable, "-c", WRITERS, str(project)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 18
    for name, said, changed in results:
        if name == "checkpoint":
            assert said is None and set(changed) <= {"events.jsonl"}  # training goes on without, and says so
            continue
        assert said and said[0] in ("DiskFull", "NoRoom") and "could not be written" in said[1] and "Make room" in said[1], (name, said)
        assert len(said[1].splitlines()) == 1 and not set(changed) - {"card.json"}, (name, changed)
    assert not [p for p in project.rglob("*") if p.name.endswith(".tmp")]


@pytest.fixture
def small_disk(tmp_path):
    "A file system of its own, of a few megabytes; gives its folder and a function that changes its size."
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system may be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int) -> None:
    "Fill a disk up to so many bytes."
    (folder / "ballast").unlink(missing_ok=True)
    free = os.statvfs(folder)
    (folder / "ballast").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - leave)))


def test_the_disk_is_full_at_any_moment(small_disk, tmp_path):
    project = make_project(small_disk / "p")
    expected = artifacts(run_chain(make_project(tmp_path / "wide")))
    told = []
    for kilobytes in (4, 200, 290, 300, 312, 324, 336, 348, 360, 372, 384):
        fill(small_disk, kilobytes * 1024)
        try:
            run_chain(project)
        except MlbenchError as error:
            text = str(error)
            told.append(kilobytes)
            assert error.exit_code == 1 and "full" in text and "oom" in text and "Traceback" not in text, text
        (small_disk / "ballast").unlink()
        mend_stale(project)
        if list_runs(project):
            run = must_be_sound(project)
            assert run.status == "done" or run.record["error"]["kind"] in ("disk full", "killed"), run.record["error"]
            if run.status == "done":
                break
    assert len(told) >= 3
    run = run_chain(project)
    assert must_be_sound(project).status == "done" and artifacts(run) == expected


def artifacts(run: Run) -> dict[str, str]:
    "Hashes of all artifacts that two runs must share."
    return {n: e["sha256"] for m in run.manifests.values() for n, e in [*m["artifacts"].items(), *m["sealed"].items()] if not e["volatile"]}


# ---------------------------------------------------------------------------------------------- no rights


def test_a_project_that_may_not_be_written(tmp_path):
    run_chain(only_stage(tmp_path / "first", "stage.close()"))  # nobody may not even read the interpreter's modules: now they are loaded
    project = only_stage(tmp_path / "p", "stage.close()")
    open_to_all(tmp_path)
    project.chmod(0o755)
    start = time.monotonic()
    said = as_nobody(lambda: run_chain(project))
    assert said.startswith(f"NotWritable 2: {project / 'runs'} could not be written: this user has no right") and time.monotonic() - start < 10, said
    assert not (project / "runs").exists()
    done = run_chain(project)
    (project / "runs").chmod(0o555)
    assert as_nobody(lambda: print(run_chain(project).id)) == "nothing was raised"  # unchanged: there is nothing to write
    assert as_nobody(lambda: run_chain(project, force=True)).startswith("NotWritable 2: ")
    assert list_runs(project) == [done] and must_be_sound(project) == done


def test_a_medium_that_cannot_be_written(tmp_path):
    project = only_stage(tmp_path / "p", "stage.close()")
    made = subprocess.run(["mount", "--bind", str(project), str(project)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"nothing may be mounted here: {made.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(project)], check=True)
        with pytest.raises(NotWritable, match="its folder is read-only"):
            run_chain(project)
    finally:
        subprocess.run(["umount", "-l", str(project)], check=True)
    assert not (project / "runs").exists()


# ---------------------------------------------------------------------------------------------- any fault at any moment

INJECTED = {
    "exit": ("exit", "import sys; sys.exit(0)"),
    "raise": ("exception", "raise RuntimeError('a fault')"),
    "memory": ("out of memory", "raise MemoryError('no more')"),
    "kernel killed": ("kernel died", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
    "no room": ("disk full", "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))"),
    "too long": ("cell timeout", "import time; time.sleep(600)"),
}
MOMENTS = int(os.environ.get("FAULT_MOMENTS", "10"))  # at which each fault meets the real chain
SENT = {"killed": ("SIGKILL", 137), "Ctrl-C": ("SIGINT", 130), "stopped": ("SIGTERM", 143), "hung up": ("SIGHUP", 129)}
STARTUP = """
import json, os
from pathlib import Path


def _inject(lines, place=Path({place!r})):
    order = json.loads(place.read_text()) if place.exists() else None
    meant = order and "".join(lines).strip() == order["source"] and os.environ["MLBENCH_STAGE"] == order["stage"]
    return [order["code"] + "\\n", *lines] if meant else lines


get_ipython().input_transformers_cleanup.append(_inject)
"""


class Disturbance:
    "Brings faults into a chain without changing its notebooks: a kernel's own start-up file puts a line before one cell, and signals are sent from outside."

    def __init__(self, project: Path, folder: Path, seed: int, monkeypatch):
        self.project, self.order, self.draw, self.done = project, folder / "order.json", random.Random(seed), []
        startup = folder / "ipython" / "profile_default" / "startup"
        startup.mkdir(parents=True)
        (startup / "00-fault.py").write_text(STARTUP.format(place=str(self.order)))
        monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))

    def cells(self) -> list[tuple[str, int, str]]:
        "Every code cell of the chain: stage, number, source."
        found = []
        for path in sorted(self.project.glob("0*_*.ipynb")):
            sources = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
            found += [(path.stem, number, source.strip()) for number, source in enumerate(sources, 1) if source.strip()]
        return found

    def moments(self, faults: dict[str, int]) -> list[tuple[int, str]]:
        "Where each fault happens, in the order of the chain; the last cell is left out, after which a stage is done."
        places = range(len(self.cells()) - 1)
        drawn = [(self.draw.choice(places), fault) for fault, often in faults.items() for _ in range(often)]
        print("moments", sorted(drawn))
        return sorted(drawn)

    def strike(self, place: int, fault: str) -> None:
        "Run the chain until a fault ends it at a cell, and look at what is left."
        stage, number, source = self.cells()[self.not_done(place)]
        if fault in SENT:
            self.send(stage, number, source, *SENT[fault])
        else:
            self.inject(stage, number, source, *INJECTED[fault])
        self.done.append(fault)

    def not_done(self, place: int) -> int:
        "The same cell, or when a signal came so late that its stage is done, one of the next stage."
        entries = list_runs(self.project)[0].record["stages"] if list_runs(self.project) else {}
        done = {name for name, entry in entries.items() if entry["status"] in ("done", "reused")}
        left = [n for n, cell in enumerate(self.cells()[:-1]) if n >= place and cell[0] not in done]
        return left[0]

    def inject(self, stage: str, number: int, source: str, kind: str, code: str) -> None:
        self.order.write_text(json.dumps({"stage": stage, "source": source, "code": code}))
        try:
            with pytest.raises(StageError):
                run_chain(self.project, options=RunOptions(cell_timeout=self.limit if kind == "cell timeout" else None))
        finally:
            self.order.unlink()
        run = must_be_sound(self.project)
        error = run.record["error"]
        sqlite = kind == "disk full" and "disk I/O error" in error["message"]  # SQLite's word for a limit on the size of files; a full disk it names
        assert (error["kind"] == kind or sqlite) and run.record["exit_code"] == 1, (stage, number, error)
        assert error["stage"] == stage and (error["cell"] == number or kind in ("disk full", "cell timeout")), (stage, number, error)

    def send(self, stage: str, number: int, source: str, name: str, code: int) -> None:
        pause = 60 if stage == self.cells()[-1][0] else 0.2  # a signal must not come after the end of the chain
        self.order.write_text(json.dumps({"stage": stage, "source": source, "code": f"import time; time.sleep({pause})"}))
        before = attempts(self.project)
        runner = start(self.project)
        wait_until(lambda: runner.poll() is not None or reached(self.project, stage, number, before), f"cell {number} of {stage}", 120)
        time.sleep(self.draw.uniform(0, 0.4))
        runner.send_signal(getattr(signal, name))
        _, said = runner.communicate(timeout=60)
        self.order.unlink()
        assert runner.returncode == (-9 if name == "SIGKILL" else code), (stage, number, name, said)
        mend_stale(self.project)
        run = must_be_sound(self.project)
        assert run.record["exit_code"] == code and run.record["error"]["kind"] == ("killed" if code == 137 else "interrupted"), run.record["error"]

    limit = 2.0  # seconds for a cell, where that is the fault


def disturbed(disturbance: Disturbance, faults: dict[str, int]) -> Run:
    "Run a chain that is interrupted again and again, and in the end left alone."
    project = disturbance.project
    for place, fault in disturbance.moments(faults):
        print("now", fault, disturbance.cells()[place][:2])
        disturbance.strike(place, fault)
    run = run_chain(project)
    assert must_be_sound(project) == run and run.status == "done" and len(list_runs(project)) == 1
    assert sum(e["type"] == "run_started" for e in run.events) == sum(faults.values()) + 1 == len(disturbance.done) + 1
    return run


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_each_fault_at_random_moments_of_a_small_chain(tmp_path, monkeypatch):
    quiet = run_chain(make_project(tmp_path / "quiet"))
    project = make_project(tmp_path / "a {b} ç d")
    run = disturbed(Disturbance(project, tmp_path, 20261121, monkeypatch), dict.fromkeys([*INJECTED, *SENT], max(1, MOMENTS * 3 // 10)))
    assert artifacts(run) == artifacts(quiet) and run.record["metrics"] == quiet.record["metrics"]


CHEAP = """training:
  models: [dummy, linear]
evaluation:
  bootstrap: 50
  explain_rows: 10
  n_repeats: 2
deployment:
  parity_rows: 20
"""


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    "The six notebooks on the smallest bundled data set, with few models, never run."
    folder = tmp_path_factory.mktemp("real")
    made = subprocess.run([sys.executable, "-m", "mlbench", "new", "flowers", "--example", "iris"], cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    (folder / "flowers" / "params.yaml").write_text(CHEAP)
    edit(folder / "flowers" / "problem.yaml", "folds: 5", "folds: 2")
    return folder / "flowers"


def results(run: Run) -> dict:
    "What must come out the same however often a run was interrupted; the model card rightly counts each opening of the sealed rows."
    measured = {s: [m for m in found if "latency" not in m["name"]] for s, found in run.record["metrics"].items()}
    hashes = {name: sha for name, sha in artifacts(run).items() if name not in ("card", "bundle")}
    card = re.sub(r"opened \d+ times?", "opened", run.path("card").read_text())
    return {"artifacts": hashes, "metrics": measured, "card": card, "model": sha256_file(run.path("bundle") / "model.onnx")}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_each_fault_at_ten_random_moments_of_a_real_chain(flowers, tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_FORK_SERVER", "1")
    project = Path(shutil.copytree(flowers, tmp_path / "a {b} ç d"))
    disturbance = Disturbance(project, tmp_path, 20261122, monkeypatch)
    quiet = run_chain(shutil.copytree(flowers, tmp_path / "quiet"))
    run = disturbed(disturbance, dict.fromkeys([*INJECTED, *SENT], MOMENTS))
    assert results(run) == results(quiet)
    for words in (["show", run.id], ["report", run.id], ["score", run.id, "example:iris", "--to", str(tmp_path / "scored.csv")]):
        done = subprocess.run([sys.executable, "-m", "mlbench", *words, "--project", str(project)], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stdout + done.stderr)
    assert len((tmp_path / "scored.csv").read_text().splitlines()) == 151
