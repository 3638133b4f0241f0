"Images that are made: shapes, classes, the same again, killed and resumed, nearer to real ones with training, judged by folds."

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from mlbench.core.errors import DataError, StageError, UsageError
from mlbench.core.resuming import Checkpoints, resumable
from mlbench.data.parts import as_record
from mlbench.models import generators as module
from mlbench.models.generators import ImageGenerator, Judge, Maker, frechet_distance, helps
from mlbench.models.layers import made

TINY = {"latent": 6, "width": 8, "batch_size": 16, "steps": 3}


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    return (found.images * 15.9).astype(np.uint8), found.target


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (11, 19, 3), (4, 40, 1)])
def test_both_networks_take_images_of_any_size(shape):
    noise, said = torch.zeros(3, 4), torch.eye(3)
    images = made(lambda: Maker(4, 3, shape, 4), 0)(noise, said)
    assert images.shape == (3, shape[2], shape[0], shape[1])
    assert made(lambda: Judge(3, shape, 4), 0)(images, said).shape == (3,)


def test_images_come_out_as_they_went_in(digits):
    pictures, answers = digits
    for images in (pictures[:60], pictures[:60, :, :, None], pictures[:60, :, :, None].repeat(3, axis=3)):
        new = ImageGenerator(**TINY).fit(images, answers[:60]).sample(5, answers[:5])
        assert new.shape == (5, *images.shape[1:]) and new.dtype == np.uint8
    record, parts = as_record(pictures[:60])
    generator = ImageGenerator(**TINY).fit(record, answers[:60])
    new = generator.sample(4)
    assert new.dtype == record.dtype and np.concatenate([record, new]).shape == (64,)
    assert generator.sample(0).shape == (0,)


def test_classes_may_have_any_name_or_be_missing(digits):
    pictures, answers = digits
    names = np.array(["zero", "one", "more"])[np.minimum(answers, 2)]
    named = ImageGenerator(**TINY).fit(pictures[:80], names[:80])
    assert named.classes_.tolist() == ["more", "one", "zero"] and named.sample(2, ["one", "zero"]).shape == (2, 8, 8)
    assert not np.array_equal(named.sample(4, ["one"] * 4), named.sample(4, ["more"] * 4))
    plain = ImageGenerator(**TINY).fit(pictures[:80])
    assert plain.sample(3).shape == (3, 8, 8)
    for generator, wrong in ((named, ["two", "one"]), (named, ["one"]), (plain, ["one", "one"])):
        with pytest.raises(UsageError, match="sample found"):
            generator.sample(2, wrong)


def test_the_same_seed_gives_the_same_images_also_after_storage(digits):
    pictures, answers = digits
    state = torch.random.get_rng_state()
    first, again = (ImageGenerator(**TINY, random_state=3).fit(pictures[:60], answers[:60]) for _ in range(2))
    other = clone(first).set_params(random_state=4).fit(pictures[:60], answers[:60])
    assert torch.equal(state, torch.random.get_rng_state()), "torch's own random state was used"
    assert np.array_equal(first.model_, again.model_) and not np.array_equal(first.model_, other.model_)
    back = pickle.loads(pickle.dumps(first))
    assert np.array_equal(back.sample(7, seed=1), first.sample(7, seed=1)) and not np.array_equal(first.sample(7), first.sample(7, seed=1))
    assert np.array_equal(first.sample(300, np.zeros(300, dtype=int), seed=2)[:40], first.sample(40, np.zeros(40, dtype=int), seed=2))


class Killed(BaseException):
    "As if the process had been killed."


@pytest.mark.parametrize("at", [1, 4, 6])
def test_a_training_that_was_killed_goes_on_to_the_same_weights(at, digits, tmp_path, monkeypatch):
    pictures, answers = digits
    settings = {**TINY, "steps": 7}
    whole = ImageGenerator(**settings).fit(pictures[:60], answers[:60])
    step, calls = module._step, []

    def killed(state, *rest):
        calls.append(state.step)
        if len(calls) == at + 1:
            raise Killed
        return step(state, *rest)

    monkeypatch.setattr(module, "_step", killed)
    with pytest.raises(Killed), resumable(Checkpoints(tmp_path, every=0.0), "gan"):
        ImageGenerator(**settings).fit(pictures[:60], answers[:60])
    with resumable(Checkpoints(tmp_path, every=0.0), "gan"):
        resumed = ImageGenerator(**settings).fit(pictures[:60], answers[:60])
    assert calls == [*range(at + 1), *range(at, 7)]
    assert np.array_equal(resumed.model_, whole.model_) and resumed.history_ == whole.history_


def test_training_brings_the_images_nearer_to_real_ones_and_to_their_class(digits):
    pictures, answers = digits
    few = answers < 3
    train, said = pictures[few][:300], answers[few][:300]
    settings = {"latent": 8, "width": 16, "batch_size": 32, "learning_rate": 2e-3}
    early, late = (ImageGenerator(**settings, steps=steps).fit(train, said) for steps in (5, 350))
    far = [frechet_distance(train, g.sample(300, said)) for g in (early, late)]
    assert far[1] < 0.5 * far[0], far
    real = LogisticRegression(max_iter=200).fit(train.reshape(-1, 64) / 255, said)
    right = [real.score(g.sample(300, said).reshape(-1, 64) / 255, said) for g in (early, late)]
    assert right[1] > 0.8 and right[1] > right[0]


def test_a_distance_knows_mean_and_spread(digits):
    pictures, _ = digits
    assert frechet_distance(pictures, pictures) < 1e-6
    one = np.random.default_rng(0).normal(100, 10, (4000, 1)).round().astype(np.uint8)
    moved, wider = one + 51, (100 + 2 * (one.astype(int) - 100)).clip(0, 255).astype(np.uint8)
    assert frechet_distance(one, moved) == pytest.approx(0.2**2, rel=1e-3)
    assert frechet_distance(one, wider) == pytest.approx((10 / 255) ** 2, rel=0.1)
    with pytest.raises(DataError, match="of the same size"):
        frechet_distance(pictures, pictures[:, :4])


def test_made_images_are_judged_on_real_ones_only(digits):
    pictures, answers = digits
    model = make_pipeline(FunctionTransformer(lambda images: images.reshape(len(images), -1) / 255), LogisticRegression(max_iter=100))
    table = helps(ImageGenerator(**TINY), model, pictures[:200], answers[:200], folds=2)
    assert table["candidate"].tolist() == ["real images", "real and made images", "made images alone"]
    assert table["score"][0] > 0.8 > table["score"][2] and np.isnan(table["gain"][0]) and table["high"][2] < np.inf

    class Copies(clone(ImageGenerator()).__class__):
        "A cheat: it gives the training images themselves."

        def fit(self, X, y=None):
            self.X, self.y = X, y
            return self

        def sample(self, count, y=None, seed=0):
            return np.stack([self.X[self.y == c][0] for c in y])

    cheat = helps(Copies(), model, pictures[:200], answers[:200], folds=2)
    assert not cheat["helps"].any()


def test_what_cannot_be_learned_from_is_told(digits, monkeypatch):
    pictures, answers = digits
    for rows in (np.zeros((9, 3)), np.zeros((1, 8, 8), np.uint8), np.zeros((9, 2, 8), np.uint8)):
        with pytest.raises(DataError, match="ImageGenerator"):
            ImageGenerator(**TINY).fit(rows, np.arange(len(rows)))
    for classes, words in (
        (answers, "50 images and classes of shape"),
        (answers[:20], r"expected one class for each image, of shape \(50,\)"),
        (np.where(answers[:50] > 5, np.nan, 1.0), "images without a class"),
        (np.linspace(0, 1, 50), "continuous"),
    ):
        with pytest.raises(ValueError, match=words):
            ImageGenerator(**TINY).fit(pictures[:50], classes)
    with pytest.raises(UsageError, match="latent=0, expected a whole number of at least 1; batch_size=1, expected .* at least 2; average=2"):
        ImageGenerator(**TINY | {"latent": 0, "batch_size": 1, "average": 2.0}).fit(pictures[:50], answers[:50])
    with pytest.raises(DataError, match="images of float64 and uint8, expected bytes"):
        frechet_distance(pictures / 255.0, pictures)
    monkeypatch.setattr(module, "_step", lambda *rest: (float("nan"), 1.0))
    with pytest.raises(StageError, match="diverged at step 0.*learning_rate below 0.002"):
        ImageGenerator(**TINY).fit(pictures[:50], answers[:50])
