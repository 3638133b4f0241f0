"""Texts as ids of words: what is learnt, what is looked up, and odd texts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from mlbench.features.text import cut_texts
from mlbench.features.tokens import COMMON, LONGEST, MARKS, MOST_TOKENS, Tokens, forms_of, learn_length, learn_table, learn_vocabulary, spelled

ODD = [
    "", " ", "late,  late ", "x\ty\nz", "ﬁne İstanbul Straße STRASSE", "שלום עולם!", "مرحبا بالعالم؟", "😀 👍🏽 ❤️ 👩‍👩‍👧", "— … _ ''",
    "0", "\ufeffbom", "caf\ufffd", "हिन्दी में", "一二三", "a" * 5_000, "http://" + "x/" * 90, "\x00zero",
]  # fmt: skip


def frame(texts) -> pd.DataFrame:
    "One column of texts."
    return pd.DataFrame({"note": pd.Series(list(texts), dtype=object)})


@pytest.mark.parametrize(
    ("token", "word"),
    [
        ("Great!", "great"),
        ("“Late”", "late"),
        ("(u.s.)", "u.s"),
        ("don't", "don't"),
        ("!!", "!!"),
        ("_x_", "x"),
        ("👍🏽", "👍🏽"),
        ("¿Qué?", "qué"),
        ("की।", "की"),
    ],
)
def test_how_a_token_is_spelled(token, word):
    assert spelled(token) == word


def test_a_million_marks_in_a_token_take_no_quadratic_time_and_are_never_learnt():
    token = "a" + "." * 1_000_000 + "a"
    assert spelled(token) == token and forms_of(token) == []
    tokens = Tokens(min_texts=1).fit(frame([token, "late"]))
    assert tokens.vocabulary_ == ["late"] and tokens.transform(frame([token])).tolist() == [[1]]


def test_words_are_counted_by_texts_and_texts_that_repeat_count_again():
    cut = cut_texts(np.array(["late late late", "again", "again", "Again, late-night", "night"], dtype=object))
    assert learn_vocabulary(cut, 10, 1) == ["again", "late", "night", "late-night"], "again in 3 texts, late and night in 2"
    assert learn_vocabulary(cut, 10, 2) == ["again", "late", "night"] and learn_vocabulary(cut, 1, 1) == ["again"]


def test_a_token_stands_for_its_whole_form_before_its_parts():
    cut = cut_texts(np.array(["well-made", "Well-made,", "well", "made", "half-made"], dtype=object))
    table = learn_table(cut, ["made", "well", "well-made"])
    assert table["well-made"] == table["Well-made,"] == 4 and table["half-made"] == 2 and table["well"] == 3


def test_tokens_that_nobody_has_seen_are_known_with_a_mark_behind_them():
    tokens = Tokens().fit(frame(["great ! fun", "great ! bad"] * 3))
    great = tokens.table_["great"]
    for form in ("great", "Great", "GREAT", *("great" + m for m in MARKS), *("Great" + m for m in MARKS)):
        assert tokens.transform(frame([form])).tolist()[0][0] == great
    assert tokens.transform(frame(["'great'"]))[0, 0] == 1, "not in the table, as an exported model would say"


def test_only_the_most_frequent_words_are_known_with_marks():
    words = [f"w{i}" for i in range(COMMON + 10)]
    tokens = Tokens(max_tokens=1, min_texts=1).fit(frame([" ".join(words), " ".join(words[:COMMON])]))
    assert tokens.table_[f"w{COMMON - 1}!"] == tokens.table_[f"w{COMMON - 1}"] and f"w{COMMON + 5}!" not in tokens.table_
    assert tokens.size_ == COMMON + 12 and max(tokens.table_.values()) == tokens.size_ - 1


def test_every_id_of_the_table_is_one_of_the_vocabulary_and_every_form_means_its_word():
    tokens = Tokens(min_texts=1).fit(frame(ODD))
    assert set(tokens.table_.values()) == set(range(2, tokens.size_))
    for token, n in tokens.table_.items():
        assert tokens.vocabulary_[n - 2] in forms_of(token), token
    assert all(len(word) <= LONGEST for word in tokens.vocabulary_) and list(tokens.table_) == sorted(tokens.table_)


def test_odd_texts_are_read_and_read_again_the_same():
    tokens = Tokens(min_texts=1).fit(frame(ODD))
    ids = tokens.transform(frame([*ODD, None, np.nan, pd.NA]))
    assert ids.dtype == np.int32 and ids.min() == 0 and ids.max() < tokens.size_
    assert (ids[-3:] == 0).all() and (ids[:2] == 0).all(), "missing, empty and blank"
    assert "😀" in tokens.vocabulary_ and "שלום" in tokens.vocabulary_ and "مرحبا" in tokens.vocabulary_
    again = clone(tokens).fit(frame(ODD))
    state = tokens.__getstate__()
    again.__setstate__(state)
    assert again.table_ == tokens.table_ and again.vocabulary_ == tokens.vocabulary_
    np.testing.assert_array_equal(again.transform(frame(ODD)), tokens.transform(frame(ODD)))


def test_a_text_of_a_megabyte_costs_its_first_words():
    long = "good bad " * 120_000
    tokens = Tokens().fit(frame([long, *["good one"] * 40]))
    assert len(long) > 1_000_000 and tokens.length_ == 2
    assert tokens.transform(frame([long])).tolist() == [[tokens.table_["good"], 1]], "bad stands in one text only"
    assert Tokens(max_tokens=50).fit(frame([long])).length_ == 50


@pytest.mark.parametrize("texts", [[], [None, None], ["", " "], ["--- ---"]])
def test_columns_without_words(texts):
    tokens = Tokens().fit(frame(texts))
    ids = tokens.transform(frame([*texts, "late again"]))
    assert ids.shape == (len(texts) + 1, tokens.length_) and tokens.length_ >= 1 and ids[-1, 0] == 1


def test_lengths_follow_the_bulk_of_the_texts():
    lengths = [" ".join(["w"] * n) for n in [*range(1, 101)]]
    assert learn_length(cut_texts(np.array(lengths, dtype=object))) in (95, 96)
    assert learn_length(cut_texts(np.array([" ".join(["w"] * 900)] * 3, dtype=object))) == MOST_TOKENS
    assert learn_length(cut_texts(np.array([" ".join(["w"] * 900)] * 3, dtype=object)), 600) == 600


def test_order_of_the_rows_does_not_matter_for_what_is_learnt():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["late", "kind", "Quick", "slow!", "again"], 5)) for _ in range(60)]
    one, other = Tokens().fit(frame(texts)), Tokens().fit(frame(texts[::-1]))
    assert one.vocabulary_ == other.vocabulary_ and one.table_ == other.table_ and one.length_ == other.length_
