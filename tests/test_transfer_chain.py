"""Checkpoints through the chain: candidates on folds, a blend, a stored model, a file, a bundle and a service.

The checkpoints are made here, and nothing is fetched.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from bundles import packed_in
from checkpoints import SMALL, saved_reader, saved_viewer, transformers
from test_media_export import png

from mlbench.core.errors import DataError, ExportError, UsageError
from mlbench.data.pieces import piece_ids
from mlbench.data.schema import infer_schema
from mlbench.deployment import ask, smoke_test, start_service
from mlbench.deployment.parity import proven_onnx
from mlbench.deployment.rows import Scorer
from mlbench.deployment.shrinking import WAYS, smaller_file
from mlbench.deployment.steps import feeds
from mlbench.deployment.torchgraph import network_difference
from mlbench.features.plan import make_plan
from mlbench.models.opening import Opened, _tried, look_at_checkpoint, open_checkpoint, without_pooler
from mlbench.models.registry import checkpoint_specs, model_spec
from mlbench.models.transfer import TransferClassifier, TransferNet
from mlbench.problem.target import make_target
from mlbench.training.arena import Arena
from mlbench.training.blend import assembled
from mlbench.training.front import fit
from mlbench.training.lineup import from_checkpoint
from mlbench.training.model import Model

WORDS = ["fine", "dull", "film", "the", "plot", "actors", "great", "boring"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return saved_reader(tmp_path_factory.mktemp("reader"), WORDS)


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    return saved_viewer(tmp_path_factory.mktemp("viewer"))


def offers(rows: int = 60, photos: bool = False) -> pd.DataFrame:
    "A text, a number and perhaps a photo of each offer; some are missing."
    rng = np.random.default_rng(0)
    notes = [" ".join(rng.choice(WORDS, rng.integers(1, 7))) for _ in range(rows)]
    frame = pd.DataFrame({"note": notes, "price": rng.normal(50, 10, rows)}).astype({"note": "str"})
    frame["sold"] = np.where(["fine" in n for n in notes], "yes", "no")
    frame.loc[::9, "note"], frame.loc[4::9, "price"] = None, None
    if photos:
        bright = np.where(frame["sold"] == "yes", 190, 60)
        frame["photo"] = pd.Series([png(np.clip(rng.normal(b, 30, (9, 8, 3)), 0, 255).astype(np.uint8)) for b in bright], dtype="str")
    return frame


def planned(frame: pd.DataFrame):
    "Schema, target, plan and codes."
    kinds = {k: v for k, v in {"note": "text", "photo": "image"}.items() if k in frame}
    roles = SimpleNamespace(ignore=[], group=None, time=None, sensitive=[])
    problem = SimpleNamespace(target="sold", task="binary", positive=None, columns=roles, split=SimpleNamespace(column=None), to_dict=lambda: None)
    schema, target = infer_schema(frame, kinds), make_target(frame["sold"], problem)
    return problem, schema, target, make_plan(schema, problem, frame), target.encode(frame["sold"])


def quick(folder, reads: str = "text", **more):
    "A checkpoint as candidates that take a moment."
    frozen, thawed = checkpoint_specs(reads, str(folder), look_at_checkpoint(folder).sha256)
    return [frozen, thawed.variant(thawed.name, {"epochs": 1, "learning_rate": 1e-3} | more)]


def competed(frame: pd.DataFrame, specs, **limits):
    "An arena of two folds whose candidates are done, and what it was made of."
    problem, schema, target, plan, y = planned(frame)
    order = np.arange(len(y))
    folds = [(order[order % 2 != k], order[order % 2 == k]) for k in (0, 1)]
    arena = Arena(plan, frame, y, folds, schema=schema, target=target, metrics=["log_loss"], n_jobs=1, **limits)
    return arena.compete(specs), problem, schema, target, plan


def blended(frame: pd.DataFrame, specs) -> Model:
    "A blend of all candidates."
    arena, problem, schema, target, plan = competed(frame, specs)
    assert not any(e.failure for e in arena.entries.values()), {n: e.failure for n, e in arena.entries.items()}
    weights = {s.name: 1 / len(specs) for s in specs}
    return Model(assembled(arena, weights), problem, schema, target, plan, "ensemble", {}, {})


@pytest.fixture(scope="module")
def blend(reader):
    "Offers, and a blend of words, a frozen and a thawed checkpoint."
    frame = offers()
    return frame, blended(frame, [model_spec("word_linear"), *quick(reader)])


def test_a_checkpoint_learns_on_folds_and_its_predictions_are_out_of_fold(reader):
    frame = offers()
    arena, *_ = competed(frame, [model_spec("dummy"), *quick(reader, epochs=6)])
    oof = arena.oof("text_checkpoint_thawed")
    assert not any(e.failure for e in arena.entries.values())
    assert oof.shape == (60, 2) and np.isfinite(oof).all()
    assert arena.entries["text_checkpoint_frozen"].mean("log_loss") < arena.entries["dummy"].mean("log_loss")
    again, *_ = competed(frame, [])  # the record alone says how everything is done once more
    again.replay(json.loads(json.dumps(arena.record())))
    for name in ("text_checkpoint_frozen", "text_checkpoint_thawed"):
        assert np.array_equal(again.oof(name), arena.oof(name)), name


def test_a_short_time_is_kept_or_the_candidate_says_that_it_is_too_short(reader):
    arena, *_ = competed(offers(300), [model_spec("dummy"), model_spec("word_linear"), *quick(reader, epochs=100_000)], time_limit=6.0)
    thawed = arena.entries["text_checkpoint_thawed"]
    assert thawed.fits or "not compared" in thawed.failure
    assert thawed.fit_seconds < 12


def test_a_stored_blend_answers_without_the_folder(tmp_path):
    import shutil

    folder = saved_reader(tmp_path / "reader", WORDS)
    frame = offers()
    model = blended(frame, quick(folder))
    model.save(tmp_path / "model")
    shutil.rmtree(folder)
    again = Model.load(tmp_path / "model")
    assert np.array_equal(again.predict_proba(frame), model.predict_proba(frame))


def test_the_file_cuts_texts_by_the_tokeniser_that_it_names_and_says_what_the_model_says(blend):
    frame, model = blend
    data, parity = proven_onnx(model, frame)
    assert parity.passed and parity.tolerance == 1e-4 and parity.max_abs < 1e-4 and parity.wrong_labels == 0
    scorer = Scorer(data)
    (how,) = scorer.made_outside.values()
    assert how["column"] == "note" and how["length"] == 8
    odd = pd.DataFrame({"note": ["", "  fine\n\tfine ", "fine 🙂 שלום", "film " * 500, None], "price": 50.0})
    given = feeds(model.conform(odd), {"note": "text", "price": "number"})
    assert np.allclose(scorer(given), model.predict_proba(odd), atol=1e-4)


def test_the_frozen_network_of_all_folds_stands_in_the_file_once(reader):
    import onnx

    frame = offers()
    model = blended(frame, quick(reader)[:1])
    inside = onnx.load_from_string(proven_onnx(model, frame)[0]).graph.initializer
    backbone = sum(p.numel() * 4 for p in open_checkpoint(reader).backbone.parameters())
    assert len(model.pipeline.members_[0]["estimators"]) == 2
    assert sum(len(t.raw_data) for t in inside) < 1.3 * backbone


@pytest.mark.parametrize("way", list(WAYS))
def test_smaller_files_of_a_checkpoint_cut_texts_the_same_way(blend, way):
    frame, model = blend
    data, _ = proven_onnx(model, frame)
    given = feeds(model.conform(frame), {"note": "text", "price": "number"})
    smaller = smaller_file(data, way, given)
    assert len(smaller) < len(data) and Scorer(smaller).made_outside == Scorer(data).made_outside
    assert np.abs(Scorer(smaller)(given) - Scorer(data)(given)).max() < 0.1


def test_fit_takes_a_checkpoint_without_a_project(reader):
    frame, asked = offers(90), {"columns": {"kinds": {"note": "text"}}, "models": ["dummy"], "ensemble": False, "search_trials": 0}
    model = fit(frame, "sold", checkpoint=reader, verbose=False, **asked)
    assert set(model.comparison.arena.entries) == {"dummy", "text_checkpoint_frozen", "text_checkpoint_thawed"}
    assert model.spec_name.startswith("text_checkpoint") and model.predict_proba(frame).shape == (90, 2)
    again = fit(frame, "sold", checkpoint=reader, verbose=False, replay=json.loads(json.dumps(model.comparison.arena.record())), **asked)
    assert np.array_equal(again.predict_proba(frame), model.predict_proba(frame))
    with pytest.raises(UsageError, match="only models that one can are asked for"):
        fit(frame, "sold", checkpoint=reader, interpretable=True, verbose=False, columns={"kinds": {"note": "text"}})
    with pytest.raises(UsageError, match="checkpoint=5 must be a folder, or a name on the hub, not a int"):
        fit(frame, "sold", checkpoint=5, verbose=False, columns={"kinds": {"note": "text"}})


def test_a_bundle_declares_the_pieces_and_a_service_cuts_them(blend, tmp_path):
    frame, model = blend
    bundle = packed_in(tmp_path / "offers", model, frame)
    (pieces,) = bundle.record["pieces"]
    assert pieces["column"] == "note" and len(pieces["tokenizer_sha256"]) == 64
    assert "tokenizers==" in (bundle.folder / "requirements.txt").read_text()
    assert [f.name for f in bundle.fields] == ["note", "price"]
    with start_service(bundle.folder) as service:
        assert smoke_test(service.url, model, bundle, frame, rows=20, tolerance=1e-4)["rows"] == 20
        rows = [{"note": "a fine film", "price": 50.0}, {"note": None, "price": None}, {"note": "boring " * 2000, "price": 1.0}]
        said = ask(service.url, rows)["probabilities"]
    table = pd.DataFrame(rows).astype({"note": "str"})
    assert np.allclose(said, model.predict_proba(table), atol=1e-4)


def test_pictures_beside_a_text_and_a_number_go_the_same_way(viewer):
    frame = offers(40, photos=True)
    model = blended(frame, [model_spec("dummy"), *quick(viewer, "image")])
    data, parity = proven_onnx(model, frame)
    assert parity.passed and not Scorer(data).made_outside
    assert [p.kind for p in model.pipeline.members_[1]["estimators"][0].parts_] == ["table", "tokens", "pixels"]


MADE = {
    "distilbert": lambda: transformers.DistilBertModel(transformers.DistilBertConfig(vocab_size=30, dim=32, n_layers=2, n_heads=2, hidden_dim=32)),
    "roberta": lambda: transformers.RobertaModel(transformers.RobertaConfig(vocab_size=30, **SMALL)),
    "albert": lambda: transformers.AlbertModel(transformers.AlbertConfig(vocab_size=30, embedding_size=16, **SMALL)),
    "deberta": lambda: transformers.DebertaV2Model(transformers.DebertaV2Config(vocab_size=30, **SMALL)),
    "resnet": lambda: transformers.ResNetModel(transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 32], depths=[1, 1, 1, 1])),
    "convnext": lambda: transformers.ConvNextModel(transformers.ConvNextConfig(hidden_sizes=[8, 8, 16, 32], depths=[1, 1, 1, 1])),
}


@pytest.mark.parametrize("name", list(MADE))
def test_networks_of_many_kinds_are_written(name):
    torch.manual_seed(0)
    backbone, draw = without_pooler(MADE[name]()), np.random.default_rng(0)
    look = {"side": 32, "channels": 3, "scale": 1 / 255, "mean": [0.5] * 3, "std": [0.25] * 3} if name in ("resnet", "convnext") else {}
    net = TransferNet(_tried(Opened(backbone, {}, "", look, 0 if look else 500), name), 2).eval()
    tokens = draw.integers(1, 29, (6, 9)).astype(np.int32) * (np.arange(9) < np.arange(9, 3, -1)[:, None])
    parts = {"pixels": draw.integers(0, 256, (6, 20, 44, 3)).astype(np.uint8)} if look else {"tokens": tokens}
    assert network_difference(net, parts) < 1e-4


def test_what_was_frozen_stays_as_it_was_with_its_statistics(tmp_path):
    torch.manual_seed(0)
    MADE["resnet"]().save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    model = TransferClassifier(tmp_path, how="head", epochs=1, random_state=0).fit(pixels, np.arange(20) % 2)
    before, after = open_checkpoint(tmp_path).backbone.state_dict(), model.torch_network().backbone.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_checkpoint_that_cannot_be_used_is_told_before_anything_is_learned(reader, viewer, tmp_path):
    frame = offers()
    _, _, _, plan, _ = planned(frame)
    problem = SimpleNamespace(task="binary", constraints=SimpleNamespace(interpretable=False, device="auto"))
    assert [s.name for s in from_checkpoint(problem, plan, str(reader))] == ["text_checkpoint_frozen", "text_checkpoint_thawed"]
    with pytest.raises(UsageError, match="reads a column of kind image, and the table has none .1 text, 1 numeric."):
        from_checkpoint(problem, plan, str(viewer))
    readable = SimpleNamespace(task="binary", constraints=SimpleNamespace(interpretable=True, device="auto"))
    with pytest.raises(UsageError, match="no person can read, and only models that one can are asked for"):
        from_checkpoint(readable, plan, str(reader))
    with pytest.raises(UsageError, match="is no folder here, and nothing is fetched unasked.*download=True"):
        from_checkpoint(problem, plan, "distilbert-base-uncased")
    transformers.T5Model(transformers.T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((reader / name).read_bytes())
    with pytest.raises(UsageError, match="holds a T5Model, which cannot be used.*Expected an encoder"):
        open_checkpoint(tmp_path)
    with pytest.raises(UsageError, match="learns from a checkpoint, and none is named"):
        from mlbench.models.registry import candidates

        candidates("binary", ["text_checkpoint"])


def test_rows_that_another_tokeniser_has_cut_are_refused(reader):
    own = np.zeros(20, dtype=[("tokens note", np.int32, (8,))])
    with pytest.raises(DataError, match="its own tokeniser has cut, and the rows hold tokens note"):
        TransferClassifier(reader, how="frozen").fit(own, np.arange(20) % 2)
    cut = np.zeros(20, dtype=[("pieces note", np.int32, (90,))])
    cut["pieces note"] = piece_ids(["fine film"] * 20, open_checkpoint(reader).tokenizer, 90)
    with pytest.raises(DataError, match="reads 64 pieces of a text at most, and the rows hold 90. Write max_tokens=64"):
        TransferClassifier(reader, how="frozen").fit(cut, np.arange(20) % 2)


def test_a_folder_that_has_changed_is_not_learned_from(reader, tmp_path):
    folder = saved_reader(tmp_path / "reader", WORDS)
    spec = quick(folder)[0]
    transformers.BertModel(transformers.BertConfig(vocab_size=12, max_position_embeddings=64, **SMALL)).save_pretrained(folder)
    with pytest.raises(UsageError, match="is not what it was"):
        spec.build("binary", 2).fit(["fine"] * 4, [0, 1, 0, 1])


def test_a_network_that_looks_at_its_values_is_refused_with_its_place():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=30, n_embd=32, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    net = TransferNet(Opened(transformers.GPT2Model(config), {}, "", {}, 100), 2).eval()
    with pytest.raises(ExportError, match="GPT2Model. asks what a tensor holds .__bool__."):
        network_difference(net, {"tokens": np.ones((3, 5), dtype=np.int32)})
