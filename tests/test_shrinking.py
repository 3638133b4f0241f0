"""Smaller files of networks: what they keep of the answers, what they leave alone, and which one is taken."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from test_media_export import fitted, offers
from test_torchgraph import Listening, Pictures, Sentences, made

from mlbench.core.errors import ExportError, UsageError
from mlbench.deployment import Bundle, proven_onnx, write_bundle
from mlbench.deployment.graph import Block, Graph
from mlbench.deployment.rows import Scorer
from mlbench.deployment.shrinking import (
    ALL_WAYS,
    AS_IT_IS,
    WAYS,
    Variant,
    gain_interval,
    made_smaller,
    metric_interval,
    pick,
    reproven,
    shrunk,
    single_constants,
    smaller_file,
    steps_between,
    variants_frame,
    without_zeros,
)
from mlbench.deployment.torchgraph import _entered, network_block
from mlbench.problem.criteria import parse_criterion

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 10, (40, 6))
PIXELS = RNG.integers(0, 256, (40, 12, 8, 3), dtype=np.uint8)


def written(network, **parts):
    "The file of a network, and what it is fed with."
    graph, fed, blocks = Graph(), {}, {}
    for name, values in parts.items():
        blocks[name], own = _entered(graph, name, values)
        fed |= own
    return graph.build({"answer": network_block(graph, network, blocks)}, {"mlbench.spread": graph.spread}), fed


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kind", "parts"), [(Pictures, {"pixels": PIXELS}), (Sentences, {"tokens": TOKENS}), (lambda: Listening("GRU"), {"tokens": TOKENS})])
def test_answers_stay_near_for_any_number_of_rows(kind, parts, way):
    data, fed = written(made(kind), **parts)
    file = smaller_file(data, way, fed)
    before, after = Scorer(data), Scorer(file)
    spread = float(np.ptp(before(fed)))
    for some in (slice(0, 1), slice(0, 40), slice(3, 10)):
        rows = {n: v[some] for n, v in fed.items()}
        assert after(rows).shape == before(rows).shape
        assert np.abs(after(rows) - before(rows)).max() < 0.1 * spread
    assert {p.key for p in onnx.load_from_string(file).metadata_props} >= {"mlbench.spread"}


def test_the_same_file_is_made_twice():
    data, fed = written(made(Pictures), pixels=PIXELS)
    for way in WAYS:
        assert smaller_file(data, way, fed) == smaller_file(data, way, fed), way


def test_a_large_network_has_a_third_of_its_size_with_eight_bits():
    import torch

    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.body = torch.nn.Embedding(2000, 64), torch.nn.Sequential(torch.nn.Linear(64, 512), torch.nn.GELU(), torch.nn.Linear(512, 2))

        def forward(self, parts):
            return self.body(self.words(parts["tokens"]).mean(1))

    data, fed = written(made(Wide), tokens=RNG.integers(0, 2000, (40, 6)))
    sizes = {way: len(smaller_file(data, way, fed)) / len(data) for way in WAYS}
    assert sizes["int8"] <= 1 / 3
    assert sizes["int8_static"] <= 1 / 3
    assert 0.45 < sizes["fp16"] < 0.55


def test_doubles_trees_and_texts_beside_a_network_are_left_alone():
    graph = Graph()
    x = graph.input("x", "number")
    wide = graph.join([x, Block(graph.node("Mul", x.tensor, graph.constant(3.0)), "number")])
    exact = graph.node("MatMul", wide.tensor, graph.constant(RNG.normal(size=(2, 64))))
    data = graph.build({"answer": Block(exact, "number", 64)})
    given = {"x": RNG.normal(size=(20, 1))}
    assert not single_constants(onnx.load_from_string(data))
    for way in WAYS:
        assert (Scorer(smaller_file(data, way, given))(given) == Scorer(data)(given)).all(), way


@pytest.mark.parametrize("share", [0.5, 0.7, 0.95, 0.999])
@pytest.mark.parametrize(("kind", "parts"), [(Pictures, {"pixels": PIXELS}), (Sentences, {"tokens": TOKENS}), (lambda: Listening("GRU"), {"tokens": TOKENS})])
def test_zeros_are_left_out_of_the_file_and_no_answer_changes(kind, parts, share):
    import torch

    network, random = made(kind), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.mul_(torch.rand(weight.shape, generator=random) > share)
    data, fed = written(network, **parts)
    packed = without_zeros(data)
    assert (Scorer(packed)(fed) == Scorer(data)(fed)).all()
    assert {p.key for p in onnx.load_from_string(packed).metadata_props} >= {"mlbench.spread"}
    assert without_zeros(packed) == packed
    onnx.checker.check_model(onnx.load_from_string(packed))


@pytest.mark.parametrize("places", [[], [0], [255], [256], [0, 255], [0, 256, 511], [510, 1021], [999], list(range(40))])
def test_steps_lead_to_every_number(places):
    values = np.zeros(1100, np.float32)
    values[places] = 1.0 + np.arange(len(places))
    steps, there = steps_between(values)
    assert steps.dtype == np.uint8 and len(steps) == len(there)
    back = np.zeros_like(values)
    back[np.cumsum(steps.astype(int))] = there
    assert (back == values).all()


def test_a_sparse_network_has_a_third_of_its_size():
    import torch

    layer = torch.nn.Linear(256, 256)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(256, 256, generator=torch.Generator().manual_seed(0)) > 0.8)

    class Alone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, parts):
            return self.layer(parts["table"])

    data, _ = written(Alone().eval(), table=RNG.normal(size=(4, 256)).astype(np.float32))
    assert len(without_zeros(data)) < 0.34 * len(data)


def test_an_unknown_way_is_refused():
    data, fed = written(made(Pictures), pixels=PIXELS)
    with pytest.raises(UsageError, match="way='int4' is unknown"):
        smaller_file(data, "int4", fed)


@pytest.fixture(scope="module")
def packed():
    "A model of offers, its rows, its file and its proof."
    model, frame = fitted(offers(), "binary", "network")
    return model, frame, *proven_onnx(model, frame)


def test_every_way_is_measured_and_the_choice_is_packed(packed, tmp_path):
    model, frame, data, parity = packed
    variants = shrunk(data, model, frame, "log_loss")
    assert [v.name for v in variants] == [AS_IT_IS, *WAYS]
    assert variants[0].data == data
    assert variants[0].differs == 0
    for v in variants:
        assert v.size_mb == len(v.data) / 1e6
        assert v.latency_ms > 0
        assert v.metric[1] <= v.metric[0] <= v.metric[2]
        assert v.differs < 0.2
    table = variants_frame(variants, variants[1], "log_loss")
    assert table[""].tolist() == ["", "taken", "", ""]
    chosen = pick(variants, [parse_criterion("model_size_mb", f"<= {variants[0].size_mb - 1e-6}")], "log_loss")
    assert chosen.name != AS_IT_IS
    proof = reproven(model, chosen, parity, frame)
    assert proof.passed
    assert proof.max_rel <= proof.tolerance
    bundle = write_bundle(tmp_path / "b", model, chosen.data, proof, frame, "offers")
    assert np.abs(Bundle.load(bundle.folder).predict_proba(frame) - model.predict_proba(frame)).max() <= proof.tolerance


def test_a_model_without_networks_has_its_original_alone():
    model, frame = fitted(offers(), "binary", "linear", ("note", "photo"))
    data, _ = proven_onnx(model, frame)
    variants = shrunk(data, model, frame, "log_loss")
    assert [v.name for v in variants] == [AS_IT_IS]
    assert pick(variants, [], "log_loss") is variants[0]


def test_a_student_may_stand_among_the_files(packed):
    model, frame, data, _ = packed
    variants = shrunk(data, model, frame, "log_loss", ways=(), others={"student": data})
    assert [v.name for v in variants] == [AS_IT_IS, "student"]
    assert variants[1].metric == variants[0].metric


@pytest.fixture(scope="module")
def all_ways(packed):
    "All ways for the offers."
    from types import SimpleNamespace

    model, frame, data, parity = packed
    return made_smaller("auto", data, parity, model, frame, SimpleNamespace(metric="log_loss", criteria=list), seconds=4.0)


def test_every_way_that_trains_has_a_model_that_says_what_its_file_says(all_ways, packed):
    model, frame, data, parity = packed
    assert not all_ways.failures
    found = {v.name: v for v in all_ways.variants}
    assert list(found) == [AS_IT_IS, *ALL_WAYS]
    for name in ("pruned", "narrow", "student"):
        v = found[name]
        assert v.model is not None and v.model is not model
        assert v.size_mb < found[AS_IT_IS].size_mb, name
        assert reproven(model, v, parity, frame).passed
        assert v.gain[1] <= v.gain[0] <= v.gain[2]
    assert all(found[way].model is None for way in WAYS)
    assert found["student"].model.spec_name == "student"
    assert not all_ways.fair and "flatters it" in all_ways.sentence()
    assert all_ways.model is (all_ways.chosen.model or model)
    assert (all_ways.note() == "") == (all_ways.chosen.name == AS_IT_IS)


def test_a_way_that_fails_is_told_and_the_others_go_on(packed, monkeypatch):
    from types import SimpleNamespace

    def broken(original, way):
        raise ExportError("It cannot be\nwritten.")

    model, frame, data, parity = packed
    monkeypatch.setattr("mlbench.deployment.shrinking.TRAINED", dict.fromkeys(("pruned", "narrow", "student"), broken))
    problem = SimpleNamespace(metric="log_loss", criteria=list)
    found = made_smaller("auto", data, parity, model, frame, problem)
    assert found.failures == dict.fromkeys(("pruned", "narrow", "student"), "ExportError: It cannot be")
    assert [v.name for v in found.variants] == [AS_IT_IS, *WAYS]
    assert found.to_frame()[""].tolist()[-1] == "failed: ExportError: It cannot be"
    assert "`student` failed: ExportError: It cannot be." in found.sentence()
    with pytest.raises(ExportError, match="It cannot be"):
        made_smaller("narrow", data, parity, model, frame, problem)


def test_a_model_without_networks_is_told_what_is_left_alone():
    from types import SimpleNamespace

    model, frame = fitted(offers(), "binary", "word_linear", ("photo",))
    data, parity = proven_onnx(model, frame)
    problem = SimpleNamespace(metric="log_loss", criteria=list)
    for way in ("auto", "int8", "narrow", "pruned"):
        found = made_smaller(way, data, parity, model, frame, problem)
        assert [v.name for v in found.variants] == [AS_IT_IS], way
        assert "No network is part of the model (word_linear)" in found.sentence()
        assert found.chosen.data == data and found.model is model and found.parity is parity
    found = made_smaller("student", data, parity, model, frame, problem, seconds=3.0)
    assert [v.name for v in found.variants] == [AS_IT_IS, "student"]
    assert "handed over as it is" in made_smaller("no", data, parity, model, frame, problem).sentence()


@pytest.mark.parametrize(("metric", "worse"), [("accuracy", True), ("log_loss", True), ("brier", True), ("roc_auc", True)])
def test_a_file_that_is_worse_is_worse_in_every_metric(metric, worse):
    y = np.array([0, 1] * 60)
    good = np.clip(np.eye(2)[y] * 0.6 + 0.2 + RNG.normal(0, 0.05, (120, 1)) * [1, -1], 0.01, 0.99)
    spoilt = np.where(np.arange(120)[:, None] % 3 == 0, good[:, ::-1], good)
    first, second = metric_interval(metric, y, good), metric_interval(metric, y, spoilt)
    assert all(v[1] <= v[0] <= v[2] for v in (first, second))
    assert min(*first, *second) >= 0, "as the metric is written, not with the sign turned"
    gain = gain_interval(metric, y, spoilt, good)
    assert gain[1] <= gain[0] <= gain[2] < 0
    files = [Variant(AS_IT_IS, b"", 4.0, 2.0, first, 0.0), Variant("int8", b"", 1.0, 1.0, second, 0.5, gain)]
    assert pick(files, [], metric).name == AS_IT_IS
    assert pick([files[0], files[1]._replace(gain=None)], [], metric).name == AS_IT_IS


def test_values_are_compared_the_right_way_round():
    y = RNG.normal(size=100)
    near, far = y[:, None] + RNG.normal(0, 0.1, (100, 1)), y[:, None] + RNG.normal(0, 1.0, (100, 1))
    assert metric_interval("rmse", y, near)[0] < metric_interval("rmse", y, far)[1]
    assert gain_interval("rmse", y, far, near)[2] < 0 < gain_interval("rmse", y, near, far)[1]
    assert gain_interval("r2", y, far, near)[2] < 0


FIRST = Variant(AS_IT_IS, b"", 4.0, 2.0, (0.30, 0.25, 0.35), 0.0)


@pytest.mark.parametrize(
    ("others", "limits", "name"),
    [
        ([("int8", 1.0, 1.0, 0.34)], {}, "int8"),
        ([("int8", 1.0, 1.0, 0.36)], {}, AS_IT_IS),
        ([("int8", 1.0, 1.0, 0.10)], {}, "int8"),
        ([("int8", 1.0, 5.0, 0.30), ("fp16", 2.0, 2.0, 0.30)], {"latency_p95_ms": "<= 3"}, "fp16"),
        ([("int8", 1.0, 5.0, 0.30), ("fp16", 2.0, 2.0, 0.30)], {"model_size_mb": "<= 1.5"}, "int8"),
        ([("int8", 1.0, 5.0, 0.60), ("fp16", 2.0, 2.0, 0.30)], {"model_size_mb": "<= 1.5"}, "fp16"),
        ([("fp16", 3.95, 2.0, 0.30)], {}, AS_IT_IS),
    ],
)
def test_the_choice_keeps_the_metric_and_obeys_the_limits(others, limits, name):
    variants = [FIRST, *(Variant(n, b"", size, ms, (value, value, value), 0.01) for n, size, ms, value in others)]
    criteria = [parse_criterion(k, v) for k, v in limits.items()] + [parse_criterion("log_loss", "<= 0.1")]
    assert pick(variants, criteria, "log_loss").name == name


def test_a_file_that_gives_no_number_is_refused(packed, monkeypatch):
    import dataclasses

    model, frame, _, parity = packed
    monkeypatch.setattr("mlbench.deployment.shrinking.check_parity", lambda *a, **k: dataclasses.replace(parity, max_rel=float("inf")))
    with pytest.raises(ExportError, match="gives no number where the model does"):
        reproven(model, FIRST._replace(name="int8"), parity, frame)


def test_the_word_of_the_template(packed):
    from types import SimpleNamespace

    model, frame, data, parity = packed
    problem = SimpleNamespace(metric="log_loss", criteria=lambda: [parse_criterion("model_size_mb", f"<= {0.6 * len(data) / 1e6}")])
    left = made_smaller("no", data, parity, model, frame, problem)
    assert left.chosen.data == data
    assert left.parity is parity
    taken = made_smaller("fp16", data, parity, model, frame, problem)
    assert taken.chosen.name == "fp16"
    assert len(taken.to_frame()) == 2
    assert "Weights as fp16" in taken.sentence()
    assert taken.parity.passed
    with pytest.raises(UsageError, match="shrink='int4' is unknown"):
        made_smaller("int4", data, parity, model, frame, problem)
