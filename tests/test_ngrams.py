"""Words in a row: counted by hand and by machine, learnt and hashed, in pipelines and plans."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from mlbench.core.errors import UsageError
from mlbench.data.schema import conform, infer_schema
from mlbench.features import feature_table, make_plan
from mlbench.features import ngrams as module
from mlbench.features.ngrams import HashedWords, NGrams
from mlbench.features.sharing import SharedFits, SharedRows
from mlbench.features.tokens import Tokens
from mlbench.problem.problem import Problem

WORDS = ["late", "kind", "quick", "slow", "again", "fine"]


def texts(rows: int, seed: int = 0) -> pd.DataFrame:
    "Random texts of different lengths, some of them missing."
    rng = np.random.default_rng(seed)
    said = [" ".join(rng.choice(WORDS, rng.integers(0, 9))) for _ in range(rows)]
    return pd.DataFrame({"note": [None if i % 17 == 5 else s for i, s in enumerate(said)]})


def runs_by_hand(row: np.ndarray, words: int) -> set[tuple[int, ...]]:
    "The runs of known words in a row of ids."
    ids = row.tolist()
    runs = [tuple(ids[i : i + n]) for n in range(1, words + 1) for i in range(len(ids) - n + 1)]
    return {run for run in runs if min(run) > 1}


@pytest.mark.parametrize("words", [1, 2, 3])
@pytest.mark.parametrize(("most", "least"), [(10_000, 1), (10_000, 3), (12, 2)])
def test_columns_are_those_counted_by_hand(words, most, least, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)
    ids = Tokens(min_texts=1).fit_transform(texts(60))
    grams = NGrams(most, words, least).fit(ids)
    held = [runs_by_hand(row, words) for row in ids]
    count = {run: sum(run in h for h in held) for run in set().union(*held)}
    often = sorted((r for r in count if count[r] >= least), key=lambda r: (-count[r], len(r), r))[:most]
    assert set(grams.runs()) == set(often) and grams.runs() == sorted(grams.runs(), key=lambda r: (len(r), r))
    seen = grams.transform(ids)
    np.testing.assert_array_equal(seen.toarray(), [[float(run in h) for run in grams.runs()] for h in held])
    assert seen.has_sorted_indices and seen.dtype == np.float64


def test_new_rows_have_the_same_columns_and_unknown_ids_part_words():
    grams = NGrams(min_texts=1).fit(np.array([[2, 3, 4]]))
    assert grams.runs() == [(2,), (3,), (4,), (2, 3), (3, 4)]
    assert grams.transform(np.array([[2, 1, 3], [2, 50, 3], [0, 0, 0], [3, 3, 4]])).toarray().tolist() == [
        [1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0] * 5, [0, 1, 1, 0, 1],
    ]  # fmt: skip


@pytest.mark.parametrize("ids", [np.zeros((4, 3), int), np.zeros((0, 3), int), np.ones((2, 1), int)])
def test_texts_without_words_have_no_columns(ids):
    grams = NGrams(min_texts=1).fit(ids)
    assert grams.transform(ids).shape == (len(ids), 0) and grams.runs() == []


def test_runs_that_have_no_number_are_refused():
    with pytest.raises(UsageError, match="vocabulary of 20,001"):
        NGrams(words=5).fit(np.array([[20_000, 2]]))
    NGrams(words=4).fit(np.array([[20_000, 2]]))


def test_a_pipeline_is_cloned_and_says_the_same_after_a_copy():
    both = make_pipeline(Tokens(), NGrams()).fit(texts(50))
    again = clone(both).fit(texts(50))
    assert (both.transform(texts(20, 1)) != again.transform(texts(20, 1))).nnz == 0
    names = both[-1].grams(both[0].vocabulary_)
    assert len(names) == len(set(names)) and all(w in WORDS for name in names for w in name.split(" "))


def test_hashed_words_need_no_texts_beforehand_and_take_odd_ones():
    odd = pd.DataFrame({"note": ["", None, " ", "😀 שלום", "a" * 2_000_000, "late " * 200_000, "x\ty", "LATE, again!"]})
    hashed = HashedWords(bits=10).fit(odd[:1])
    seen = hashed.transform(odd)
    assert seen.shape == (8, 1024) and seen[:3].nnz == 0 and seen[3].nnz == 3 and seen[4].nnz == 0 and seen[5].nnz == 2 and set(seen.data) == {1.0}
    assert (seen[7] != hashed.transform(pd.DataFrame({"note": ["late again"]}))[0]).nnz == 0
    for wrong in ({"bits": 40}, {"words": 0}):
        with pytest.raises(UsageError, match="18 and 2"):
            HashedWords(**wrong).fit(odd)


def visits(rows: int = 120):
    "A plan for visits with a text, a title of several words and numbers."
    rng = np.random.default_rng(1)
    table = texts(rows).assign(nights=rng.normal(size=rows), town=rng.choice(["a", "b", "c"], rows), back=rng.choice(["yes", "no"], rows))
    table["title"] = rng.choice([f"head {w} clerk" for w in "abcdefghijklmn"], rows)
    schema = infer_schema(table, {"note": "text", "title": "categorical"})
    plan = make_plan(schema, Problem.from_dict({"name": "v", "task": "binary", "target": "back", "data": "v.csv"}), table)
    return plan, conform(table, schema, plan.inputs), (table["back"] == "yes").to_numpy().astype(int)


def test_the_style_words_holds_runs_and_the_rest_scaled_in_one_sparse_matrix():
    plan, rows, y = visits()
    words = plan.transformer("words")
    seen = words.fit_transform(rows, y)
    names = feature_table(words)
    assert issparse(seen) and seen.shape == (120, len(names)) and issparse(words.transform(rows.head(1)))
    of_text = names["column"].to_numpy() == "note"
    assert set(seen[:, of_text].data) == {1.0} and not any("score" in f for f in names["feature"][of_text])
    linear = plan.transformer("linear")
    rest, columns = linear.fit_transform(rows, y), feature_table(linear)
    alike = [f for f in columns["feature"][columns["column"] != "note"] if f in set(names["feature"])]
    assert alike == columns["feature"][columns["column"] != "note"].tolist(), "numbers, categories, means and the score of titles"
    for feature in alike:
        at, there = names["feature"].tolist().index(feature), columns["feature"].tolist().index(feature)
        np.testing.assert_allclose(seen[:, at].toarray().ravel(), rest[:, there])


def test_without_texts_the_style_words_is_the_style_linear():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"n": rng.normal(size=40), "town": rng.choice(["a", "b"], 40), "back": rng.choice(["yes", "no"], 40)})
    schema = infer_schema(table)
    plan = make_plan(schema, Problem.from_dict({"name": "v", "task": "binary", "target": "back", "data": "v.csv"}), table)
    rows = conform(table, schema, plan.inputs)
    np.testing.assert_array_equal(plan.transformer("words").fit_transform(rows), plan.transformer("linear").fit_transform(rows))


def test_words_shared_with_other_styles_are_those_of_the_transformer_alone():
    plan, rows, y = visits()
    fits = SharedFits(plan, ("linear", "words", "parts"))
    made = {style: fits.made(style, rows.iloc[:90], y[:90], rows.iloc[90:]) for style in ("parts", "words", "linear")}
    alone = plan.transformer("words")
    assert (alone.fit_transform(rows.iloc[:90], y[:90]) != made["words"][1]).nnz == 0 and (alone.transform(rows.iloc[90:]) != made["words"][2]).nnz == 0
    shared = SharedRows(rows.iloc[90:])
    assert (shared.through(made["words"][0]) != made["words"][2]).nnz == 0
    scores = [t.named_transformers_["score_0"].named_steps["score"] for t, _, _ in (made["words"], made["parts"])]
    assert scores[0] is scores[1], "the score of titles is learnt once"
    np.testing.assert_array_equal(shared.through(made["parts"][0])["table"], made["parts"][2]["table"])
