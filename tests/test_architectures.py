"Every architecture: shapes, rows that don't disturb each other, chance under control, learning, tracing."

from __future__ import annotations

import re
import threading

import numpy as np
import pytest
import torch
from torch import nn

from mlbench.core.errors import UsageError
from mlbench.data.parts import Part, record_of
from mlbench.models.convnets import RESNETS
from mlbench.models.fusion import NETWORKS, USUAL, build, chosen_encoders
from mlbench.models.layers import Drop, made, mixed, set_generators

PARTS = {
    "tokens": Part("tokens review", "tokens", "review", (7,), 30),
    "pixels": Part("pixels photo", "pixels", "photo", (9, 8, 3)),
    "table": Part("table", "table", "", (4,)),
}
SIZES = {"width": 16, "embedding": 8}


def rows_of(kind: str, rows: int = 32, seed: int = 0) -> np.ndarray:
    "A record with one part."
    random, part = np.random.default_rng(seed), PARTS[kind]
    if kind == "tokens":
        values = random.integers(2, part.size, (rows, *part.shape))
        values[np.arange(part.shape[0])[None] >= random.integers(1, part.shape[0] + 1, rows)[:, None]] = 0
    else:
        values = random.integers(0, 256, (rows, *part.shape)) if kind == "pixels" else random.normal(size=(rows, *part.shape))
    return record_of([part], [values])


def tensors(record: np.ndarray) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(record[name])) for name in record.dtype.names}


def network_of(name: str, outputs: int = 2, seed: int = 0, **sizes) -> nn.Module:
    kind = NETWORKS[name].kind
    network = made(lambda: build(name, [PARTS[kind]], outputs, SIZES | sizes), seed)
    network.learn(rows_of(kind))
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_each_says_where_it_comes_from_and_gives_what_it_says(name):
    builder, network = NETWORKS[name], network_of(name, outputs=5)
    encoder = network.encoders[0]
    assert re.search(r"(19|20)\d\d", type(encoder).__doc__), "the docstring names the paper"
    assert builder.about and set(builder.suits) <= {"learning_rate", "batch_size", "max_epochs"}
    record = rows_of(builder.kind, 6)
    network.eval()
    assert encoder(tensors(record)[PARTS[builder.kind].name]).shape == (6, encoder.outputs)
    assert network(tensors(record)).shape == (6, 5) and network(tensors(record)).abs().sum() == 0, "all classes are alike at first"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_is_read_the_same_alone_and_among_others_and_traced(name):
    network = network_of(name).eval()
    batch = tensors(rows_of(NETWORKS[name].kind, 9))
    with torch.no_grad():
        nn.init.normal_(network.head[-1].weight, generator=torch.Generator().manual_seed(1))
        seen = network(batch)
        alone = torch.cat([network({k: v[n : n + 1] for k, v in batch.items()}) for n in range(9)])
        traced = torch.fx.symbolic_trace(network)
        again = traced(batch)
        fewer = traced({k: v[:4] for k, v in batch.items()})
    torch.testing.assert_close(alone, seen, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again, seen)
    torch.testing.assert_close(fewer, seen[:4], rtol=1e-4, atol=1e-5)
    assert (seen - seen.flip(0)).abs().max() > 1e-4, "rows differ"


@pytest.mark.parametrize("name", NETWORKS)
def test_each_learns_thirty_two_rows_by_heart_and_the_same_way_twice(name):
    kind = NETWORKS[name].kind
    batch, goal = tensors(rows_of(kind)), torch.arange(32) % 2

    def trained(steps: int) -> tuple[nn.Module, list[float]]:
        network, losses = network_of(name, dropout=0.05), []
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.02 if name in ("mean", "bag") else 0.01, weight_decay=0.0)
        for step in range(steps):
            set_generators(network, 3, step)
            loss = nn.functional.cross_entropy(network(batch), goal)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            if step > 25 and sum(losses[-3:]) < 0.3:
                break
        return network, losses

    before = torch.get_rng_state()
    network, losses = trained(150)
    assert abs(losses[0] - np.log(2)) < 1e-3 and min(losses[-3:]) < 0.25
    assert (network.eval()(batch).argmax(1) == goal).float().mean() >= 0.9
    assert torch.get_rng_state().equal(before), "the global state is not touched"
    assert trained(6)[1] == losses[:6]


@pytest.mark.parametrize("name", NETWORKS)
def test_each_is_written_as_a_graph_that_answers_the_same(name):
    pytest.importorskip("onnxruntime")
    from mlbench.deployment.torchgraph import network_difference

    network, record = network_of(name, outputs=3).eval(), rows_of(NETWORKS[name].kind, 6)
    with torch.no_grad():
        nn.init.normal_(network.head[-1].weight, generator=torch.Generator().manual_seed(1))
    values = {field: np.ascontiguousarray(record[field]) for field in record.dtype.names}
    assert network_difference(network, values) < 1e-4
    assert network_difference(network, {field: v[:1] for field, v in values.items()}) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_each_can_be_trained_with_numbers_of_sixteen_bits(name):
    network, batch = network_of(name, dropout=0.0), tensors(rows_of(NETWORKS[name].kind))
    plain = network.eval().features(batch).detach()
    with torch.autocast("cpu", torch.bfloat16):
        short = network.features(batch)
    assert (short.float() - plain).abs().mean() < 0.05 * max(float(plain.std()), 0.1)
    set_generators(network.train(), 0, 0)
    with torch.autocast("cpu", torch.bfloat16):
        scores = network(batch)
    nn.functional.cross_entropy(scores.float(), torch.arange(32) % 2).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_two_networks_trained_side_by_side_come_to_the_same_as_one_after_the_other():
    batch, goal, found = tensors(rows_of("table")), torch.arange(32) % 2, {}

    def train(seed: int, name: str) -> None:
        network = network_of("curves", seed=seed, dropout=0.3)
        optimizer = torch.optim.Adam(network.parameters())
        for step in range(25):
            set_generators(network, seed, step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(batch), goal).backward()
            optimizer.step()
        found[name] = torch.cat([p.detach().flatten() for p in network.parameters()])

    for seed in (0, 1):
        train(seed, f"alone {seed}")
    threads = [threading.Thread(target=train, args=(seed, f"beside {seed}")) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[f"alone {seed}"].equal(found[f"beside {seed}"]) for seed in (0, 1))
    assert not found["alone 0"].equal(found["alone 1"])


@pytest.mark.parametrize("name", [n for n, b in NETWORKS.items() if b.kind == "tokens"])
def test_texts_that_are_empty_or_full_are_read(name):
    network = network_of(name)
    tokens = torch.zeros(3, 7, dtype=torch.int32)
    tokens[1], tokens[2, 0] = 29, 1
    set_generators(network, 0, 0)
    network.train()({"tokens review": tokens}).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert network.eval().features({"tokens review": tokens}).isfinite().all()


@pytest.mark.parametrize("name", [n for n, b in NETWORKS.items() if b.kind == "pixels"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 30, 1), (33, 17, 3)], ids=str)
def test_pictures_of_any_sides_are_read(name, shape):
    part = Part("pixels", "pixels", "", shape)
    network = made(lambda: build(name, [part], 2, {"width": 8}), 0).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (4, *shape)).astype(np.uint8)
    network.learn(record_of([part], [pixels]))
    assert network.features({"pixels": torch.from_numpy(pixels)}).isfinite().all()
    same = np.full((4, *shape), 255, np.uint8)
    network.learn(record_of([part], [same]))
    assert network.features({"pixels": torch.from_numpy(same)}).isfinite().all(), "pictures of one colour"


def test_numbers_of_any_size_are_read():
    for name in ("curves", "table_transformer"):
        network = network_of(name).eval()
        wild = torch.tensor([[3.4e38, -3.4e38, 0.0, 1e-30]])
        assert network.features({"table": wild}).isfinite().all()
    constant = record_of([PARTS["table"]], [np.ones((20, 4))])
    network = made(lambda: build("curves", [PARTS["table"]], 2), 0).eval()
    network.learn(constant)
    assert network.features(tensors(constant)).isfinite().all()


def test_all_kinds_together_and_parts_of_one_kind_twice():
    twice = [PARTS["tokens"], PARTS["tokens"]._replace(name="tokens title", shape=(3,), size=9), PARTS["table"], PARTS["pixels"]]
    network = made(lambda: build("bag+resnet", twice, 3, SIZES), 0)
    assert [type(e).__name__ for e in network.encoders] == ["BagOfWords", "BagOfWords", "TableNet", "ResNet"]
    random = np.random.default_rng(0)
    blocks = [random.integers(0, 30, (8, 7)), random.integers(0, 9, (8, 3)), random.normal(size=(8, 4)), random.integers(0, 256, (8, 9, 8, 3))]
    record = record_of(twice, blocks)
    network.learn(record)
    set_generators(network, 0, 0)
    nn.functional.cross_entropy(network(tensors(record)), torch.arange(8) % 3).backward()
    assert network.head[-1].weight.grad.abs().sum() > 0
    assert network.eval()(tensors(record)).shape == (8, 3)


def test_every_kind_of_part_has_a_usual_network_and_mistakes_are_told():
    assert set(USUAL) == set(PARTS) and all(NETWORKS[name].kind == kind for kind, name in USUAL.items())
    with pytest.raises(UsageError, match="there is no 'lenet'. For each kind of part there are: tokens \\(mean, bag"):
        chosen_encoders("lenet", list(PARTS.values()))
    with pytest.raises(UsageError, match="gru reads tokens, and these rows hold table. Leave it out"):
        build("gru", [PARTS["table"]], 2)
    with pytest.raises(UsageError, match="lstm reads them already"):
        build("gru+lstm", [PARTS["tokens"]], 2)
    with pytest.raises(UsageError, match="a resnet has depth 8, 14, 20, 18, 34, 50, and depth=9 was given"):
        build("resnet", [PARTS["pixels"]], 2, {"depth": 9})
    with pytest.raises(ValueError, match="dropout is a share"):
        build("curves", [PARTS["table"]], 2, {"dropout": 1.5})


def test_sizes_are_those_of_the_papers():
    with torch.device("meta"):
        large = Part("pixels", "pixels", "", (224, 224, 3))
        layers = {depth: build("resnet", [large], 1000, {"depth": depth, "width": 64 if depth != 8 else 16}) for depth in RESNETS}
        words = build("text_cnn", [PARTS["tokens"]._replace(size=20_000)], 2)
    count = {depth: sum(p.numel() for p in network.parameters()) for depth, network in layers.items()}
    assert count[50] == 25_557_032 and count[18] == 11_689_512 and count[34] == 21_797_672  # torchvision's
    assert words.encoders[0].outputs == 300 and words.encoders[0].words.table.weight.shape == (20_000, 100)


def test_deeper_and_wider_have_more_weights():
    size = lambda name, **config: sum(p.numel() for p in network_of(name, **config).parameters())
    for name in ("gru", "transformer", "convolutions", "small_cnn", "efficientnet", "convnext", "patches", "curves", "table_transformer", "bag"):
        assert size(name, depth=2) > size(name, depth=1), name
    for name in NETWORKS:
        if name != "mean":
            assert size(name, width=32, depth=NETWORKS[name].kind == "tokens" and name == "bag" and 1 or 0) > size(name, width=16), name


def test_dropout_needs_a_generator_and_is_even():
    drop, seeds = Drop(0.3), [mixed(0, step) for step in range(200)]
    assert len(set(seeds)) == 200
    with pytest.raises(RuntimeError, match="set_generators"):
        drop.train()(torch.ones(2))
    shares = []
    for seed in seeds:
        drop.generator = torch.Generator().manual_seed(seed)
        shares.append((drop(torch.ones(7, 11)) == 0).float().mean().item())
    assert abs(np.mean(shares) - 77 / 256) < 0.01
    assert drop.eval()(torch.ones(3)).tolist() == [1, 1, 1]


def test_mirrored_pictures_get_the_same_answer_where_that_was_asked_for():
    part = PARTS["pixels"]
    pixels = tensors(rows_of("pixels", 5))
    mirrored = {part.name: pixels[part.name].flip(2)}
    plain, both = (made(lambda m=m: build("small_cnn", [part], 2, SIZES | {"mirror": m}), 0) for m in (False, True))
    for network in (plain, both):
        network.learn(rows_of("pixels"))
        network.eval()
    torch.testing.assert_close(both.features(pixels), both.features(mirrored), rtol=1e-4, atol=1e-5)
    assert not plain.features(pixels).allclose(plain.features(mirrored), rtol=1e-3)
    assert both.state_dict().keys() == plain.state_dict().keys()
