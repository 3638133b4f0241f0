"Cards: the schema, written while a stage goes on, and every view of them."

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import jsonschema
import nbformat
import pytest
from chain_project import IMPORTS, edit, make_project, write_notebook
from nbclient import NotebookClient

from mlbench.chain import Project, Run, Stage, list_runs, run_chain
from mlbench.chain.cards import CARD_SCHEMA, CARD_SCHEMA_FILE, PARTS, Card, FinishedCard, card_facts, check_card, read_card
from mlbench.chain.compare import compare_runs
from mlbench.chain.report import report_html
from mlbench.core.errors import ArtifactError, StageError, UsageError
from mlbench.core.files import read_json, read_lines
from mlbench.core.progress import set_sink

FULL = {
    "format": 1,
    "stage": "05_evaluation",
    "title": "Would we trust it?",
    "complete": True,
    "figures": [{"name": "roc", "file": "figures/roc.json", "caption": "Curve.", "title": "Far from chance"}],
    "tables": [{"name": "slices", "columns": ["age", "error"], "rows": [["old", None]], "total": 1}],
    "metrics": [{"name": "roc_auc", "value": 0.9, "low": 0.8, "high": 0.95}, {"name": "f1", "value": None}],
    "findings": [{"kind": "leak", "what": "closed_on tells it", "severity": "stop", "evidence": {"auc": 1}, "proposal": "drop it"}],
    "verdicts": [{"metric": "roc_auc", "operator": ">=", "goal": 0.8, "value": 0.9, "passed": True, "sentence": "roc_auc is 0.9."}],
}


pytestmark = pytest.mark.usefixtures("source_held_fixed")


def test_the_schema_is_a_file_that_anybody_can_validate_with():
    schema = json.loads(CARD_SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == CARD_SCHEMA and CARD_SCHEMA_FILE.name == "card.schema.json"
    jsonschema.validate(FULL, schema, cls=jsonschema.Draft202012Validator)
    check_card(FULL)


def _spoilt():
    "Cards with one thing wrong in each."
    for key in FULL:
        if key != "complete":
            yield f"no {key}", {k: v for k, v in FULL.items() if k != key}
        yield f"{key} is a set of words", FULL | {key: {"a": "b"}}
        yield f"{key} is nothing", FULL | {key: None}
    for part in PARTS:
        for field in FULL[part][0]:
            for value in (3, "words", ["list"], True, None):
                card = copy.deepcopy(FULL)
                card[part][0][field] = value
                yield f"{part}.{field} = {value!r}", card
        yield f"{part} with more", FULL | {part: [FULL[part][0] | {"colour": 1}]}
    yield "more", FULL | {"colour": 1}


@pytest.mark.parametrize("card", [pytest.param(card, id=name) for name, card in _spoilt()])
def test_our_check_says_what_jsonschema_says(card):
    fits = jsonschema.Draft202012Validator(CARD_SCHEMA).is_valid(card)
    try:
        check_card(card)
    except UsageError:
        assert not fits
    else:
        assert fits


def test_a_card_shows_itself_the_same_way_everywhere():
    text, page = repr(FinishedCard(FULL)), FinishedCard(FULL)._repr_html_()
    for words in ("Would we trust it?", "0.9 (0.8 to 0.95)", "goal met", "roc_auc is 0.9.", "closed_on tells it (drop it)", "slices (1 row)", "roc"):
        assert words in text and words in page
    card = Card("05_evaluation", "Would we trust it?", **{p: FULL[p] for p in PARTS}, complete=True)
    assert repr(card) == text and card._repr_html_() == page and card.to_dict() == FULL
    assert "<script>" not in FinishedCard(FULL | {"title": "<script>"})._repr_html_()
    assert "So far" in repr(FinishedCard(FULL | {"complete": False})) and len(card_facts(FULL).rows) == 6


@pytest.fixture
def slow_project(tmp_path):
    "Its training measures, then waits until the file `go` is there."
    project = make_project(tmp_path / "small")
    measure = "stage.metric('roc_auc', 0.91, low=0.9, high=0.92)\nstage.finding('size', 'few rows', severity='warning', proposal='get more')"
    wait = "from pathlib import Path\nwhile not Path('go').exists():\n    report('waiting', 3, 9, loss=0.25)\n    time.sleep(0.05)"
    edit(project / "04_training.ipynb", '"train = stage.load(', f'"{json.dumps(measure)[1:-1]}\\n{json.dumps(wait)[1:-1]}\\ntrain = stage.load(')
    return project


@pytest.fixture
def running(slow_project):
    "The run while its training waits."
    failed = []

    def work():
        try:
            run_chain(slow_project)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 120
    while not any(e["type"] == "progress" and e["what"] == "waiting" for run in list_runs(slow_project) for e in run.events):
        assert time.monotonic() < deadline and thread.is_alive(), failed
        time.sleep(0.05)
    yield list_runs(slow_project)[0]
    (slow_project / "go").touch()
    thread.join(120)
    assert not failed


def test_a_run_that_goes_on_is_seen_in_every_view(running, slow_project, monkeypatch, say):
    monkeypatch.chdir(slow_project)
    deadline = time.monotonic() + 30
    while "04_training" not in running.cards or not running.cards["04_training"]["findings"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    card = running.cards["04_training"]
    assert card["metrics"][0]["value"] == 0.91 and not card["complete"] and running.cards.get("01_problem", {"complete": True})["complete"]
    jsonschema.validate(read_json(running.stage_folder("04_training") / "card.json"), CARD_SCHEMA)
    told = [e for e in running.events if e["type"] == "card"]
    assert [(e["part"], e["stage"]) for e in told] == [("metric", "04_training"), ("finding", "04_training")]
    assert told[0]["entry"] == {"name": "roc_auc", "value": 0.91, "low": 0.9, "high": 0.92}
    shown = say("show")[1]
    for words in (
        "running",
        "waiting 3 of 9 (loss 0.25)",
        "04_training (so far)",
        "0.91 (0.9 to 0.92)",
        "few rows",
        "1 of 3 stages are done; 04_training runs since",
    ):
        assert words in shown
    assert say("report")[0] == 0
    page = (running.folder / "report.html").read_text()
    assert "this report is partial" in page and "04_training is running" in page and "what it has come to so far" in page and "few rows" in page
    assert "roc_auc" in say("runs")[1]
    assert report_html(running) and compare_runs(running, running).metrics
    following = subprocess.Popen([sys.executable, "-m", "mlbench", "show", "--follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert following.stdout.readline().startswith("▶  01_problem")
    (slow_project / "go").touch()
    out, err = following.stdout.read(), following.stderr.read()
    assert following.wait(timeout=120) == 0 and not err
    lines = out.splitlines()
    ends = [line for line in lines if line.startswith("✓")]
    assert [line.split()[1] for line in ends] == ["01_problem", "04_training", "05_evaluation"] and ends[1].endswith("roc_auc 0.91 (0.9 to 0.92)")
    assert ": done" in out and lines[-1].endswith(running.id)


def test_the_card_of_a_stage_that_fails_holds_all_that_it_found(tmp_path, say):
    project = make_project(tmp_path / "small")
    burst = "for n in range(300):\n    stage.metric(f'm{n}', n)\n1 / 0"
    edit(project / "04_training.ipynb", '"train = stage.load(', f'"{json.dumps(burst)[1:-1]}\\ntrain = stage.load(')
    with pytest.raises(StageError, match="ZeroDivisionError"):
        run_chain(project)
    run = list_runs(project)[0]
    assert len(run.cards["04_training"]["metrics"]) == 300 and not run.cards["04_training"]["complete"]
    assert "04_training (so far)" in say("show", run.folder)[1]
    assert "04_training" not in run.manifests and report_html(run)
    (project / "04_training.ipynb").write_text((make_project(tmp_path / "whole") / "04_training.ipynb").read_text())
    done = run_chain(project)
    assert done.cards["04_training"]["complete"] and done.cards["04_training"]["metrics"] == []


def test_many_entries_are_written_seldom_and_the_last_is_there(tmp_path, monkeypatch):
    project = make_project(tmp_path / "small")
    monkeypatch.chdir(project)
    writes, real = [], Stage._write_card

    monkeypatch.setattr(Stage, "_write_card", lambda self: writes.append(1) or real(self))
    try:
        stage = Stage.open("01_problem", {}, writes=["train", "facts"])
        for n in range(2000):
            stage.metric("loss", n)
        assert len(writes) < 60
        deadline = time.monotonic() + 10
        while read_card(stage.base / "card.json")["metrics"][0]["value"] != 1999:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(UsageError, match="metrics.value is 'high', expected number or null"):
            stage.metric("loss", "high")
    finally:
        set_sink(None)


def test_by_hand_a_complete_card_stays_until_its_first_output_is_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path / "small"))
    try:
        first = Stage.open("04_training", {}, writes=["model"])
        first.save("model", {"w": 1})
        first.metric("auc", 0.8)
        shown = first.close()
        assert "auc" in repr(shown) and "0.8" in shown._repr_html_()
        again = Stage.open("04_training", {}, writes=["model"])
        again.metric("auc", 0.9)
        again._card_file.flush()
        card = again.run.cards["04_training"]
        assert card["complete"] and card["metrics"][0]["value"] == 0.8
        again.save("model", {"w": 2})
        again._card_file.flush()
        card = again.run.cards["04_training"]
        assert not card["complete"] and card["metrics"][0]["value"] == 0.9
        again.close()
        assert again.run.cards["04_training"]["complete"]
    finally:
        set_sink(None)


def test_each_view_refuses_a_card_that_does_not_fit_and_says_where(tmp_path, monkeypatch, say):
    project = make_project(tmp_path / "small")
    run = run_chain(project)
    card = run.stage_folder("05_evaluation") / "card.json"
    card.write_text(card.read_text().replace('"value": ', '"worth": '))
    for view in (lambda: run.cards, lambda: report_html(run), lambda: compare_runs(run, run).metrics, lambda: read_card(card)):
        with pytest.raises(
            ArtifactError, match=r"(?s)05_evaluation/card.json is not a card.*metrics\[0\] has an unknown 'worth'.*mlbench run --from 05_evaluation"
        ):
            view()
    code, _, told = say("show", run.folder)
    assert code == ArtifactError.exit_code and "is not a card" in told and "unknown 'worth'" in told
    monkeypatch.chdir(project)
    code, listed, _ = say("runs")
    assert code == 0 and "a card does not fit" in listed
    card.write_text("{")
    with pytest.raises(ArtifactError, match="is not a card"):
        Run(run.folder).cards


def _by_hand(project: Path, sources: list[str]) -> list[dict]:
    "Outputs of the cells of a notebook that a person runs."
    path = write_notebook(project / "07_more.ipynb", "n: int = 1  # a number", ["stage = Stage.open('07_more', globals())", *sources], imports=IMPORTS)
    book = nbformat.read(path, as_version=4)
    env = {k: v for k, v in os.environ.items() if k != "CI"} | {"MLBENCH_INTERACTIVE": "1"}
    NotebookClient(book, resources={"metadata": {"path": str(project)}}, timeout=120).execute(env=env)
    return [cell["outputs"] for cell in book.cells if cell["cell_type"] == "code"][-len(sources) :]


LOOP = "from mlbench.core.progress import report, track\nimport time\nfor n in track(range(40), 'step'):\n    time.sleep(0.02)"


def test_by_hand_progress_is_one_line_changed_in_place_and_in_batch_nothing(tmp_path):
    project = make_project(tmp_path / "small")
    first, quiet, second, card = _by_hand(project, [LOOP, "1 + 1", "report('reading')\nstage.metric('auc', 0.9)", "stage.card"])
    assert len(first) == 1 and first[0]["output_type"] == "display_data" and "text/html" in first[0]["data"]
    assert first[0]["data"]["text/plain"].startswith("step 40 of 40 · ") and "<progress" not in first[0]["data"]["text/html"]
    assert len(quiet) == 1 and quiet[0]["data"] == {"text/plain": "2"}
    assert second[0]["data"]["text/plain"].startswith("reading · ")
    assert "auc" in card[0]["data"]["text/plain"] and "<table>" in card[0]["data"]["text/html"]
    assert len([e for e in read_lines(project / "runs/by-hand/events.jsonl") if e["type"] == "progress"]) > 2
    (project / "07_more.ipynb").unlink()
    edit(project / "04_training.ipynb", '"train = stage.load(', f'"{json.dumps(LOOP)[1:-1]}\\ntrain = stage.load(')
    run = run_chain(Project(project))
    assert any(e["type"] == "progress" and e["what"] == "step" for e in run.events)
    for stage in run.stages:
        assert "mlbench-progress" not in (run.stage_folder(stage) / "notebook.ipynb").read_text()


def test_the_picture_fits_its_window_at_any_width():
    from mlbench.cli.live import stage_lines, states_of

    events = [
        {"type": "run_started", "stages": ["01_problem", "04_training", "05_evaluation"]},
        {"type": "stage_reused", "stage": "01_problem"},
        {"type": "stage_started", "stage": "04_training", "cells": 17, "time": 0.0},
        {"type": "cell_started", "stage": "04_training", "cell": 6, "cells": 17, "line": "found = cross_validate(" + "x" * 200, "time": 1.0},
        {"type": "card", "stage": "04_training", "part": "metric", "entry": {"name": "roc_auc", "value": 0.91, "low": 0.9, "high": 0.92}},
        {"type": "progress", "stage": "04_training", "what": "cross-validation: hist_gradient_boosting, fold 3 of 5", "done": 12, "total": 30},
        {"type": "stage_failed", "stage": "05_evaluation", "error": {"message": "DataError: " + "many words " * 60}},
    ]
    for width in (20, 40, 80, 120, 250):
        lines = [line for state in states_of(events).values() for line in stage_lines(state, 100.0, width, 13)]
        assert max(map(len, lines)) <= width and 6 <= len(lines) <= 8
    assert "roc_auc 0.91 (0.9 to 0.92)" in "\n".join(lines) and "fold 3 of 5 (12 of 30)" in "\n".join(lines)
