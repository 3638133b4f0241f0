"The command line: words in, words and an exit code out."

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlbench.cli import doctor
from mlbench.cli.app import app, commands, typed_parameters
from mlbench.cli.live import Watch, duration, progress_text
from mlbench.core.errors import UsageError
from mlbench.core.files import read_yaml, write_json

PARAMETERS = "from typing import Literal\n"
CELL = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}


def notebook(path, parameters, *sources):
    "A stage: a tagged cell and some more."
    cells = [{"cell_type": "markdown", "id": "t", "metadata": {}, "source": f"# {path.stem}?"}]
    cells += [CELL | {"id": "p", "source": parameters, "metadata": {"tags": ["parameters"]}}]
    cells += [CELL | {"id": f"c{n}", "source": s} for n, s in enumerate(sources)]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


@pytest.fixture
def project(tmp_path, monkeypatch):
    "A real project with two small stages, and the working directory in the folder above it."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (tmp_path / "rows.csv").write_text("age,left\n" + "".join(f"{20 + i},{'yes' if i % 3 else 'no'}\n" for i in range(60)))
    shop = tmp_path / "shop"
    shop.mkdir()
    problem = "name: shop\nquestion: Who leaves?\ntask: binary\ndata: {source: ../rows.csv}\ntarget: left\npositive: 'yes'\nmetric: roc_auc\n"
    (shop / "problem.yaml").write_text(problem)
    (shop / "params.yaml").write_text("look:\n  share: 0.5\n")
    opened = "from mlbench.chain import Stage\nstage = Stage.open({!r}, globals(), {})"
    notebook(shop / "01_problem.ipynb", "rows: int = 3  # rows kept [1..100]", opened.format("01_problem", "writes=['ages']"),
             "stage.save('ages', list(range(rows)))", "stage.close()")  # fmt: skip
    notebook(shop / "02_look.ipynb", "share: float = 0.5  # of the rows [0..1]", opened.format("02_look", "reads=['ages'], writes=['seen']"),
             "stage.save('seen', {'n': len(stage.load('ages')), 'share': share})", "stage.close()")  # fmt: skip
    return shop


def test_every_command_has_help_with_an_example(say):
    assert len(commands()) >= 16
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        code, out, _ = say(name, "--help")
        assert code == 0 and re.search(rf"Examples?:\s+mlbench {'new' if name == 'examples' else name}", out), name


@pytest.mark.parametrize("words", [["rum"], ["run", "--frm", "eda"], ["new"], ["new", "x"], ["compare"], ["score", "last"], ["why"]])
def test_used_wrongly_is_two(say, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = say(*words)
    assert code == 2 and err.strip() and "Traceback" not in err


def test_run_show_compare_report(project, say):
    code, out, _ = say("run", "shop")
    assert code == 0
    first = out.strip().splitlines()[-1]
    assert (Path(first) / "run.json").exists() and (Path(first) / "report.html").exists()
    code, out, _ = say("run", "shop", "-p", "look.share=0.25")
    second = out.strip().splitlines()[-1]
    assert code == 0 and second != first and "=  01_problem" in out
    code, out, _ = say("show", "last", "--project", "shop")
    assert code == 0 and out.strip().splitlines()[-1] == second and "share=0.25" in out
    code, out, _ = say("compare", first, second)
    assert code == 0 and "look.share" in out and "0.25" in out
    code, out, _ = say("runs", "shop")
    assert code == 0 and out.index(Path(second).name) < out.index(Path(first).name)
    code, out, _ = say("report", first)
    assert code == 0 and Path(out.strip()).exists()


def test_an_unchanged_run_says_the_old_folder(project, say):
    first = say("run", "shop")[1].strip().splitlines()[-1]
    code, out, _ = say("run", "shop")
    assert code == 0 and out.strip().splitlines()[-1] == first
    assert len(list((project / "runs").iterdir())) == 1


def test_a_long_path_is_printed_on_one_line(project, say, tmp_path):
    deep = tmp_path / ("a" * 120) / ("b" * 120)
    deep.parent.mkdir()
    project.rename(deep)
    (tmp_path / ("a" * 120) / "rows.csv").write_text((tmp_path / "rows.csv").read_text())
    code, out, _ = say("run", deep)
    assert code == 0 and Path(out.strip().splitlines()[-1]).is_dir()


@pytest.mark.parametrize(
    "given, words",
    [
        ("look.share=2", ["look.share", "between 0 and 1"]),
        ("look.shar=0.2", ["shar", "share"]),
        ("loook.share=0.2", ["loook", "look"]),
        ("share=0.2", ["look.share"]),
        ("look.share", ["-p stage.name=value"]),
        ("look.share=many", ["look.share", "number"]),
    ],
)
def test_a_wrong_parameter_is_refused_before_a_kernel(project, say, given, words):
    start = time.perf_counter()
    code, _, err = say("run", "shop", "-p", given)
    assert code == 2 and all(w in err for w in words), err
    assert time.perf_counter() - start < 5 and not (project / "runs").exists()


def test_dry_run_and_why_start_nothing(project, say):
    code, out, _ = say("run", "shop", "--dry-run")
    assert code == 0 and "no complete result" in out and not (project / "runs").exists()
    say("run", "shop")
    code, out, _ = say("why", "look", "--project", "shop")
    assert code == 0 and "02_look is up to date: made by run" in out and "01_problem" not in out
    code, out, _ = say("why", "look", "--project", "shop", "-p", "look.share=0.1")
    assert code == 0 and "share was 0.5, is 0.1" in out
    assert say("why", "lok", "--project", "shop")[0] == 2


def test_params_tells_value_and_origin(project, say):
    code, out, _ = say("params", "look", "--project", "shop")
    assert code == 0 and re.search(r"look\.share\s+0\.5\s+params\.yaml", out) and "of the rows" in out and "problem.rows" not in out


def test_a_failing_cell_is_one_screen_and_exit_code_one(project, say):
    path = project / "02_look.ipynb"
    path.write_text(path.read_text().replace("stage.load('ages')", "stage.load('ages')['no']"))
    code, out, err = say("run", "shop")
    assert code == 1 and "Traceback" not in err + out and len(err.splitlines()) < 25
    assert "02_look.ipynb" in err and "TypeError" in err and "mlbench run shop" in err
    run = next((project / "runs").iterdir())
    assert (run / "report.html").exists()


def test_debug_shows_the_traceback_wherever_it_stands(project, say):
    assert "Traceback" in say("--debug", "run", "nowhere")[2]
    assert "Traceback" in say("run", "nowhere", "--debug")[2]
    assert "Traceback" not in say("run", "nowhere")[2]


def test_the_unforeseen_is_short_and_kept(project, say, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("mlbench.chain.plan.plan_chain", lambda *a, **k: {}["https://ana:hunter2@shop/db"])
    code, out, err = say("params", "--project", "shop")
    assert code == 1 and "KeyError" in err and "hunter2" not in out + err and len(err.splitlines()) < 8
    kept = next(tmp_path.glob("mlbench-error-*.txt")).read_text()
    assert "Traceback" in kept and "hunter2" not in kept


def test_new_from_a_file_writes_a_project_that_is_accepted(tmp_path, say, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"C{i:05d};{20 + i % 50};{'yes' if i % 3 else 'no'}\n" for i in range(200))
    (tmp_path / "shop.csv").write_text("id;age;left\n" + rows)
    code, out, _ = say("new", "shop", "--data", "shop.csv", "--target", "left", "--question", "Who leaves?")
    assert code == 0 and "left has two values" in out and "mlbench run shop" in out
    problem = read_yaml(tmp_path / "shop" / "problem.yaml")
    assert problem["data"]["source"] == "../shop.csv" and problem["question"] == "Who leaves?"
    assert len(list((tmp_path / "shop").glob("0*.ipynb"))) == 6
    assert (tmp_path / "shop" / "params.yaml").exists() and (tmp_path / "shop" / ".gitignore").exists()
    assert say("new", "shop", "--data", "shop.csv", "--target", "left")[0] == 2
    assert say("run", "shop", "--dry-run")[0] == 0


def test_new_takes_what_is_known_and_refuses_what_is_not(tmp_path, say, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "n.csv").write_text("a|b|t\n" + "".join(f"{i}|{i % 7}|{i % 2}\n" for i in range(100)))
    code, _, _ = say("new", "one", "--data", "n.csv", "--target", "t", "--read", "separator=|", "--task", "binary", "--positive", "1")
    assert code == 0 and read_yaml(tmp_path / "one" / "problem.yaml")["data"]["separator"] == "|"
    code, _, err = say("new", "two", "--data", "n.csv", "--target", "t", "--read", "seperator=|")
    assert code == 2 and "separator" in err and not (tmp_path / "two").exists()


def test_a_password_is_in_no_output(tmp_path, say, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = say("new", "shop", "--data", "postgresql://ana:canary-5b1f@127.0.0.1:9/shop", "--read", "query=select 1", "--target", "x")
    assert code in (1, 2) and "canary-5b1f" not in out + err


def test_doctor_says_what_to_do(say, monkeypatch):
    code, out, _ = say("doctor")
    assert code in (0, 1) and "python" in out and "kernel" in out
    monkeypatch.setattr(doctor, "LOOKS", ())
    found = doctor.examine([lambda: doctor.look_at_space({"/data": 10}, memory=10**10)])
    assert [f.level for f in found] == ["ok", "problem"] and found[1].remedy


def test_requirements_of_the_installed_package_are_met():
    found = {f.about: f for f in doctor.look_at_packages()}
    assert found["packages"].level == "ok", found["packages"].what


def test_serve_and_score_name_what_is_missing(project, say):
    for words in (["serve", "shop"], ["score", "shop", "rows.csv"]):
        code, _, err = say(*words)
        assert code == 2 and "bundle" in err
    code, _, err = say("serve", "last", "--project", "shop")
    assert code == 2 and "no run" in err


def test_models_of_a_project_without_a_registry(project, say):
    code, out, _ = say("models", "shop")
    assert code == 0 and "None yet" in out


def test_typed_parameters_keep_what_follows_the_first_equals_sign():
    assert typed_parameters(["a.b=c=d", "a.e="]) == {"a.b": "c=d", "a.e": ""}
    with pytest.raises(UsageError, match="twice"):
        typed_parameters(["a.b=1", "a.b=2"])


def test_a_watch_takes_any_order_of_events(capsys):
    with Watch() as watch:
        for event in [{"type": "progress", "what": "x", "stage": "09_late"}, {"type": "unknown"}, {"type": "unchanged", "run": "r"}]:
            watch(event)
        watch({"type": "stage_failed", "stage": "09_late", "status": "interrupted", "error": None})
    assert watch.stages["09_late"].status == "interrupted"
    assert progress_text({"what": "fold 2 of 5", "done": 7, "total": 30}) == "fold 2 of 5 (7 of 30)"
    assert duration(59.97) == "60 s" or duration(59.97) == "1 min 00 s"


def test_at_a_terminal_the_run_is_drawn_and_errors_stand_in_a_box(project):
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "mlbench", "run", "shop"]
    process = subprocess.Popen(command, stdout=slave, stderr=slave, stdin=slave, env={**os.environ, "COLUMNS": "100", "LINES": "40"})
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    assert process.wait() == 0
    text = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen).decode(errors="replace")
    assert "✓" in text and "02_look" in text and text.rstrip().splitlines()[-1].startswith("shop/runs/")


def test_a_run_is_named_by_id_beginning_and_folder(project, say):
    for day in ("20", "21"):
        folder = project / "runs" / f"202611{day}-101500-abc"
        record = {"format": 1, "id": folder.name, "project": "shop", "status": "done", "created": f"2026-11-{day}T10:15:00Z", "stages": {}, "metrics": {}}
        write_json(folder / "run.json", record)
    assert say("show", "20261120", "--project", "shop")[1].strip().splitlines()[-1].endswith("20261120-101500-abc")
    assert say("show", "shop/runs/20261121-101500-abc")[0] == 0
    assert say("show", "2026", "--project", "shop")[0] == 2 and say("show", "1999", "--project", "shop")[0] == 2


@pytest.mark.parametrize("sign, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_and_its_kernel(project, sign, code):
    path = project / "02_look.ipynb"
    path.write_text(path.read_text().replace("stage.save('seen'", "import time; time.sleep(60); stage.save('seen'"))
    process = subprocess.Popen([sys.executable, "-m", "mlbench", "run", "shop"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline, found = time.monotonic() + 90, []
    while not found:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
        found = [p for p in project.glob("runs/*/events.jsonl") if '"02_look"' in p.read_text() and "time.sleep" in p.read_text()]
    process.send_signal(sign)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and "mlbench run" in err and "Traceback" not in err
    record = json.loads((found[0].parent / "run.json").read_text())
    assert record["status"] == "interrupted"
