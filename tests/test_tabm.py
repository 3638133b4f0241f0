"Networks of members: scikit-learn's own checks, the same weights again, threads, time, odd input, storage, ONNX."

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.estimator_checks import check_estimator

from mlbench.deployment.onnx import pipeline_to_onnx
from mlbench.deployment.steps import converted, feeds
from mlbench.models import TabMClassifier, TabMRegressor, TorchMLPClassifier, model_spec
from mlbench.models import tabm as module
from mlbench.models.rounds import fit_rounds
from mlbench.models.tabm import EMBEDDED, arranged, learn_columns
from mlbench.training.store import estimator_bytes, read_estimator

SMALL = {"members": 3, "width": 16, "random_state": 0}


def table(rows=300, seed=0, classes=2):
    "Two numbers with a bent border, one plain column, one that says nothing."
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=(rows, 2)), rng.integers(0, 2, rows), rng.lognormal(size=rows)])
    return X, np.digitize(np.abs(X[:, 0]) + X[:, 2], np.linspace(0.5, 1.5, classes - 1))


def same_weights(a, b):
    return a.weights_.keys() == b.weights_.keys() and all(np.array_equal(w, b.weights_[name]) for name, w in a.weights_.items())


@pytest.mark.parametrize(
    "estimator",
    [TabMClassifier(2, 16, averaging=0.9, random_state=0, max_epochs=12), TabMRegressor(2, 16, averaging=0.9, random_state=0, max_epochs=12)],
    ids=lambda e: type(e).__name__,
)
def test_scikit_learn_accepts_the_estimator(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None)
    failed = {r["check_name"]: str(r["exception"])[:200] for r in results if r["status"] == "failed"}
    assert not failed and len(results) > 20


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_epochs_that_were_kept_give_the_same_weights_without_validation(task, sparse):
    X, y = table(classes=4 if task == "multiclass" else 2)
    if task == "multiclass":
        y = np.where(y == 1, 7, y)  # codes with gaps
    y = X[:, 0] ** 2 if task == "regression" else y
    X = csr_matrix(X) if sparse else X
    model = (TabMRegressor if task == "regression" else TabMClassifier)(**SMALL, patience=2, max_epochs=12)
    stopped = clone(model).fit(X[:200], y[:200], X[200:], y[200:])
    again = clone(model).set_params(max_epochs=stopped.n_iter_, validation_fraction=0).fit(X[:200], y[:200])
    assert same_weights(stopped, again) and again.n_iter_ == stopped.n_iter_ == len(again.history_)
    assert stopped.n_iter_ == 1 + int(np.argmin([h["validation_loss"] for h in stopped.history_]))


def test_a_fit_under_watch_can_be_had_again():
    X, y = table()
    estimator = model_spec("tabm").build("binary", 2, seed=4, max_epochs=6, width=16, members=2)
    rounds = fit_rounds(estimator, X[:200], y[:200], X[200:], y[200:])
    assert rounds == estimator.n_iter_ and same_weights(clone(estimator).fit(X[:200], y[:200]), estimator)


def test_fits_in_two_threads_are_those_of_one():
    X, y = table(600)
    makers = [lambda seed=seed: TabMClassifier(members=3, width=16, random_state=seed, max_epochs=4).fit(X, y) for seed in (0, 1)]
    makers += [lambda seed=seed: TorchMLPClassifier((16,), random_state=seed, max_epochs=4).fit(X, y) for seed in (0, 1)]
    alone = [make().predict_proba(X) for make in makers]
    with ThreadPoolExecutor(4) as pool:
        together = [f.result().predict_proba(X) for f in [pool.submit(make) for make in makers]]
    for a, b in zip(alone, together):
        np.testing.assert_array_equal(a, b)


def test_the_state_of_torch_is_left_alone():
    import torch

    torch.manual_seed(11)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    TabMRegressor(**SMALL, max_epochs=2).fit(*table(60))
    assert torch.equal(before, torch.random.get_rng_state()) and torch.get_num_threads() == threads


def ticking(monkeypatch, step=1.0):
    "A clock that moves on by one step each time somebody looks."
    now = [0.0]

    def monotonic():
        now[0] += step
        return now[0]

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=monotonic))


def test_time_ends_within_an_epoch_and_the_rest_is_what_it_would_have_been(monkeypatch):
    X, y = table(320)
    model = TabMClassifier(**SMALL, batch_size=32, validation_fraction=0)  # ten steps in each epoch; the first ones do not look
    ticking(monkeypatch)
    hurried = clone(model).fit(X, y, seconds=15)
    monkeypatch.undo()
    assert hurried.n_iter_ == len(hurried.history_) == 2
    assert same_weights(hurried, clone(model).set_params(max_epochs=2).fit(X, y))


def test_no_time_at_all_still_gives_one_epoch():
    X, y = table()
    assert TabMClassifier(**SMALL).fit(X, y, X, y, seconds=0).n_iter_ == 1
    assert TabMRegressor(**SMALL).fit(X, y, seconds=-5.0).n_iter_ == 1


def test_many_rows_make_short_epochs(monkeypatch):
    monkeypatch.setattr(module, "EPOCH_ROWS", 64)
    steps, real = [], module._step
    monkeypatch.setattr(module, "_step", lambda state, table, rows, training: steps.append(len(rows)) or real(state, table, rows, training))
    TabMClassifier(**SMALL, max_epochs=3, batch_size=32, validation_fraction=0).fit(*table())
    assert steps == [32, 32] * 3


def test_validation_rows_are_checked():
    X, y = table()
    with pytest.raises(ValueError, match="300 rows and y_val has 3 values"):
        TabMClassifier(**SMALL).fit(X, y, X, y[:3])
    with pytest.raises(ValueError, match="y_val has 0 values"):
        TabMRegressor(**SMALL).fit(X, y, X)
    with pytest.raises(ValueError, match="features"):
        TabMRegressor(**SMALL).fit(X, y, X[:, :2], y)


def test_classes_that_only_validation_rows_have_are_left_out():
    X, y = table()
    model = TabMClassifier(**SMALL, max_epochs=2)
    a = clone(model).fit(X, y, np.vstack([X[:50], X[:5]]), np.append(y[:50], [9] * 5))
    b = clone(model).fit(X, y, X[:50], y[:50])
    assert a.history_ == b.history_
    nobody = clone(model).fit(X, y, X[:5], [9] * 5)
    assert nobody.n_iter_ == 2 and nobody.classes_.tolist() == [0, 1]


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="TabMClassifier needs two classes"):
        TabMClassifier().fit(np.zeros((20, 2)), np.zeros(20))


@pytest.mark.filterwarnings("ignore:invalid value encountered in reduce")  # scikit-learn adds the cells up to see whether they are finite
@pytest.mark.parametrize("wild", [1e300, -1e300, 1.7e308])
def test_wild_cells_move_a_prediction_and_do_not_break_it(wild):
    X, y = table()
    X[7, 0] = wild
    classifier, regressor = TabMClassifier(**SMALL, max_epochs=3).fit(X, y), TabMRegressor(**SMALL, max_epochs=3).fit(X, X[:, 1])
    rows = np.vstack([X[:20], np.full((1, 4), wild), np.full((1, 4), -wild)])
    p, value = classifier.predict_proba(rows), regressor.predict(rows)
    assert np.isfinite(p).all() and np.allclose(p.sum(axis=1), 1)
    assert value.min() >= X[:, 1].min() and value.max() <= X[:, 1].max()


def test_constant_target_and_constant_columns():
    X = np.zeros((60, 3))
    assert (TabMRegressor(**SMALL, max_epochs=2).fit(X, np.full(60, 7.0)).predict(X) == 7.0).all()
    p = TabMClassifier(**SMALL, max_epochs=2).fit(X, np.arange(60) % 2).predict_proba(X)
    assert np.isfinite(p).all() and np.ptp(p[:, 0]) == 0


def test_a_table_of_many_numbers_has_no_curves():
    X = np.random.default_rng(0).normal(size=(80, EMBEDDED + 1))
    model = TabMClassifier(**SMALL, max_epochs=2).fit(X, X[:, 0] > 0)
    assert "bend" not in model.weights_ and model.weights_["shared0"].shape == (EMBEDDED + 1, 16)
    assert np.allclose(model.predict_proba(X).sum(axis=1), 1)


def test_thousands_of_words_leave_two_members():
    X = csr_matrix(np.random.default_rng(0).uniform(size=(100, 5_000)) * (np.random.default_rng(1).uniform(size=(100, 5_000)) < 0.02))
    model = TabMClassifier(max_epochs=1, random_state=0).fit(X, np.arange(100) % 2)
    assert model.weights_["into0"].shape == (2, 5_000) and model.predict_proba(X).shape == (100, 2)
    frame = pd.DataFrame(X.toarray()).rename(columns=str)
    assert np.allclose(pd.DataFrame(model.predict_proba(frame.to_numpy())), model.predict_proba(X), rtol=0, atol=1e-12)


def test_rare_ones_are_kept_and_rare_words_are_plain():
    X = np.zeros((60_000, 3))
    X[1, 0], X[:5, 1], X[:, 2] = 1.0, np.arange(5.0), np.random.default_rng(0).normal(size=60_000)
    columns = learn_columns(csr_matrix(X), 8)
    assert columns["plain"].tolist() == [0, 1] and columns["high"].tolist() == [1, 4] and columns["numbers"].tolist() == [2]
    assert arranged(csr_matrix(X[:3]), columns)[1].tolist() == [[0, 0], [1, 1], [0, 2]]


def test_members_differ_and_their_mean_is_better_than_each():
    X, y = table(900)
    model = TabMClassifier(members=6, width=32, random_state=0, max_epochs=15).fit(X[:400], y[:400])
    losses = []
    for k in range(6):
        one = clone(model)
        one.__dict__ |= {name: value for name, value in model.__dict__.items() if name.endswith("_")}
        alone = ("into", "out", "bias", "head")
        one.weights_ = {name: w[k : k + 1] if name.startswith(alone) else w for name, w in model.weights_.items()}
        losses.append(log_loss(y[400:], one.predict_proba(X[400:])))
    assert len(set(losses)) == 6 and log_loss(y[400:], model.predict_proba(X[400:])) < np.mean(losses)


@pytest.mark.parametrize("kind", [TabMClassifier, TabMRegressor])
def test_a_stored_model_predicts_the_same(kind):
    X, y = table()
    model = kind(**SMALL, max_epochs=2).fit(X, y)
    data = estimator_bytes(model)
    back = read_estimator(data)
    np.testing.assert_array_equal(back.predict(X), model.predict(X))
    assert estimator_bytes(back) == data == estimator_bytes(clone(model).fit(X, y)) and back.get_params() == model.get_params()


def test_the_graph_agrees_from_raw_rows_on():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"amount": rng.lognormal(3, 2, 200), "city": rng.choice(["Graz", "Linz", "Wien"], 200)})
    late = (frame["amount"] > 20).to_numpy() ^ (frame["city"] == "Graz").to_numpy()
    parts = ColumnTransformer([("n", SimpleImputer(), ["amount"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["city"])])
    rows = pd.DataFrame({"amount": [1e300, -1e300, np.nan, 0.0, 3.5], "city": ["Wien", "Bern", None, "Graz", "Linz"]})
    pipeline = make_pipeline(parts, TabMClassifier(**SMALL, max_epochs=5)).fit(frame, np.where(late, 2, 0))
    data = pipeline_to_onnx(pipeline, {"amount": "number", "city": "text"}, classes=3)
    import onnxruntime

    answer = onnxruntime.InferenceSession(data).run(None, feeds(rows, {"amount": "number", "city": "text"}))[0]
    assert np.abs(answer[:, [0, 2]] - pipeline.predict_proba(rows)).max() < 1e-6 and not answer[:, 1].any()


def test_the_graph_of_a_wide_table_agrees():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(80, EMBEDDED + 2))).rename(columns=str)
    model = TabMRegressor(**SMALL, max_epochs=2).fit(frame.to_numpy(), frame["0"])
    assert np.allclose(converted(model, frame * 1e3)[:, 0], model.predict(frame.to_numpy() * 1e3), rtol=0, atol=1e-6)
