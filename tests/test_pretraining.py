"Learning from rows without answers: nothing held out is seen, the same weights again, all kinds of parts, gains shown."

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_digits, make_blobs
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier

from mlbench.core.errors import DataError, UsageError
from mlbench.data.parts import Part, as_record, record_of
from mlbench.models.deep import DeepClassifier, DeepRegressor
from mlbench.models.pretraining import Pretrained, PseudoLabels, hidden_piece, pretrained, pretraining_gains, sure_rows, turned_folds

SMALL = {"width": 8, "depth": 2, "max_epochs": 2, "random_state": 0}


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    return (found.images * 15.9).astype(np.uint8), found.target


@pytest.fixture(scope="module")
def mixed():
    "A record with a table, a text and an image in each row, and classes that all of them tell."
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 60)
    table = random.normal(size=(60, 3)) + y[:, None]
    texts = np.where(np.arange(6) < random.integers(1, 7, 60)[:, None], 2 + 4 * y[:, None] + random.integers(0, 4, (60, 6)), 0)
    pixels = (random.integers(0, 80, (60, 6, 6, 3)) + 60 * y[:, None, None, None]).astype(np.uint8)
    parts = (Part("table", "table", "", (3,)), Part("tokens said", "tokens", "said", (6,), 20), Part("pixels seen", "pixels", "seen", (6, 6, 3)))
    return record_of(parts, [table, texts, pixels]), y, parts


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_sure_answers_keep_the_shares_of_the_classes():
    random = np.random.default_rng(0)
    p = random.dirichlet([5, 0.1, 0.1], 400)
    rows = sure_rows(p, np.array([0.4, 0.3, 0.3]), 0.9)
    good = p.max(axis=1) >= 0.9
    assert set(rows) <= set(np.flatnonzero(good)) and np.array_equal(rows, np.unique(rows))
    assert (p[rows].argmax(axis=1) == 0).sum() == int(np.ceil(0.4 * good.sum()))
    left = np.setdiff1d(np.flatnonzero(good & (p.argmax(axis=1) == 0)), rows)
    assert p[left, 0].max() <= p[rows[p[rows].argmax(axis=1) == 0], 0].min()
    assert len(sure_rows(p[:0], np.ones(3) / 3)) == 0


def test_a_model_learns_from_its_own_sure_answers():
    X, y = make_blobs(400, centers=[[0, 0], [4, 0], [0, 4]], cluster_std=1.2, random_state=0)
    gained = []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(400)
        few = np.concatenate([order[y[order] == c][:2] for c in range(3)])
        rest, test = np.setdiff1d(order[:250], few), np.setdiff1d(order[250:], few)
        taught = PseudoLabels(LogisticRegression(), X[rest], 0.7, rounds=4).fit(X[few], y[few])
        gained.append(taught.score(X[test], y[test]) - LogisticRegression().fit(X[few], y[few]).score(X[test], y[test]))
        assert 1 <= len(taught.history_) <= 4 and taught.history_[0]["rows"] > 0
    assert np.mean(gained) > 0, gained


def test_rounds_end_when_no_answer_changes_and_unsure_models_learn_nothing():
    X, y = make_blobs(120, centers=2, random_state=0)
    calm = PseudoLabels(LogisticRegression(), X[20:], rounds=20).fit(X[:20], y[:20])
    assert len(calm.history_) < 20 and calm.history_[-1]["changed"] == 0
    unsure = PseudoLabels(DummyClassifier(), X[20:], threshold=0.99).fit(X[:20], np.arange(20) % 2)
    assert unsure.history_ == [{"round": 1, "rows": 0, "changed": 0}]


def test_names_of_classes_and_data_frames_pass():
    import pandas as pd

    X, y = make_blobs(100, centers=3, random_state=0)
    frame, names = pd.DataFrame(X, columns=["a", "b"]), np.array(["x", "y", "z"])[y]
    model = PseudoLabels(LogisticRegression(), frame[40:]).fit(frame[:40], names[:40])
    assert model.classes_.tolist() == ["x", "y", "z"] and model.estimator_.feature_names_in_.tolist() == ["a", "b"] and is_classifier(model)
    assert clone(model).get_params()["threshold"] == 0.9


@pytest.mark.parametrize("kind", ["tokens", "table", "pixels", "flat pixels"])
def test_pieces_are_hidden_and_nothing_else_changes(kind):
    values = {
        "tokens": torch.randint(0, 9, (40, 7), generator=seeded()),
        "table": torch.randn((40, 5), generator=seeded()),
        "pixels": torch.randint(0, 256, (40, 9, 6, 3), generator=seeded(), dtype=torch.uint8),
        "flat pixels": torch.randint(0, 256, (40, 9, 6), generator=seeded(), dtype=torch.uint8),
    }[kind]
    before = values.clone()
    seen, hidden = hidden_piece(values, 0.4, seeded(1))
    assert torch.equal(values, before) and seen.dtype == values.dtype and seen.shape == values.shape
    assert torch.equal(seen[~hidden], values[~hidden]) and 0.2 < float(hidden.float().mean()) < 0.6
    assert torch.equal(hidden_piece(values, 0.4, seeded(1))[1], hidden) and not torch.equal(hidden_piece(values, 0.4, seeded(2))[1], hidden)
    if kind == "tokens":
        assert (seen[hidden] == 1).all() and (seen[values == 0] == 0).all()
    if kind == "table":
        assert all(set(seen[:, c].tolist()) <= set(values[:, c].tolist()) for c in range(5))


@pytest.mark.parametrize("way", ["masked", "contrastive"])
def test_encoders_of_every_kind_learn_without_answers(way, mixed):
    record, y, parts = mixed
    model = DeepClassifier(**SMALL, parts=parts, batch_size=20)
    state = torch.random.get_rng_state()
    start, history = pretrained(model, record, way, epochs=6)
    assert torch.equal(state, torch.random.get_rng_state()), "torch's own random state was used"
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert np.array_equal(start, pretrained(model, record, way, epochs=6)[0])
    fitted = clone(model).set_params(start=start).fit(record, y)
    assert fitted.predict(record).shape == (60,) and not np.array_equal(fitted.model_, clone(model).fit(record, y).model_)


def test_a_start_is_really_where_training_starts(digits):
    pictures, y = digits
    start, _ = pretrained(DeepClassifier(**SMALL), pictures[:100], epochs=2)
    from safetensors.torch import load

    still = DeepClassifier(**SMALL | {"max_epochs": 1}, learning_rate=1e-9, weight_decay=0.0, start=start, augment="none").fit(pictures[:100], y[:100])
    own = still.torch_network().state_dict()
    given = {n: t for n, t in load(start.tobytes()).items() if n.endswith("weight")}
    assert given and all(torch.allclose(own[n], t, atol=1e-5) for n, t in given.items())


def test_rows_without_answers_bring_their_words(mixed):
    record, y, _ = mixed
    more = record.copy()
    more["tokens said"][:, 0] = 30  # a word that the rows with answers do not have
    model = Pretrained(DeepClassifier(**SMALL), unlabelled=more, epochs=1).fit(record, y)
    assert {p.name: p.size for p in model.estimator_.parts_}["tokens said"] == 31
    assert model.predict_proba(record).shape == (60, 3)


def test_values_can_be_learned_after_pretraining(mixed):
    record, y, _ = mixed
    model = Pretrained(DeepRegressor(**SMALL), "contrastive", epochs=1).fit(record, y.astype(float))
    assert not is_classifier(model) and not hasattr(model, "predict_proba") and np.isfinite(model.predict(record)).all()


def test_gains_stand_beside_the_model_alone_and_tested_rows_are_never_learned_from(digits, monkeypatch):
    pictures, y = digits
    seen = []
    from mlbench.models import pretraining as module

    whole = module.pretrained

    def watched(estimator, X, *rest):
        seen.append(np.asarray(X))
        return whole(estimator, X, *rest)

    monkeypatch.setattr(module, "pretrained", watched)
    folds = turned_folds(y[:80], 0.5)
    model, options = DeepClassifier(**SMALL | {"max_epochs": 1}), {w: {"epochs": 1} for w in ("masked", "contrastive")}
    table = pretraining_gains(model, pictures[:80], y[:80], pictures[100:140], folds=folds, options=options)
    assert table["candidate"].tolist() == ["alone", "pseudo", "masked", "contrastive"] and len(seen) == 4
    for rows, (train, _) in zip(seen, folds * 2):
        assert np.array_equal(rows[: len(train)], pictures[:80][train]) and np.array_equal(rows[len(train) :], pictures[100:140])
    assert np.isnan(table["gain"][0]) and (table["low"][1:] <= table["gain"][1:]).all()


def test_turned_folds_learn_from_little():
    y = np.arange(100) % 4
    folds = turned_folds(y, 0.1)
    assert len(folds) == 10 and all(len(a) == 10 and len(b) == 90 and not set(a) & set(b) for a, b in folds)
    assert sorted(np.concatenate([a for a, _ in folds])) == list(range(100))


def test_faults_are_told(digits, mixed):
    pictures, y = digits
    with pytest.raises(UsageError, match="RidgeClassifier, expected an estimator with start="):
        Pretrained(RidgeClassifier()).fit(pictures[:20].reshape(20, -1), y[:20])
    with pytest.raises(UsageError, match="way='both'"):
        Pretrained(DeepClassifier(), "both").fit(pictures[:20], y[:20])
    with pytest.raises(UsageError, match="found no estimator, no rows"):
        PseudoLabels(LogisticRegression()).fit(pictures[:20].reshape(20, -1), y[:20])
    with pytest.raises(UsageError, match="found 'magic'"):
        pretraining_gains(LogisticRegression(), pictures, y, pictures, ways=["magic"])
    gaps, endless = np.full((20, 3), np.nan), np.full((20, 3), np.inf)
    for rows, words in ((gaps, "contains NaN"), (endless, "infinity"), (np.zeros((0, 3)), "0 sample"), (None, "scalar")):
        for way in ("masked", "contrastive"):
            with pytest.raises(ValueError, match=words):
                pretrained(DeepClassifier(), rows, way, epochs=1)
    with pytest.raises(UsageError, match="found NoneType, expected an estimator with start="):
        pretrained(None, pictures[:20])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        Pretrained(DeepClassifier()).fit(pictures[:20], y[:7])
    flat = pictures[:20].reshape(20, -1)
    for estimator, options, words in (
        (Ridge(), {}, "Ridge, expected a classifier with predict_proba"),
        (LogisticRegression(), {"rounds": 0}, "rounds=0 and 20 unlabelled rows"),
        (LogisticRegression(), {"unlabelled": flat[:0]}, "0 unlabelled rows"),
    ):
        with pytest.raises(UsageError, match=words):
            PseudoLabels(estimator, **{"unlabelled": flat} | options).fit(flat, y[:20])
    with pytest.raises(DataError, match="unlabelled= holds rows of uint8"):
        Pretrained(DeepClassifier(), unlabelled=pictures[:, :4]).fit(pictures[:20], y[:20])
    with pytest.raises(DataError, match="unlabelled= holds rows"):
        Pretrained(DeepClassifier(), unlabelled=as_record(pictures[:9])[0]).fit(mixed[0], mixed[1])
