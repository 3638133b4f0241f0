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
from mlbench.deployment.shrinking import AS_IT_IS, WAYS, Variant, made_smaller, pick, reproven, shrunk, single_constants, smaller_file, variants_frame
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
