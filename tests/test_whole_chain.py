"The whole chain on a bundled data set, as a user runs it: once, again, changed, killed."

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from mlbench.chain.cards import CARD_SCHEMA_FILE, check_card
from mlbench.core.files import read_json, read_lines

pytestmark = pytest.mark.slow
STAGES = ["01_problem", "02_eda", "03_features", "04_training", "05_evaluation", "06_deployment"]


def mlbench(*words, cwd, **options):
    "Run the command line in a folder."
    return subprocess.run([sys.executable, "-m", "mlbench", *map(str, words)], cwd=cwd, capture_output=True, text=True, **options)


def last_line(done):
    return done.stdout.strip().splitlines()[-1].strip()


def metrics_of(run):
    "Every measured figure of a run that must come out the same again."
    return read_json(run / "stages" / "05_evaluation" / "artifacts" / "metrics.json")


def new_clinic(folder):
    "A project of the bundled example with some quick models: what a limit of time decides would differ from run to run."
    made = mlbench("new", "clinic", "--example", "breast_cancer", cwd=folder)
    assert made.returncode == 0, made.stdout + made.stderr
    (folder / "clinic" / "params.yaml").write_text("training:\n  models: [dummy, one_rule, linear, hist_gradient_boosting, lightgbm, mlp]\n")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    "A project made from the bundled example, run once; (project, run)."
    folder = tmp_path_factory.mktemp("whole chain é {x}")
    new_clinic(folder)
    done = mlbench("run", "clinic", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    run = folder / last_line(done) if not Path(last_line(done)).is_absolute() else Path(last_line(done))
    return folder / "clinic", run


def test_six_stages_are_complete(shop):
    project, run = shop
    record = read_json(run / "run.json")
    assert record["status"] == "done"
    for stage in STAGES:
        manifest = read_json(run / "stages" / stage / "manifest.json")
        assert manifest["artifacts"], stage
        notebook = read_json(run / "stages" / stage / "notebook.ipynb")
        assert not [o for c in notebook["cells"] for o in c.get("outputs", []) if o["output_type"] == "error"]
        assert (run / "stages" / stage / "notebook.ipynb").stat().st_size <= 1_000_000
    assert not list(project.rglob("*.tmp"))


def test_no_test_row_is_in_what_later_stages_read(shop):
    _, run = shop
    train = pd.read_parquet(run / "stages" / "01_problem" / "artifacts" / "train.parquet")
    sealed = pd.read_parquet(next((run / "stages" / "01_problem").rglob("sealed/test*.parquet")))
    assert len(train) + len(sealed) == 569
    both = train.merge(sealed, how="inner", on=list(train.columns))
    assert both.empty
    openings = read_lines(run / "openings.jsonl")
    assert len(openings) == 1 and openings[0]["stage"] == "05_evaluation"


def test_the_model_is_good_and_has_intervals(shop):
    _, run = shop
    found = metrics_of(run)["metrics"]["roc_auc"]
    assert found["low"] <= found["value"] <= found["high"] and found["value"] > 0.95 > found["constant"]
    assert {m["name"] for m in read_json(run / "run.json")["metrics"]["05_evaluation"]} >= {"roc_auc", "log_loss"}


def test_the_report_is_one_file_that_asks_for_nothing(shop):
    _, run = shop
    html = (run / "report.html").read_text()
    assert html.count("plotly.js v") == 1 and len(html) < 8_000_000
    page = re.sub(r"<script.*?</script>", "", html, flags=re.S)
    assert not re.findall(r"""<(?:img|link|script|iframe)[^>]+(?:src|href)=["']https?:""", page)


def test_the_model_is_registered_and_served(shop):
    project, run = shop
    parity = read_json(run / "stages" / "06_deployment" / "artifacts" / "parity.json")
    assert parity["passed"] and parity["rows"] >= 400
    service = read_json(run / "stages" / "06_deployment" / "artifacts" / "service.json")
    assert 0 < service["one_row"]["p50_ms"] <= service["one_row"]["p95_ms"] < 200
    store = next((project / "registry").glob("*.db"))
    with sqlite3.connect(store) as db:
        assert db.execute("select count(*) from model_versions").fetchone()[0] == 1


def test_an_unchanged_run_starts_no_kernel(shop):
    project, run = shop
    before = sorted(p.name for p in (project / "runs").iterdir())
    again = mlbench("run", project, cwd=project.parent)
    assert again.returncode == 0, again.stdout + again.stderr
    assert sorted(p.name for p in (project / "runs").iterdir()) == before
    assert Path(last_line(again)).name == run.name


def test_a_changed_parameter_of_evaluation_runs_stages_5_and_6_only(shop):
    project, run = shop
    done = mlbench("run", project, "-p", "evaluation.bootstrap=300", cwd=project.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    new = project / "runs" / Path(last_line(done)).name
    assert new != run
    ran = {e["stage"] for e in read_lines(new / "events.jsonl") if e["type"].startswith("cell")}
    assert ran == {"05_evaluation", "06_deployment"}
    train = "stages/01_problem/artifacts/train.parquet"
    assert (new / train).read_bytes() == (run / train).read_bytes()


def test_killed_in_the_middle_it_goes_on_and_gives_the_same_metrics(shop, tmp_path):
    _, run = shop
    new_clinic(tmp_path)
    project = tmp_path / "clinic"
    process = subprocess.Popen([sys.executable, "-m", "mlbench", "run", "clinic"], cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 240
    while not list(project.glob("runs/*/stages/03_features/manifest.json")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    time.sleep(3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed = next(project.glob("runs/2*"))
    assert not (killed / "stages" / "04_training" / "manifest.json").exists()
    done = mlbench("run", "clinic", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(last_line(done)).name == killed.name
    ran = [e["stage"] for e in read_lines(killed / "events.jsonl") if e["type"].startswith("cell")]
    assert ran.count("01_problem") and metrics_of(killed) == metrics_of(run)
    assert not list(project.rglob("*.tmp"))


def test_every_card_fits_the_published_schema(shop):
    _, run = shop
    schema = json.loads(CARD_SCHEMA_FILE.read_text())
    for stage in STAGES:
        card = read_json(run / "stages" / stage / "card.json")
        jsonschema.Draft202012Validator(schema).validate(card)
        assert card["complete"] and card["stage"] == stage and check_card(card)


def outcome(run):
    "Hashes of everything that must come out the same, and every figure of merit, by stage."
    found = {}
    for stage in STAGES:
        manifest = read_json(run / "stages" / stage / "manifest.json")
        parts = {**manifest["artifacts"], **{f"sealed {n}": e for n, e in manifest["sealed"].items()}}
        hashes = {n: e["sha256"] for n, e in parts.items() if not e["volatile"]}
        found[stage] = hashes | {m["name"]: m["value"] for m in manifest["metrics"] if not m["name"].endswith(("_ms", "_seconds", "_s"))}
    return found


def kernels(run):
    return [e["how"] for e in read_lines(run / "events.jsonl") if e["type"] == "kernel_started"]


def test_forked_and_fresh_kernels_give_the_same_numbers_and_artifacts(shop, tmp_path):
    _, forked = shop
    assert set(kernels(forked)) <= {"pool", "fork"} and len(kernels(forked)) == len(STAGES)
    new_clinic(tmp_path)
    done = mlbench("run", "clinic", "--fresh", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    fresh = tmp_path / "clinic" / "runs" / Path(last_line(done)).name
    assert kernels(fresh) == ["fresh"] * len(STAGES)
    assert outcome(fresh) == outcome(forked)
