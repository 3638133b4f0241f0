"Autoencoders: scikit-learn's checks, better than principal components, odd rows, noise, clouds, the same weights again, faults."

from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import check_estimator

from mlbench.core.errors import UsageError
from mlbench.core.resuming import Checkpoints, resumable
from mlbench.models.autoencoder import (
    Autoencoder,
    AutoencoderOutliers,
    CloudLoss,
    Needle,
    VariationalAutoencoder,
    center_and_spread,
    distance_of_cloud,
    trained,
)
from mlbench.models.layers import made
from mlbench.models.loop import LoopSettings, Trainer

KINDS = [Autoencoder, VariationalAutoencoder, AutoencoderOutliers]


@pytest.fixture(scope="module")
def digits():
    return load_digits().data / 16


def small(kind=Autoencoder, **more):
    return kind(**{"components": 3, "hidden": (16,), "epochs": 4, "random_state": 0} | more)


@pytest.mark.parametrize("kind", KINDS)
def test_scikit_learn_accepts_the_estimator(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(small(kind, components=1, hidden=(4,), epochs=2), on_fail=None)
    failed = {r["check_name"]: str(r["exception"])[:300] for r in results if r["status"] == "failed"}
    assert not failed and len(results) > 20


def test_rows_come_back_better_than_from_as_many_principal_components(digits):
    train, test = digits[:900], digits[900:1200]
    components = PCA(4, random_state=0).fit(train)
    straight = ((components.inverse_transform(components.transform(test)) - test) ** 2).mean()
    bent = ((Autoencoder(4, hidden=(64, 32), epochs=25, scale="all", random_state=0).fit(train).denoised(test) - test) ** 2).mean()
    assert bent < 0.8 * straight, (bent, straight)


def test_odd_rows_are_found(digits):
    usual = AutoencoderOutliers(6, hidden=(32,), epochs=10, scale="all", contamination=0.05, random_state=0).fit(digits[:500])
    odd = np.random.default_rng(0).permuted(digits[500:600], axis=1)
    both = np.concatenate([digits[600:700], odd])
    assert roc_auc_score(np.r_[np.ones(100), np.zeros(100)], usual.score_samples(both)) > 0.95
    assert (usual.predict(digits[:500]) == -1).sum() == 25 and (usual.predict(odd) == -1).mean() > 0.5
    assert np.array_equal(usual.predict(both) == -1, usual.decision_function(both) < 0)


def test_a_network_that_saw_spoilt_rows_gives_back_what_was_hidden(digits):
    clean, hidden = digits[900:1100], np.random.default_rng(0).random((200, 64)) < 0.5
    holes = np.where(hidden, digits[:900].mean(axis=0), clean)  # the mean is what the network calls zero
    settings = {"components": 16, "hidden": (64,), "epochs": 12, "scale": "all", "random_state": 0}
    error = {m: ((Autoencoder(masked=m, **settings).fit(digits[:900]).denoised(holes) - clean)[hidden] ** 2).mean() for m in (0.0, 0.5)}
    assert error[0.5] < 0.85 * error[0.0] and error[0.5] < 0.7 * ((holes - clean)[hidden] ** 2).mean(), error


def test_the_cloud_is_round_and_rows_drawn_from_it_look_like_rows(digits):
    cloud = VariationalAutoencoder(6, hidden=(64,), epochs=20, scale="all", random_state=0).fit(digits[:800])
    outputs = cloud._through(cloud._as_rows(digits[:800]))[:, 64:]
    mean, spread = outputs[:, :6], np.exp(outputs[:, 6:])
    assert np.allclose(mean.var(axis=0) + spread.mean(axis=0), 1, atol=0.4) and np.abs(mean.mean(axis=0)).max() < 0.4
    new = cloud.sample(800, seed=1)
    near = lambda rows: np.sqrt(((rows[:, None] - digits[None, :800]) ** 2).sum(axis=2)).min(axis=1).mean()
    anywhere = digits[:800].mean(axis=0) + digits[:800].std(axis=0) * np.random.default_rng(0).normal(size=(100, 64))
    assert near(new[:100]) < 0.8 * near(anywhere) and new.std(axis=0).mean() > 0.3 * digits.std(axis=0).mean()


def test_more_weight_of_the_cloud_makes_it_rounder(digits):
    far = {}
    for beta in (0.1, 10.0):
        cloud = VariationalAutoencoder(4, beta, hidden=(32,), epochs=8, scale="all", random_state=0).fit(digits[:400])
        mean, spread = np.split(cloud._through(cloud._as_rows(digits[:400]))[:, 64:], 2, axis=1)
        far[beta] = float(distance_of_cloud(torch.from_numpy(mean), torch.from_numpy(spread)).mean())
    assert far[10.0] < 0.5 * far[0.1]


def test_the_loss_of_a_cloud_has_the_gradients_it_should():
    outputs = torch.randn(6, 5 + 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    target = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: CloudLoss(2, 0.7)(values, target), (outputs,))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_weights_in_threads_and_after_storage(kind, digits):
    rows, state = digits[:120], torch.random.get_rng_state()
    first = small(kind, masked=0.1, noise=0.1).fit(rows)
    with ThreadPoolExecutor(2) as pool:
        others = list(pool.map(lambda seed: clone(first).set_params(random_state=seed).fit(rows), (0, 1)))
    assert torch.equal(state, torch.random.get_rng_state()), "torch's own random state was used"
    assert np.array_equal(first.model_, others[0].model_) and not np.array_equal(first.model_, others[1].model_)
    back = pickle.loads(pickle.dumps(first))
    assert np.array_equal(back.transform(rows), first.transform(rows)) and "_open_model" not in pickle.loads(pickle.dumps(first)).__dict__
    assert list(first.get_feature_names_out()) == [f"{kind.__name__.lower()}{i}" for i in range(3)]


def test_images_come_back_as_images(digits):
    pictures = (load_digits().images[:150] * 15).astype(np.uint8)
    for images in (pictures, pictures[..., None].repeat(3, axis=-1), pictures / np.float32(255)):
        coder = small().fit(images)
        new = coder.denoised(images)
        assert new.shape == images.shape and (new.dtype == np.uint8) == (images.dtype == np.uint8)
        assert coder.inverse_transform(coder.transform(images)).shape == images.shape and len(np.unique(coder.spread_)) == 1
    with pytest.raises(ValueError, match=r"fitted on images of \(8, 8\), and these are \(4, 8\)"):
        small().fit(pictures).transform(pictures[:, :4])
    with pytest.raises(ValueError, match="no image at all"):
        small().fit(digits[:60]).transform(pictures)


def test_columns_that_never_change_and_wild_scales_do_no_harm():
    random = np.random.default_rng(0)
    X = np.column_stack([random.normal(size=200), np.full(200, 7.0), 1e9 * random.normal(size=200), 1e-9 * random.normal(size=200)])
    coder = small(components=2).fit(X)
    assert np.isfinite(coder.transform(X)).all() and np.isfinite(coder.score_samples(X)).all()
    assert center_and_spread(X, "columns")[1][1] == 1 and np.allclose(coder.denoised(X)[:, 1], 7, atol=2)


def test_faults_are_told(digits):
    with pytest.raises(UsageError, match="components=0"):
        small(components=0).fit(digits[:60])
    with pytest.raises(UsageError, match="scale='rows'"):
        small(scale="rows").fit(digits[:60])
    for wrong, words in (({"hidden": (8, 0)}, r"hidden=\(8, 0\)"), ({"hidden": 8}, "hidden=8"), ({"validation_fraction": 2}, "validation_fraction=2")):
        with pytest.raises(UsageError, match=words):
            small(**wrong).fit(digits[:60])
    with pytest.raises(UsageError, match="contamination=0.9"):
        small(AutoencoderOutliers, contamination=0.9).fit(digits[:60])
    with pytest.raises(ValueError, match="expected \\(rows, 3\\)"):
        small().fit(digits[:60]).inverse_transform(digits[:5])
    with pytest.raises(ValueError, match="NaN"):
        small().fit(np.where(digits[:60] > 0.9, np.nan, digits[:60]))


def test_a_limit_of_seconds_is_kept_and_the_best_epoch_is_taken(digits):
    long = small(epochs=100_000).fit(digits[:200], seconds=1.0)
    assert 0 < long.history_[-1]["step"] < 100_000 and long.n_iter_ == len(long.history_)
    fit = small(epochs=3).fit(digits[:200])
    held = [h["validation_loss"] for h in fit.history_]
    assert len(held) == 3 and min(held) < held[0]


def test_rows_by_name_are_trained_on_too(digits):
    rows = digits[:100].astype(np.float32)
    network = made(lambda: Needle(64, (8,), 2), 0)
    state = trained(network, lambda out, target: ((out - target) ** 2).mean(), {"table": rows}, rows, LoopSettings(epochs=3, batch_size=20), np.arange(10))
    assert len(state.history) == 3 and state.history[-1]["train_loss"] < state.history[0]["train_loss"] and not network.training


class Killed(BaseException):
    "As if the process had been killed."


@pytest.mark.parametrize("at", [1, 5, 11])
def test_a_training_that_was_killed_goes_on_to_the_same_weights(at, digits, tmp_path, monkeypatch):
    coder = small(VariationalAutoencoder, epochs=3, batch_size=25, masked=0.2, noise=0.1)
    whole, step, steps = clone(coder).fit(digits[:120]), Trainer._try_step, []

    def killed(self, where):
        steps.append(self.state.step)
        if len(steps) == at + 1:
            raise Killed
        return step(self, where)

    monkeypatch.setattr(Trainer, "_try_step", killed)
    with pytest.raises(Killed), resumable(Checkpoints(tmp_path, every=0.0), "coder"):
        clone(coder).fit(digits[:120])
    with resumable(Checkpoints(tmp_path, every=0.0), "coder"):
        resumed = clone(coder).fit(digits[:120])
    assert np.array_equal(resumed.model_, whole.model_) and resumed.history_ == whole.history_
    assert steps[at + 1] > 0, "training began anew"
