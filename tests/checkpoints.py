"Tiny checkpoints of transformers, made where they are needed."

from __future__ import annotations

from pathlib import Path

import pytest

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'mlbench[text]'")

import torch

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def saved_reader(folder: Path, vocabulary: list[str]) -> Path:
    "A tiny BERT of some words."
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    known = {w: n for n, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *vocabulary])}
    words = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(vocab_size=len(known), max_position_embeddings=64, **SMALL)).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    return folder


def saved_viewer(folder: Path) -> Path:
    "A tiny network of patches of 8 by 8 pixels."
    torch.manual_seed(0)
    transformers.ViTModel(transformers.ViTConfig(image_size=16, patch_size=8, **SMALL)).save_pretrained(folder)
    return folder
