"What a change of training brings: intervals, the same folds for all, rows made inside a fold."

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB

from mlbench.core.errors import DataError, UsageError
from mlbench.data.parts import Part, record_of
from mlbench.models.augment import smote
from mlbench.models.gains import MoreRows, folds_of, gains_of, paired_gain, setting_gains, shared_ratio, told


def data(rows=120, seed=0, **more):
    return make_classification(rows, 5, random_state=seed, **more)


class Keeping(BaseEstimator):
    "Notes the rows that it was fitted on."

    seen: list = []

    def fit(self, X, y):
        Keeping.seen.append(np.asarray(X)[:, 0].copy())
        return self

    def sample(self, count, y):
        return np.zeros((count, 5)) + np.asarray(y)[:, None]


def test_the_interval_is_that_of_nadeau_and_bengio():
    a, b = np.array([0.8, 0.82, 0.85, 0.79]), np.array([0.78, 0.83, 0.80, 0.78])
    found, d = paired_gain(a, b, ratio=1 / 3, level=0.9), a - b
    half = stats.t.ppf(0.95, 3) * np.sqrt(d.var(ddof=1) * (1 / 4 + 1 / 3))
    assert np.allclose([found.gain, found.low, found.high], [d.mean(), d.mean() - half, d.mean() + half]) and found.folds == 4
    assert found.helps is False and paired_gain(a, a - [0.1, 0.11, 0.1, 0.09]).helps is True


def test_the_same_gain_in_every_fold_is_no_certainty():
    found = paired_gain([0.94, 0.95, 0.96], [0.93, 0.94, 0.95])
    assert (found.low, found.high, found.folds, found.helps) == (-np.inf, np.inf, 3, False) and np.isclose(found.gain, 0.01)
    assert paired_gain([0.9, 0.8], [0.9, 0.8]) == (0, 0, 0, 2)


def test_noise_seldom_helps():
    "Differences between equals are called a gain in about one of forty cases, and the correction makes it fewer."
    random = np.random.default_rng(0)
    called = [paired_gain(random.normal(size=5), random.normal(size=5)).helps for _ in range(400)]
    assert np.mean(called) < 0.03


@pytest.mark.parametrize("scores", [[], [np.nan, 1.0], [[1.0]]])
def test_scores_that_are_none_are_refused(scores):
    with pytest.raises(DataError, match="one finite difference for each fold"):
        paired_gain(scores, scores)


def test_all_candidates_meet_the_same_folds_and_none_is_changed():
    X, y = data()
    one, other = LogisticRegression(), LogisticRegression()
    table = gains_of({"one": one, "other": other}, X, y, against="other", folds=3)
    assert table["gain"][0] == 0 and np.isnan(table["gain"][1]) and not hasattr(one, "coef_")
    assert table["folds"].tolist() == [3, 3] and len(told(table)) == 1 and "cannot be told" in told(table)[0]
    again = gains_of({"one": one, "other": Ridge()}, X, y.astype(float), folds=folds_of(y, 3), scoring="neg_mean_squared_error", against="one")
    assert again["score"].max() <= 0


def test_records_are_rows_too():
    X, y = data()
    record = record_of([Part("table", "table", "", (5,))], [X])

    class OnRecords(GaussianNB):
        def fit(self, X, y):
            return super().fit(X["table"], y)

        def predict(self, X):
            return super().predict(X["table"])

    table = gains_of({"a": OnRecords(), "b": OnRecords(var_smoothing=1.0)}, record, y, folds=2)
    assert (table["score"] > 0.5).all()


def test_folds_that_are_turned_round_share_the_rows_tested():
    X, y = data()
    cut = folds_of(y, 6)
    turned = [(b, a) for a, b in cut]
    assert np.isclose(shared_ratio(cut), 0.2) and np.isclose(shared_ratio(turned), 0.2)
    table = gains_of({"a": GaussianNB(), "b": GaussianNB(var_smoothing=0.5)}, X, y, folds=turned)
    half = {ratio: paired_gain([0.1, 0.3, 0.2], [0, 0, 0], ratio).high - 0.2 for ratio in (0.2, 5.0)}
    assert half[5.0] > 2 * half[0.2] and table["high"][1] - table["gain"][1] < 0.5


def test_folds_that_cannot_be_cut_and_candidates_that_do_not_exist():
    X, y = data()
    with pytest.raises(DataError, match="cannot be cut from 3 rows"):
        folds_of([0, 0, 1], 5)
    with pytest.raises(UsageError, match="Did you mean 'model'"):
        gains_of({"model": GaussianNB(), "b": GaussianNB()}, X, y, against="modle")
    with pytest.raises(ValueError):
        gains_of({"a": GaussianNB(), "b": GaussianNB(var_smoothing=-1)}, X, y, folds=2)


def test_rows_are_made_from_training_rows_alone():
    X, y = data()
    Keeping.seen = []
    gains_of({"alone": GaussianNB(), "more": MoreRows(GaussianNB(), Keeping())}, X, y, folds=4)
    assert len(Keeping.seen) == 4
    for (train, test), seen in zip(folds_of(y, 4), Keeping.seen):
        assert np.array_equal(seen, X[train, 0]) and not np.isin(seen, X[test, 0]).any()


def test_shares_of_made_rows_and_the_kind_of_the_estimator():
    X, y = data(weights=[0.7])
    half, alone = MoreRows(GaussianNB(), Keeping(), share=0.5).fit(X, y), MoreRows(GaussianNB(), Keeping(), only=True).fit(X, y)
    assert half.rows_ == 180 and alone.rows_ == 120 and alone.predict(np.ones((1, 5))).tolist() == [1]
    assert is_classifier(half) and is_regressor(MoreRows(Ridge(), smote)) and not hasattr(MoreRows(Ridge(), smote), "predict_proba")
    filled = MoreRows(GaussianNB(), smote).fit(X, y)
    assert filled.rows_ == 2 * np.bincount(y).max() and np.allclose(filled.estimator_.class_prior_, 0.5)
    assert clone(half).get_params()["share"] == 0.5 and filled.classes_.tolist() == [0, 1] and 0.5 < filled.score(X, y) <= 1
    for wrong in (MoreRows(GaussianNB()), MoreRows(None, smote), MoreRows(GaussianNB(), 3)):
        with pytest.raises(UsageError, match="MoreRows found no"):
            wrong.fit(X, y)


def test_changes_of_rows_are_chosen_by_rows_that_were_never_changed(monkeypatch):
    from mlbench.models.augment import Augment
    from mlbench.models.deep import DeepClassifier

    random = np.random.default_rng(0)
    y = random.integers(0, 2, 60)
    X = (random.integers(0, 60, (60, 6, 6, 1)) + 120 * y[:, None, None, None]).astype(np.uint8)
    changed, whole = [], Augment.__call__

    def watched(self, parts, target, generator, training=True):
        changed.append((parts["pixels"].numpy().copy(), training))
        return whole(self, parts, target, generator, training)

    monkeypatch.setattr(Augment, "__call__", watched)
    folds = folds_of(y, 2)
    table = setting_gains(DeepClassifier(width=8, depth=2, max_epochs=2, random_state=0), "augment", ["none", "flip"], X, y, folds)
    assert table["candidate"].tolist() == ["augment=none", "augment=flip"] and changed
    half = len(changed) // 2
    for seen, (train, test) in zip((changed[:half], changed[half:]), folds):
        rows = {row.tobytes() for batch, _ in seen for row in batch}
        assert rows <= {row.tobytes() for row in X[train]} and not rows & {row.tobytes() for row in X[test]}
    assert all(training for _, training in changed)
