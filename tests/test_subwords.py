"""Pieces of words, languages without blanks, and odd texts, in training and in the exported model."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from mlbench.core.errors import ParameterError, UsageError
from mlbench.data.schema import infer_schema
from mlbench.deployment.steps import converted
from mlbench.features.ngrams import HashedWords
from mlbench.features.plan import make_plan
from mlbench.features.scores import TextScores
from mlbench.features.subwords import KINDS, MOST_NODES, Subwords, affordable, learn_pieces, longest_pieces, piece_ids, pieces_expression
from mlbench.features.text import SHARE_APART, TextTopics, WordWeights, has_no_blanks, words_of
from mlbench.features.tokens import Tokens
from mlbench.problem.problem import Problem
from mlbench.training.store import TRUSTED

SAID = ["an unwatchable film", "watch it again", "unwatchable and unbearable", "a watchable film, bearable", "films to watch", "microfilm!"]
CHINESE = ["这部电影很好看", "这部电影不好看", "电影的音乐很好", "音乐不好 really", "ที่นี่อาหารดีมาก", "今日はいい天気ですね。"]
ODD = [
    "", " ", "watch,  watch ", "x\ty\nz", "ﬁne İstanbul Straße STRASSE ÄÖ", "שלום עולם!", "مرحبا بالعالم؟", "😀 👍🏽 ❤️ 👩‍👩‍👧", "— … _ ''",
    "\ufeffbom", "caf\ufffd Ã©tÃ©", "हिन्दी में", "一二三电影", "watch" * 1_000, ".[^]\\-|()*+?{}$#", "\x00zero", "K ſ", "กำลัง ดี", "がぎ ｶﾞ",
]  # fmt: skip


def frame(texts) -> pd.DataFrame:
    "One column of texts."
    return pd.DataFrame({"note": pd.Series(list(texts), dtype=object)})


def same(step, texts) -> bool:
    "Whether the graph gives the ids of the step."
    return bool((converted(step, frame(texts)) == step.transform(frame(texts))).all())


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_read_words_that_nobody_has_seen_and_the_graph_reads_the_same(kind):
    pytest.importorskip("tokenizers")
    step = Subwords(kind, vocabulary=60).fit(frame(SAID * 3))
    ids = step.transform(frame(["rewatch films", "漢字 film", None, ""]))
    assert (ids[0] != 1).all() and ids[1, 0] == 1 and not ids[2:].any() and ids.max() < step.size_
    assert same(step, [*SAID, *ODD, *CHINESE]) and same(step, ["", " "])
    again = pickle.loads(pickle.dumps(step))
    assert again.table_ == step.table_ and (again.transform(frame(ODD)) == step.transform(frame(ODD))).all()
    assert "mlbench.features.subwords.Subwords" in TRUSTED and clone(step).get_params() == step.get_params()


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_languages_without_blanks(kind):
    pytest.importorskip("tokenizers")
    step = Subwords(kind, vocabulary=80).fit(frame(CHINESE * 2))
    assert same(step, [*CHINESE, *ODD]) and (step.transform(frame(["音乐电影好"]))[0, :2] > 1).all()


def test_greedy_pieces_are_what_an_expression_finds():
    random = np.random.default_rng(0)
    pieces = {"".join(random.choice(list("abc "), random.integers(1, 4))).rstrip() for _ in range(60)}
    pieces = {p for p in pieces if p and " " not in p[1:]} | set("abc")
    table = {p: n for n, p in enumerate(sorted(pieces), 2)}
    longest = re.compile("|".join([*sorted(map(re.escape, table), key=len, reverse=True), "[^ abc]+"]))
    for _ in range(200):
        token = "".join(random.choice(list("abcx"), random.integers(1, 12)))
        assert [p for p, _ in longest_pieces(token, table, 99)] == longest.findall(" " + token)
    assert pieces_expression({"\x00": 2, "a]": 3}).startswith("\\x00|a\\]|[^ ")


def test_only_as_many_pieces_as_an_expression_has_room_for():
    many = [f"{n:06d}" for n in range(20_000)]
    kept = affordable(many)
    assert kept == many[: len(kept)] and len({p[:k] for p in kept for k in range(1, 7)}) <= MOST_NODES < len({p[:k] for p in many for k in range(1, 7)})


def test_the_same_pieces_in_another_process():
    pytest.importorskip("tokenizers")
    learn = "json.dumps([learn_pieces(json.loads(sys.argv[1]), k, 60) for k in ('bpe', 'wordpiece')])"
    ask = f"import sys, json; from mlbench.features.subwords import learn_pieces; print({learn})"
    out = subprocess.run([sys.executable, "-c", ask, json.dumps(SAID * 3)], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == [learn_pieces(SAID * 3, kind, 60) for kind in ("bpe", "wordpiece")]


def test_nothing_to_learn_from_and_wrong_kinds():
    pytest.importorskip("tokenizers")
    empty = Subwords().fit(frame(["", " ", None]))
    assert empty.length_ == 1 and empty.size_ == 2 and empty.transform(frame(["word", ""])).tolist() == [[1], [0]] and same(empty, ["word", ""])
    with pytest.raises(UsageError, match="'wordpiece'"):
        Subwords("word_piece").fit(frame(SAID))


def test_the_library_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r"mlbench\[text\]"):
        learn_pieces(SAID, "bpe", 50)


def test_a_text_of_a_megabyte_takes_no_longer_than_it_must():
    table = {"a": 2, " a": 3, "b": 4}
    texts = np.array(["a" * 1_000_000, "a " * 500_000, "é" * 1_000_000], dtype=object)
    assert piece_ids(texts, table, 4).tolist() == [[3, 2, 2, 2], [3] * 4, [1, 0, 0, 0]]
    tokens = Tokens(min_texts=1).fit(frame(["a b", "b"]))
    assert same(tokens, texts)


def test_a_column_without_blanks_is_cut_letter_by_letter():
    assert words_of("我爱 北京great", True) == ["我", "爱", "北", "京", "great"] and words_of("ที่นี่", True) == ["ที่", "นี่"]
    assert not has_no_blanks(np.array(["좋은 영화", "שלום", "😀😀", "good"], dtype=object)) and has_no_blanks(np.array(CHINESE, dtype=object))
    rest = ["good"] * round(1 / SHARE_APART)
    assert has_no_blanks(np.array([*rest[1:], "很好"], dtype=object)) and not has_no_blanks(np.array([*rest, "很好"], dtype=object))


@pytest.mark.parametrize("step", [Tokens(min_texts=1), WordWeights(min_texts=1), TextTopics(3, min_texts=1), TextScores("binary", min_texts=1)])
def test_a_new_sentence_without_blanks_is_made_of_known_letters_in_the_graph_too(step):
    y = np.arange(len(CHINESE) * 2) % 2
    step.fit(frame(CHINESE * 2), y)
    new = frame(["音乐电影好", "天気", *[text for text in ODD if "\x00" not in text]])
    given = converted(step, new)
    assert np.allclose(given, step.transform(new), atol=1e-9)
    if isinstance(step, Tokens):
        assert (given[0, :5] > 1).all() and pickle.loads(pickle.dumps(step)).apart_


def test_other_columns_are_cut_as_before():
    texts = frame([*SAID, "一二三电影 film", "film film"] * 40)
    plain = Tokens().fit(texts.iloc[:6])
    assert not plain.apart_ and not WordWeights().fit(texts.iloc[:6]).apart_ and plain.pieces("电影很好 film") == ["电影很好", "film"]
    state = plain.__getstate__()
    state.pop("apart_")
    old = Tokens.__new__(Tokens)
    old.__setstate__(state)
    assert old.apart_ is False and (old.transform(texts) == plain.transform(texts)).all()


def test_hashed_letters_of_scripts_without_blanks():
    hashed = HashedWords(12, words=1)
    assert hashed.fit_transform(frame(["电影", "film film"])).sum(axis=1).tolist() == [[2.0], [1.0]]


def test_the_plan_takes_pieces_for_networks_and_for_runs_of_words():
    pytest.importorskip("tokenizers")
    rows = frame(SAID * 10).assign(kind=["good", "bad"] * 30)
    schema, problem = infer_schema(rows, {"note": "text"}), Problem.from_dict({"name": "c", "task": "binary", "target": "kind", "data": "c.csv"})
    words, pieces = make_plan(schema, problem, rows), make_plan(schema, problem, rows, tokens="unigram", vocabulary=50)
    assert words.version != pieces.version and "tokens" not in words.felt() and "pieces of words (unigram)" in pieces.describe()["what models see"].iloc[0]
    record = pieces.transformer("parts").fit_transform(rows[["note"]])
    assert record["tokens note"].max() < 60
    counted = pieces.transformer("words")
    assert counted.fit_transform(rows[["note"]], np.arange(60) % 2).shape[0] == 60
    assert (converted(counted, rows[["note"]]) == counted.transform(rows[["note"]]).toarray()).all()
    with pytest.raises(ParameterError, match="'unigram'"):
        make_plan(schema, problem, rows, tokens="letters")
