"Class weights and named variants: by name, in the arena, again from a record, on disk, in ONNX and as a script."

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_blend_export import arena_of, blended
from test_deployment_export import QUICK, customers
from test_eject import TARGETS, Case, check_same, well_formed

import mlbench as mb
from mlbench.core.errors import UsageError
from mlbench.deployment.parity import proven_onnx
from mlbench.models.registry import KINDS, SECONDS, WEIGHABLE, candidates, model_spec, portfolio
from mlbench.models.spaces import check_kinds, check_models
from mlbench.problem.problem import Problem
from mlbench.training.lineup import line_up
from mlbench.training.model import Model


def weighted(kind: str):
    "A kind that weighs classes, quick to fit."
    spec = model_spec(f"{kind}_weighted")
    return spec.variant(spec.name, QUICK.get(kind, {}))


@pytest.fixture(scope="module")
def few() -> pd.DataFrame:
    "Few events."
    table = customers(300)
    return table.assign(binary=np.where(np.arange(len(table)) % 9 == 0, table["binary"], "no"))


@pytest.fixture(scope="module", params=["binary", "multiclass"])
def arena(request, few):
    "All kinds that weigh classes; in the second fold of several classes one is missing."
    return arena_of(few, request.param, [weighted(k) for k in WEIGHABLE], request.param == "multiclass")


def test_every_kind_that_can_weigh_does_and_is_exported(arena):
    arena, model, data = arena
    assert not [e.failure for e in arena.entries.values() if e.failure]
    for kind in WEIGHABLE:
        model = blended(arena, model, {f"{kind}_weighted": 1.0})
        assert proven_onnx(model, data, 1e-5, rows=100)[1].passed, kind
    assert len(arena.oof("linear_weighted")) == len(data)


def test_a_record_gives_the_same_models_again(arena, few):
    arena, _, _ = arena
    task, names = arena.target.task, ["linear", "lightgbm", "xgboost", "catboost", "hist_gradient_boosting", "extra_trees", "svm", "mlp", "tabm"]
    first, _, _ = arena_of(few, task, [weighted(k) for k in names])
    record = first.record()
    assert {c["params"]["class_weight"] for c in record["candidates"]} == {"balanced"}
    again, _, _ = arena_of(few, task, [])
    again.replay(record)
    for name in first.entries:
        assert np.array_equal(first.oof(name), again.oof(name)), name


@pytest.mark.parametrize("kind", ["svm", "mlp", "tabm"])
def test_weights_make_a_rare_class_likelier_and_none_change_nothing(kind):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 3)), (rng.random(300) < 0.1).astype(int)
    X[:, 0] += y
    quick = {"max_epochs": 6} if kind != "svm" else {}
    made = {w: model_spec(kind).build("binary", 2, **quick, class_weight=w).fit(X, y) for w in (None, "balanced")}
    said = {w: model.predict_proba(X)[:, 1].mean() for w, model in made.items()}
    assert said["balanced"] > said[None] + 0.15
    alike = model_spec(kind).build("binary", 2, **quick, class_weight={0: 1, 1: 1}).fit(X, y)
    np.testing.assert_allclose(alike.predict_proba(X), made[None].predict_proba(X), atol=1e-5)
    for task in ("binary", "regression"):  # as stored before weights could be chosen
        old = model_spec(kind).build(task, 2)
        del old.__dict__["class_weight"]
        assert old.get_params()["class_weight"] is None


def test_held_out_rows_of_a_network_weigh_as_those_to_learn_from():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 2)), (np.arange(400) % 10 == 0).astype(int)
    X[:, 0] += 2 * y
    for kind in ("mlp", "tabm"):
        model = model_spec(kind).build("binary", 2, max_epochs=4, class_weight="balanced").fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
        p = model_spec(kind).build("binary", 2, class_weight="balanced", max_epochs=1, validation_fraction=0).fit(X[:300], y[:300]).predict_proba(X[300:])
        fair = np.mean([-np.log(p[y[300:] == k, k]).mean() for k in (0, 1)])
        assert model.history_[0]["validation_loss"] == pytest.approx(fair, rel=1e-3), kind


def test_weights_find_more_of_a_rare_class():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(600, 3)), columns=list("abc"))
    frame["y"] = np.where(frame["a"] + 0.5 * frame["b"] + rng.normal(0, 0.8, 600) > 2.1, "yes", "no")
    names = [n for k in ("linear", "lightgbm") for n in (k, f"{k}_weighted")]
    found = mb.fit(frame, "y", models=names, metric="balanced_accuracy", ensemble=False, search_trials=0, verbose=False).comparison
    scores = {n: e.mean("balanced_accuracy") for n, e in found.arena.entries.items()}
    assert scores["linear_weighted"] > scores["linear"] + 0.05 and scores["lightgbm_weighted"] > scores["lightgbm"] + 0.05
    assert found.chosen.endswith("_weighted")


def test_a_readable_model_with_weights_is_kept_and_opened(few, tmp_path):
    frame = few.drop(columns=["regression", "multiclass"])
    model = mb.fit(frame, "binary", models=["linear_weighted"], ensemble=False, search_trials=0, verbose=False)
    assert model.estimator.class_weight == "balanced"
    assert np.array_equal(Model.load(model.save(tmp_path / "model")).output(frame), model.output(frame))


def test_as_a_script(tmp_path, monkeypatch):
    monkeypatch.setitem(TARGETS, "binary", lambda z: np.where(z > z.quantile(0.9), "yes", "no"))
    case = Case("binary", ["linear"])
    case.arena.compete([weighted(k) for k in ("linear", "lightgbm", "xgboost", "catboost", "hist_gradient_boosting", "extra_trees", "svm", "mlp", "tabm")])
    text = check_same(case.blend(), case.rows, case.new, tmp_path)
    assert "class_weight" in text
    well_formed(text, tmp_path)


def test_every_variant_can_be_named():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.normal(size=120), "b": rng.choice(list("xyz"), 120)})
    frame["y"] = np.where(frame["a"] + (frame["b"] == "x") > 0.5, "yes", "no")
    names = ["extra_trees_deep", "linear_strict", "lightgbm_extra_weighted", "linear_balanced"]
    model = mb.fit(frame, "y", models=names, ensemble=False, search_trials=0, verbose=False)
    board = model.comparison.arena.entries
    assert set(board) == set(names) and not [e.failure for e in board.values() if e.failure]
    assert board["extra_trees_deep"].spec.params["min_samples_leaf"] == 1 and board["linear_balanced"].spec.scale == "balanced"
    prices = frame.assign(y=np.exp(2 * frame["a"] + rng.normal(size=120)))
    model = mb.fit(prices, "y", models=["linear_firm_log", "extra_trees_wide"], ensemble=False, search_trials=0, verbose=False)
    assert model.comparison.arena.entries["linear_firm_log"].spec.scale == "log"
    plain = [*KINDS, *SECONDS]
    for name in [*plain, *(f"{k}_weighted" for k in WEIGHABLE), *(f"{k}_{w}" for k in plain for w in ("log", "balanced") if "linear_" not in k)]:
        spec = model_spec(name)
        assert spec.name == name and spec.build(spec.tasks[0], 2, rows=100, columns=4).get_params() is not None


@pytest.mark.parametrize(
    ("task", "names", "words"),
    [
        ("binary", ["k_neighbors_weighted"], "k_neighbors cannot weigh classes: the nearest rows are counted"),
        ("binary", ["k_neighbors_weighted"], "So there is no k_neighbors_weighted; k_neighbors_balanced learns from fewer rows of the frequent classes."),
        ("binary", ["one_rule_weighted"], "one_rule cannot weigh classes"),
        ("regression", ["linear", "lightgbm_weighted"], "The task here is regression: lightgbm_weighted is for binary and multiclass. Leave it out"),
        ("binary", ["linear_firm"], "The task here is binary: linear_firm is for regression"),
        ("binary", ["linear_strict_log"], "linear_strict is for binary and multiclass, and 'log' for regression"),
        ("binary", ["lightgbm_weigthed"], "Did you mean 'lightgbm_weighted'?"),
        ("binary", ["extra_tree_deep"], "Did you mean 'extra_trees_deep'?"),
        ("binary", ["lightgmb"], "Did you mean 'lightgbm'?"),
    ],
)
def test_names_that_cannot_compete(task, names, words):
    problem = Problem.from_dict({"name": "x", "task": task, "target": "y", "data": "x.csv"})
    for ask in (lambda: candidates(task, names), lambda: check_models(names, problem)):
        with pytest.raises(UsageError) as error:
            ask()
        assert words in str(error.value)


def test_a_search_is_of_kinds_or_their_variants():
    problem = Problem.from_dict({"name": "x", "task": "binary", "target": "y", "data": "x.csv"})
    check_models(["extra_trees_deep", "lightgbm_weighted"], problem)
    check_kinds(["lightgbm"], problem)
    with pytest.raises(UsageError, match="Did you mean 'lightgbm'"):
        check_kinds(["lightgmb"], problem)


def test_who_weighs_follows_metric_and_classes():
    rare, even = np.where(np.arange(600) % 30 == 0, 2, np.arange(600) % 2), np.arange(600) % 3
    names = lambda y, chooser: {s.name for s in line_up("multiclass", y, 10, chooser=chooser)}
    assert {"linear_weighted", "lightgbm_weighted", "catboost_weighted"} <= names(rare, "f1_macro")
    assert not [n for n in names(rare, "log_loss") | names(rare, None) | names(even, "f1_macro") if n.endswith("_weighted")]
    assert [s.name for s in portfolio("multiclass", 600, 9, readable=True, uneven=True)][:3] == ["dummy", "linear", "linear_weighted"]
    two = (rare == 2).astype(int)  # a line between the answers does it for nothing
    assert not [s for s in line_up("binary", two, 4, chooser="f1") if "class_weight" in s.params]
    assert not [s for s in line_up("regression", np.arange(90.0), 4, chooser="rmse") if "class_weight" in s.params]
