"""Records: what stands in which field, cutting by rows, and rows that do not fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.impute import SimpleImputer
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from mlbench.core.errors import DataError, UsageError
from mlbench.core.resuming import content_key
from mlbench.data.parts import Part
from mlbench.data.schema import conform, infer_schema
from mlbench.features import make_plan
from mlbench.features.records import Records, kind_of, parts_of
from mlbench.features.tokens import Tokens
from mlbench.problem.problem import Problem


def trips(rows: int = 24) -> pd.DataFrame:
    "Rows of numbers, categories and two texts."
    rng = np.random.default_rng(0)
    said = [" ".join(rng.choice(["late", "kind", "quick", "slow"], rng.integers(1, 5))) for _ in range(rows)]
    return pd.DataFrame({"price": rng.normal(9, 2, rows), "by": rng.choice(["bus", "ship"], rows), "note": said, "title": said[::-1]})


def blocks():
    "Blocks in an order in which fields of their own come first."
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=True)
    return [("tokens_1", Tokens(), ["title"]), ("numeric", SimpleImputer(), ["price"]), ("tokens_0", Tokens(2), ["note"]), ("category", one_hot, ["by"])]


def test_fields_hold_what_the_steps_give_alone():
    table = trips()
    record = Records(blocks())
    seen = record.fit_transform(table)
    assert seen.dtype.names == ("table", "tokens title", "tokens note") and [p.kind for p in record.parts_] == ["table", "tokens", "tokens"]
    np.testing.assert_array_equal(seen["tokens title"], Tokens().fit_transform(table[["title"]]))
    np.testing.assert_array_equal(seen["tokens note"], Tokens(2).fit_transform(table[["note"]]))
    np.testing.assert_array_equal(seen["table"][:, 0], table["price"].astype(np.float32))
    np.testing.assert_array_equal(seen["table"][:, 1:], OneHotEncoder(sparse_output=False).fit_transform(table[["by"]]))
    assert record.output_indices_ == {"numeric": slice(0, 1), "category": slice(1, 3)} and list(record.feature_names_in_) == ["title", "price", "note", "by"]


def test_transform_and_assemble_give_what_fitting_gave():
    table = trips()
    record = Records(blocks())
    seen = record.fit_transform(table)
    by_hand = record.assemble([step.transform(table[columns]) for _, step, columns in record.transformers_])
    for again in (record.transform(table), by_hand, clone(record).fit(table).transform(table)):
        assert again.dtype == seen.dtype and all(np.array_equal(again[f], seen[f]) for f in seen.dtype.names)
    assert record.transform(table.iloc[::-1])["table"][0].tolist() == seen["table"][-1].tolist()


def test_what_learns_from_the_target_gets_it():
    class Means(TransformerMixin, BaseEstimator):
        "The mean of the target."

        def fit(self, X, y):
            self.mean_ = float(np.mean(y))
            return self

        def transform(self, X):
            return np.full((len(X), 1), self.mean_)

    table = trips(4)
    assert Records([("means", Means(), ["by"])]).fit_transform(table, np.array([0, 0, 1, 1]))["table"].tolist() == [[0.5]] * 4


def test_numbers_too_large_for_single_precision_are_cut_off_and_gaps_stay():
    table = pd.DataFrame({"price": [1e300, -np.inf, np.nan, 1.0]})
    seen = Records([("numeric", FunctionTransformer(), ["price"])]).fit_transform(table)["table"].ravel()
    most = np.finfo(np.float32).max
    assert seen[0] == most and seen[1] == -most and np.isnan(seen[2]) and seen[3] == 1


def test_sparse_blocks_are_filled_in():
    identity = FunctionTransformer(lambda frame: sparse.csr_matrix(frame.to_numpy()))
    assert Records([("numeric", identity, ["price"])]).fit_transform(pd.DataFrame({"price": [0.0, 2.0]}))["table"].tolist() == [[0], [2]]


def test_a_record_is_cut_hashed_and_cross_validated_like_a_matrix():
    table = trips(40)
    y = (table["price"] > 9).to_numpy().astype(int)
    seen = Records(blocks()).fit_transform(table)
    mask = y == 1
    assert seen[mask].shape == (mask.sum(),) and np.array_equal(seen[np.flatnonzero(mask)], seen[mask]) and seen.shape[0] == len(seen) == 40
    assert content_key(X=seen) == content_key(X=seen.copy()) != content_key(X=seen[::-1])
    numbers = FunctionTransformer(lambda record: record["table"])
    assert cross_val_score(make_pipeline(Records(blocks()), numbers, KNeighborsClassifier()), table, y, cv=4).mean() > 0.8


def test_steps_that_give_nothing_leave_no_field():
    empty = FunctionTransformer(lambda frame: np.zeros((len(frame), 0)))
    record = Records([("text_0", empty, ["note"]), ("tokens_0", Tokens(), ["note"])]).fit(trips())
    assert [p.name for p in record.parts_] == ["tokens note"] and parts_of(record) == record.parts_ and parts_of(empty) == ()
    with pytest.raises(UsageError, match="at least one part"):
        Records([("text_0", empty, ["note"])]).fit(trips())


@pytest.mark.parametrize(("rows", "words"), [(trips().drop(columns=["note", "by"]), "'note'"), (trips().to_numpy(), "data frame"), ([[1]], "data frame")])
def test_rows_that_do_not_fit_are_refused(rows, words):
    with pytest.raises(DataError, match=words):
        Records(blocks()).fit(trips()).transform(rows)


def test_names_of_blocks_tell_their_kind():
    assert [kind_of(n) for n in ("tokens_10", "pixels_0", "token", "score_0", "patches_0", "ngrams_0")] == ["tokens", "pixels"] + ["table"] * 4


def test_a_plan_with_two_texts_and_nothing_else():
    table = trips(60)[["note", "title"]].assign(back=["yes", "no"] * 30)
    schema = infer_schema(table, {"note": "text", "title": "text"})
    plan = make_plan(schema, Problem.from_dict({"name": "v", "task": "binary", "target": "back", "data": "v.csv"}), max_tokens=3, vocabulary=2)
    record = plan.transformer("parts").fit(conform(table, schema, plan.inputs))
    assert parts_of(record) == (Part("tokens note", "tokens", "note", (3,), 4), Part("tokens title", "tokens", "title", (3,), 4))
    assert plan.transformer("parts").transformers[0][1].get_params()["vocabulary"] == 2
