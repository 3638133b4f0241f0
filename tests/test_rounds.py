"Fits that end when somebody asks, and fits in one go that are tried on a few rows before they may take their time."

from __future__ import annotations

import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.linear_model import LogisticRegression, Ridge

from mlbench.models import rounds
from mlbench.models.registry import model_spec
from mlbench.models.rounds import FEWEST, FIRST_ROWS, WARM_ROWS, TooLong, Watch, asked_to_end, ended_by, estimate, fit_rounds, replay_parameters, trying


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class AfterAWhile(threading.Event):
    "An event that is set once it has been asked so many times."

    def __init__(self, times: int):
        super().__init__()
        self.times, self.asked = times, 0

    def is_set(self) -> bool:
        self.asked += 1
        return self.asked > self.times


def rows(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 4))
    return X, (X[:, 0] + rng.normal(size=n) > 0).astype(int)


@pytest.mark.parametrize("seconds", [None, 10_000.0])
@pytest.mark.parametrize("kind", ["catboost", "xgboost", "lightgbm", "random_forest", "extra_trees"])
def test_an_event_ends_what_learns_in_rounds_and_the_record_gives_the_same_model(kind, seconds):
    X, y = rows()
    name = "iterations" if kind == "catboost" else "n_estimators"
    forest = kind.endswith(("forest", "trees"))
    slow = {} if forest else {"learning_rate": 1e-3}
    model = model_spec(kind).build("binary", 2, seed=1, columns=4, rows=200, **{name: 1_000_000}, **slow)
    event = AfterAWhile(8 if forest else 30)
    with ended_by(event):
        kept = fit_rounds(model, X[:200], y[:200], X[200:], y[200:], seconds)
    assert 1 <= kept < 1_000_000 and event.asked > event.times
    again = clone(model).set_params(**replay_parameters(model)).fit(X[:200], y[:200])
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("kind", ["mlp", "tabm"])
def test_networks_end_after_the_epoch_they_are_in(kind):
    X, y = rows()
    model, event = model_spec(kind).build("binary", 2, seed=1, columns=4, rows=200), threading.Event()
    event.set()
    with ended_by(event):
        assert fit_rounds(model, X[:200], y[:200], X[200:], y[200:]) == 1
    assert np.isfinite(model.predict_proba(X)).all()


def test_an_event_set_before_the_fit_leaves_one_round_and_another_thread_is_not_concerned():
    X, y = rows()
    event, elsewhere = threading.Event(), []
    event.set()
    with ended_by(event):
        assert fit_rounds(model_spec("lightgbm").build("binary", 2), X, y) == 1
        other = threading.Thread(target=lambda: elsewhere.append(asked_to_end()))
        other.start()
        other.join()
        with ended_by(threading.Event()):
            assert not asked_to_end()
        assert asked_to_end()
    assert elsewhere == [False] and not asked_to_end()


def test_asking_for_the_end_is_no_reason_for_larger_steps():
    event = AfterAWhile(9)
    with ended_by(event):
        watch = Watch(seconds=1_000, expected=1_000_000)
    while not watch.stop(1.0 / (watch.done + 1)):
        pass
    assert not watch.too_slow and watch.left() == 0


class Costly(RegressorMixin, BaseEstimator):
    "A model whose fit costs a power of the rows, on a clock of its own."

    clock: list[float] = [0.0]
    seen: list[int] = []

    def __init__(self, power: float = 2.0, each: float = 1e-6, per_prediction: float = 0.0):
        self.power, self.each, self.per_prediction = power, each, per_prediction

    def fit(self, X, y):
        self.rows_ = len(X)
        self.seen.append(len(X))
        self.clock[0] += self.each * len(X) ** self.power
        return self

    def predict(self, X):
        self.clock[0] += self.per_prediction * X.shape[0] * self.rows_
        return np.zeros(X.shape[0])


@pytest.fixture
def clock(monkeypatch):
    Costly.clock[0] = 0.0
    Costly.seen.clear()
    monkeypatch.setattr(rounds, "time", SimpleNamespace(perf_counter=lambda: Costly.clock[0]))
    return Costly


X_LARGE, Y_LARGE = np.zeros((20_000, 2)), np.arange(20_000.0)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 2.7])
def test_the_cost_of_all_rows_is_told_from_few(clock, power):
    model = Costly(power, 1e-3 / 500**power)
    whole = 1e-3 * 40**power
    found = estimate(model, X_LARGE, Y_LARGE, seconds=whole)
    assert np.isclose(found.needed, whole, rtol=0.01) and found.spent < 0.12 * whole and not hasattr(model, "rows_")
    assert clock.seen[:3] == [WARM_ROWS, FIRST_ROWS, 2 * FIRST_ROWS]


def test_where_there_is_plenty_of_time_one_trial_is_enough_and_nothing_changes(clock):
    whole = 1e-6 * 20_000**2
    model = Costly()
    fit_rounds(model, X_LARGE, Y_LARGE, seconds=100 * whole)
    assert clock.seen == [WARM_ROWS, FIRST_ROWS, 20_000] and clock.clock[0] < 1.01 * whole and model.rows_ == 20_000


def test_a_fit_that_would_take_far_longer_is_refused_in_words_and_little_time_is_lost(clock):
    whole, allowed = 1e-6 * 20_000**2, 20.0
    with pytest.raises(TooLong, match=r"^about 4\d\d s needed, 20 s allowed$") as caught:
        fit_rounds(Costly(), X_LARGE, Y_LARGE, seconds=allowed)
    assert isinstance(caught.value, TimeoutError) and clock.clock[0] < 0.15 * allowed and 20_000 not in clock.seen
    fit_rounds(Costly(), X_LARGE, Y_LARGE, seconds=allowed, refuse=False)
    assert clock.seen[-1] == 20_000 and clock.clock[0] > whole


def test_a_fit_that_is_a_little_over_its_share_is_made(clock):
    fit_rounds(Costly(), X_LARGE, Y_LARGE, seconds=0.8 * 1e-6 * 20_000**2)
    assert clock.seen[-1] == 20_000


def test_predictions_count(clock):
    model = Costly(1.0, 1e-9, per_prediction=1e-6)
    with pytest.raises(TooLong):
        fit_rounds(model, X_LARGE, Y_LARGE, X_LARGE[:5_000], Y_LARGE[:5_000], seconds=10.0)
    assert estimate(model, X_LARGE, Y_LARGE, X_LARGE[:5_000], seconds=10.0).needed == pytest.approx(100, rel=0.05)


def test_a_replay_and_small_tables_are_not_tried_first(clock):
    fit_rounds(Costly(), X_LARGE, Y_LARGE)
    fit_rounds(Costly(), X_LARGE[:999], Y_LARGE[:999], seconds=1e-6)
    assert clock.seen == [20_000, 999]


def steep(n: int = 3_000) -> tuple[np.ndarray, np.ndarray]:
    "Columns of very different size, on which logistic regression takes many iterations."
    X, y = rows(n)
    return np.column_stack([X, X @ np.random.default_rng(1).normal(size=(4, 12)) * np.geomspace(1, 1e4, 12)]), y


@pytest.mark.parametrize("form", [np.asarray, csr_matrix])
def test_linear_models_get_the_iterations_that_there_is_time_for_and_they_are_on_record(monkeypatch, form):
    X, y = steep()
    X = form(X)
    monkeypatch.setattr(rounds, "_trial", lambda estimator, X, y, X_val, size: (10, size * 1e-4))  # 0.03 s for each iteration on all rows
    monkeypatch.setattr(rounds, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    model = LogisticRegression(max_iter=400)
    assert fit_rounds(model, X, y, seconds=0.76) is None
    assert model.max_iter == 25 == model.n_iter_[0] and replay_parameters(model) == {"max_iter": 25}
    again = LogisticRegression(max_iter=400).set_params(**replay_parameters(model)).fit(X, y)
    assert np.array_equal(again.coef_, model.coef_)
    with pytest.raises(TooLong, match="about 0.3 s needed, 0.1 s allowed"):
        fit_rounds(LogisticRegression(max_iter=400), X, y, seconds=0.1)
    least = LogisticRegression(max_iter=400)
    fit_rounds(least, X, y, seconds=0.1, refuse=False)
    assert least.max_iter == FEWEST


@pytest.mark.parametrize("kind", ["linear", "sparse_linear"])
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_with_hours_a_linear_model_is_what_it_is_without_a_limit(kind, task):
    X, y = rows(2_000)
    free, timed = (model_spec(kind).build(task, 2, rows=2_000, columns=4) for _ in range(2))
    fit_rounds(free, X, y)
    fit_rounds(timed, X, y, X[:100], y[:100], seconds=36_000.0)
    assert np.array_equal(free.coef_, timed.coef_) and free.get_params() == timed.get_params()
    assert replay_parameters(free) == replay_parameters(timed)


def test_trials_have_each_class_and_are_told_from_the_fit():
    seen = []

    class Telling(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            seen.append((trying(), len(y), len(np.unique(y))))
            return super().fit(X, y)

    X, y = rows(2_000)
    y[:3] = 2
    fit_rounds(Telling(), X, y, X[:50], y[:50], seconds=1e6)
    assert [s[0] for s in seen] == [True, True, False] and all(s[2] == 3 for s in seen) and seen[-1][1] == 2_000
    assert not trying()


def test_a_trial_that_fails_is_a_fit_that_fails():
    class Broken(Ridge):
        def fit(self, X, y, sample_weight=None):
            raise ValueError("no licence")

    X, y = rows(2_000)
    with pytest.raises(ValueError, match="no licence"):
        fit_rounds(Broken(), X, y, seconds=1.0)
    assert not trying()
