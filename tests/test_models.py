"The estimators of mlbench: scikit-learn's own checks, determinism, odd input."

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from mlbench.core.errors import UsageError
from mlbench.models import OneRuleClassifier, OneRuleRegressor, TorchMLPClassifier, TorchMLPRegressor, candidates, model_spec, rule_text
from mlbench.models.baseline import cut_points, group_of, merge_groups
from mlbench.models.neural import Training, forward, split_held_out, train_network


@pytest.mark.parametrize(
    "estimator",
    [
        OneRuleClassifier(),
        OneRuleRegressor(),
        TorchMLPClassifier((16,), random_state=0, max_epochs=60, validation_fraction=0.0),  # five rows held out of fifty say nothing
        TorchMLPRegressor((16,), random_state=0, max_epochs=25),
    ],
    ids=lambda e: type(e).__name__,
)
def test_scikit_learn_accepts_the_estimator(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None)
    failed = {r["check_name"]: str(r["exception"])[:200] for r in results if r["status"] == "failed"}
    assert not failed and len(results) > 20


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_candidate_builds_fits_and_clones(task):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 4))
    y = X[:, 0] if task == "regression" else np.clip((X[:, 0] > 0).astype(int) + (X[:, 1] > 1 if task == "multiclass" else 0), 0, 2)
    specs = candidates(task)
    assert len(specs) == 7
    for spec in specs:
        estimator = spec.build(task, None if task == "regression" else len(np.unique(y)), seed=1)
        fitted = clone(estimator).fit(X, y)
        assert len(fitted.predict(X)) == 90
        assert not hasattr(estimator, "n_features_in_")
        if task != "regression":
            assert np.allclose(fitted.predict_proba(X).sum(axis=1), 1)


@pytest.mark.parametrize("name", ["hist_gradient_boosting", "lightgbm", "mlp"])
def test_the_same_seed_gives_the_same_model(name):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 6)), rng.integers(0, 2, 400)
    a, b = (model_spec(name).build("binary", 2, seed=5).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    c = model_spec(name).build("binary", 2, seed=6).fit(X, y).predict_proba(X)
    assert not np.array_equal(a, c)


def test_threads_do_not_change_lightgbm():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(500, 5)), rng.normal(size=500)
    one, two = (model_spec("lightgbm").build("regression", seed=0, n_jobs=n).fit(X, y).predict(X) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_wide_tables_show_each_tree_a_sample_of_columns():
    narrow, wide = (model_spec("lightgbm").build("binary", 2, columns=c).get_params()["colsample_bytree"] for c in (20, 5_000))
    assert narrow == 0.6 and wide == pytest.approx(0.06)
    assert model_spec("hist_gradient_boosting").build("binary", 2, columns=5_000).get_params()["max_features"] == pytest.approx(0.06)


def test_unknown_models_and_tasks_are_named():
    with pytest.raises(UsageError, match="lightgbm"):
        model_spec("lightgb")
    with pytest.raises(UsageError, match="regression"):
        candidates("regresion")
    with pytest.raises(UsageError, match="interpretable"):
        candidates("binary", ["mlp"], readable=True)


def test_cut_points_of_hard_columns():
    assert len(cut_points(np.full(10, np.nan), 4)) == 0
    assert len(cut_points(np.zeros(10), 4)) == 0
    skewed = np.concatenate([np.zeros(990), np.arange(1, 11.0)])
    edges = cut_points(skewed, 4)
    assert len(edges) >= 1 and (np.diff(edges) > 0).all()
    assert group_of(np.array([0.0, np.nan]), edges).tolist() == [0, len(edges) + 1]


def test_one_rule_merges_groups_that_say_the_same():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 2_000)
    rule = OneRuleClassifier().fit(x[:, None], ((x > 0.5) ^ (rng.uniform(size=2_000) < 0.1)).astype(int))
    assert 1 <= len(rule.edges_) <= 4 and min(abs(rule.edges_ - 0.5)) < 0.08
    assert len(rule_text(rule, "x")) == len(rule.edges_) + 2
    edges, _ = merge_groups(np.array([1.0]), np.array([[5.0, 5], [5, 5], [0, 0]]), lambda c: float(len(c)))
    assert len(edges) == 0


def test_one_rule_with_columns_that_are_all_missing():
    X = np.full((40, 2), np.nan)
    rule = OneRuleRegressor().fit(X, np.arange(40.0))
    assert np.isfinite(rule.predict(X)).all()
    assert np.isfinite(OneRuleClassifier().fit(X, np.arange(40) % 2).predict_proba(X)).all()


@pytest.mark.parametrize("estimator", [OneRuleClassifier(), TorchMLPClassifier()])
def test_one_class_is_refused(estimator):
    with pytest.raises(ValueError, match="one class"):
        estimator.fit(np.zeros((20, 2)), np.zeros(20))


def test_the_network_takes_sparse_rows_and_gives_the_same():
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 8)) * (rng.uniform(size=(200, 8)) < 0.3)
    y = (X[:, 0] > 0).astype(int)
    dense, sparse = (TorchMLPClassifier(random_state=0, max_epochs=5).fit(data, y) for data in (X, csr_matrix(X)))
    np.testing.assert_allclose(dense.predict_proba(X), sparse.predict_proba(csr_matrix(X)), rtol=1e-9)


def test_the_network_leaves_the_state_of_torch_alone():
    import torch

    torch.manual_seed(11)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    TorchMLPRegressor(random_state=0, max_epochs=2).fit(np.random.default_rng(0).normal(size=(60, 3)), np.arange(60.0))
    assert torch.equal(before, torch.random.get_rng_state()) and torch.get_num_threads() == threads


def test_a_constant_target_and_huge_values_stay_finite():
    X = np.random.default_rng(0).normal(size=(80, 3))
    assert (TorchMLPRegressor(random_state=0, max_epochs=5).fit(X, np.full(80, 7.0)).predict(X) == 7.0).all()
    assert np.isfinite(TorchMLPRegressor(random_state=0, max_epochs=5).fit(X, X[:, 0] * 1e9).predict(X)).all()


def test_early_stopping_keeps_the_best_epoch():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 30)), rng.integers(0, 2, 300)  # nothing to learn: it must stop soon
    model = TorchMLPClassifier(random_state=0, patience=3, validation_fraction=0.2).fit(X, y)
    losses = [h["validation_loss"] for h in model.history_]
    assert model.n_iter_ < 60
    train, held_out = split_held_out(300, 0.2, np.random.RandomState(0), y)
    scores = forward(X[held_out], model.weights_, model.biases_)
    log_z = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
    assert np.mean(log_z - scores[np.arange(len(held_out)), y[held_out]]) == pytest.approx(min(losses), abs=1e-5)


def test_training_that_explodes_ends_with_finite_weights():
    import torch

    X, target = np.full((64, 2), 1e30), torch.full((64, 1), 1e30)
    rows, none = np.arange(64), np.array([], dtype=int)
    weights, biases, history = train_network(X, target, 1, torch.nn.functional.mse_loss, rows, none, Training(max_epochs=5))
    assert all(np.isfinite(w).all() for w in weights + biases) and len(history) == 1
