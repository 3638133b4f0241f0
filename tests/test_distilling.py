"Students: better with a teacher than alone, told softly or by weights, never by answers learned by heart, faults."

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix, issparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier, RandomForestRegressor, VotingClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from mlbench.core.errors import DataError, UsageError
from mlbench.data.parts import Part, record_of
from mlbench.models.deep import DeepClassifier
from mlbench.models.distilling import Distilled, changed_copies, distilling_gains, softened, teacher_answers, weighted_rows


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    return found.data / 16, found.target


def blend():
    "A blend of two families."
    return VotingClassifier([("trees", ExtraTreesClassifier(100, random_state=0)), ("near", KNeighborsClassifier(4, weights="distance"))], voting="soft")


def test_a_small_network_learns_more_from_a_blend_than_alone(digits):
    X, y = digits
    train, test = slice(0, 1000), slice(1000, 1797)
    student = DeepClassifier(width=24, depth=1, max_epochs=8, random_state=0, label_smoothing=0.0)
    alone = clone(student).fit(X[train], y[train]).score(X[test], y[test])
    taught = Distilled(blend(), student, copies=2).fit(X[train], y[train])
    assert taught.score(X[test], y[test]) > alone, (taught.score(X[test], y[test]), alone)
    assert isinstance(taught.estimator_, DeepClassifier) and taught.rows_ == 3000


def test_a_tree_learns_more_from_a_forest_than_alone(digits):
    X, y = digits
    forest, tree = ExtraTreesClassifier(60, random_state=0), DecisionTreeClassifier(min_samples_leaf=2, random_state=0)
    table = distilling_gains(forest, tree, X[:600], y[:600], folds=3, copies=6)
    assert table["gain"][1] > 0 and table["gain"][2] > table["gain"][1] and table["helps"][2]


class Parrot(ClassifierMixin, BaseEstimator):
    "Knows the rows that it learned from by heart, and nothing else."

    def fit(self, X, y):
        self.classes_, self.rows_ = np.unique(y), {row.tobytes(): label for row, label in zip(X, y)}
        return self

    def predict_proba(self, X):
        known = [self.rows_.get(row.tobytes()) for row in X]
        even = np.full(len(self.classes_), 1 / len(self.classes_))
        return np.array([even if k is None else (self.classes_ == k).astype(float) for k in known])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def test_a_teacher_is_never_asked_about_rows_that_it_learned_from(digits):
    X, y = digits
    said = teacher_answers(Parrot(), np.ascontiguousarray(X[:200]), y[:200])
    assert np.allclose(said, 0.1)
    values = teacher_answers(RandomForestRegressor(5, random_state=0), X[:100], X[:100, 20])
    assert values.shape == (100,)


def test_softer_answers():
    p = np.array([[0.9, 0.1, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert np.allclose(softened(p, 1.0), p) and np.allclose(softened(p, 2.0)[0], np.sqrt([0.9, 0.1, 1e-12]) / np.sqrt([0.9, 0.1, 1e-12]).sum())
    assert np.allclose(softened(p, 1e6), 1 / 3, atol=1e-4) and softened(p, 0.1)[0, 0] > 0.999
    with pytest.raises(UsageError, match="temperature=0"):
        softened(p, 0)


def test_weights_tell_a_student_what_shares_would(digits):
    X, y = digits
    shares = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    rows, codes, weights = weighted_rows(shares)
    back = np.zeros_like(shares)
    back[rows, codes] = weights
    assert np.allclose(back, np.where(shares >= 1e-3, shares, 0))
    student = Distilled(Parrot(), GaussianNB(), temperature=1.0, trust=0.0, copies=0).fit(X[:200], y[:200])
    assert np.allclose(student.predict_proba(X[:300]), GaussianNB().fit(X[:200], y[:200]).predict_proba(X[:300]))


def test_trust_lies_between_teacher_and_truth(digits):
    X, y = digits
    even = Distilled(Parrot(), GaussianNB(), trust=1.0, copies=0).fit(np.ascontiguousarray(X[:200]), y[:200])
    assert np.allclose(even.estimator_.class_prior_, 0.1)
    target = X[:200, 20]
    zero, one = (Distilled(DecisionTreeRegressor(max_depth=1), Ridge(), trust=t, copies=0).fit(X[:200], target).estimator_ for t in (0.0, 1.0))
    half = Distilled(DecisionTreeRegressor(max_depth=1), Ridge(), trust=0.5, copies=0).fit(X[:200], target).estimator_
    assert np.allclose(half.coef_, (zero.coef_ + one.coef_) / 2) and not np.allclose(zero.coef_, one.coef_)


def test_copies_have_the_form_of_the_rows(digits):
    X, _ = digits
    frame = pd.DataFrame(X[:30], columns=[f"p{i}" for i in range(64)])
    assert list(changed_copies(frame).columns) == list(frame.columns) and changed_copies(frame, 2).shape == (60, 64)
    sparse = changed_copies(csr_matrix(X[:30]))
    assert issparse(sparse) and np.allclose(sparse.toarray(), changed_copies(X[:30]), atol=1e-6)
    images = (load_digits().images[:20] * 15).astype(np.uint8)
    for pictures in (images, images[..., None]):
        more = changed_copies(pictures, names="crop")
        assert more.shape == pictures.shape and more.dtype == np.uint8 and not np.array_equal(more, pictures)
    words = np.random.default_rng(0).integers(2, 9, (30, 5))
    record = record_of((Part("table", "table", "", (64,)), Part("tokens t", "tokens", "t", (5,), 9)), [X[:30], words])
    again = changed_copies(record, 3)
    assert again.dtype == record.dtype and len(again) == 90 and np.array_equal(again["table"][:30], record["table"])
    assert not np.array_equal(again["tokens t"][:30], words)
    for options in ({"copies": 0}, {"names": "none"}):
        with pytest.raises(UsageError, match="expected one copy at least and one change"):
            changed_copies(X[:9], **options)


def test_rows_without_answers_are_answered_by_the_teacher(digits):
    X, y = digits
    told = []

    class Student(GaussianNB):
        def fit(self, X, y, sample_weight=None):
            told.append((X, y, sample_weight))
            return super().fit(X, y, sample_weight)

    model = Distilled(KNeighborsClassifier(1), Student(), temperature=1.0, copies=0, unlabelled=X[500:560]).fit(X[:500], y[:500])
    rows, labels, weights = told[-1]
    mine = np.array([bool((row == X[500:560]).all(axis=1).any()) for row in rows])
    assert model.rows_ == 560 and np.isclose(weights[mine].sum(), 60, atol=1)
    assert np.array_equal(labels[mine], KNeighborsClassifier(1).fit(X[:500], y[:500]).predict(rows[mine]))


def test_what_does_not_fit_is_told(digits):
    X, y = digits
    for teacher, student, more in [(None, GaussianNB(), {}), (GaussianNB(), None, {}), (GaussianNB(), Ridge(), {}), (GaussianNB(), GaussianNB(), {"trust": 2})]:
        with pytest.raises(UsageError, match="two classifiers or two regressors"):
            Distilled(teacher, student, **more).fit(X[:100], y[:100])
    with pytest.raises(UsageError, match="RidgeClassifier has no predict_proba"):
        Distilled(RidgeClassifier(), GaussianNB()).fit(X[:100], y[:100])
    with pytest.raises(UsageError, match="KNeighborsClassifier takes neither"):
        Distilled(GaussianNB(), KNeighborsClassifier(), copies=0).fit(X[:100], y[:100])
    with pytest.raises(DataError, match="the smallest class has 1 rows"):
        Distilled(GaussianNB(), LogisticRegression()).fit(X[:100], np.r_[np.arange(99) % 3, 7])
