"Column kinds on real and hostile tables, the canonical form, and speed."

import datetime
import decimal
import json
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.core.errors import DataError, UsageError
from mlbench.data.schema import KINDS, Schema, canonical_text, conform, infer_column, infer_schema, plain_name


def kinds(frame):
    return {c.name: c.kind for c in infer_schema(frame).columns}


def test_every_kind_has_a_reason_and_goes_through_json(shared_data):
    for name in ["adult.csv.gz", "telco_churn.csv", "titanic.csv", "compas_two_years.csv.gz", "ames_house_prices.csv"]:
        schema = infer_schema(pd.read_csv(shared_data(name)))
        assert all(c.kind in KINDS and c.why for c in schema.columns)
        assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
        assert schema._repr_html_() and repr(schema)


@pytest.mark.parametrize(
    "file, column, kind",
    [
        ("adult.csv.gz", "fnlwgt", "numeric"),
        ("adult.csv.gz", "sex", "categorical"),
        ("telco_churn.csv", "customerID", "identifier"),
        ("telco_churn.csv", "TotalCharges", "numeric"),
        ("telco_churn.csv", "SeniorCitizen", "boolean"),
        ("telco_churn.csv", "Partner", "boolean"),
        ("titanic.csv", "Name", "text"),
        ("titanic.csv", "PassengerId", "identifier"),
        ("titanic.csv", "Pclass", "numeric"),
        ("titanic.csv", "Cabin", "categorical"),
        ("hr_attrition.csv", "Over18", "constant"),
        ("hr_attrition.csv", "EmployeeNumber", "identifier"),
        ("compas_two_years.csv.gz", "dob", "date"),
        ("compas_two_years.csv.gz", "c_jail_in", "date"),
        ("compas_two_years.csv.gz", "violent_recid", "constant"),
        ("compas_two_years.csv.gz", "c_charge_desc", "categorical"),
        ("california_housing.csv.gz", "Latitude", "numeric"),
        ("sst2_dev.csv.gz", "sentence", "text"),
    ],
)
def test_kinds_of_real_columns(shared_data, file, column, kind):
    frame = pd.read_csv(shared_data(file))
    if column not in frame.columns:
        column = frame.columns[frame.dtypes.astype(str).eq("str") | frame.dtypes.eq(object)][0]
    found = infer_column(frame[column])
    assert found.kind == kind, found.why


def test_columns_of_every_pandas_type():
    n = 40
    frame = pd.DataFrame({
        "int": pd.array(np.arange(n) * 3 % 17, dtype="Int64"),
        "float32": np.linspace(0, 1, n, dtype="float32"),
        "nullable_bool": pd.array([True, False] * (n // 2), dtype="boolean"),
        "category": pd.Categorical(["a", "b"] * (n // 2)),
        "stamp": pd.date_range("2024-01-01", periods=n, tz="Europe/Amsterdam"),
        "duration": pd.to_timedelta(np.arange(n), "h"),
        "decimal": [decimal.Decimal(i) / 3 for i in range(n)],
        "day": [datetime.date(2024, 1, 1) + datetime.timedelta(i) for i in range(n)],
        "mixed": [1, "a"] * (n // 2),
        "path": [f"img/{i}.PNG" for i in range(n)],
        "zip": [f"0{i % 9}100" for i in range(n)],
    })  # fmt: skip
    found = kinds(frame)
    assert found == {
        "int": "numeric", "float32": "numeric", "nullable_bool": "boolean", "category": "categorical", "stamp": "date", "duration": "numeric",
        "decimal": "numeric", "day": "date", "mixed": "categorical", "path": "image", "zip": "categorical",
    }  # fmt: skip
    done = conform(frame, infer_schema(frame))
    types = {str(done[n].dtype) for n in frame}
    assert types == {"float64", "datetime64[ns]", "str"}
    assert done["stamp"].iloc[0] == pd.Timestamp("2023-12-31 23:00") and done["duration"].iloc[2] == 7200


def test_hostile_tables():
    assert infer_schema(pd.DataFrame({"a": []})).column("a").kind == "constant"
    assert infer_schema(pd.DataFrame()).names == []
    assert kinds(pd.DataFrame({"a": [np.inf, 1.0, 2.0]}))["a"] == "numeric"
    assert kinds(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})) == {"a": "numeric", "b": "categorical"}
    assert kinds(pd.DataFrame({"": ["a", "b"], " ": [1.5, 2.5]})) == {"": "categorical", " ": "numeric"}
    assert infer_column(pd.Series(["<b>&", "<i>"], name="<script>")).kind == "categorical"
    assert "<script>" not in infer_schema(pd.DataFrame({"<script>": ["<b>&", "<i>"]}))._repr_html_()


def test_five_thousand_columns_take_seconds():
    wide = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 5000)), columns=[f"c{i}" for i in range(5000)])
    started = time.perf_counter()
    schema = infer_schema(wide)
    assert len(schema.of_kind("numeric")) == 5000 and time.perf_counter() - started < 30
    assert "more columns" in schema._repr_html_()


def test_repeating_identifiers_are_told_apart_from_codes():
    rng = np.random.default_rng(0)
    user = pd.Series(rng.integers(0, 3000, 10_000), name="user_id")
    assert infer_column(user).kind == "identifier" and "rows on average" in infer_column(user).why
    assert infer_column(pd.Series(rng.integers(0, 12, 10_000), name="store_id")).kind == "categorical"
    assert infer_column(pd.Series(np.arange(10_000), name="row")).kind == "identifier"
    assert infer_column(pd.Series(rng.permutation(10_000), name="shuffled")).kind == "identifier"
    assert infer_column(pd.Series(np.arange(10_000) * 1.5, name="distance")).kind == "numeric"


def test_overrides_win_and_wrong_ones_are_refused():
    frame = pd.DataFrame({"grade": [1, 2, 3] * 10})
    assert infer_schema(frame, {"grade": "categorical"}).column("grade").categories == ["1", "2", "3"]
    with pytest.raises(UsageError, match="is unknown"):
        infer_schema(frame, {"grade": "ordinal"})
    with pytest.raises(UsageError, match="Did you mean 'grade'"):
        infer_schema(frame, {"grad": "numeric"})


def test_conform_names_everything_that_is_wrong():
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.5], "d": pd.date_range("2024-01-01", periods=3), "k": ["x", "y", "x"]})
    schema = infer_schema(frame)
    with pytest.raises(DataError) as refused:
        conform(pd.DataFrame({"a": ["one", "2", "3"], "d": ["tomorrow", None, "2024-01-01"]}), schema)
    text = str(refused.value)
    assert "k is missing" in text and "'one'" in text and "'tomorrow'" in text and "2024-05-31" in text
    blank = conform(pd.DataFrame({"a": [" ", None, "3"], "d": ["", None, "2024-01-01"], "k": ["", None, "x"]}), schema)
    assert blank.isna().sum().tolist() == [2, 2, 2]


def test_one_row_conforms_like_many():
    frame = pd.DataFrame({"a": [1.0, None, 3.0], "code": ["1", "2", None], "flag": [True, False, True]})
    frame["d"] = pd.to_datetime(["2024-01-01", None, "2024-03-01"])
    schema = infer_schema(frame, {"code": "categorical"})
    whole = conform(frame, schema)
    for i in range(3):
        pd.testing.assert_frame_equal(conform(frame.iloc[[i]], schema), whole.iloc[[i]])


values = st.one_of(st.none(), st.booleans(), st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False, width=32), st.text(max_size=5))


@settings(max_examples=60, deadline=None)
@given(st.lists(values, max_size=30))
def test_canonical_text_is_stable_and_never_fails(rows):
    once = canonical_text(pd.Series(rows, dtype=object, name="x"))
    assert once.dtype == "str" and len(once) == len(rows)
    pd.testing.assert_series_equal(canonical_text(once), once)


@settings(max_examples=40, deadline=None)
@given(st.lists(values, min_size=1, max_size=30))
def test_every_column_gets_a_kind_and_conforms_to_it(rows):
    frame = pd.DataFrame({"x": pd.Series(rows, dtype=object)})
    schema = infer_schema(frame)
    done = conform(frame, schema)
    pd.testing.assert_frame_equal(conform(done, schema), done)


def test_names_are_compared_in_one_spelling():
    assert plain_name("Sale Price") == plain_name("SalePrice") == plain_name("sale_price") == "sale_price"
    assert plain_name("ID") == "id" and plain_name("") == ""


def test_seen_in_looks_at_the_given_rows_alone():
    frame = pd.DataFrame({"a": np.arange(100.0) / 2, "k": ["x"] * 80 + ["y"] * 20, "m": [None] * 80 + [1.5, 2.5] * 10})
    part = infer_schema(frame).seen_in(frame.head(80))
    assert part.column("a").maximum == 39.5 and part.kind("k") == "constant" and part.kind("m") == "constant"
    assert "categorical otherwise" in part.column("k").why and part.rows == 80


def test_texts_of_scripts_without_blanks_are_texts_and_codes_are_not():
    comments = [f"这部电影很好看，音乐也不错，第{n}次看了" for n in range(60)]
    thai = [f"ที่นี่อาหารดีมากและบริการดีมากครับ {n}" for n in range(60)]
    names = [f"王{chr(0x4E00 + n)}{chr(0x5000 + n)}" for n in range(60)]
    frame = pd.DataFrame({"zh": comments, "th": thai, "code": [f"ZX-{n:04d}" for n in range(60)], "name": names})
    schema = infer_schema(frame)
    assert [schema.column(c).kind for c in ("zh", "th", "code", "name")] == ["text", "text", "identifier", "identifier"]
