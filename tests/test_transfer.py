"Checkpoints of transformers, made here and saved into folders: every way to learn from them, and everything that can be wrong with them."

import json
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from mlbench.core.errors import DataError, UsageError

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'mlbench[text]'")

import torch

from mlbench.deployment.torchgraph import network_difference
from mlbench.models import transfer
from mlbench.models.opening import check_checkpoint, look_at_checkpoint, open_checkpoint
from mlbench.models.transfer import Embeddings, TransferClassifier, TransferRegressor, blocks_of, texts_of

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
QUICK = {"epochs": 6, "learning_rate": 2e-3, "random_state": 0}
TEXTS = [f"{a} {b} {c}" for a in ("the", "a", "one") for b in ("fine", "dull", "old", "long") for c in ("film", "story", "play", "book", "fine end")] * 2
FINE = np.array(["fine" in t for t in TEXTS])


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    folder = tmp_path_factory.mktemp("reader")
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(TEXTS, trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"]))
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(vocab_size=words.get_vocab_size(), **SMALL)).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["vit", "convnext", "resnet"])
def viewer(request, tmp_path_factory):
    folder, stages = tmp_path_factory.mktemp(request.param), {"hidden_sizes": [8, 8, 16, 32], "depths": [1, 1, 1, 1]}
    torch.manual_seed(0)
    network = {
        "vit": lambda: transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=4, **SMALL)),
        "convnext": lambda: transformers.ConvNextModel(transformers.ConvNextConfig(image_size=32, **stages)),
        "resnet": lambda: transformers.ResNetModel(transformers.ResNetConfig(embedding_size=8, **stages)),
    }[request.param]()
    network.save_pretrained(folder)
    facts = {"size": {"height": 16, "width": 16} if request.param == "vit" else {"shortest_edge": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts | {"image_processor_type": "ViTImageProcessor"}))
    return folder


def pictures(rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    "Dark pictures with a bright left or right half."
    draw, sides = np.random.default_rng(0), np.arange(rows) % 2
    pixels = draw.integers(0, 60, (rows, 12, 12, 3))
    for picture, side in zip(pixels, sides):
        picture[:, 6 * side : 6 * side + 6] += 150
    return pixels.astype(np.uint8), sides


@pytest.mark.parametrize("how", ["frozen", "head", "gradual", "lora"])
def test_every_way_learns(reader, how):
    if how == "lora":
        pytest.importorskip("peft", reason="peft is not installed: pip install 'mlbench[lora]'")
    rates = {"head": 2e-2, "lora": 1e-2}
    model = TransferClassifier(reader, how=how, **QUICK | {"epochs": 12, "learning_rate": rates.get(how, 2e-3)}).fit(TEXTS, FINE)
    assert model.score(TEXTS, FINE) > 0.9
    before, after = open_checkpoint(reader).backbone.state_dict(), model._library_model()[0].backbone.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert set(before) == set(after) and bool(changed) is (how in ("gradual", "lora"))


def test_the_same_seed_gives_the_same_model_and_stored_ones_answer_alike(reader):
    model = TransferClassifier(reader, **QUICK).fit(TEXTS, FINE)
    torch.rand(3)  # whatever happens to the shared random state
    again = clone(model).fit(TEXTS, FINE)
    assert again.model_.tobytes() == model.model_.tobytes()
    stored = pickle.loads(pickle.dumps(model))
    assert np.array_equal(stored.predict_proba(TEXTS[:7]), model.predict_proba(TEXTS[:7]))


def test_the_shared_random_state_is_left_as_it_was(reader):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    TransferClassifier(reader, **QUICK | {"epochs": 1}).fit(TEXTS, FINE).predict(TEXTS)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fitted_model_does_not_need_the_folder(reader, tmp_path):
    import shutil

    copy = shutil.copytree(reader, tmp_path / "copy")
    model = TransferClassifier(copy, how="frozen").fit(TEXTS, FINE)
    shutil.rmtree(copy)
    assert pickle.loads(pickle.dumps(model)).score(TEXTS, FINE) > 0.9


def test_a_text_has_the_same_answer_alone_and_in_a_batch(reader):
    model = TransferClassifier(reader, how="frozen").fit(TEXTS, FINE)
    mixed = ["fine", "", "a " * 300, "ein Wort 🙂 שלום", None]
    together = model.predict_proba(mixed)
    assert np.allclose(together, np.vstack([model.predict_proba([t]) for t in mixed]), atol=1e-4) and np.allclose(together.sum(1), 1)
    for same in (pd.Series(mixed), np.array(mixed, dtype=object)[:, None]):
        assert np.array_equal(model.predict_proba(same), together)


def test_pictures_are_learned_too(viewer):
    pixels, sides = pictures()
    frozen = TransferClassifier(viewer, how="frozen").fit(pixels, sides)
    assert frozen.score(pixels, sides) > 0.9
    grey = TransferClassifier(viewer, how="head", epochs=1, random_state=0).fit(pixels[..., 0], sides)
    assert np.array_equal(grey.predict_proba(pixels[..., :1]), grey.predict_proba(pixels[..., 0]))


def test_blocks_thaw_from_the_top_and_hold_every_weight(viewer):
    backbone = open_checkpoint(viewer).backbone
    blocks = blocks_of(backbone)
    assert len(blocks) >= 3 and sum(p.numel() for b in blocks for p in b) == sum(p.numel() for p in backbone.parameters())


def test_a_gradual_training_keeps_the_lowest_block_asleep_at_first(reader, monkeypatch):
    seen = []
    awake = transfer.Thaw.batch_begin

    def watched(self, trainer, state):
        awake(self, trainer, state)
        seen.append([all(p.requires_grad for p in block) for block in self.blocks])

    monkeypatch.setattr(transfer.Thaw, "batch_begin", watched)
    model = TransferClassifier(reader, **QUICK).fit(TEXTS, FINE)
    assert seen[0] == [False] * 3 and seen[-1] == [True] * 3 and [False, True, True] in seen
    assert model.history_


def test_numbers_are_learned(reader):
    lengths = np.array([len(t.split()) + 5.0 * ("fine" in t) for t in TEXTS])
    model = TransferRegressor(reader, how="frozen").fit(TEXTS, lengths)
    assert model.score(TEXTS, lengths) > 0.8 and model.predict(TEXTS).shape == (len(TEXTS),)


def test_rows_to_judge_by_may_be_given(reader):
    model = TransferClassifier(reader, **QUICK).fit(TEXTS, FINE, TEXTS[:20], FINE[:20])
    assert all("validation_loss" in entry for entry in model.history_)


def test_embeddings_stand_before_any_estimator(reader):
    scores = cross_val_score(make_pipeline(Embeddings(reader), LogisticRegression(max_iter=300)), TEXTS, FINE, cv=2)
    assert scores.min() > 0.8
    with pytest.raises(NotFittedError):
        Embeddings(reader).transform(TEXTS)


def test_time_ends_the_training(reader):
    model = TransferClassifier(reader, epochs=100_000, random_state=0).fit(TEXTS, FINE, seconds=2.0)
    assert len(model.history_) < 100_000


def test_folders_that_cannot_be_opened_are_told_in_words(reader, tmp_path):
    with pytest.raises(UsageError, match=r"'bert-base-uncased' is no folder here.*download=True"):
        TransferClassifier("bert-base-uncased").fit(TEXTS, FINE)
    with pytest.raises(UsageError, match="has no config.json.*no files"):
        check_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{broken")
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(UsageError, match=r"only model.bin, and opening a pickle"):
        check_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="config.json is no configuration"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text((reader / "config.json").read_text())
    with pytest.raises(UsageError, match="cannot be opened"):
        open_checkpoint(tmp_path)
    with pytest.raises(UsageError, match="expected one of frozen, head, gradual, lora"):
        TransferClassifier(reader, how="full").fit(TEXTS, FINE)


def test_a_truncated_file_of_weights_is_told_in_words(reader, tmp_path):
    import shutil

    copy = shutil.copytree(reader, tmp_path / "copy")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UsageError, match="cannot be opened"):
        open_checkpoint(copy)


def test_rows_that_it_cannot_read_are_told_in_words(reader, viewer):
    with pytest.raises(DataError, match="reads texts, and row 0 is 3"):
        TransferClassifier(reader, how="frozen").fit([3, "a"], [0, 1])
    with pytest.raises(DataError, match=r"X has shape \(2, 2\)"):
        texts_of(np.array([["a", "b"], ["c", "d"]]))
    with pytest.raises(DataError, match=r"uint8\), and X is float64"):
        TransferClassifier(viewer, how="frozen").fit(np.zeros((4, 8, 8, 3)), [0, 1, 0, 1])
    with pytest.raises(DataError, match="X has 2 rows and y has 3"):
        TransferClassifier(reader, how="frozen").fit(["a", "b"], [0, 1, 0])
    with pytest.raises(ValueError, match="one class only"):
        TransferClassifier(reader, how="frozen").fit(["a", "b"], [1, 1])


@pytest.mark.parametrize(("package", "how", "extra"), [("transformers", "frozen", "text"), ("peft", "lora", "lora")])
def test_what_is_not_installed_is_named(reader, monkeypatch, package, how, extra):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UsageError, match=rf'needs {package}, which is not installed. Write: pip install "mlbench\[{extra}\]"'):
        TransferClassifier(reader, how=how, epochs=1).fit(TEXTS, FINE)


def timm_checkpoint(folder, architecture="test_vit"):
    "A tiny network of timm in a folder, as it is saved for the hub."
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm is not installed, or no torchvision that fits torch: {error}")
    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model(architecture, pretrained=False), folder, safe_serialization=True)
    return folder


@pytest.mark.parametrize("architecture", ["resnet10t", "test_vit", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("how", ["frozen", "gradual"])
def test_a_network_of_timm_learns_and_is_stored(tmp_path, architecture, how):
    pixels = np.random.default_rng(0).integers(0, 120, (24, 20, 20, 3)).astype(np.uint8)
    pixels[::2] += 120
    folder = timm_checkpoint(tmp_path, architecture)
    model = TransferClassifier(folder, how=how, epochs=12, learning_rate=3e-3, random_state=0).fit(pixels, np.arange(24) % 2)
    assert model.score(pixels, np.arange(24) % 2) > 0.7
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(pixels), model.predict_proba(pixels))
    assert network_difference(model.torch_network(), {"pixels": pixels}) < 1e-4


@pytest.mark.parametrize("odd", [{"architecture": "resnet18x"}, {"model_args": {"nonsense": 1}}, {"pretrained_cfg": {"input_size": "x"}}])
def test_a_configuration_of_timm_that_is_wrong_is_told(tmp_path, odd):
    folder = timm_checkpoint(tmp_path)
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | odd))
    with pytest.raises(UsageError, match="cannot be opened: "):
        open_checkpoint(folder)


def test_a_network_of_timm_without_timm_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"architecture": "resnet18", "pretrained_cfg": {}}')
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="resnet18 is a network of timm, which cannot be imported here.*pip install timm torchvision"):
        look_at_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "3"])
def test_a_configuration_that_is_none_is_told(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match="config.json is no configuration .* Expected JSON"):
        look_at_checkpoint(tmp_path)
