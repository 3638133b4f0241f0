"Training that is killed goes on from its last finished fold, or epoch, and comes to the same."

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

import mlbench.training.arena as arena
from mlbench.core.errors import UsageError
from mlbench.core.files import read_json, read_lines
from mlbench.core.progress import set_sink
from mlbench.core.resuming import Checkpoints, content_key, resumable
from mlbench.data.schema import infer_schema
from mlbench.data.splits import make_folds
from mlbench.features.plan import make_plan
from mlbench.models.neural import TorchMLPClassifier, TorchMLPRegressor
from mlbench.models.registry import ModelSpec, candidates, model_spec
from mlbench.problem.problem import Problem
from mlbench.problem.target import make_target
from mlbench.training import cross_validate, estimator_bytes, fit_model


class Killed(BaseException):
    "Goes through everything, as a signal would."


class Case:
    "A table with everything that training wants."

    def __init__(self, rows: int = 150):
        rng = np.random.default_rng(0)
        self.frame = pd.DataFrame({"size": rng.normal(size=rows).round(3), "kind": rng.choice(["a", "b", None], rows)})
        self.frame["two"] = np.where(self.frame["size"] + rng.normal(size=rows) > 0, "yes", "no")
        self.problem = Problem.from_dict({"name": "case", "task": "binary", "target": "two", "data": "case.csv"})
        self.schema, self.target = infer_schema(self.frame), make_target(self.frame["two"], self.problem)
        self.plan, self.y = make_plan(self.schema, self.problem), self.target.encode(self.frame["two"])
        self.folds = make_folds(self.frame, target="two", task="binary", folds=3, seed=0)

    def compare(self, names=("dummy", "linear", "mlp"), **more):
        arguments = {"schema": self.schema, "target": self.target, "metrics": self.problem.metrics} | more
        return cross_validate([n if isinstance(n, ModelSpec) else model_spec(n) for n in names], self.plan, self.frame, self.y, self.folds, **arguments)

    def fit(self, name, **more):
        arguments = {"schema": self.schema, "target": self.target, "problem": self.problem} | more
        return fit_model(model_spec(name), self.plan, self.frame, self.y, **arguments)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


@pytest.fixture
def fits(monkeypatch):
    "Which model is fitted on which fold, in order."
    seen, real = [], arena.fit_fold

    def counted(spec, fold, *rest):
        seen.append((spec.name, fold.number))
        return real(spec, fold, *rest)

    monkeypatch.setattr(arena, "fit_fold", counted)
    return seen


def same(a, b):
    "Whether two comparisons came to the same, times apart."
    pd.testing.assert_frame_equal(a.leaderboard, b.leaderboard, check_exact=True)
    pd.testing.assert_frame_equal(a.oof_frame(), b.oof_frame(), check_exact=True)
    pd.testing.assert_frame_equal(a.history, b.history, check_exact=True)
    pd.testing.assert_frame_equal(a.folds, b.folds, check_exact=True)
    return (a.chosen, a.why, a.warnings, a.notes, a.failures) == (b.chosen, b.why, b.warnings, b.notes, b.failures)


def test_folds_that_were_finished_are_taken_back(case, fits, tmp_path):
    whole = case.compare()
    fits.clear()
    first = case.compare(checkpoints=Checkpoints(tmp_path / "kept"))
    assert len(fits) == 9
    again = case.compare(checkpoints=Checkpoints(tmp_path / "kept"))
    assert len(fits) == 9 and same(whole, first) and same(first, again)
    pd.testing.assert_frame_equal(first.timings, again.timings, check_exact=True)  # as they were measured


def test_what_a_fold_depends_on_makes_it_another(case, fits, tmp_path):
    kept = Checkpoints(tmp_path / "kept")
    case.compare(["linear"], checkpoints=kept)
    fits.clear()
    case.compare(["dummy", "linear"], checkpoints=kept, metrics=["accuracy"])
    assert {name for name, _ in fits} == {"dummy"}  # a candidate more, other metrics: the predictions are the same
    fits.clear()
    case.compare(["linear"], checkpoints=kept, seed=1)
    other = Case()
    other.frame.loc[0, "size"] += 1
    other.compare(["linear"], checkpoints=kept)
    other = Case()
    other.folds = make_folds(other.frame, target="two", task="binary", folds=3, seed=1)
    other.compare(["linear"], checkpoints=kept)
    other = Case()
    other.y = 1 - other.y
    other.compare(["linear"], checkpoints=kept)
    assert len(fits) == 12


def test_an_estimator_with_other_parameters_or_without_a_file_is_not_taken_for_the_same(case, fits, tmp_path):
    from sklearn.linear_model import LogisticRegression

    def spec(C):
        return ModelSpec("linear", "linear", "linear", 2, "", "", lambda given: LogisticRegression(C=C))

    kept = Checkpoints(tmp_path / "kept")
    weak, strong = case.compare([spec(0.001)], checkpoints=kept), case.compare([spec(10.0)], checkpoints=kept)
    assert len(fits) == 6 and not np.array_equal(weak.oof["linear"], strong.oof["linear"])
    space = {"__name__": "typed_in"}
    exec("from sklearn.linear_model import LogisticRegression\nclass Typed(LogisticRegression):\n    pass", space)
    typed = ModelSpec("linear", "linear", "linear", 2, "", "", lambda given: space["Typed"]())
    for _ in range(2):
        case.compare([typed], checkpoints=kept)
    assert len(fits) == 12 and len(list((tmp_path / "kept").iterdir())) == 6


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "garbage", "half a write"])
def test_a_damaged_checkpoint_is_left_out_with_a_note_and_fitted_again(case, fits, tmp_path, harm):
    whole = case.compare(["linear"], checkpoints=Checkpoints(tmp_path / "kept"))
    fits.clear()
    victim = sorted((tmp_path / "kept").iterdir())[1]
    data = victim.read_bytes()
    middle = len(data) // 2
    new = {"cut": data[:middle], "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :], "empty": b"", "garbage": b"\x80\x04" * 50}
    if harm == "half a write":
        victim.unlink()
        (victim.parent / f".{victim.name}.abc.tmp").write_bytes(data[:middle])
    else:
        victim.write_bytes(new[harm])
    kept = Checkpoints(tmp_path / "kept")
    again = case.compare(["linear"], checkpoints=kept)
    assert len(fits) == 1 and same(whole, again)
    assert len(kept.notes) == (harm != "half a write") and all("damaged" in note for note in kept.notes)


def test_a_failure_is_tried_again_and_a_full_folder_ends_nothing(case, fits, tmp_path):
    def broken(given):
        raise ValueError("no licence")

    bad = ModelSpec("linear", "linear", "linear", 2, "", "", broken)
    kept = Checkpoints(tmp_path / "kept")
    assert case.compare(["dummy", bad], checkpoints=kept).failures == {"linear": "ValueError: no licence"}
    (tmp_path / "file").write_text("")
    stuck = Checkpoints(tmp_path / "file" / "kept")
    assert same(case.compare(["dummy", "linear"], checkpoints=stuck), case.compare(["dummy", "linear"]))
    assert stuck.notes and "no more checkpoints" in stuck.notes[0]


def test_time_of_folds_that_were_taken_back_counts_for_the_budget(case, tmp_path):
    kept = Checkpoints(tmp_path / "kept")
    case.compare(["dummy"], checkpoints=kept)
    for path in kept.folder.iterdir():
        found = kept.load(path.stem)
        kept.save(path.stem, {name: found.pop(name) for name in ("output", "model")}, found | {"seconds_of_work": 1000.0})
    short = case.compare(["dummy"], checkpoints=Checkpoints(kept.folder), time_budget=1500.0)
    assert "2 of 3 folds" in short.notes[0] and len(short.folds) == 2


def test_the_record_of_metrics_is_that_of_an_undisturbed_run(case, tmp_path, monkeypatch):
    def lines(folder):
        return [{k: v for k, v in line.items() if k != "time"} for line in read_lines(folder / "metrics.jsonl")]

    try:
        set_sink(tmp_path / "a", "04_training") if (tmp_path / "a").mkdir() is None else None
        case.compare()
        (tmp_path / "b").mkdir()
        set_sink(tmp_path / "b", "04_training")
        with monkeypatch.context() as patch, pytest.raises(Killed):
            real = arena.fit_fold
            patch.setattr(arena, "fit_fold", lambda spec, fold, *rest: real(spec, fold, *rest) if (spec.name, fold.number) != ("mlp", 2) else _kill())
            case.compare(checkpoints=Checkpoints(tmp_path / "kept"))
        set_sink(tmp_path / "b", "04_training")
        case.compare(checkpoints=Checkpoints(tmp_path / "kept"))
    finally:
        set_sink(None)
    assert lines(tmp_path / "a") == lines(tmp_path / "b") and len(lines(tmp_path / "a")) > 9
    told = [e["what"] for e in read_lines(tmp_path / "b" / "events.jsonl") if e["what"].endswith(": restored")]
    before = [f"cross-validation: {m}, fold {f} of 3: restored" for m, f in (*((m, f) for m in ("dummy", "linear") for f in (1, 2, 3)), ("mlp", 1))]
    assert told[:7] == before and set(told[7:]) <= {"cross-validation: mlp, fold 3 of 3: restored"}  # it had begun beside the one that was killed


def _kill():
    raise Killed


@pytest.mark.parametrize("kind", [TorchMLPClassifier, TorchMLPRegressor])
@pytest.mark.parametrize("epochs", [1, 4, 11])
def test_a_network_goes_on_from_an_epoch_to_the_same_weights(kind, epochs, tmp_path, monkeypatch):
    import mlbench.models.neural as neural

    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 5))
    y = (X[:, 0] * X[:, 1] > 0).astype(int) if kind is TorchMLPClassifier else X[:, 0] * X[:, 1]
    settings = {"random_state": 3, "max_epochs": 14, "patience": 20}
    whole, kept, ran = kind(**settings).fit(X, y), Checkpoints(tmp_path / "kept", every=0), []
    real = neural._epoch

    def dies(*rest):
        ran.append(1)
        return real(*rest) if len(ran) <= epochs else _kill()

    with monkeypatch.context() as patch, pytest.raises(Killed), resumable(kept, "a"):
        patch.setattr(neural, "_epoch", dies)
        kind(**settings).fit(X, y)
    ran.clear()
    monkeypatch.setattr(neural, "_epoch", lambda *rest: ran.append(1) or real(*rest))
    with resumable(kept, "a"):
        again = kind(**settings).fit(X, y)
    assert len(ran) == 14 - epochs and again.history_ == whole.history_ and again.n_iter_ == 14
    assert all(np.array_equal(a, b) for a, b in zip(whole.weights_ + whole.biases_, again.weights_ + again.biases_, strict=True))
    assert estimator_bytes(again) == estimator_bytes(whole) and not list(kept.folder.iterdir())
    with resumable(kept, "another fold"):
        kind(**settings).fit(X, y)
    assert len(ran) == 28 - epochs


def test_checkpoints_leave_no_trace_in_an_estimator(tmp_path):
    from sklearn.base import clone

    X = np.random.default_rng(0).normal(size=(80, 3))
    y = (X[:, 0] > 0).astype(int)
    with resumable(Checkpoints(tmp_path / "kept", every=0), "x"):
        inside = TorchMLPClassifier(random_state=0, max_epochs=3).fit(X, y)
    outside = TorchMLPClassifier(random_state=0, max_epochs=3).fit(X, y)
    assert inside.get_params() == outside.get_params() == clone(inside).get_params() and vars(inside).keys() == vars(outside).keys()
    assert estimator_bytes(inside) == estimator_bytes(outside)


@pytest.mark.parametrize("name", ["linear", "lightgbm", "hist_gradient_boosting", "mlp"])
def test_a_final_fit_is_taken_back_as_the_same_file(case, name, tmp_path):
    kept = Checkpoints(tmp_path / "kept", every=0)
    plain, first, again = case.fit(name), case.fit(name, checkpoints=kept), case.fit(name, checkpoints=kept)
    assert kept.restored_seconds > 0 and len(list(kept.folder.iterdir())) == 1
    files = [(m.save(tmp_path / str(n)) / "model.skops").read_bytes() for n, m in enumerate((plain, first, again))]
    assert files[0] == files[1] == files[2] and again.facts == plain.facts
    quick = Checkpoints(tmp_path / "quick", every=3600)
    case.fit(name, checkpoints=quick)
    assert not quick.folder.exists()


def test_nothing_of_a_checkpoint_is_ever_unpickled(tmp_path):
    kept = Checkpoints(tmp_path / "kept")
    with pytest.raises(UsageError, match="objects cannot be kept: words"):
        kept.save("a", {"words": np.array([{"a": 1}], dtype=object)}, {})
    import io

    import mlbench.core.resuming as checkpoints

    out = io.BytesIO()
    np.savez(out, _evil=np.array([print], dtype=object))
    body = b"{}\n" + out.getvalue()
    import hashlib

    (tmp_path / "kept").mkdir(exist_ok=True)
    (tmp_path / "kept" / "b.checkpoint").write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(ValueError, match="allow_pickle"):
        kept.load("b")
    assert checkpoints.unpack(b"") is None and len(content_key(a=1)) == 40


TO_TRAINING = ("01_problem", "02_eda", "03_features", "04_training")
RUNNER = """
import sys
import mlbench.chain.cache, mlbench.chain.record
mlbench.chain.cache.mlbench_source = mlbench.chain.record.mlbench_source = lambda: "m" * 64
from mlbench.chain import run_chain
print(run_chain(sys.argv[1], to="training").folder)
"""


def start(project: Path) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLBENCH_")} | {"OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen([sys.executable, "-c", RUNNER, project], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)


def killed_at(project: Path, moment) -> Path:
    "Start the run, kill runner and kernel with signal 9 when the moment has come, and give the run's folder."
    process = start(project)
    seen, deadline = len(events(project)), time.monotonic() + 200
    while not moment(events(project)[seen:]):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.02)
    kernels = [psutil.Process(e["pid"]) for e in events(project)[seen:] if e["type"] == "kernel_started" and psutil.pid_exists(e["pid"])]
    os.kill(process.pid, signal.SIGKILL)
    for kernel in kernels:
        kernel.kill()
    process.communicate()
    psutil.wait_procs(kernels, timeout=30)
    return max(project.glob("runs/2*"))


def events(project: Path) -> list[dict]:
    return [e for file in sorted(project.glob("runs/2*/events.jsonl")) for e in read_lines(file)]


def hashes(run: Path) -> dict[str, str]:
    found = {}
    for stage in TO_TRAINING:
        manifest = read_json(run / "stages" / stage / "manifest.json")
        found |= {name: entry["sha256"] for name, entry in manifest["artifacts"].items() if not entry["volatile"]}
    return found


def finish(project: Path) -> Path:
    process = start(project)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return Path(out.strip().splitlines()[-1])


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_goes_on_and_comes_to_the_same(tmp_path):
    data = Case(400).frame.assign(extra=np.random.default_rng(2).normal(size=400))
    data.to_csv(tmp_path / "data.csv", index=False)
    calm, rough = tmp_path / "calm" / "shop", tmp_path / "rough" / "shop"
    calm.parent.mkdir()
    made = subprocess.run([sys.executable, "-m", "mlbench", "new", "shop", "--data", "../data.csv", "--target", "two"], cwd=calm.parent, capture_output=True)
    assert made.returncode == 0, made.stderr
    (calm / "params.yaml").write_text('training:\n  models: ["dummy", "linear", "lightgbm", "mlp"]\n')
    undisturbed = finish(calm)
    shutil.copytree(calm, rough)
    shutil.rmtree(rough / undisturbed.relative_to(calm) / "stages" / "04_training")  # the three before it are kept

    def folds(event_list):
        return [e["what"] for e in event_list if e["type"] == "progress" and e["what"].startswith("cross-validation: ")]

    before, kept_then = len(events(rough)), []
    for wanted in (2, 9, 16):
        run = killed_at(rough, lambda new, wanted=wanted: len(list(rough.glob("runs/2*/checkpoints/04_training/*"))) >= wanted)
        kept_then.append({p.name for p in (run / "checkpoints" / "04_training").glob("[!.]*")})
    assert all(a <= b for a, b in zip(kept_then, kept_then[1:]))  # what was kept stays
    killed = len(events(rough))
    run = finish(rough)
    told = folds(events(rough)[killed:])
    assert len({w for w in told if w.endswith(": restored")}) >= 16 and run != undisturbed
    assert {e["stage"] for e in events(rough)[before:] if e["type"] == "cell_started"} == {"04_training"}
    assert hashes(run) == hashes(undisturbed) and "leaderboard" in hashes(run) and "model" in hashes(run)
    assert not list(run.glob("checkpoints/*/*"))

    def metrics(folder):
        return [json.dumps({k: v for k, v in line.items() if k != "time"}) for line in read_lines(folder / "metrics.jsonl")]

    assert metrics(run) == metrics(undisturbed)
    card, other = (read_json(folder / "stages" / "04_training" / "card.json") for folder in (run, undisturbed))
    assert card["metrics"] == other["metrics"] and card["complete"]


def test_all_candidates_can_be_kept(case, tmp_path):
    names = [s.name for s in candidates("binary")]
    kept = Checkpoints(tmp_path / "kept")
    found = case.compare(names, checkpoints=kept)
    assert not found.failures and len(list(kept.folder.iterdir())) == 3 * len(names)
