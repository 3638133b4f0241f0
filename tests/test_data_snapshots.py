"Versions of tables: what changes them and what must not; and the examples."

import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.core.errors import ArtifactError
from mlbench.data.examples import list_examples, load_example
from mlbench.data.snapshots import read_snapshot, table_version, write_snapshot

CELLS = st.lists(st.tuples(st.none() | st.text(max_size=5), st.floats(), st.integers(-(2**60), 2**60), st.booleans()), min_size=1, max_size=12)


def table(rows):
    frame = pd.DataFrame(rows, columns=["word", "number", "count", "flag"])
    return frame.astype({"word": "str", "number": "float64"})


@settings(max_examples=60, deadline=None)
@given(CELLS, st.randoms(use_true_random=False))
def test_one_changed_cell_is_another_version(rows, random):
    frame = table(rows)
    version = table_version(frame)
    assert version == table_version(frame.copy(deep=True))
    changed = frame.copy()
    changed.loc[random.randrange(len(rows)), "count"] += 1
    assert table_version(changed) != version


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"row_group_size": 7}, {"use_dictionary": False}, {"version": "1.0"}])
def test_the_version_does_not_depend_on_the_writer(tmp_path, options):
    frame = load_example("generated_churn").frame.head(500)
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "x.parquet", **options)
    assert table_version(read_snapshot(tmp_path / "x.parquet")) == table_version(frame)


def test_a_category_and_its_text_are_not_confused_with_missing():
    versions = {table_version(pd.DataFrame({"a": values})) for values in (["", "x"], [None, "x"], ["nan", "x"], ["None", "x"])}
    assert len(versions) == 4


def test_a_changed_snapshot_is_refused(tmp_path):
    frame = load_example("iris").frame
    kept = write_snapshot(frame, tmp_path)
    frame.head(10).to_parquet(kept.path)
    with pytest.raises(ArtifactError, match="the file was changed"):
        read_snapshot(kept.path, kept.version)


def test_names_and_order_of_columns_count():
    frame = pd.DataFrame({"a": [1.0], "b": [2.0]})
    assert len({table_version(f) for f in (frame, frame[["b", "a"]], frame.rename(columns={"a": "c"}), frame.astype("int64"))}) == 4


def test_listing_examples_loads_none_of_them():
    start = time.perf_counter()
    examples = list_examples()
    assert len(examples) >= 12 and time.perf_counter() - start < 0.5
    assert {e.task for e in examples} == {"binary", "multiclass", "regression"}
    assert all("_made" not in vars(e) for e in examples)


def test_generated_tables_are_the_same_every_time_and_near_their_truth():
    for name in ("generated_churn", "generated_segments", "generated_prices"):
        first, second = load_example(name), load_example(f"example:{name}")
        pd.testing.assert_frame_equal(first.frame, second.frame)
    prices = load_example("generated_prices")
    ratio = prices.frame["price"] / prices.truth["expected"]
    assert np.std(np.log(ratio)) == pytest.approx(prices.truth["noise_share"], rel=0.15)


def test_a_mixed_column_made_in_python_is_kept_as_text(tmp_path):
    frame = pd.DataFrame({"code": [1, "a", None, 2.5], "size": pd.Categorical(["s", "m", None, "s"])})
    kept = write_snapshot(frame, tmp_path)
    back = read_snapshot(kept.path, kept.version)
    assert back["code"].dropna().tolist() == ["1", "a", "2.5"] and back["size"].isna().sum() == 1
