"Networks as estimators: the rules of scikit-learn, repeating a fit, storing, bad input."

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from mlbench.core.errors import DataError, UsageError
from mlbench.core.resuming import Checkpoints, resumable
from mlbench.data.parts import Part, record_of
from mlbench.data.schema import infer_schema
from mlbench.features.plan import make_plan
from mlbench.models.deep import DeepClassifier, DeepRegressor, begin_with, open_network, told_of
from mlbench.models.rounds import fit_rounds, replay_parameters
from mlbench.problem.problem import Problem
from mlbench.training import estimator_bytes
from mlbench.training.store import read_estimator

PARTS = (
    Part("table", "table", "", (2,)),
    Part("tokens review", "tokens", "review", (5,), 20),
    Part("pixels photo", "pixels", "photo", (6, 6, 1)),
)
QUICK = {"network": "mean+convolutions", "width": 8, "embedding": 8, "batch_size": 16, "max_epochs": 4, "learning_rate": 0.02, "random_state": 0}
EASY = QUICK | {"max_epochs": 12}


def mixed(rows: int = 96, seed: int = 0):
    "A record of numbers, words and pictures, and classes and values that follow from all three."
    random = np.random.default_rng(seed)
    numbers, words = random.normal(size=(rows, 2)), random.integers(2, 20, (rows, 5))
    shade = random.integers(0, 200, rows)
    pixels = np.clip(shade[:, None, None, None] + random.integers(0, 56, (rows, 6, 6, 1)), 0, 255)
    score = numbers[:, 0] + 2 * (words == 7).any(1) + shade / 50
    return record_of(PARTS, [numbers, words, pixels]), np.where(score > np.median(score), "yes", "no"), score


@pytest.fixture(scope="module")
def fitted():
    X, y, _ = mixed()
    return DeepClassifier(**EASY).fit(X, y)


@pytest.mark.parametrize(
    "estimator",
    [
        DeepClassifier(width=16, batch_size=16, max_epochs=20, learning_rate=0.01, random_state=0),
        DeepRegressor(width=16, batch_size=16, max_epochs=20, learning_rate=0.02, random_state=0),
    ],
    ids=lambda e: type(e).__name__,
)
def test_scikit_learn_accepts_the_estimator(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None)
    failed = {r["check_name"]: str(r["exception"])[:200] for r in results if r["status"] == "failed"}
    assert not failed and len(results) > 20


def test_records_are_cross_validated_cloned_and_cut(fitted):
    X, y, score = mixed()
    assert fitted.score(X, y) > 0.75
    assert clone(fitted).get_params() == DeepClassifier(**EASY).get_params()
    assert np.allclose(fitted.predict_proba(X[::3]), fitted.predict_proba(X)[::3], atol=1e-5)
    assert fitted.predict(X[X["table"][:, 0] > 0]).shape == ((X["table"][:, 0] > 0).sum(),)
    assert cross_val_score(DeepClassifier(**EASY), X, y, cv=2).mean() > 0.6
    assert cross_val_score(DeepRegressor(**EASY), X, score, cv=2).mean() > 0.3


def test_a_plan_and_a_network_make_a_pipeline():
    random = np.random.default_rng(0)
    words = np.array(["good", "bad", "film", "plot", "actor", "scene", "music", "story"])
    texts = [" ".join(random.choice(words, 6)) for _ in range(60)]
    frame = pd.DataFrame({"review": texts, "minutes": random.normal(100, 20, 60).round(), "liked": ["yes" if "good" in t else "no" for t in texts]})
    problem = Problem.from_dict({"name": "films", "task": "binary", "target": "liked", "data": "films.csv", "columns": {"kinds": {"review": "text"}}})
    plan = make_plan(infer_schema(frame, kinds={"review": "text"}), problem)
    pipeline = make_pipeline(plan.transformer("parts"), DeepClassifier(**EASY | {"network": "mean"}))
    assert cross_val_score(pipeline, frame, frame["liked"], cv=2, error_score="raise").mean() > 0.6


@pytest.mark.parametrize("kind", [DeepClassifier, DeepRegressor])
@pytest.mark.parametrize("seconds", [None, 30.0, 0.0])
def test_a_fit_is_repeated_bit_for_bit_without_judges_and_clock(kind, seconds):
    X, y, score = mixed()
    goal = score if kind is DeepRegressor else y
    first = kind(**QUICK, average=0.9)
    fit_rounds(first, X[:70], goal[:70], X[70:], goal[70:], seconds=seconds)
    told = json.loads(json.dumps(first.replay_parameters_()))
    assert set(told) >= {"steps", "keep", "validation_fraction"} and told["validation_fraction"] == 0
    again = kind(**QUICK, average=0.9, parts=json.loads(json.dumps(PARTS))).set_params(**told).fit(X[:70], goal[:70])
    assert again.model_.tobytes() == first.model_.tobytes()
    assert clone(first).fit(X[:70], goal[:70]).model_.tobytes() == first.model_.tobytes(), "fit_rounds leaves the parameters that repeat it"
    assert replay_parameters(first) == first.replay_parameters_()


def test_rows_that_are_set_aside_are_the_same_again():
    X, y, _ = mixed()
    first = DeepClassifier(**QUICK).fit(X, y)
    assert "validation_loss" in first.history_[0] and first.replay_parameters_()["validation_fraction"] == 0.1
    assert DeepClassifier(**QUICK).set_params(**first.replay_parameters_()).fit(X, y).model_.tobytes() == first.model_.tobytes()
    whole = DeepClassifier(**QUICK, validation_fraction=0.0).fit(X, y)
    assert "validation_loss" not in whole.history_[0]


def test_seeds_decide_and_nothing_else():
    import torch

    X, y, _ = mixed()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    one = DeepClassifier(**QUICK).fit(X, y)
    assert torch.get_rng_state().equal(before[0]) and (np.random.get_state()[1] == before[1]).all() and torch.get_num_threads() == before[2]
    torch.manual_seed(5)
    assert DeepClassifier(**QUICK).fit(X, y).model_.tobytes() == one.model_.tobytes()
    assert DeepClassifier(**QUICK | {"random_state": 1}).fit(X, y).model_.tobytes() != one.model_.tobytes()
    drawn = DeepClassifier(**QUICK | {"random_state": np.random.RandomState(0)}).fit(X, y)
    assert drawn.model_.tobytes() == one.model_.tobytes()


class Killed(BaseException):
    "Goes through everything, as a signal would."


@pytest.mark.parametrize("step", [1, 7, 17])
def test_a_fit_that_was_killed_goes_on_to_the_same_weights(step, tmp_path, monkeypatch):
    import mlbench.models.loop as loop

    X, y, _ = mixed()
    whole, kept, ran, real = DeepClassifier(**QUICK).fit(X, y), Checkpoints(tmp_path / "kept", every=0), [], loop._try_step

    def dies(*rest):
        ran.append(1)
        if len(ran) == step:
            raise Killed
        return real(*rest)

    with monkeypatch.context() as patch, pytest.raises(Killed), resumable(kept, "a"):
        patch.setattr(loop.Trainer, "_try_step", dies)
        DeepClassifier(**QUICK).fit(X, y)
    del ran[:]
    monkeypatch.setattr(loop.Trainer, "_try_step", lambda *rest: ran.append(1) or real(*rest))
    with resumable(kept, "a"):
        again = DeepClassifier(**QUICK).fit(X, y)
    assert again.model_.tobytes() == whole.model_.tobytes() and again.history_ == whole.history_
    steps = whole.replay_parameters_()["steps"]
    assert len(ran) == steps - step + 1, "what was done is not done again"
    with resumable(kept, "a"):
        other = DeepClassifier(**QUICK | {"learning_rate": 0.01}).fit(X, y)
    assert other.model_.tobytes() != whole.model_.tobytes(), "another setting begins anew"


def test_a_stored_network_is_numbers_and_is_opened_as_it_was(fitted):
    X, _, _ = mixed()
    for copy in (pickle.loads(pickle.dumps(fitted)), read_estimator(estimator_bytes(fitted))):
        assert "_open_model" not in copy.__dict__
        assert np.array_equal(copy.predict_proba(X), fitted.predict_proba(X))
        assert copy.parts_ == PARTS and copy.replay_parameters_() == fitted.replay_parameters_()
    assert estimator_bytes(fitted) == estimator_bytes(read_estimator(estimator_bytes(fitted)))
    assert fitted.model_.dtype == np.uint8 and told_of(fitted.model_.tobytes())["parts"] == list(PARTS)
    assert not open_network(fitted.model_.tobytes()).training
    with pytest.raises(DataError, match="hold no network of mlbench"):
        open_network(pickle.dumps({"a": 1}))


def test_words_that_were_never_seen_are_unknown_words(fitted):
    X, y, _ = mixed()
    new, unknown = X[:4].copy(), X[:4].copy()
    new["tokens review"][:, 0], unknown["tokens review"][:, 0] = 12_345, 1
    assert np.array_equal(fitted.predict_proba(new), fitted.predict_proba(unknown))
    bare = DeepClassifier(**QUICK | {"network": "mean"}).fit(record_of(PARTS[1:2], [X["tokens review"]]), y)
    assert bare.parts_[0].size == X["tokens review"].max() + 1
    assert np.isfinite(bare.predict_proba(record_of(PARTS[1:2], [np.full((2, 5), 10**6)]))).all()


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_plain_arrays_are_taken_for_what_they_are():
    random = np.random.default_rng(0)
    shade = random.integers(0, 200, 60)
    grey = np.clip(shade[:, None, None] + random.integers(0, 40, (60, 8, 8)), 0, 255).astype(np.uint8)
    y = shade > 100
    model = DeepClassifier(**EASY | {"network": "convolutions", "augment": "none"}).fit(grey, y)
    assert model.score(grey, y) > 0.9 and model.parts_[0].shape == (8, 8, 1)
    assert np.array_equal(model.predict_proba(grey), model.predict_proba(grey[..., None]))
    frame = pd.DataFrame({"a": random.normal(size=60), "b": random.normal(size=60)})
    table = DeepRegressor(**EASY | {"network": "auto"}).fit(frame, frame["a"] * 2)
    assert table.feature_names_in_.tolist() == ["a", "b"] and table.score(frame, frame["a"] * 2) > 0.7
    with pytest.raises(ValueError, match="feature names"):
        table.predict(frame.rename(columns={"a": "c"}))
    with pytest.raises(ValueError, match="2 features"):
        table.predict(np.zeros((2, 3)))


def test_a_class_with_one_row_and_classes_with_gaps(fitted):
    X, _, _ = mixed()
    codes = np.where(np.arange(len(X)) % 2, 7, 2)
    codes[5] = 40
    model = DeepClassifier(**QUICK).fit(X, codes)
    assert model.classes_.tolist() == [2, 7, 40] and model.predict_proba(X).shape == (96, 3)
    held = DeepClassifier(**QUICK).fit(X[:50], np.where(codes[:50] == 40, 2, codes[:50]), X[50:], np.full(46, 99))
    assert held.classes_.tolist() == [2, 7], "rows of unknown classes judge nothing"
    with pytest.raises(ValueError, match="one class only: .*2"):
        DeepClassifier(**QUICK).fit(X, np.full(len(X), 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_missing_numbers_are_refused_where_they_stand(bad, fitted):
    X, y, score = mixed()
    X["table"][13, 1] = bad
    for act in (lambda: DeepClassifier(**QUICK).fit(X, y), lambda: fitted.predict(X)):
        with pytest.raises(ValueError, match=r"NaN or infinity: 'table', column 1, first in row 13.*SimpleImputer"):
            act()
    good = mixed()[0]
    with pytest.raises(ValueError, match="NaN or infinity: 'table', column 1, first in row 13"):
        DeepClassifier(**QUICK).fit(good, y, X, y)
    score[3] = bad
    with pytest.raises(ValueError, match="y contains|finite numbers"):
        DeepRegressor(**QUICK).fit(good, score)


def test_rows_of_other_shapes_are_refused_in_words(fitted):
    X, y, score = mixed()
    other = record_of((*PARTS[:2], PARTS[2]._replace(shape=(8, 8, 1))), [X["table"], X["tokens review"], np.zeros((96, 8, 8, 1))])
    with pytest.raises(DataError, match=r"Expected: .*pixels photo uint8 \(6, 6, 1\).*Found: .*\(8, 8, 1\)"):
        fitted.predict(other)
    with pytest.raises(DataError, match="expected a record with table, tokens review, pixels photo"):
        fitted.predict(np.zeros((3, 2)))
    with pytest.raises(DataError, match="does not hold the parts"):
        DeepClassifier(**QUICK, parts=PARTS).fit(other, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        DeepClassifier(**QUICK).fit(X, y[:-1])
    with pytest.raises(ValueError, match="one class or value for each row"):
        DeepRegressor(**QUICK).fit(X, None)
    with pytest.raises(ValueError, match="0 sample"):
        fitted.predict(X[:0])
    with pytest.raises(UsageError, match="there is no 'nothing'"):
        DeepClassifier(**QUICK | {"network": "nothing"}).fit(X, y)


@pytest.mark.parametrize(
    "kind, settings, words",
    [
        (DeepClassifier, {"loss": "crossentropy"}, "loss='crossentropy', expected auto or cross_entropy or focal"),
        (DeepClassifier, {"loss": "contrastive", "batch_size": 16}, "loss='contrastive'"),
        (DeepRegressor, {"loss": "focal"}, "loss='focal', expected auto or squared or huber or quantile for values"),
        (DeepRegressor, {"class_weight": "balanced"}, "values have no classes"),
        (DeepClassifier, {"width": -3, "embedding": 2.5, "label_smoothing": 2.0}, "width=-3.*embedding=2.5.*label_smoothing=2.0"),
        (DeepClassifier, {"network": ["curves"], "validation_fraction": 1.5}, "network=.*'curves'.*validation_fraction=1.5"),
        (DeepClassifier, {"start": b"xx"}, "bytes that holds no safetensors file"),
    ],
)
def test_settings_that_cannot_be_are_told_before_anything_is_trained(kind, settings, words):
    X, y, score = mixed()
    with pytest.raises(UsageError, match=words):
        kind(**QUICK | settings).fit(X, y if kind is DeepClassifier else score)


def test_rows_and_classes_that_are_nearly_right_are_refused_with_what_to_write():
    photos, y = np.zeros((60, 8, 8, 3), dtype=np.uint8), np.arange(60) % 2
    for rows in (photos / 255.0, photos.astype(int), photos[..., 0] / 255.0):
        with pytest.raises(DataError, match=r"Images are bytes from 0 to 255: write .*astype\('uint8'\)"):
            DeepClassifier(**QUICK).fit(rows, y)
    with pytest.raises(ValueError, match=r"classes of several types \(int, str\), which have no order"):
        DeepClassifier(**QUICK).fit(photos, np.array(["a", 1] * 30, dtype=object))
    for more in ({"X_val": photos}, {"y_val": y}):
        with pytest.raises(UsageError, match="was given without"):
            DeepClassifier(**QUICK).fit(photos, y, **more)


def test_short_numbers_and_other_optimisers_learn_too():
    X, y, _ = mixed()
    for settings in ({"precision": "bf16"}, {"optimizer": "sgd", "learning_rate": 0.1}, {"average": 0.9}, {"loss": "focal"}, {"schedule": "cosine"}):
        assert DeepClassifier(**EASY | settings).fit(X, y).score(X, y) > 0.65, settings
    with pytest.raises(UsageError, match="precision='half', expected auto, fp32, bf16 or fp16"):
        DeepClassifier(**QUICK, precision="half").fit(X, y)


def test_weights_of_classes_move_the_answers():
    X, y, _ = mixed()
    rare = np.where(np.arange(len(y)) < 12, "rare", "usual")
    share = {}
    for weight in (None, "balanced", {"rare": 20.0, "usual": 1.0}):
        model = DeepClassifier(**QUICK, class_weight=weight, validation_fraction=0.0).fit(X, rare)
        share[str(weight)] = model.predict_proba(X)[:, 0].mean()
    plain, balanced, own = share.values()
    assert plain < balanced - 0.1 and plain < own - 0.1


def test_shares_of_classes_are_learned_from():
    X, y, _ = mixed()
    shares = np.column_stack([np.full(96, 0.25), np.full(96, 0.75)])
    model = DeepClassifier(**EASY | {"label_smoothing": 0.0}).fit(X, shares)
    assert model.classes_.tolist() == [0, 1] and abs(model.predict_proba(X)[:, 1].mean() - 0.75) < 0.05
    with pytest.raises(ValueError, match="must be shares of classes"):
        DeepClassifier(**QUICK).fit(X, shares * 3)
    even = DeepClassifier(**QUICK | {"max_epochs": 1}, class_weight="balanced").fit(X, shares)
    assert even.predict_proba(X).shape == (96, 2), "one class is nowhere the likeliest"


def test_patience_and_pieces_of_a_step_reach_the_loop():
    X, y, _ = mixed()
    long = DeepClassifier(**QUICK | {"max_epochs": 60, "learning_rate": 1e-5}, patience=2).fit(X, y)
    assert long.n_iter_ < 60
    plain = {"network": "curves", "width": 8, "dropout": 0.0, "max_epochs": 3, "random_state": 0}
    whole, pieces = (DeepClassifier(**plain, batch_size=size, accumulate=n).fit(X["table"], y) for size, n in ((32, 1), (16, 2)))
    assert np.allclose(whole.predict_proba(X["table"]), pieces.predict_proba(X["table"]), atol=1e-4)


def test_weights_of_before_are_begun_with(fitted, tmp_path):
    from safetensors.numpy import save_file

    X, y, _ = mixed()
    cold = DeepClassifier(**QUICK | {"max_epochs": 1, "learning_rate": 1e-6}, validation_fraction=0.0)
    before = cold.fit(X, y).history_[0]["train_loss"]
    own = {name: t.numpy() for name, t in fitted.torch_network().state_dict().items()}
    save_file(own, tmp_path / "weights.safetensors")
    for start in (fitted.model_, fitted.model_.tobytes(), tmp_path / "weights.safetensors", fitted.torch_network().state_dict()):
        warm = clone(cold).set_params(start=start)
        assert warm.fit(X, y).history_[0]["train_loss"] < before - 0.1
    more = np.arange(96) % 5
    assert clone(cold).set_params(start=fitted.model_).fit(X, more).predict_proba(X).shape == (96, 5), "another head is fine"
    with pytest.raises(UsageError, match="weights of another network.*same network, width"):
        clone(cold).set_params(start=fitted.model_, width=9).fit(X, y)
    with pytest.raises(UsageError, match="no name is known here"):
        begin_with(fitted.torch_network(), {"other.weight": own["head.4.weight"]})


def test_values_come_back_in_their_unit_and_a_constant_is_learned():
    X, _, score = mixed()
    near = DeepRegressor(**EASY).fit(X, score)
    far = DeepRegressor(**EASY).fit(X, score * 1e6 + 1e9)
    assert np.allclose(far.predict(X), near.predict(X) * 1e6 + 1e9, rtol=1e-3)
    assert near.score(X, score) > 0.5
    constant = DeepRegressor(**QUICK).fit(X, np.full(96, 3.5))
    assert np.allclose(constant.predict(X), 3.5, atol=0.2)
    huber = DeepRegressor(**EASY, loss="huber").fit(X, score)
    assert huber.score(X, score) > 0.4
