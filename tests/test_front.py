"mb.fit: limits of time and memory, Ctrl-C, replay, and what it says when it is used wrongly."

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import psutil
import pytest

import mlbench as mb
from mlbench.core.errors import ProblemError, UsageError
from mlbench.core.resuming import Checkpoints
from mlbench.data.schema import infer_schema
from mlbench.features.plan import make_plan
from mlbench.models import rounds
from mlbench.models.registry import candidates, model_spec
from mlbench.models.rounds import FEWEST, ended_by
from mlbench.problem.problem import Problem
from mlbench.problem.target import make_target
from mlbench.training import comparison_sentence, tell
from mlbench.training.arena import READING, SHARE, Arena, Entry, FoldFit, _kept_fit, _without_features, folds_in_time


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


def test_the_least_there_is_has_learnt_something(table):
    entries = mb.fit(table, "left", time_limit=0.01, verbose=False).comparison.arena.entries
    assert sorted(entries["linear"].fits) == [0, 1] and not entries["linear"].failure and entries["lightgbm"].failure


def test_a_memory_limit_that_leaves_room_for_linear_models_only(table):
    model = mb.fit(table, "left", memory_gb=0.05, models=["dummy", "linear", "lightgbm", "random_forest"], verbose=False)
    assert model.spec_name in ("linear", "ensemble")
    assert "memory limit of 0.05 GB was reached, and random_forest, lightgbm were left out" in model.comparison.notes[-1]
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


ENDLESS = """
import os, signal
import numpy as np, pandas as pd
import mlbench as mb
from mlbench.models import rounds
from mlbench.models.registry import model_spec
from mlbench.training import front

rng = np.random.default_rng(0)
frame = pd.DataFrame({"x": rng.normal(size=300), "z": rng.normal(size=300)})
frame["y"] = frame["x"] * 2 + rng.normal(size=300)
real = rounds.Watch.stop

def stop(watch, loss=None):
    if watch.done == 100:
        os.kill(os.getpid(), signal.SIGINT)
    return real(watch)

rounds.Watch.stop = stop
specs = [model_spec("dummy"), model_spec("linear"), model_spec("lightgbm").variant("endless", {"n_estimators": 10**8})]
front.line_up_for = lambda *given: specs
model = mb.fit(frame, "y", n_jobs=1, verbose=False)
fits = model.comparison.arena.entries["endless"].fits
print(len(fits), 100 < fits[0].again["n_estimators"] < 10**8, model.comparison.notes, np.isfinite(model.predict(frame)).all())
"""


def test_ctrl_c_does_not_wait_for_a_fit_that_would_go_on_for_ever():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ENDLESS], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 True") and "stopped (Ctrl-C)" in done.stdout and done.stdout.strip().endswith("True")


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


def arena_on(frame: pd.DataFrame, **more) -> Arena:
    "An arena on the table, three folds."
    problem = Problem.from_dict({"name": "t", "task": "binary", "target": "left", "data": "t.csv"})
    schema, target = infer_schema(frame), make_target(frame["left"], problem)
    at = np.arange(len(frame)) % 3
    folds = [(np.flatnonzero(at != k), np.flatnonzero(at == k)) for k in range(3)]
    given = {"schema": schema, "target": target, "metrics": ["log_loss"], "n_jobs": 1} | more
    return Arena(make_plan(schema, problem), frame, target.encode(frame["left"]), folds, **given)


def test_roles_of_columns_and_costs_are_obeyed(table):
    people = table.assign(person=np.repeat(np.arange(80), 5), day=pd.date_range("2024-01-01", periods=400))
    given: dict[str, Any] = {"models": ["linear"], "ensemble": False, "search_trials": 0, "verbose": False}
    model = mb.fit(people, "left", columns={"group": "person", "kinds": {"town": "text"}}, costs={"false_positive": 1, "false_negative": 9}, **given)
    person = people["person"].to_numpy()
    assert all(not set(person[f.train]) & set(person[f.test]) for f in model.comparison.arena.folds)
    assert next(c for c in model.schema.columns if c.name == "town").kind == "text" and model.threshold < 0.3 and "person" not in model.plan.inputs
    ordered = mb.fit(people, "left", columns={"time": "day"}, **given)
    assert all(f.train.max() < f.test.min() for f in ordered.comparison.arena.folds)
    with pytest.raises(ProblemError, match="grup"):
        mb.fit(people, "left", columns={"grup": "person"}, **given)
    with pytest.raises(UsageError, match="columns='person' must be a mapping"):
        mb.fit(people, "left", columns="person", **given)


def test_a_fit_that_alone_would_pass_the_memory_limit_is_left_out_before_it_begins():
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(rng.normal(size=(400, 1_000)), columns=[f"gene {n}" for n in range(1_000)]).assign(left=rng.choice(["no", "yes"], 400))
    limit = round(psutil.Process().memory_info().rss / 0.8e9 + 0.4, 2)  # far from used up, with no room for another 1.6 GB
    model = mb.fit(wide, "left", memory_gb=limit, models=["dummy", "linear", "tree", "xgboost_deep"], search_trials=0, n_jobs=1, verbose=False)
    found = model.comparison
    assert set(found.failures) == {"xgboost_deep"}
    assert "would take about 1.7 GB" in found.failures["xgboost_deep"], "a sum for each of 400 nodes, 1,000 columns and 256 bins"
    assert found.notes == [f"The memory limit of {limit:g} GB is too small for xgboost_deep."]
    assert "xgboost_deep" in comparison_sentence(found).text and model.spec_name != "xgboost_deep"
    card = Mock()
    tell(found, card)
    assert "constraints.memory_gb" in next(c.kwargs["proposal"] for c in card.finding.call_args_list if c.args[0] == "comparison cut short")
    record = found.arena.record()
    again = mb.fit(wide, "left", replay=record, memory_gb=limit, n_jobs=1, verbose=False)
    assert again.comparison.notes == found.notes and np.array_equal(again.output(wide), model.output(wide))


def test_a_long_table_is_cut_to_what_there_is_time_for_told_and_replayed(table, monkeypatch):
    monkeypatch.setattr("mlbench.training.extent.LARGE", 400)
    monkeypatch.setattr("mlbench.training.extent.rows_in_time", lambda cost, folds, seconds, workers: 250 if 0 < cost.row < 1 and seconds < 5 else 0)
    given: dict[str, Any] = {"models": ["linear", "lightgbm"], "verbose": False}
    cut = mb.fit(table, "left", time_limit=5, search_trials=0, **given)
    assert "learnt from 250 of 400 rows" in cut.facts["notes"][0] and cut.facts["rows"] == 250
    record = cut.comparison.arena.record()
    assert record["rows"] == 250 and np.array_equal(mb.fit(table, "left", replay=record, **given).output(table), cut.output(table))
    assert mb.fit(table, "left", **given).facts["rows"] == 400, "without a limit all rows are learnt from"
    del record["rows"]  # of an earlier version
    assert mb.fit(table, "left", replay=record, **given).facts["rows"] == 400


def test_a_fit_that_takes_long_does_not_keep_others_from_beginning(table, monkeypatch):
    from mlbench.training import arena as module

    quick, fit, order = threading.Event(), module.fit_fold, []

    def slow_first(spec: Any, fold: Any, *rest: Any) -> Any:
        if not order:
            order.append("slow")
            assert quick.wait(30), "four other fits have ended meanwhile"
        done = fit(spec, fold, *rest)
        order.append(spec.name)
        if len(order) == 5:
            quick.set()
        return done

    monkeypatch.setattr(module, "fit_fold", slow_first)
    arena = arena_on(table, n_jobs=2).compete(candidates("binary", ["linear", "tree"]))
    assert len(order) == 7 and all(list(e.fits) == [0, 1, 2] for e in arena.entries.values())


def test_ctrl_c_ends_the_fits_that_learn_in_rounds_and_the_record_replays_them(table, monkeypatch):
    arena, real = arena_on(table), rounds.Watch.stop

    def stop(watch: rounds.Watch, loss: float | None = None) -> bool:
        if watch.done == 5:
            arena.stop()
        return real(watch, loss)

    monkeypatch.setattr(rounds.Watch, "stop", stop)
    slow = {"n_estimators": 10**7, "learning_rate": 1e-4}
    arena.compete([model_spec("lightgbm").variant("endless", slow), *candidates("binary", ["linear"])])
    assert [1 <= f.again["n_estimators"] <= 6 for f in arena.entries["endless"].fits.values()] == [True]
    assert arena.entries["linear"].failure == "not compared: it was stopped before its turn" and arena.stopped and len(arena.notes) == 2
    monkeypatch.undo()
    again = arena_on(table).replay(arena.record())
    assert np.array_equal(again.entries["endless"].fits[0].output, arena.entries["endless"].fits[0].output)


def test_a_replay_is_not_cut_short_by_somebody_who_asks_for_the_end(table, monkeypatch):
    first, again, real = arena_on(table).compete(candidates("binary", ["dummy", "lightgbm"])), arena_on(table), rounds.Watch.stop

    def stop(watch: rounds.Watch, loss: float | None = None) -> bool:
        again.ending.set()
        return real(watch, loss)

    monkeypatch.setattr(rounds.Watch, "stop", stop)
    again.replay(first.record())
    assert again.ending.is_set() and np.array_equal(again.oof("lightgbm"), first.oof("lightgbm"))


def test_a_fit_that_was_broken_off_is_not_kept_for_the_next_attempt(table, tmp_path):
    arena = arena_on(table, checkpoints=Checkpoints(tmp_path))
    work = (model_spec("lightgbm"), arena.folds[0], arena.target, 0)
    with ended_by(arena.ending):
        arena.ending.set()
        assert _kept_fit(arena.keeper, "broken off", *work).again["n_estimators"] == 1 and not list(tmp_path.glob("*.checkpoint"))
        arena.ending.clear()
        assert _kept_fit(arena.keeper, "whole", *work).again["n_estimators"] > 1 and list(tmp_path.glob("whole.checkpoint"))


@pytest.fixture
def expensive(monkeypatch) -> None:
    "Each trial says that it took a second for each row."
    monkeypatch.setattr(rounds, "_trial", lambda estimator, X, y, X_val, size: (1, float(size)))


def test_a_model_that_would_take_too_long_is_told_and_the_first_one_is_fitted_all_the_same(table, expensive):
    many = pd.concat([table] * 5, ignore_index=True)
    arena = arena_on(many, time_limit=3_600.0).compete(candidates("binary", ["dummy", "linear", "svm", "k_neighbors"]))
    assert {n: bool(e.failure) for n, e in arena.entries.items()} == {"dummy": False, "linear": False, "svm": True, "k_neighbors": True}
    assert arena.entries["svm"].failure.startswith("not compared: about ") and "s allowed" in arena.entries["svm"].failure
    assert all(f.again in ({}, {"max_iter": FEWEST}) for f in arena.entries["linear"].fits.values()) and len(arena.entries["linear"].fits) == 3
    first = arena_on(many, time_limit=3_600.0).compete(candidates("binary", ["k_neighbors"]))
    assert sorted(first.entries["k_neighbors"].fits) == [0, 1, 2]  # the third fold because two were done


def test_without_a_limit_nothing_is_tried_first(table, monkeypatch):
    monkeypatch.setattr(rounds, "_trial", lambda *given: pytest.fail("a trial was made"))
    arena = arena_on(pd.concat([table] * 5, ignore_index=True)).compete(candidates("binary", ["linear", "k_neighbors"]))
    assert not any(e.failure for e in arena.entries.values())
    assert not any(e.failure for e in arena_on(table).replay(arena_on(table).compete(candidates("binary", ["svm"])).record()).entries.values())


def test_if_the_first_one_fails_the_next_has_to_be_there(table):
    arena = arena_on(table, time_limit=1e-6)
    specs = [model_spec("dummy"), model_spec("linear").variant("wrong", {"C": -1.0}), model_spec("linear"), model_spec("lightgbm")]
    arena.compete(specs)
    assert "InvalidParameterError" in arena.entries["wrong"].failure and sorted(arena.entries["linear"].fits) == [0, 1]
    assert not arena.entries["lightgbm"].fits


def test_a_constant_reads_no_features_of_its_own(table):
    arena = arena_on(table).compete(candidates("binary", ["dummy", "linear"]))
    assert all(list(fold.transformers) == ["linear"] for fold in arena.folds)
    assert [s.style for s in _without_features([model_spec("dummy"), model_spec("catboost")])] == ["native", "native"]
    assert _without_features([model_spec("dummy")]) == [model_spec("dummy")]


def timed(arena: Arena, left: float) -> Arena:
    "The arena with a clock that stands still."
    arena.time_left = lambda: left
    return arena


def test_the_time_of_features_is_taken_off_before_time_is_shared_out(table):
    arena = timed(arena_on(table, time_limit=100.0), 60.0)
    assert arena.seconds_for("trees", 1) == 20.0  # a third of what is left, for three folds
    arena.folds[0].seconds["linear"] = 6.0
    assert arena.features_ahead("linear") == 12.0 and arena.features_ahead("trees") == 18.0  # a style that nobody has made is taken to cost as much
    assert arena.seconds_for("linear", 1) == 16.0 and arena.seconds_for("trees", 9) == pytest.approx((60 - 18) * SHARE / 3)


@pytest.mark.parametrize(("workers", "folds", "waiting"), [(1, 3, 9), (2, 5, 9), (2, 4, 2), (2, 5, 1), (4, 5, 1), (1, 2, 3)])
def test_every_fold_of_a_candidate_is_given_the_same_time(table, workers, folds, waiting):
    arena, left, given = arena_on(table, time_limit=100.0), 60.0, []
    arena.workers, arena.n_folds = workers, folds
    for position in range(0, folds, workers):  # a round of fits side by side, each using all that it may
        given.append(timed(arena, left).seconds_for("trees", waiting, position))
        left -= given[-1]
    assert given == pytest.approx([given[0]] * len(given)) and left >= -1e-9


def test_features_that_take_long_leave_fewer_folds_and_keep_candidates_out(table):
    arena = timed(arena_on(table, time_limit=100.0), 60.0)
    assert arena.fewer_folds({"linear", "trees"}) == 3
    arena.folds[0].seconds["linear"] = READING * 100 / 2 / 2.5  # of two styles, two and a half folds
    assert arena.fewer_folds({"linear", "trees"}) == 2
    arena.folds[0].seconds["linear"] = 10.0
    entry = arena.entries.setdefault("linear", Entry(model_spec("linear")))
    assert not arena.too_slow(entry, 1)
    entry.fits = dict.fromkeys(range(3), FoldFit(np.zeros(1), fit_seconds=1.0))
    assert arena.fewer_folds({"linear", "trees"}) == 3  # somebody has them all already
    other = Entry(model_spec("lightgbm"))
    assert not arena.too_slow(other, 1) and timed(arena, 50.0).too_slow(other, 1)  # 30 seconds of features, and little time for anything after them


def test_a_candidate_goes_on_only_when_its_other_folds_and_their_features_are_in_time(table):
    arena = timed(arena_on(table, time_limit=100.0), 20.0)
    entry = Entry(model_spec("linear"), fits={0: FoldFit(np.zeros(1), fit_seconds=7.0, predict_seconds=1.0)})
    assert entry.per_fold == 8.0 and not arena.too_slow(entry, 1)
    arena.folds[0].seconds["linear"] = 5.0
    assert arena.too_slow(entry, 1)  # two folds of eight seconds, and features for ten


def test_networks_are_not_loaded_for_a_few_seconds(table, monkeypatch):
    arena, entry = timed(arena_on(table, time_limit=10.0), 10.0), Entry(model_spec("tabm"))
    monkeypatch.setattr("mlbench.training.arena.sys", SimpleNamespace(modules={}))
    assert arena.too_slow(entry, 1) and not timed(arena, 60.0).too_slow(entry, 1)
    monkeypatch.setattr("mlbench.training.arena.sys", SimpleNamespace(modules={"torch._dynamo": None}))
    assert not timed(arena, 10.0).too_slow(entry, 1)


def test_time_for_a_readable_leader_is_kept_back(table):
    arena = arena_on(table, time_limit=1_000.0, after=60.0)
    for name, seconds in (("linear", 4.0), ("lightgbm", 9.0)):
        arena.entries[name] = Entry(model_spec(name), {0: FoldFit(np.zeros(1), fit_seconds=seconds)}, {0: {"log_loss": 0.5}})
    arena.folds[0].seconds.update(linear=6.0, trees=1.0)
    arena.keep_back()
    assert arena.leader() == "linear" and arena.kept_back == pytest.approx(60 + 1.5 * 10, rel=0.01)  # the folds learn from two thirds of the rows
    assert arena.time_left() < 1_000 - 74
    arena.entries["lightgbm"].scores[0]["log_loss"] = 0.4
    arena.keep_back()
    assert arena.leader() == "lightgbm" and arena.kept_back == 60
    arena.entries["linear"].scoring = 50.0  # less than what is kept anyway
    arena.keep_back()
    assert arena.kept_back == 60
    arena.entries["linear"].scoring = 100.0
    arena.keep_back()
    assert arena.kept_back == 100  # what the scores took, for an ensemble that makes many of them
    nobody = arena_on(table, time_limit=1_000.0)
    nobody.entries = arena.entries
    nobody.keep_back()
    assert nobody.kept_back == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"time_limit": float("inf")}, "time_limit=inf must be a number above 0"),
        ({"time_limit": True}, "time_limit=True must be a number"),
        ({"models": "lightgbm"}, r"models=\['lightgbm'\]"),
        ({"ignore": "a"}, r"ignore=\['a'\]"),
        ({"n_jobs": "two"}, "n_jobs='two' must be a whole number"),
        ({"models": ["lightgbm", "linear"], "interpretable": True}, "lightgbm cannot be read by a person"),
        ({"replay": 5}, "not a int"),
        ({"replay": {"rows": "many"}}, "rows='many'.*whole number above 0"),
        ({"replay": {"rows": -5}}, "rows=-5"),
        ({"columns": {"ignore": "town"}}, r"ignore=\['town'\]"),
        ({"columns": ["town"]}, "columns=.*must be a mapping"),
        ({"replay": {"n_folds": 2, "notes": [], "candidates": [{"name": "x"}]}}, "again, failure, folds, kind, params, scale not found"),
    ],
)
def test_wrong_arguments_are_refused_in_words(wrong, words):
    frame = pd.DataFrame({"a": np.sin(np.arange(40.0)), "t": np.arange(40) % 2})
    with pytest.raises(UsageError, match=words):
        mb.fit(frame, "t", **{"models": ["linear"], "verbose": False} | wrong)


def test_minus_one_worker_means_all_cores():
    from mlbench.core.settings import thread_limit

    frame = pd.DataFrame({"a": np.sin(np.arange(40.0)), "t": np.arange(40) % 2})
    assert mb.fit(frame, "t", models=["linear"], n_jobs=-1, verbose=False).comparison.arena.workers == thread_limit()
