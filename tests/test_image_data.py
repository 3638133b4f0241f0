"""Records of parts, and images: what is read, refused, turned, kept and found again."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import cross_val_score

from mlbench.core.errors import DataError, UsageError
from mlbench.data.parts import Part, as_record, record_of

PARTS = [Part("table", "table", "", (2,)), Part("tokens a", "tokens", "a", (3,), 9), Part("pixels b", "pixels", "b", (2, 2, 3))]


def record(rows: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    return record_of(PARTS, [rng.normal(size=(rows, 2)), rng.integers(0, 9, (rows, 3)), rng.integers(0, 256, (rows, 12))])


class TestRecords:
    def test_a_record_goes_through_cross_validation_and_keeps_its_fields(self):
        seen = []

        class Spy(ClassifierMixin, BaseEstimator):
            def fit(self, X, y):
                self.classes_ = np.unique(y)
                seen.append(X.dtype.names)
                return self

            def predict(self, X):
                return np.where(X["table"][:, 0] > 0, 1, 0)

        X = record(12)
        assert cross_val_score(Spy(), X, (X["table"][:, 0] > 0).astype(int), cv=3).tolist() == [1, 1, 1]
        assert seen == [("table", "tokens a", "pixels b")] * 3

    def test_joined_and_reordered_records_are_still_taken(self):
        X = record()
        joined = np.concatenate([X[:3], X[3:]])
        assert (as_record(joined, PARTS)[0]["pixels b"] == X["pixels b"]).all()
        other = record_of(PARTS[::-1], [X["pixels b"], X["tokens a"], X["table"]])
        again, parts = as_record(other, PARTS)
        assert again.dtype.names == ("table", "tokens a", "pixels b") and (again["tokens a"] == X["tokens a"]).all()

    def test_sparse_boolean_and_empty_blocks(self):
        only = [Part("table", "table", "", (2,))]
        assert record_of(only, [csr_matrix([[0.0, 1.0]])])["table"].tolist() == [[0, 1]]
        assert record_of(only, [np.array([[True, False]])])["table"].tolist() == [[1, 0]]
        assert len(record_of(PARTS, [np.zeros((0, 2)), np.zeros((0, 3), int), np.zeros((0, 12), np.uint8)])) == 0
        assert as_record(record(0))[1][1].size == 2

    def test_data_frames_are_tables(self):
        import pandas as pd

        made, parts = as_record(pd.DataFrame({"a": [1, 2], "b": [0.5, None]}))
        assert parts == (Part("table", "table", "", (2,), 0),) and np.isnan(made["table"][1, 1])

    def test_words_beyond_the_vocabulary_are_unknown_and_the_caller_keeps_his_array(self):
        X = record()
        X["tokens a"][0] = [8, 9, 1000]
        made, _ = as_record(X, PARTS)
        assert made["tokens a"][0].tolist() == [8, 1, 1] and X["tokens a"][0, 2] == 1000

    @pytest.mark.parametrize(
        ("block", "words"),
        [
            (np.array([[1.5, 0, 0]]), "such as 1.5"),
            (np.array([[np.nan, 0, 0]]), "such as nan"),
            (np.array([[2.0**40, 0, 0]]), "from 0 to 2147483647"),
            (np.array([["a", "b", "c"]]), "such as .*'a'"),
        ],
    )
    def test_ids_that_are_none_are_refused(self, block, words):
        with pytest.raises(DataError, match=words):
            record_of(PARTS[1:2], [block])

    def test_words_in_a_table_are_refused(self):
        with pytest.raises(DataError, match="Encode its columns first"):
            record_of(PARTS[:1], [np.array([["a", "b"]])])

    def test_another_shape_than_at_fitting_names_both(self):
        other = record_of([PARTS[2]._replace(shape=(3, 4, 1))], [np.zeros((1, 12), np.uint8)])
        with pytest.raises(DataError, match=r"Expected: pixels b uint8 \(2, 2, 3\). Found: pixels b uint8 \(3, 4, 1\)"):
            as_record(other, PARTS[2:])
        with pytest.raises(UsageError, match="at least one part"):
            record_of([], [])
