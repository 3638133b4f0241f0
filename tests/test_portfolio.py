"Every kind of model on every awkward table: it fits, stops, replays and is stored, or says clearly why not."

from __future__ import annotations

import copy
import itertools
import pickle
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone

from mlbench.core.errors import UsageError
from mlbench.models import rounds as rounds_module
from mlbench.models.catboosting import automatic_rate
from mlbench.models.registry import MODELS, TASKS, model_spec, portfolio
from mlbench.models.rounds import Watch, fit_rounds, replay_parameters, rounds_parameter
from mlbench.training.store import estimator_bytes, read_estimator, untrusted_types

KINDS = [s.name for s in MODELS if s.name != "word_bag"]  # which reads words and nothing else, and says so
QUICK = {"mlp": {"max_epochs": 6}, "tabm": {"max_epochs": 4, "members": 4, "width": 16}, "catboost": {"iterations": 60}, "network": {"max_epochs": 3}}
QUICK |= {"random_forest": {"n_estimators": 20}, "extra_trees": {"n_estimators": 20}, "lightgbm": {"n_estimators": 80}, "xgboost": {"n_estimators": 80}}
QUICK |= {"hist_gradient_boosting": {"max_iter": 80}, "additive_boosting": {"max_iter": 80}}


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def table(task: str, rows: int = 240, columns: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    "Numbers, with a category as a code in the last column."
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, columns))
    X[:, -1] = rng.integers(0, 6, rows)
    signal = X[:, 0] + 0.5 * (X[:, -1] > 2) + rng.normal(scale=0.5, size=rows)
    return X, {"regression": 100 + 10 * signal, "binary": (signal > 0.2) * 1, "multiclass": (signal > -0.2) * 1 + (signal > 0.7) * 1}[task]


def build(kind: str, task: str, X: np.ndarray, **params):
    spec = model_spec(kind)
    places = (X.shape[1] - 1,) if spec.style == "native" else ()
    classes = None if task == "regression" else 3
    return spec.build(task, classes, seed=1, columns=X.shape[1], rows=len(X), categories=places, **QUICK.get(kind, {}) | params)


def output(model, X):
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)


def check(model, X, classes=None):
    "The output is finite, and probabilities sum to one."
    out = output(model, X)
    assert np.isfinite(out).all()
    if classes is not None:
        assert out.shape == (len(X), len(classes)) and np.allclose(out.sum(axis=1), 1, atol=1e-6) and list(model.classes_) == list(classes)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_fits_stops_by_held_out_rows_and_replays_the_same(kind, task):
    X, y = table(task)
    train, held = slice(0, 180), slice(180, 240)
    model = build(kind, task, X[train])
    rounds = fit_rounds(model, X[train], y[train], X[held], y[held], seconds=60)
    name = rounds_parameter(model)
    assert (rounds is None) == (name is None) and (rounds is None or model.get_params()[name] == rounds >= 1)
    check(model, X, None if task == "regression" else np.unique(y[train]))
    settings = QUICK.get(kind, {}) | replay_parameters(model)
    for again in (clone(model), model_spec(kind).build(task, 3, 1, 1, 4, 180, (3,) if kind == "catboost" else (), **settings)):
        assert np.array_equal(output(again.fit(X[train], y[train]), X), output(model, X))


@pytest.mark.parametrize("kind", [k for k in KINDS if rounds_parameter(build(k, "binary", np.zeros((9, 2))))])
def test_without_time_there_is_one_round_or_little_more_and_it_replays(kind):
    X, y = table("regression", 400)
    name = rounds_parameter(build(kind, "regression", X))
    model = build(kind, "regression", X[:300], **{"max_epochs" if name == "steps" else name: 1_000_000})  # steps that are given are taken
    start = time.perf_counter()
    rounds = fit_rounds(model, X[:300], y[:300], X[300:], y[300:], seconds=0.0, refuse=False)
    assert 1 <= rounds < 1000 and time.perf_counter() - start < 10
    check(model, X)
    again = clone(model).set_params(**{rounds_parameter(model): rounds}).fit(X[:300], y[:300])
    assert np.array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_model_holds_only_trusted_types_and_predicts_the_same(kind):
    for task in ("multiclass", "regression"):
        X, y = table(task, 120)
        model = build(kind, task, X)
        fit_rounds(model, X[:90], y[:90], X[90:], y[90:])
        before = output(model, X)  # opens what is opened lazily
        data = estimator_bytes(model)
        assert untrusted_types(data) == [] and np.array_equal(output(read_estimator(data), X), before)
        assert estimator_bytes(read_estimator(data)) == data
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert "_open_model" not in vars(twin) and np.array_equal(output(twin, X), before)


@pytest.mark.parametrize("kind", KINDS)
def test_classes_may_have_gaps_and_be_absent_from_either_side(kind):
    X, y = table("multiclass", 200)
    codes = np.array([0, 2, 5])[y]
    codes[:150][codes[:150] == 5] = 2
    codes[150:153] = 5  # held out only
    for held in (slice(150, 200), slice(150, 153), slice(0, 0)):
        model = build(kind, "multiclass", X[:150])
        fit_rounds(model, X[:150], codes[:150], X[held], codes[held])
        check(model, X, [0, 2])
    codes[:150][:10] = 7  # to learn from only
    model = build(kind, "multiclass", X[:150])
    fit_rounds(model, X[:150], codes[:150], X[153:], codes[153:])
    check(model, X, [0, 2, 7])


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_per_class_and_hardly_any_rows(kind):
    X, _ = table("multiclass", 6)
    for y in (np.array([0, 1, 2, 3, 4, 5]), np.array([0, 0, 0, 1, 1, 1])):
        model = build(kind, "multiclass", X)
        fit_rounds(model, X, y)
        check(model, X, np.unique(y))
    model = build(kind, "regression", X)
    fit_rounds(model, X, np.arange(6.0))
    check(model, X)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_values_constant_columns_one_column_and_more_columns_than_rows(kind):
    X, y = table("binary", 90)
    trees = model_spec(kind).style in ("trees", "native")
    awkward = {"one column": X[:, :1], "constant columns": np.column_stack([X, np.zeros(90), np.ones(90)]), "huge": X * 1e12}
    awkward["wide"] = np.random.default_rng(3).normal(size=(90, 150))
    if trees:
        holes = X.copy()
        holes[::3, 0], holes[:, 1] = np.nan, np.nan
        awkward["holes"] = holes
    for name, rows in awkward.items():
        spec = model_spec(kind)
        model = spec.build("binary", 2, seed=1, columns=rows.shape[1], rows=60, **QUICK.get(kind, {}))
        fit_rounds(model, rows[:60], y[:60], rows[60:], y[60:])
        check(model, rows, [0, 1])
        assert name


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_target_is_predicted_or_refused_with_the_reason(kind):
    X, _ = table("regression", 60)
    model = build(kind, "regression", X)
    fit_rounds(model, X[:45], np.full(45, 7.5), X[45:], np.full(15, 7.5))
    assert np.allclose(model.predict(X), 7.5, atol=1e-6)
    model = build(kind, "binary", X)
    try:
        fit_rounds(model, X, np.zeros(60))
    except ValueError as error:
        assert "class" in str(error).lower()
    else:
        assert (np.asarray(model.predict(X)) == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_columns_that_are_all_constant_give_a_constant_or_a_reason(kind):
    X, y = np.zeros((60, 3)), np.arange(60) % 2
    model = build(kind, "binary", X)
    try:
        fit_rounds(model, X[:45], y[:45], X[45:], y[45:])
    except ValueError as error:
        assert "constant" in str(error)
    else:
        assert np.ptp(model.predict_proba(X)[:, 0]) < 1e-9


@pytest.mark.parametrize("kind", ["catboost", "xgboost", "svm", "mlp", "tabm", "sparse_linear"])
def test_infinities_are_refused_in_words(kind):
    X, y = table("binary", 60)
    X[3, 0] = np.inf
    with pytest.raises(ValueError, match="infinity|infinite"):
        build(kind, "binary", X).fit(X, y)


@pytest.mark.parametrize("kind", [s.name for s in MODELS if s.style == "linear"])
def test_sparse_rows_give_the_same_as_dense_ones(kind):
    X, y = table("binary", 150, 12)
    X[:, :-1] *= np.random.default_rng(5).uniform(size=(150, 11)) < 0.3
    dense, sparse = (build(kind, "binary", X) for _ in range(2))
    fit_rounds(dense, X[:100], y[:100], X[100:], y[100:])
    fit_rounds(sparse, csr_matrix(X[:100]), y[:100], csr_matrix(X[100:]), y[100:])
    np.testing.assert_allclose(
        output(sparse, csr_matrix(X)), output(dense, X), atol=0.1 if kind == "sparse_linear" else 1e-5
    )  # saga stops early, and not at the same place


@pytest.mark.parametrize("kind", ["catboost", "xgboost", "lightgbm"])
def test_short_time_takes_larger_steps_instead_of_breaking_off(kind, monkeypatch):
    X, y = table("regression", 600)
    name = rounds_parameter(build(kind, "regression", X))
    model = build(kind, "regression", X, **{name: 3_000}, learning_rate=None if kind == "catboost" else 0.004)
    ticks = itertools.count()  # a clock that goes on by 10 ms whenever it is asked
    monkeypatch.setattr(rounds_module, "time", SimpleNamespace(perf_counter=lambda: next(ticks) / 100))
    rounds = fit_rounds(model, X[:500], y[:500], X[500:], y[500:], seconds=1.0)
    assert rounds <= 100 and model.learning_rate > (automatic_rate("RMSE", 500, 3_000, True) if kind == "catboost" else 0.004)
    assert np.corrcoef(model.predict(X[500:]), y[500:])[0, 1] > 0.7


def test_patience_grows_with_the_rounds_and_a_loss_that_is_no_number_is_no_gain():
    watch = Watch()
    assert not any(watch.stop(1 / n) for n in range(1, 101))
    assert not any(watch.stop(float("nan")) for _ in range(39)) and watch.stop(5.0) and watch.best_round == 100


def test_catboost_weights_count_and_files_are_not_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, y = table("binary", 200)
    plain = build("catboost", "binary", X).fit(X, y)
    heavy = build("catboost", "binary", X).fit(X, y, sample_weight=np.where(y == 1, 20.0, 1.0))
    assert heavy.predict_proba(X)[:, 1].mean() > plain.predict_proba(X)[:, 1].mean() + 0.05
    boosted = build("xgboost", "binary", X).fit(X, y, sample_weight=np.where(y == 1, 20.0, 1.0))
    assert boosted.predict_proba(X)[:, 1].mean() > build("xgboost", "binary", X).fit(X, y).predict_proba(X)[:, 1].mean()
    assert not list(tmp_path.iterdir())


def test_forests_on_many_rows_stay_small():
    X, _ = table("binary", 12_000)
    y = np.random.default_rng(0).integers(0, 2, 12_000)
    model = model_spec("extra_trees").build("binary", 2, rows=12_000, n_estimators=4).fit(X, y)
    assert sum(t.tree_.node_count for t in model.estimators_) < 4 * 2 * 2_000


def test_every_candidate_of_the_portfolio_fits():
    X, y = table("regression", 80)
    for spec in portfolio("regression", 80, 4, skewed=True):
        if spec.name != (spec.base or spec.name) and not spec.name.endswith("_log"):
            quick = QUICK.get(spec.base, {})
            model = spec.build("regression", None, 1, 1, 4, 80, **quick)
            fit_rounds(model, X[:60], y[:60], X[60:], y[60:], seconds=2)
            check(model, X)


def test_the_portfolio_knows_task_rows_and_wishes():
    for task in TASKS:
        names = [s.name for s in portfolio(task, 2_000, 30)]
        assert len(set(names)) == len(names) and names[0] == "dummy" and ("linear_strict" in names) == (task != "regression")
        assert not {"svm", "k_neighbors"} & {s.name for s in portfolio(task, 100_000, 30)}
    assert {s.scale for s in portfolio("binary", 500, 9, skewed=True)} == {"identity"}
    assert [s.name for s in portfolio("regression", 500, 9, families=["one_rule"])] == ["dummy", "one_rule"]
    with pytest.raises(UsageError, match="catboost"):
        portfolio("binary", 500, 9, families=["catbost"])
    with pytest.raises(UsageError, match="regression"):
        portfolio("regresion", 500, 9)
    with pytest.raises(UsageError, match="none"):
        portfolio("binary", 500, 9, families=["catboost"], readable=True)
