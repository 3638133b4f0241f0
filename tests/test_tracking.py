"Tracking: what is read back with W&B's own reader is what the run recorded, and no tracker costs a run anything."

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from test_report import make_run

from mlbench.chain.tracking import history_point, track_run, tracking_plan
from mlbench.core.files import append_line


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path):
    return build_run(tmp_path)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    "A run that was tracked twice, what W&B's reader says of it, and the home folder that it had."
    folder = tmp_path_factory.mktemp("tracked")
    home = folder / "home"
    home.mkdir()
    run = build_run(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_MODE", raising=False)
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CACHE_HOME", str(home / "c"))
        assert track_run(run) is None and track_run(run) is None
    return run, read_back(run), home


def build_run(folder):
    "A run of three stages with made-up artifacts."
    run = make_run(folder / "demo")
    problem = run.stage_folder("01_problem")
    model = run.stage_folder("04_training")
    (problem / "artifacts").mkdir(parents=True)
    (model / "artifacts" / "model").mkdir(parents=True)
    (problem / "artifacts" / "train.parquet").write_bytes(b"rows")
    (model / "artifacts" / "model" / "weights").write_bytes(b"1 2 3")
    train = {"path": "artifacts/train.parquet", "kind": "table", "sha256": "aa" * 32, "bytes": 4, "rows": 2, "volatile": False}
    made = {"path": "artifacts/model", "kind": "folder", "sha256": "bb" * 32, "bytes": 5, "volatile": False}
    empty = {"format": 1, "title": "?", "figures": [], "tables": [], "metrics": [], "findings": [], "verdicts": []}
    secret = {"source": {"value": "postgresql://me:hunter2@db/x", "origin": "default"}}
    for stage, artifacts, inputs in [(problem, {"train": train}, {}), (model, {"model": made}, {"train": {"stage": "01_problem", "sha256": "aa" * 32}})]:
        manifest = {"stage": stage.name, "title": "?", "seconds": 1, "parameters": secret, "inputs": inputs, "artifacts": artifacts, "sealed": {}}
        (stage / "manifest.json").write_text(json.dumps(manifest))
        (stage / "card.json").write_text(json.dumps(empty | {"stage": stage.name}))
    for model_name in ("linear", "lightgbm"):
        for fold in range(3):
            labels, values = {"model": model_name, "fold": fold}, {"roc_auc": 0.9 + fold / 100}
            append_line(run.folder / "metrics.jsonl", {"time": 0.0, "stage": "04_training", "step": None, "labels": labels, "values": values})
    for epoch in range(5):
        labels, values = {"model": "mlp", "fold": 0}, {"loss": 1 / (epoch + 1)}
        append_line(run.folder / "metrics.jsonl", {"time": 0.0, "stage": "04_training", "step": epoch, "labels": labels, "values": values})
    return run


def read_back(run):
    file = next((run.folder / "wandb").glob("offline-run-*/*.wandb"))
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_copy_says_what_the_record_says(tracked):
    run, records, _ = tracked
    history = [r["history"]["item"] for r in records if r["type"] == "history"]
    lines = [{**p.values, p.axis: p.at} for p in tracking_plan(run).history]
    found = [{k: v for k, v in item.items() if not k.startswith("_")} for item in history if any(k.startswith("training/") for k in item)]
    assert found == lines and len(lines) == 11
    started = next(r["run"] for r in records if r["type"] == "run")
    config = json.dumps(started["config"])
    assert started["project"] == "demo" and started["display_name"] == run.id and set(started["tags"]) == {"mlbench", "binary", "done"}
    assert "hunter2" not in json.dumps(records) and "***" in config and "threshold" in config
    summary = {k: v for r in records if r["type"] == "summary" for k, v in r["summary"].get("update", {}).items()}
    assert summary["roc_auc"] == 0.93 and summary["roc_auc_low"] == pytest.approx(0.92) and summary["goal/roc_auc"] == "met"


def test_tables_figures_and_lineage(tracked):
    run, records, _ = tracked
    artifacts = {r["artifact"]["name"]: r["artifact"] for r in records if r["type"] == "artifact"}
    assert artifacts["demo-train"]["type"] == "dataset" and artifacts["demo-train"].get("use_after_commit") is True
    assert artifacts["demo-model"]["type"] == "model" and "aa" * 32 in json.dumps(artifacts["demo-model"]["metadata"])
    assert any(a["type"] == "run_table" and "leaderboard" in name for name, a in artifacts.items())
    written = {path.name.split("_")[0]: path for path in (run.folder / "wandb").glob("offline-run-*/files/media/**/*") if path.is_file()}
    assert any("bars" in name for name in written) and any("leaderboard" in name for name in written)
    kept = artifacts["demo-model"]["manifest"]["contents"][0]
    assert kept["path"] == "weights" and kept["local_path"] == str(run.stage_folder("04_training") / "artifacts" / "model" / "weights")


def test_a_project_of_any_name_is_tracked(run):
    file = run.folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"project": "projet é {1} 50% #a"}))
    assert track_run(run) is None
    records = read_back(run)
    assert {r["artifact"]["name"] for r in records if r["type"] == "artifact"} >= {"projet-e-1-50-a-train", "projet-e-1-50-a-model"}
    assert next(r["run"] for r in records if r["type"] == "run")["project"] == "projet é {1} 50- -a"


def test_nothing_is_written_outside_the_run(tracked):
    kept = [p for p in tracked[2].rglob("*") if p.is_file() and "matplotlib" not in str(p) and "fontconfig" not in str(p)]
    assert kept == []


def test_tracking_again_replaces_the_copy(tracked):
    assert len(list((tracked[0].folder / "wandb").glob("offline-run-*"))) == 1


@pytest.mark.parametrize(("program", "words"), [
    ("import sys; sys.exit('wandb is not installed')", "wandb is not installed"),
    ("raise RuntimeError('quota of postgresql://me:hunter2@db')", "quota of postgresql://me:***@db"),
    ("import os; os.kill(os.getpid(), 9)", "without a word"),
])
def test_a_tracker_that_fails_is_one_line(run, program, words):
    before = run.record
    warning = track_run(run, command=[sys.executable, "-c", program])
    assert words in warning and "\n" not in warning and "python -m mlbench.chain.tracking" in warning
    assert run.record == before and [e["type"] for e in run.events] == ["warning"]


def test_a_tracker_that_hangs_is_stopped_with_all_its_children(run):
    program = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(77.25)']); time.sleep(60)"
    began = time.monotonic()
    assert "more than 0.7 s" in track_run(run, seconds=0.7, command=[sys.executable, "-c", program])
    assert time.monotonic() - began < 10
    psutil = pytest.importorskip("psutil")
    left = [p for p in psutil.process_iter(["cmdline", "status"]) if "time.sleep(77.25)" in " ".join(p.info["cmdline"] or [])]
    assert [p for p in left if p.info["status"] != psutil.STATUS_ZOMBIE] == []


def test_wandb_absent(run, tmp_path):
    hidden = tmp_path / "hidden" / "wandb"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'wandb'\", name='wandb')")
    program = f"import sys; sys.path.insert(0, {str(hidden.parent)!r}); from mlbench.chain.tracking import main; sys.exit(main())"
    warning = track_run(run, command=[sys.executable, "-c", program])
    assert "wandb is not installed" in warning and "pip install" in warning


def test_switched_off_by_the_user(run, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert track_run(run) is None and not (run.folder / "wandb").exists()


def test_online_without_an_account_asks_nobody_and_costs_nothing(run, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "was not tracked" in track_run(run, seconds=20)


def test_names_are_safe():
    point = history_point({"stage": "04_training", "labels": {"model": "a b/ü"}, "step": 1, "values": {"loss": 1.0}})
    assert list(point.values) == ["training/a_b_ü/loss"]
