"mb.fit: limits of time and memory, Ctrl-C, replay, and what it says when it is used wrongly."

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import mlbench as mb
from mlbench.core.errors import ProblemError, UsageError
from mlbench.training.arena import Arena, folds_in_time


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"size": rng.normal(size=400).round(3), "kind": rng.choice(["a", "b", None], 400), "town": rng.choice([f"t{i}" for i in range(90)], 400)}
    )
    frame["left"] = np.where(frame["size"] + (frame["kind"] == "a") + rng.normal(size=400) > 0.3, "yes", "no")
    return frame


def test_a_limit_that_is_over_at_once_still_gives_a_model(table):
    model = mb.fit(table, "left", time_limit=0.01, verbose=False)
    assert set(model.predict(table)) <= {"yes", "no"} and model.comparison.notes and "folds" in model.comparison.notes[0]
    assert any("time budget" in said for said in model.comparison.failures.values())


def test_a_memory_limit_that_leaves_room_for_linear_models_only(table):
    model = mb.fit(table, "left", memory_gb=0.05, models=["dummy", "linear", "lightgbm", "random_forest"], verbose=False)
    assert model.spec_name in ("linear", "ensemble")
    assert all("memory limit of 0.05 GB" in model.comparison.failures[name] for name in ("lightgbm", "random_forest"))


def test_what_a_limit_cut_short_is_replayed_to_the_same_numbers(table):
    short = mb.fit(table, "left", time_limit=4, models=["dummy", "linear", "lightgbm", "hist_gradient_boosting", "extra_trees"], verbose=False)
    record = short.comparison.arena.record()
    again = mb.fit(table, "left", replay=record, verbose=False)
    assert np.array_equal(again.output(table), short.output(table))
    assert again.comparison.leaderboard["model"].tolist() == short.comparison.leaderboard["model"].tolist()


def test_the_same_call_gives_the_same_model_whatever_the_workers(table):
    one, two = (mb.fit(table, "left", models=["linear", "lightgbm", "mlp"], n_jobs=n, verbose=False) for n in (1, 2))
    assert np.array_equal(one.output(table), two.output(table))


INTERRUPTED = """
import os, signal
import numpy as np, pandas as pd
import mlbench as mb
import mlbench.training.arena as arena

rng = np.random.default_rng(0)
frame = pd.DataFrame({"x": rng.normal(size=300), "z": rng.normal(size=300)})
frame["y"] = frame["x"] * 2 + rng.normal(size=300)
real, done = arena._end, []

def ends(self, entry, fold, fit):
    real(self, entry, fold, fit)
    done.append(entry.spec.name)
    if len(done) == 7:
        os.kill(os.getpid(), signal.SIGINT)

arena.Arena.end = ends
model = mb.fit(frame, "y", models=["dummy", "linear", "lightgbm", "random_forest", "extra_trees"], verbose=False)
print(model.spec_name, model.comparison.notes, sorted(model.comparison.failures), np.isfinite(model.predict(frame)).all())
"""


def test_ctrl_c_gives_the_best_model_so_far():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", INTERRUPTED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "stopped (Ctrl-C)" in done.stdout and "'extra_trees'" in done.stdout and done.stdout.split()[0] in ("linear", "ensemble", "lightgbm")
    assert done.stdout.strip().endswith("True")


def test_readable_models_alone_when_a_person_is_to_follow(table):
    model = mb.fit(table, "left", interpretable=True, verbose=False)
    assert not model.blended and all(spec.readable for spec in model.comparison.specs.values()) and "ensemble" not in model.comparison.specs


@pytest.mark.parametrize(
    ("wrong", "said"), [({"time_limit": 0}, "time_limit=0"), ({"memory_gb": "much"}, "memory_gb='much'"), ({"models": ["lihgtgbm"]}, "lightgbm")]
)
def test_wrong_arguments_are_refused_before_anything_is_fitted(table, monkeypatch, wrong, said):
    monkeypatch.setattr(Arena, "compete", lambda self, specs: pytest.fail("something was fitted"))
    with pytest.raises(UsageError, match=said):
        mb.fit(table, "left", verbose=False, **wrong)


def test_a_target_of_one_value_is_refused(table):
    with pytest.raises(ProblemError):
        mb.fit(table.assign(left="yes"), "left", verbose=False)


def test_many_rows_and_little_time_leave_two_folds():
    assert folds_in_time(5, 10**8, 60, 2) == 2 and folds_in_time(5, 10**8, None, 2) == 5 and folds_in_time(1, 10**8, 60, 2) == 1
