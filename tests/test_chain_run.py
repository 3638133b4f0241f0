"Runs with real kernels: skipping, failing, being killed, going on, and the same by hand."

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from chain_project import edit, make_project, start, write_notebook

import mlbench.chain.cache
import mlbench.chain.record
from mlbench.chain import Project, Run, Stage, list_runs, run_chain
from mlbench.core.errors import ArtifactError, GateRefused, StageError, UsageError
from mlbench.core.files import read_json

VOLATILE = {"timings"}
pytestmark = pytest.mark.usefixtures("source_held_fixed")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    "A project with one finished run; tests copy it."
    patch = pytest.MonkeyPatch()
    for name in ("MLBENCH_RUN", "MLBENCH_STAGE", "MLBENCH_PROJECT", "MLBENCH_PARAMETERS"):
        patch.delenv(name, raising=False)
    patch.setattr(mlbench.chain.cache, "mlbench_source", lambda: "m" * 64)
    folder = make_project(tmp_path_factory.mktemp("chain") / "sma{ll}")
    run_chain(folder)
    patch.undo()
    return folder


@pytest.fixture
def project(finished, tmp_path):
    "A copy of the finished project."
    return Path(shutil.copytree(finished, tmp_path / "small"))


def artifacts(run: Run) -> dict[str, str]:
    "Hashes of all artifacts that two runs must share."
    return {n: e["sha256"] for m in run.manifests.values() for n, e in [*m["artifacts"].items(), *m["sealed"].items()] if n not in VOLATILE}


def outdated(project: Path) -> list[str]:
    "Stages whose result in the newest run would not be used again, judged one by one."
    run = list_runs(project)[0]
    return [stage for stage in Project.open(project).stages if run.why(stage)]


def only_stage(folder: Path, *sources: str) -> Path:
    "A project of one stage."
    make_project(folder, stages=())
    write_notebook(folder / "01_problem.ipynb", "rows: int = 3", ["stage = Stage.open('01_problem', globals(), writes=[])", *sources])
    (folder / "params.yaml").write_text("")
    return folder


def test_the_record_of_a_finished_run(finished):
    run = list_runs(finished)[0]
    record = run.record
    assert run.status == "done" and [e["status"] for e in record["stages"].values()] == ["done"] * 3
    assert run.load("metrics") == {"weight": 84.0, "threshold": 0.5, "rows": 4}
    training = record["stages"]["04_training"]
    assert training["parameters"]["factor"] == {"value": 3.0, "origin": "params.yaml"} and training["parameters"]["seed"]["origin"] == "default"
    assert training["peak_memory_mb"] > 20 and training["seconds"] > 0
    assert training["inputs"]["train"] == record["stages"]["01_problem"]["artifacts"]["train"]
    assert record["lineage"]["metrics"]["made_from"]["model"] == training["artifacts"]["model"]
    assert record["versions"]["numpy"] and record["machine"]["cpus"] >= 1 and record["seed"] == 0 and record["git"] is None
    kinds = [e["type"] for e in run.events]
    assert kinds[0] == "run_started" and kinds[-1] == "run_ended" and kinds.count("stage_ended") == 3 and "progress" in kinds
    started = [e for e in run.events if e["type"] == "cell_started" and e["stage"] == "05_evaluation"]
    assert [e["cell"] for e in started] == list(range(1, 9)) and started[-1]["line"] == "stage.close()" and started[0]["cells"] == 8
    executed = json.loads((run.stage_folder("04_training") / "notebook.ipynb").read_text())
    injected = next(c for c in executed["cells"] if "injected-parameters" in c["metadata"].get("tags", []))
    assert "factor = 3.0  # params.yaml" in "".join(injected["source"])
    assert str(finished) not in json.dumps(executed["metadata"])
    assert not list(run.folder.rglob("*.tmp")) and not list(run.folder.rglob("kernel.log"))


def test_an_unchanged_chain_starts_nothing(project):
    events: list[dict] = []
    before = list_runs(project)
    start = time.perf_counter()
    assert run_chain(project, on_progress=events.append) == before[0]
    assert time.perf_counter() - start < 1 and list_runs(project) == before
    assert [e["type"] for e in events] == ["unchanged"]


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("01_problem.ipynb", "# the data", "# another comment", []),
        ("05_evaluation.ipynb", "# 05_evaluation: what", "# Another title: what", []),
        ("helper.py", "# all of them", "# every one", []),
        ("helper.py", '"Help."', '"Help."  # text', []),
        ("problem.yaml", "name: small", "name: small  # a comment", []),
        ("params.yaml", "# three times", "# thrice", []),
        ("params.yaml", "factor: 3.0", "factor: 3", []),
        ("04_training.ipynb", "# multiplies", "# times", []),
        ("01_problem.ipynb", "frame.tail(4)", "frame.tail(5)", ["01_problem"]),
        ("helper.py", "float(sum(values))", "float(max(values))", ["04_training"]),
        ("params.yaml", "factor: 3.0", "factor: 4.0", ["04_training"]),
        ("04_training.ipynb", "factor: float = 2.0", "factor: float = 1.0", []),
        ("04_training.ipynb", "seed: int = 0", "seed: int = 1", ["04_training"]),
        ("05_evaluation.ipynb", "threshold: float = 0.5", "threshold: float = 0.6", ["05_evaluation"]),
        ("data.csv", "23,yes", "23,no", ["01_problem"]),
        ("problem.yaml", "target: label", "target: label\nmetric: log_loss", ["01_problem", "04_training", "05_evaluation"]),
    ],
)
def test_what_makes_a_stage_run_again(project, file, old, new, expected):
    if old in ('"Help."', "target: label") or file != "data.csv":
        edit(project / file, old, new)
    else:
        edit(project / file, "23,no" if "23,no" in (project / file).read_text() else "23,yes", "23,maybe")
    assert outdated(project) == expected


def test_a_changed_output_or_version_makes_a_stage_run_again(project, monkeypatch):
    run = list_runs(project)[0]
    (run.stage_folder("04_training") / "artifacts/model/weights.txt").write_text("0")
    assert outdated(project) == ["04_training"] and run.why("training") == ["its output model is not what it wrote"]
    monkeypatch.setattr(mlbench.chain.cache, "installed_versions", lambda: {"numpy": "0.1"})
    assert outdated(project) == ["01_problem", "04_training", "05_evaluation"] and "numpy was" in " ".join(run.why("01"))


def test_a_changed_parameter_runs_its_stage_alone(project):
    old = list_runs(project)[0]
    run = run_chain(project, parameters={"evaluation.threshold": "0.25"})
    assert {s: e["status"] for s, e in run.record["stages"].items()} == {"01_problem": "reused", "04_training": "reused", "05_evaluation": "done"}
    assert run.record["stages"]["05_evaluation"]["why"] == ["evaluation.threshold was 0.5, is 0.25"]
    assert run.load("metrics")["threshold"] == 0.25 and old.load("metrics")["threshold"] == 0.5
    assert run_chain(project) == old and run_chain(project, parameters={"05.threshold": 0.25}) == run
    assert run.openings == [o for o in run.openings if o["stage"] == "05_evaluation"] and len(run.openings) == 1


def test_a_cell_fails_and_the_run_goes_on_once_it_is_mended(project):
    edit(project / "05_evaluation.ipynb", "len(test)}", "len(tset)}")
    with pytest.raises(StageError) as caught:
        run_chain(project)
    text = str(caught.value)
    assert caught.value.exit_code == 1 and len(text.splitlines()) < 12
    for words in ("05_evaluation failed in cell 6 of 05_evaluation.ipynb", "stage.save('metrics'", "NameError: name 'tset' is not defined", "mlbench run"):
        assert words in text
    failed = list_runs(project)[0]
    entry = failed.record["stages"]["05_evaluation"]
    assert failed.status == "failed" and entry["status"] == "failed" and entry["error"]["cell"] == 6 and "05_evaluation" not in failed.manifests
    executed = json.loads((failed.stage_folder("05_evaluation") / "notebook.ipynb").read_text())
    assert [c["metadata"]["papermill"]["status"] for c in executed["cells"]][-3:] == ["failed", "pending", "pending"]
    edit(project / "05_evaluation.ipynb", "len(tset)}", "len(test)}")
    mended = run_chain(project)
    assert mended == list_runs(project)[1] and mended.status == "done"  # the first run is what is asked for, unchanged
    edit(project / "05_evaluation.ipynb", "'a card'", "'another card'")
    went_on = run_chain(project)
    assert went_on == failed and went_on.status == "done" and went_on.record["stages"]["04_training"]["status"] == "reused"
    assert [e["status"] for e in went_on.events if e["type"] == "run_ended"] == ["failed", "done"]


def test_a_gate_refuses(tmp_path):
    project = only_stage(tmp_path / "p", "from mlbench.core.errors import GateRefused", "raise GateRefused('roc_auc 0.7 misses its goal >= 0.8')")
    with pytest.raises(GateRefused, match=r"(?s)was refused in cell 5.*misses its goal") as caught:
        run_chain(project)
    run = list_runs(project)[0]
    assert caught.value.exit_code == 3 and run.status == "refused" and run.record["error"]["kind"] == "gate"


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "kernel died", "killed by SIGKILL"),
        ("import sys\nsys.exit(0)", "exit", r"the cell called sys.exit\(0\)"),
        ("stage.save('x', 1) if False else 1", "not closed", r"without stage.close\(\)"),
        ("raise ValueError('postgresql://me:hunter2@db/x is not there')", "exception", r"me:\*\*\*@db"),
    ],
)
def test_other_ways_to_end(tmp_path, source, kind, words):
    project = only_stage(tmp_path / "p", source)
    with pytest.raises(StageError, match=words):
        run_chain(project)
    run = list_runs(project)[0]
    assert run.status == "failed" and run.record["error"]["kind"] == kind and run.manifests == {}
    executed = json.loads((run.stage_folder("01_problem") / "notebook.ipynb").read_text())
    status = [c["metadata"]["papermill"]["status"] for c in executed["cells"]]
    assert (status[-1] == "failed") == (kind != "not closed")
    for file in run.folder.rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes() or file.suffix == ".ipynb"
    cells = executed["cells"]
    assert "hunter2" not in json.dumps([c.get("outputs") for c in cells]) and "hunter2" not in (run.folder / "events.jsonl").read_text()


def _wait_for(project: Path, wanted, seconds: float = 40) -> dict:
    "Wait for an event of the newest run."
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for run in list_runs(project)[:1]:
            for event in run.events:
                if wanted(event):
                    return event
        time.sleep(0.05)
    raise AssertionError("the event did not come")


def _gone(pid: int, seconds: float = 8) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and psutil.pid_exists(pid):
        time.sleep(0.05)
    return not psutil.pid_exists(pid)


def _slow(project: Path) -> None:
    "Make the second stage wait once."
    sleep = "if not __import__('os').path.exists('quick'):\\n    time.sleep(30)\\n"
    edit(project / "04_training.ipynb", "import helper\\nimport time\\n", "import helper\\nimport time\\n" + sleep)
    shutil.rmtree(project / "runs")


def test_killed_in_the_middle_it_goes_on_with_the_same_artifacts(project):
    expected = artifacts(list_runs(project)[0])
    _slow(project)
    first = start(project)
    kernel = _wait_for(project, lambda e: e["type"] == "kernel_started" and e["stage"] == "04_training")
    _wait_for(project, lambda e: e["type"] == "cell_started" and e["stage"] == "04_training" and e["cell"] == 4)
    first.kill()
    first.communicate()
    killed = list_runs(project)[0]
    assert killed.status == "interrupted" and killed.record["status"] == "running" and list(killed.manifests) == ["01_problem"]
    made = killed.manifests["01_problem"]["ended"]
    (project / "quick").write_text("")
    run = run_chain(project)
    assert run == killed and run.status == "done" and artifacts(run) == expected and run.manifests["01_problem"]["ended"] == made
    assert _gone(kernel["pid"]) and not Path(kernel["folder"]).exists() and not list(run.folder.rglob("*.tmp"))
    assert [e["resumed"] for e in run.events if e["type"] == "run_started"] == [False, True]
    assert [e["stage"] for e in run.events if e["type"] == "stage_started"] == ["01_problem", "04_training", "04_training", "05_evaluation"]


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_kernel_and_run(tmp_path, sign, code):
    project = only_stage(tmp_path / "p", "import subprocess, time\nchild = subprocess.Popen(['sleep', '60'])\nprint(child.pid, flush=True)", "time.sleep(60)")
    runner = start(project)
    kernel = _wait_for(project, lambda e: e["type"] == "kernel_started")
    _wait_for(project, lambda e: e["type"] == "cell_started" and e["cell"] == 5)
    child = next(c.pid for c in psutil.Process(kernel["pid"]).children() if "sleep" in c.name())
    runner.send_signal(sign)
    _, said = runner.communicate(timeout=20)
    run = list_runs(project)[0]
    assert runner.returncode == code and run.status == run.record["status"] == "interrupted" and "To go on: mlbench run" in said
    assert run.record["stages"]["01_problem"]["status"] == "interrupted" and _gone(kernel["pid"]) and _gone(child)


def test_two_runs_at_once_do_not_meet(tmp_path):
    project = only_stage(tmp_path / "p", "stage.close()")
    done: list[Run] = []
    threads = [threading.Thread(target=lambda: done.append(run_chain(project, force=True))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({r.id for r in done}) == 2 and all(r.status == "done" for r in done)


def test_from_and_to(project):
    (list_runs(project)[0].stage_folder("05_evaluation") / "manifest.json").unlink()
    edit(project / "01_problem.ipynb", "frame.tail(4)", "frame.tail(6)")
    run = run_chain(project, from_="05")
    stages = run.record["stages"]
    assert stages["01_problem"]["outdated"] and [e["status"] for e in stages.values()] == ["reused", "reused", "done"]
    shutil.rmtree(project / "runs")
    with pytest.raises(UsageError, match="01_problem has no result yet"):
        run_chain(project, from_="training")
    assert list_runs(project)[0].status == "failed"


def test_by_hand_gives_the_same_artifacts(project, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    batch = list_runs(project)[0]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    for name in ("01_problem", "04_training", "05_evaluation"):
        nb = nbformat.read(project / f"{name}.ipynb", 4)
        NotebookClient(nb, kernel_name="python3", resources={"metadata": {"path": str(project)}}).execute()
    hand = Run.by_hand(Project.open(project))
    assert artifacts(hand) == artifacts(batch) and hand.manifests["04_training"]["parameters"]["factor"] == {"value": 3.0, "origin": "params.yaml"}
    assert hand.status == "by-hand" and hand.id == "by-hand" and list_runs(project) == [batch] and len(hand.openings) == 1


@pytest.fixture
def by_hand(project, monkeypatch):
    "The finished project as the working directory, without a kernel."
    monkeypatch.chdir(project)
    yield project
    from mlbench.core.progress import set_sink

    set_sink(None)
    sys.path[:] = [p for p in sys.path if p != str(project)]


def test_the_seal(by_hand):
    evaluation = Stage.open("05_evaluation", {}, reads=["train", "model"], writes=["metrics"], opens=["test"])
    assert evaluation.openings("test") == 1 and len(evaluation.unseal("test")) == 4 and evaluation.openings("test") == 2
    training = Stage.open("04_training", {}, reads=["train", "test"], writes=[])
    with pytest.raises(ArtifactError, match="No stage before"):
        training.load("test")
    with pytest.raises(ArtifactError, match="is sealed, and 04_training does not declare"):
        training.unseal("test")
    with pytest.raises(ArtifactError, match="sealed"):
        list_runs(by_hand)[0].load("test")
    assert len(Run.by_hand(Project.open(by_hand)).openings) == 1


def test_outputs_are_whole_or_not_there(by_hand):
    stage = Stage.open("04_training", {}, reads=["train"], writes=["model", "timings"])
    with pytest.raises(RuntimeError, match="disk"), stage.folder("model") as path:
        (path / "half").write_text("half")
        raise RuntimeError("disk")
    with pytest.raises(UsageError, match="cannot be written as JSON"):
        stage.save("timings", {"x": object()})
    assert not any(stage.base.rglob("*half*")) and not list(stage.base.rglob("*.tmp"))
    stage.save("timings", {"b": 1}, volatile=True)
    stage.save("timings", "as text")
    assert [p.name for p in (stage.base / "artifacts").iterdir()] == ["timings.md"]
    with pytest.raises(ArtifactError, match="declares model but did not save it"):
        stage.close()
    assert not (stage.base / "manifest.json").exists()


def test_an_orphaned_kernel_cannot_write(by_hand, monkeypatch):
    run = list_runs(by_hand)[0]
    base = run.stage_folder("04_training")
    for name, value in {"RUN": run.folder, "PROJECT": by_hand, "STAGE": "04_training", "PARAMETERS": base / "parameters.json"}.items():
        monkeypatch.setenv(f"MLBENCH_{name}", str(value))
    namespace = {"factor": 1.0}
    stage = Stage.open("04_training", namespace, reads=["train"], writes=["model", "timings"])
    assert not stage.interactive and namespace["factor"] == 3.0 and len(stage.load("train")) == 8
    (base / "parameters.json").write_text((base / "parameters.json").read_text().replace(read_json(base / "parameters.json")["attempt"], "other"))
    with pytest.raises(ArtifactError, match="Another process runs 04_training"):
        stage.save("timings", {})
    with pytest.raises(UsageError, match="is run as stage '04_training', but opens"):
        Stage.open("05_evaluation", {})


def test_an_output_of_many_lines_arrives_whole(tmp_path):
    project = only_stage(tmp_path / "p", "for n in range(6_000):\n    print('line', n, flush=True)", "stage.close()")
    run = run_chain(project)
    cell = json.loads((run.stage_folder("01_problem") / "notebook.ipynb").read_text())["cells"][-2]
    assert "".join(cell["outputs"][0]["text"]).count("\n") == 6_000 and len(cell["outputs"]) == 1
