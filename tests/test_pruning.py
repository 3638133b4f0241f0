"Networks with fewer weights: what hangs together is taken out together, zeros stay zero, and nothing is learned from other rows."

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlbench.core.errors import DataError, UsageError
from mlbench.data.parts import Part, record_of
from mlbench.models.deep import DeepClassifier, DeepRegressor, network_bytes, open_network, told_of
from mlbench.models.fusion import NETWORKS, build
from mlbench.models.layers import made
from mlbench.models.pruning import gradual_shares, kept_units, masks_of, narrowed, outputs_of, pruned, units_of

PARTS = {
    "tokens": Part("words", "tokens", "note", (6,), 20),
    "pixels": Part("pixels", "pixels", "photo", (12, 12, 3)),
    "table": Part("table", "table", "", (3,)),
}
RNG = np.random.default_rng(0)
ROWS = {
    "words": torch.from_numpy(RNG.integers(0, 20, (5, 6))),
    "pixels": torch.from_numpy(RNG.integers(0, 256, (5, 12, 12, 3), dtype=np.uint8)),
    "table": torch.from_numpy(RNG.normal(size=(5, 3)).astype(np.float32)),
}


def made_network(name: str, parts: list[Part], outputs: int = 2):
    "A network whose last layer is no longer zero, and what its file tells."
    about = {"name": name, "parts": parts, "outputs": outputs, "config": {}}
    network = made(lambda: build(name, parts, outputs, {}), 0)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.02 * torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1)))
    return network.eval(), about


def parts_for(name: str) -> list[Part]:
    return [PARTS[NETWORKS[name].kind]]


def said(network, parts):
    with torch.no_grad():
        return network({p.name: ROWS[p.name] for p in parts}).numpy()


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_units_that_are_zero_are_the_ones_that_go_and_no_answer_changes(name):
    network, about = made_network(name, parts_for(name))
    tensors, taken = network.state_dict(), {}
    with torch.no_grad():
        for units in units_of(network):
            taken[units.name] = units.number - kept_units(units.number, 0.5)
            for own, axis, places in units.slots:
                tensors[own].index_fill_(axis, torch.from_numpy(places[1 : 1 + taken[units.name]].ravel()), 0.0)
                if own.endswith("running_var"):
                    tensors[own].clamp_(min=1.0)
    less, found = narrowed(network, 0.5)
    assert found == {unit: count for unit, count in taken.items() if count}
    assert sum(p.numel() for p in less.parameters()) < 0.8 * sum(p.numel() for p in network.parameters())
    assert np.abs(said(less, about["parts"]) - said(network, about["parts"])).max() < 1e-4
    again = open_network(network_bytes(less, about | {"narrowed": outputs_of(less)}))
    assert outputs_of(again) == outputs_of(less) == [less.head[0].in_features]
    assert (said(again, about["parts"]) == said(less, about["parts"])).all()


@pytest.mark.parametrize("name", ["gru", "transformer", "efficientnet", "resnet", "text_cnn", "convnext", "curves"])
def test_a_narrow_network_is_written_as_onnx(name):
    from mlbench.deployment.torchgraph import network_difference

    network, about = made_network(name, parts_for(name))
    less, _ = narrowed(network, 0.6)
    assert network_difference(less, {p.name: ROWS[p.name].numpy() for p in about["parts"]}) < 1e-4


def test_several_parts_of_a_row_and_two_rounds():
    parts = list(PARTS.values())
    network, about = made_network("lstm+small_cnn+curves", parts, 3)
    less, _ = narrowed(network, 0.3)
    least, _ = narrowed(less, 0.5)
    sizes = [len(network_bytes(n, about)) for n in (network, less, least)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert said(least, parts).shape == (5, 3)
    opened = open_network(network_bytes(least, about | {"narrowed": outputs_of(least)}))
    assert outputs_of(opened) == outputs_of(least) and sum(outputs_of(least)) == least.head[1].in_features
    assert (said(opened, parts) == said(least, parts)).all()
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in made_network("lstm+small_cnn+curves", parts, 3)[0].parameters())


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0])
def test_shares_that_cannot_be(share):
    with pytest.raises(UsageError, match="expected a share between 0 and 1"):
        narrowed(made_network("mean", parts_for("mean"))[0], share)
    with pytest.raises(UsageError, match="no units that can be taken out"):
        narrowed(torch.nn.Linear(2, 2), 0.5)
    if share:
        with pytest.raises(UsageError, match="0.8 keeps one weight of five"):
            masks_of(torch.nn.Linear(2, 2), share)


def test_small_weights_go_first_and_no_layer_loses_all():
    network = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Linear(30, 4))
    with torch.no_grad():
        network[1].weight.mul_(1e-3)
    masks = masks_of(network, 0.5)
    assert set(masks) == {"0.weight", "1.weight"}
    for name, mask in masks.items():
        weight = network.get_parameter(name).abs()
        assert 0.3 < mask.float().mean() < 0.7
        assert weight[mask].min() >= weight[~mask].max()
    assert masks_of(network, 0.0)["0.weight"].all()
    shares = gradual_shares(0.9, 5)
    assert shares == sorted(shares) and shares[-1] == 0.9 and np.diff(shares)[0] > np.diff(shares)[-1]


def rows(count: int = 80):
    "A record of words and numbers, and which words are in it."
    y = RNG.integers(0, 2, count)
    words = np.where(y[:, None] == 1, RNG.integers(2, 8, (count, 6)), RNG.integers(8, 14, (count, 6)))
    return record_of([PARTS["tokens"], PARTS["table"]], [words, RNG.normal(size=(count, 3))]), y


@pytest.fixture(scope="module")
def fitted():
    X, y = rows()
    names = np.array(["bad", "good"])[y]
    return DeepClassifier("text_cnn", width=16, max_epochs=4, learning_rate=0.01, random_state=0).fit(X, names), X, names


@pytest.mark.parametrize("way", ["zeros", "narrow"])
def test_an_estimator_with_fewer_weights_answers_as_well(fitted, way):
    model, X, names = fitted
    before = model.model_.tobytes()
    less = pruned(model, X, names, way, epochs=2)
    assert model.model_.tobytes() == before
    assert less.pruned_["weights"] < 0.6 * less.pruned_["weights_before"]
    assert (less.predict(X) == names).mean() > 0.9
    assert list(less.classes_) == ["bad", "good"]
    again = pruned(model, X, names, way, epochs=2)
    assert again.model_.tobytes() == less.model_.tobytes(), "the same seed gives the same weights"
    assert bool(told_of(less.model_.tobytes()).get("narrowed")) == (way == "narrow")
    if way == "zeros":
        weights = [p for p in less.torch_network().parameters() if p.ndim >= 2]
        assert sum(int((w == 0).sum()) for w in weights) >= 0.79 * sum(w.numel() for w in weights)


def test_zeros_stay_zero_in_the_running_mean_of_the_weights():
    X, y = rows()
    model = DeepClassifier("text_cnn", width=16, max_epochs=4, learning_rate=0.01, average=0.9, random_state=0).fit(X, y)
    less = pruned(model, X, y, "zeros", epochs=2)
    weights = [p for p in less.torch_network().parameters() if p.ndim >= 2]
    assert sum(int((w == 0).sum()) for w in weights) >= 0.79 * sum(w.numel() for w in weights)


def test_a_model_of_values_keeps_its_scale():
    X, y = rows()
    values = 1000.0 + 50.0 * y
    model = DeepRegressor("mean", max_epochs=6, learning_rate=0.02, random_state=0).fit(X, values)
    less = pruned(model, X, values, "narrow", epochs=3)
    assert np.corrcoef(less.predict(X), values)[0, 1] > 0.8
    assert 950 < less.predict(X).mean() < 1100


def test_what_cannot_be_pruned_is_told(fitted):
    model, X, names = fitted
    with pytest.raises(UsageError, match="way='zero' is unknown. Did you mean 'zeros'"):
        pruned(model, X, names, "zero")
    with pytest.raises(DataError, match="80 rows and 3 answers"):
        pruned(model, X, names[:3])
    with pytest.raises(DataError, match="is a class that the estimator knows: bad, good"):
        pruned(model, X, np.full(80, "other"))
    with pytest.raises(UsageError, match="Ridge cannot be pruned"):
        from sklearn.linear_model import Ridge

        pruned(Ridge(), X, names)


def test_rows_of_classes_that_the_fold_did_not_have_are_left_out(fitted):
    model, X, names = fitted
    more = names.astype(object)
    more[:3] = "other"
    assert list(pruned(model, X, more, "narrow", epochs=1).classes_) == ["bad", "good"]


def test_an_estimator_that_was_stored_before_a_setting_was_a_choice(fitted):
    import copy

    model, X, names = fitted
    older = copy.copy(model)
    del older.clip
    assert pruned(older, X, names, "narrow", epochs=1).pruned_["weights"] > 0
