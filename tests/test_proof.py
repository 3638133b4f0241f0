"A run is sealed, every kind of later change is found and named, and the run comes out again from what it kept."

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from chain_project import edit, make_project

import mlbench.chain.cache
import mlbench.chain.outcomes
import mlbench.chain.record
from mlbench.chain import Run, reproduce_run, run_chain, verify_run
from mlbench.chain.parameters import decode
from mlbench.chain.proof import digest_of, write_proof
from mlbench.core.errors import StageError, UsageError
from mlbench.core.files import read_json, sha256_file, write_json

STAGES = ["01_problem", "04_training", "05_evaluation"]


@pytest.fixture(autouse=True, scope="module")
def _one_library(tmp_path_factory):
    "The library's own source is part of every key; here it stays the same."
    patch = pytest.MonkeyPatch()
    patch.setattr(mlbench.chain.cache, "mlbench_source", lambda: "fixed")
    patch.setattr(mlbench.chain.record, "mlbench_source", lambda: "fixed")
    patch.setattr(mlbench.chain.outcomes, "mlbench_source", lambda: "fixed")
    yield
    patch.undo()


def contents(folder):
    "Hash of every file below a folder."
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def mlbench_says(*words, **options):
    done = subprocess.run([sys.executable, "-m", "mlbench", *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    "A project, run once with a value from the command line: (project, run)."
    project = make_project(tmp_path_factory.mktemp("proof é {x}") / "shop")
    return project, run_chain(project, parameters={"evaluation.threshold": "0.4"})


@pytest.fixture
def copied(shop, tmp_path):
    "The run, copied out of its project."
    _, run = shop
    return Path(shutil.copytree(run.folder, tmp_path / "archive" / run.id))


def found(folder):
    return verify_run(folder).changes


def test_a_run_keeps_what_it_was_made_of(shop):
    project, run = shop
    source = run.folder / "source"
    assert {p.name for p in source.iterdir()} == {*(f"{s}.ipynb" for s in STAGES), "helper.py", "problem.yaml", "params.yaml", "lock.txt", "source.json"}
    for name in ("01_problem.ipynb", "helper.py", "params.yaml", "problem.yaml"):
        assert (source / name).read_bytes() == (project / name).read_bytes()
    about = read_json(source / "source.json")
    assert {k: decode(v) for k, v in about["given"].items()} == {"evaluation.threshold": "0.4"}
    lock = (source / "lock.txt").read_text().splitlines()
    assert len(lock) > 50 and any(line.startswith("pandas==") for line in lock)


def test_every_file_of_a_run_is_in_its_seal(shop):
    _, run = shop
    proof = read_json(run.folder / "proof.json")
    assert set(proof["files"]) == set(contents(run.folder)) - {"proof.json", ".lock", "report.html"}
    assert all(entry["sha256"] == sha256_file(run.folder / name) for name, entry in proof["files"].items())
    assert proof["digest"] == digest_of(proof["files"])
    assert verify_run(run).ok and verify_run(run, proof["digest"]).exit_code == 0


def test_a_stage_that_is_reused_is_sealed_too(shop):
    project, run = shop
    other = run_chain(project, parameters={"evaluation.threshold": "0.7"})
    assert other.record["stages"]["04_training"]["reused_from"] == run.id
    assert "stages/04_training/artifacts/model/weights.txt" in read_json(other.folder / "proof.json")["files"]
    assert verify_run(other).ok
    result = reproduce_run(other)
    assert result.same and result.counts.stages == 3, repr(result)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit_json(path, change):
    content = read_json(path)
    change(content)
    write_json(path, content)


TAMPERING = {
    "a byte of an artifact": (
        lambda run: flip(run / "stages/04_training/artifacts/model/weights.txt"),
        [("changed", "04_training", "model")],
        "the artifact model of 04_training is not what it was",
    ),
    "sealed rows": (lambda run: flip(run / "stages/01_problem/sealed/test.parquet"), [("changed", "01_problem", "test")], "the sealed rows test"),
    "a metric in run.json": (
        lambda run: edit_json(run / "run.json", lambda c: c["stages"]["05_evaluation"]["metrics"][0].update(value=0.99)),
        [("changed", None, None), ("disagrees", "05_evaluation", None)],
        "run.json says weight of 05_evaluation is 0.99",
    ),
    "the summary in run.json": (
        lambda run: edit_json(run / "run.json", lambda c: c["metrics"]["05_evaluation"][0].update(value=0.99)),
        [("changed", None, None), ("disagrees", "05_evaluation", None)],
        "in its summary, says weight of 05_evaluation is 0.99",
    ),
    "a card": (
        lambda run: edit_json(run / "stages/05_evaluation/card.json", lambda c: c["metrics"][0].update(value=0.99)),
        [("changed", "05_evaluation", None), ("disagrees", "05_evaluation", "metrics")],
        "the card of 05_evaluation says weight is 0.99, the artifact metrics says 84",
    ),
    "an executed notebook": (
        lambda run: edit_json(run / "stages/05_evaluation/notebook.ipynb", lambda c: c["cells"].pop()),
        [("changed", "05_evaluation", None)],
        "the executed notebook of 05_evaluation is not what it was",
    ),
    "a file that is gone": (
        lambda run: (run / "stages/01_problem/artifacts/facts.json").unlink(),
        [("missing", "01_problem", "facts")],
        "the artifact facts of 01_problem is gone",
    ),
    "a file that was added": (
        lambda run: (run / "stages/04_training/artifacts/model/more.txt").write_text("new"),
        [("new", "04_training", "model")],
        "the artifact model of 04_training was not there when the run ended",
    ),
    "a manifest": (
        lambda run: edit_json(run / "stages/05_evaluation/manifest.json", lambda c: c["inputs"]["model"].update(sha256="0" * 64)),
        [("changed", "05_evaluation", None), ("disagrees", "05_evaluation", "model"), ("chain", "05_evaluation", "model")],
        "05_evaluation was made from model with the hash 000000000000, but 04_training of this run wrote another one",
    ),
    "a parameter": (
        lambda run: edit_json(run / "stages/05_evaluation/parameters.json", lambda c: c["parameters"]["threshold"].update(value=0.9)),
        [("changed", "05_evaluation", None), ("disagrees", "05_evaluation", None)],
        "has another value of threshold",
    ),
    "the seal": (
        lambda run: edit_json(run / "proof.json", lambda c: c["files"]["run.json"].update(sha256="0" * 64)),
        [("seal", None, None), ("changed", None, None)],
        "the seal was edited",
    ),
    "the kept source": (lambda run: (run / "source/helper.py").write_text("total = sum\n"), [("changed", None, None)], "the kept source is not what it was"),
    "the record": (lambda run: (run / "run.json").unlink(), [("missing", None, None)], "the record of the run is gone"),
    "the seal of nothing": (lambda run: (run / "proof.json").write_text("[]"), [("unreadable", None, None)], "cannot be read"),
    "half a card": (
        lambda run: (run / "stages/01_problem/card.json").write_text('{"metrics": ['),
        [("changed", "01_problem", None), ("unreadable", "01_problem", None)],
        "the card of 01_problem cannot be read",
    ),
    "a whole stage": (lambda run: shutil.rmtree(run / "stages/04_training"), [("missing", "04_training", "model")], "the manifest of 04_training is gone"),
    "the log shortened": (lambda run: (run / "events.jsonl").write_text("{}\n"), [("changed", None, None)], "the log of events is not what it was"),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_what_was_changed_is_found_and_named(copied, what):
    change, expected, words = TAMPERING[what]
    assert verify_run(copied).ok
    change(copied)
    result = verify_run(copied)
    assert result.exit_code == 1 and not result.ok
    kinds = [(c.kind, c.stage, c.artifact) for c in result.changes]
    assert all(e in kinds for e in expected), repr(result)
    assert words in repr(result) and words.split("'")[0][:20] in result._repr_html_()
    if what not in ("a whole stage", "half a card"):
        assert len(kinds) <= len(expected) + 3, repr(result)


def test_a_figure_is_found_even_when_a_new_seal_was_written(copied):
    digest = verify_run(copied).digest
    edit_json(copied / "run.json", lambda c: c["stages"]["05_evaluation"]["metrics"][0].update(value=0.99))
    write_proof(Run(copied))
    result = verify_run(copied)
    assert [c.kind for c in result.changes] == ["disagrees"] and "run.json says weight of 05_evaluation is 0.99" in repr(result)
    assert any(c.kind == "seal" for c in verify_run(copied, digest).changes)


def test_a_moved_run_verifies_without_its_project(copied, tmp_path):
    shutil.make_archive(str(tmp_path / "run"), "zip", copied)
    shutil.unpack_archive(tmp_path / "run.zip", tmp_path / "other machine")
    code, text = mlbench_says("verify", tmp_path / "other machine", cwd="/")
    assert code == 0 and "is what it was when it ended" in text
    (tmp_path / "other machine" / "run.json").unlink()
    assert mlbench_says("verify", tmp_path / "other machine", cwd="/")[0] == 1


def test_what_is_written_after_the_end_is_no_change(copied):
    (copied / "report.html").write_text("<html>")
    (copied / "wandb").mkdir()
    (copied / "wandb" / "log").write_text("x")
    with (copied / "events.jsonl").open("a") as file:
        file.write(json.dumps({"type": "warning"}) + "\n")
    assert verify_run(copied).ok


def test_a_run_from_before_seals_is_told_so(copied):
    (copied / "proof.json").unlink()
    shutil.rmtree(copied / "source")
    result = verify_run(copied)
    assert result.exit_code == 1 and [c.kind for c in result.changes] == ["seal"] and "made before runs were sealed" in repr(result)
    flip(copied / "stages/04_training/artifacts/model/weights.txt")
    assert ("disagrees", "model") in [(c.kind, c.artifact) for c in found(copied)]
    with pytest.raises(UsageError, match="does not hold what it was made of"):
        reproduce_run(copied)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="neither run.json nor proof.json"):
        verify_run(tmp_path)


def test_a_failed_run_is_sealed_and_sealed_anew_when_it_goes_on(tmp_path):
    project = make_project(tmp_path / "shop")
    edit(project / "05_evaluation.ipynb", "stage.close()", "1 / 0")
    with pytest.raises(StageError):
        run_chain(project)
    run = Run(next(project.glob("runs/2*")))
    assert verify_run(run).ok
    result = reproduce_run(run)
    assert result.same and result.counts.stages == 2 and "failed" in " ".join(result.notes)
    edit(project / "05_evaluation.ipynb", "1 / 0", "stage.close()")
    assert run_chain(project) == run and verify_run(run).ok
    assert "1 / 0" not in (run.folder / "source" / "05_evaluation.ipynb").read_text()


def test_it_comes_out_the_same_and_the_run_is_not_touched(shop):
    project, run = shop
    before, others = contents(run.folder), sorted(p.name for p in project.glob("runs/*"))
    heard = []
    result = reproduce_run(run, on_progress=heard.append)
    assert result.same and result.exit_code == 0, repr(result)
    assert (result.counts.stages, result.counts.metrics, result.counts.aside) == (3, 1, 1) and result.counts.artifacts == 6
    assert "came out the same" in repr(result) and "came out the same" in result._repr_html_()
    assert contents(run.folder) == before and sorted(p.name for p in project.glob("runs/*")) == others
    assert {e["type"] for e in heard} >= {"run_started", "stage_started", "cell_started", "stage_ended", "run_ended"}
    kept = read_json(result.folder / "reproduction.json")
    assert kept["same"] and result.again.folder.is_relative_to(result.folder) and (result.again.folder / "report.html").exists()
    assert result.again.record["stages"]["05_evaluation"]["parameters"]["threshold"] == {"value": 0.4, "origin": "command line"}


def test_what_became_of_the_project_since_does_not_matter(tmp_path):
    project = make_project(tmp_path / "shop")
    run = run_chain(project)
    (project / "helper.py").write_text("def total(values):\n    return -1.0\n")
    (project / "params.yaml").write_text("training:\n  factor: 9.0\n")
    edit(project / "05_evaluation.ipynb", "'a card'", "'another card'")
    result = reproduce_run(run)
    assert result.same and result.notes == [], repr(result)
    assert result.folder == project.resolve() / "reproductions" / run.id
    assert reproduce_run(run).folder.name == f"{run.id}-2"


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_rows_that_cannot_be_read_again_are_taken_as_recorded(tmp_path, what):
    project = make_project(tmp_path / "shop")
    run = run_chain(project)
    if what == "changed":
        (project / "data.csv").write_text("x,label\n99,yes\n98,no\n")
    else:
        (project / "data.csv").unlink()
    result = reproduce_run(run)
    assert result.same and result.counts.stages == 2, repr(result)
    assert "The recorded rows were used" in result.notes[0] and ("changed since" in result.notes[0]) == (what == "changed")
    assert "Taken over as recorded: 01_problem." in result.notes


def test_a_run_without_its_project_is_reproduced_from_its_rows(copied, shop, tmp_path):
    code, text = mlbench_says("reproduce", copied, "--to", tmp_path / "again", cwd=tmp_path)
    assert code == 0 and "came out the same" in text, text
    about = read_json(copied / "source" / "source.json")
    edit_json(copied / "source" / "source.json", lambda c: c.update(project_folder="/nowhere"))
    write_proof(Run(copied))
    result = reproduce_run(copied, to=tmp_path / "third")
    assert about["project_folder"] == str(shop[0]) and result.same and "is not here" in result.notes[0]
    with pytest.raises(UsageError, match="is there already"):
        reproduce_run(copied, to=tmp_path / "third")


@pytest.mark.parametrize("source", ["../rows/data.csv", "part-*.csv"])
def test_data_elsewhere_is_found_from_the_new_project(tmp_path, source):
    project = make_project(tmp_path / "shop")
    target = (project / source.replace("*", "1")).resolve()
    target.parent.mkdir(exist_ok=True)
    (project / "data.csv").rename(target)
    edit(project / "problem.yaml", "data.csv", f"'{source}'")
    edit(project / "01_problem.ipynb", "data.csv", source.replace("*", "1"))
    result = reproduce_run(run_chain(project))
    assert result.same and result.notes == [] and result.counts.stages == 3, repr(result)


def test_a_cell_that_draws_without_a_seed_is_named(tmp_path):
    project = make_project(tmp_path / "shop")
    edit(
        project / "04_training.ipynb",
        "train = stage.load('train')",
        "import random\\ntrain = stage.load('train')\\nprint('drawn', random.SystemRandom().random())",
    )
    edit(project / "05_evaluation.ipynb", "'a card'", "str(__import__('time').time_ns())")
    result = reproduce_run(run_chain(project))
    assert not result.same and result.exit_code == 1
    first = result.differences[0]
    assert (first.stage, first.kind, first.name.split()[0]) == ("04_training", "cell", "5") and "drawn" in first.what
    assert ("05_evaluation", "artifact", "card") in [(d.stage, d.kind, d.name) for d in result.differences]
    assert not [d for d in result.differences if d.stage == "01_problem"]
    assert "the notebook itself does not give the same twice" in repr(result)


def test_figures_metrics_and_tables_are_compared_by_their_numbers(tmp_path):
    project = make_project(tmp_path / "shop")
    figure = "import plotly.graph_objects as go\\nimport random\\nfigure = go.Figure(go.Scatter(x=[1, 2], y=[{}, 2]))\\nfigure.show()\\n"
    edit(project / "04_training.ipynb", "import helper", figure.format("1 + random.SystemRandom().random() * 1e-3") + "import helper")
    run = run_chain(project, to="training")
    result = reproduce_run(run)
    assert [d.kind for d in result.differences] == ["cell"] and "data[0].y[0]" in result.differences[0].what
    assert reproduce_run(run, tolerance=0.01).same


def test_what_changed_around_is_named_as_the_likely_cause(copied, tmp_path):
    lock = copied / "source" / "lock.txt"
    now = next(line for line in lock.read_text().splitlines() if line.startswith("numpy=="))
    lock.write_text(lock.read_text().replace(now, "numpy==1.0.0"))
    edit_json(copied / "stages/05_evaluation/card.json", lambda c: c["metrics"][0].update(value=0.99))
    write_proof(Run(copied))
    result = reproduce_run(copied, to=tmp_path / "again")
    assert [(d.stage, d.kind, d.name) for d in result.differences] == [("05_evaluation", "metric", "weight")] and "0.99 and 84" in result.differences[0].what
    assert f"A likely cause is what changed since: numpy 1.0.0 → {now.partition('==')[2]}" in repr(result)
    assert "The recorded run is not what it was" in " ".join(result.notes)


def test_a_stage_that_fails_this_time_is_the_answer(copied, tmp_path):
    (copied / "source" / "helper.py").write_text("def total(values):\n    raise ValueError('no longer')\n")
    result = reproduce_run(copied, to=tmp_path / "again")
    assert result.exit_code == 1 and "no longer" in result.error and "could not be run again to its end" in repr(result)
    assert [d.stage for d in result.differences] == ["04_training", "05_evaluation"] and result.counts.stages == 1


def test_stages_before_one_can_be_taken_over(shop, tmp_path):
    project, run = shop
    code, text = mlbench_says("reproduce", run.id, "--project", project, "--from", "evaluation", "--to", tmp_path / "short", cwd=tmp_path)
    assert code == 0 and "Taken over as recorded: 01_problem, 04_training." in text and "1 stage, 1 metric" in text, text
    assert str(tmp_path / "short") in text.strip().splitlines()[-1]


def test_stages_that_had_been_taken_as_they_were_are_taken_over_again(tmp_path):
    project = make_project(tmp_path / "shop")
    run_chain(project)
    edit(project / "helper.py", "float(sum(values))", "float(max(values))")
    run = run_chain(project, from_="evaluation", parameters={"evaluation.threshold": "0.9"})
    assert run.record["stages"]["04_training"].get("outdated") and verify_run(run).ok
    result = reproduce_run(run)
    assert result.same and "Taken over as recorded: 01_problem, 04_training." in result.notes


def test_openings_before_a_run_are_counted_again(tmp_path):
    project = make_project(tmp_path / "shop")
    edit(project / "05_evaluation.ipynb", "if False else 'a card'", "+ ''")
    first, second = run_chain(project), run_chain(project, from_="evaluation", force=True)
    cards = [(run.stage_folder("05_evaluation") / "artifacts" / "card.md").read_text() for run in (first, second)]
    assert "of 1 openings" in cards[0] and "of 2 openings" in cards[1]
    assert all(reproduce_run(run).same for run in (first, second))


def test_secrets_are_not_kept_and_asked_for(tmp_path, monkeypatch):
    project = make_project(tmp_path / "shop")
    edit(project / "04_training.ipynb", "factor: float = 2.0", "token: Optional[str] = None  # key of a service [secret]\\nfactor: float = 2.0")
    edit(project / "04_training.ipynb", "import helper", "assert len(token) == 12\\nimport helper")
    run = run_chain(project, parameters={"training.token": "canary-7f3a9"})
    for path in run.folder.rglob("*"):
        assert not path.is_file() or b"canary-7f3a9" not in path.read_bytes(), path
    assert read_json(run.folder / "source" / "source.json")["given"] == {"training.token": {"$secret": True}}
    with pytest.raises(UsageError, match="MLBENCH_SECRET_TRAINING_TOKEN"):
        reproduce_run(run)
    monkeypatch.setenv("MLBENCH_SECRET_TRAINING_TOKEN", "canary-7f3a9")
    result = reproduce_run(run)
    assert result.same, repr(result)
    assert not [p for p in result.folder.rglob("*") if p.is_file() and b"canary-7f3a9" in p.read_bytes()]


@pytest.mark.slow
def test_a_real_chain_comes_out_again(tmp_path):
    assert mlbench_says("new", "clinic", "--example", "breast_cancer", cwd=tmp_path)[0] == 0
    words = ["-p", "training.models=[dummy, linear]", "-p", "evaluation.bootstrap=50", "-p", "evaluation.explain_rows=20", "-p", "deployment.requests=20"]
    code, text = mlbench_says("run", "clinic", *words, cwd=tmp_path, env=os.environ | {"WANDB_MODE": "disabled"})
    assert code == 0, text
    assert mlbench_says("verify", "last", "--project", "clinic", cwd=tmp_path)[0] == 0
    outside = os.environ | {"MLFLOW_TRACKING_URI": str(tmp_path / "registry of everybody")}
    code, text = mlbench_says("reproduce", "last", "--project", "clinic", cwd=tmp_path, env=outside)
    assert code == 0 and "came out the same: 6 stages" in text, text
    assert not (tmp_path / "registry of everybody").exists()
    with sqlite3.connect(next((tmp_path / "clinic" / "registry").glob("*.db"))) as db:
        assert db.execute("select count(*) from model_versions").fetchone()[0] == 1
    again = next((tmp_path / "clinic" / "reproductions").glob("2*"))
    assert next(again.glob("clinic/registry/*.db")) and next(again.glob("clinic/runs/2*/report.html"))
