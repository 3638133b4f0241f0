"Reading tables: the wild files with exact expectations, every kind of source, every fault in words."

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import lzma
import os
import re
import sqlite3
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rights import as_nobody, open_to_all

from mlbench.core.errors import DataError
from mlbench.data import TableRead, read_table, source_fingerprint


def dtypes(frame):
    return [str(t) for t in frame.dtypes]


def told(read, what, value=""):
    "The one assumption of that name, and with that in its value."
    found = [a for a in read.assumptions if a.what == what and value in a.value]
    assert len(found) == 1, read
    return found[0]


def write(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding) if isinstance(content, str) else content)
    return path


# the wild files


def test_complex(shared_data):
    read = read_table(shared_data("dirty/complex.csv"))
    f = read.frame
    assert list(f.columns) == ["date", "another date", "temperature", "place"]
    assert dtypes(f) == ["datetime64[ns]", "datetime64[ns]", "int64", "str"]
    assert f["temperature"].tolist() == [0, -1, 6_000_000]
    assert f["another date"].isna().tolist() == [False, False, True] and f["another date"][0] == pd.Timestamp("2011-10-24")
    assert f["place"].fillna("").tolist() == ["", "Galway and more", "Galway"]


def test_tabs(shared_data):
    read = read_table(shared_data("dirty/example.tsv"))
    assert read.frame.shape == (140, 17) and dtypes(read.frame) == ["datetime64[ns]", *["int64"] * 10, *["float64"] * 6]
    assert read.frame["hour"].iloc[-1] == pd.Timestamp("2012-06-27 19:00") and told(read, "separator").value == "tab"


def test_pasted_from_a_spreadsheet(shared_data):
    read = read_table(shared_data("dirty/excel_pasting.csv"))
    f = read.frame
    assert f.shape == (14, 9) and list(f.columns) == ["Year", *map(str, range(2000, 2008))] and dtypes(f) == ["str", *["int64"] * 8]
    assert f.iloc[-1].tolist() == ["Total", 120522, 117044, 110532, 111412, 111448, 111601, 110277, 108609]
    assert f["Year"][9] == "Machinery and \nequipment" and told(read, "title").value.startswith("3 rows")
    assert told(read, "notes below the table").value == "2 rows left out" and "thousands mark ','" in told(read, "numbers").value


def test_null_and_no_header(shared_data):
    read = read_table(shared_data("dirty/null.csv"))
    f = read.frame
    assert list(f.columns) == [f"column_{k}" for k in range(1, 5)] and dtypes(f) == ["int64", "float64", "float64", "float64"]
    assert f.isna().sum().tolist() == [0, 5, 1, 7] and "none" in told(read, "header").value
    assert told(read, "missing").value == "'null' in column_2 (5), column_4 (4)"


def test_bars_and_semicolons(shared_data):
    bars = read_table(shared_data("dirty/simple.psv")).frame
    assert bars.shape == (28, 6) and dtypes(bars) == ["int64"] * 6 and bars["Former owner occupiers"].tolist()[-1] == 292000
    semicolons = read_table(shared_data("dirty/simple.ssv")).frame
    assert dtypes(semicolons) == ["datetime64[ns]", "int64", "str"] and semicolons["temperature"].tolist() == [1, -1, 0, 6, 8, 5]


def test_blanks_after_separators(shared_data):
    read = read_table(shared_data("dirty/skip_initials.csv"))
    assert read.frame.to_dict("list") == {"field1": ["hello", "hello2"], "field2": ["goodbye", "goodbye2"]}
    assert told(read, "blanks around words removed").value == "blanks in field2 (1)"


def test_sparse_latin_with_column_errors(shared_data):
    read = read_table(shared_data("dirty/sparse_with_column_errors.csv"))
    f = read.frame
    assert f.shape == (2200, 4) and list(f.columns) == ["LP", "Bezeichnung", "Kapitel/Titel", "column_4"]
    assert told(read, "encoding").value == "cp1252" and "Überwiegend hochschulbezogene Sonderprogramme" in set(f["Bezeichnung"])
    assert f["column_4"].notna().sum() == 12 and "090268321" in set(f["column_4"]) and f["LP"].tolist()[-1] == "Y39000"
    assert told(read, "blank rows").value == "37 rows left out" and "300368560z" in told(read, "numbers mixed with words, kept as text").value


def test_byte_order_mark_and_nothing_else(shared_data):
    with pytest.raises(DataError, match=r"no rows.*kitten, win.*header_row=0"):
        read_table(shared_data("dirty/utf8bom.csv"))
    one = read_table(shared_data("dirty/utf8bom.csv"), header_row=0).frame
    assert one.values.tolist() == [["kitten", "win"]]


def test_statistical_office(shared_data):
    read = read_table(shared_data("dirty/weird_head_padding.csv"))
    f = read.frame
    assert f.shape == (60, 10) and list(f.columns) == ["column_1", "1985", "1993", "2000", *map(str, range(2005, 2011))]
    assert dtypes(f) == ["str", *["float64"] * 9] and f["1985"].isna().all()
    row = f[f["column_1"] == "Unfallchirurgie"].iloc[0]
    assert row["1993"] == 1613 and row["2010"] == 2590 and f["column_1"].iloc[-1] == "Strahlentherapie"
    assert told(read, "notes below the table").value == "16 rows left out" and "column_11" in told(read, "empty columns").value
    assert told(read, "missing", "'.'").value == "'.' in 1985 (50)" and told(read, "title").override == "header_row=12"


# the public tables


SHAPES = {
    "ETTh1.csv.gz": (17420, 8),
    "adult.csv.gz": (32561, 15),
    "ames_house_prices.csv": (1460, 81),
    "bike_sharing_hourly.csv.gz": (17379, 11),
    "california_housing.csv.gz": (20640, 9),
    "compas_two_years.csv.gz": (7214, 53),
    "credit_fraud_baskets.csv.gz": (92790, 2),
    "credit_fraud_products.csv.gz": (163357, 7),
    "hr_attrition.csv": (1470, 35),
    "m4_hourly_train.csv.gz": (414, 961),
    "m4_hourly_test.csv.gz": (414, 49),
    "m4_weekly_train.csv.gz": (359, 2598),
    "m4_weekly_test.csv.gz": (359, 14),
    "mammography.csv.gz": (11183, 7),
    "movielens_small_movies.csv.gz": (9742, 3),
    "movielens_small_ratings.csv.gz": (100836, 4),
    "nyc_taxi_demand.csv": (10320, 2),
    "sst2_dev.csv.gz": (872, 2),
    "sst2_test.csv.gz": (1821, 2),
    "sst2_train.csv.gz": (6920, 2),
    "telco_churn.csv": (7043, 21),
    "titanic.csv": (891, 12),
    "wine_quality.csv.gz": (6497, 13),
}


@pytest.mark.parametrize("name", SHAPES)
def test_public_tables_agree_with_pandas(shared_data, name):
    "Same shape, names and numbers as pandas; our text, dates and marks are checked elsewhere."
    read = read_table(shared_data(name))
    plain = pd.read_csv(shared_data(name), encoding="utf-8-sig")
    assert read.frame.shape == SHAPES[name] and list(read.frame.columns) == [c.strip() for c in plain.columns]
    assert set(dtypes(read.frame)) <= {"int64", "float64", "bool", "str", "datetime64[ns]"}
    for ours, theirs in zip(read.frame.columns, plain.columns):
        if plain[theirs].dtype.kind in "if":
            np.testing.assert_array_equal(read.frame[ours].to_numpy(float), plain[theirs].to_numpy(float))


def test_charges_with_blanks_are_numbers(shared_data):
    read = read_table(shared_data("telco_churn.csv"))
    assert read.frame["TotalCharges"].dtype == "float64" and read.frame["TotalCharges"].isna().sum() == 11
    assert told(read, "missing").value == "cells of blanks only in TotalCharges (11)"


def test_na_that_means_none_is_told(shared_data):
    read = read_table(shared_data("ames_house_prices.csv"))
    na = told(read, "missing")
    assert "'NA' in" in na.value and "Alley (1,369)" in na.value and na.override == "missing_values" and "value of its own" in na.why
    kept = read_table(shared_data("ames_house_prices.csv"), missing_values={"Alley": []})
    assert kept.frame["Alley"].value_counts()["NA"] == 1369 and kept.frame["LotFrontage"].isna().sum() == 259
    assert (read.frame["MasVnrType"] == "None").sum() == 864


def test_repeated_names_and_dates_of_compas(shared_data):
    read = read_table(shared_data("compas_two_years.csv.gz"))
    assert {"decile_score.1", "priors_count.1"} <= set(read.frame.columns) and read.frame["dob"].dtype == "datetime64[ns]"
    assert "decile_score -> decile_score.1" in told(read, "repeated column names").value and "dob" in told(read, "dates").value


# compression, encodings, formats

TEXT = "id;name;x;joined\n1;Zoë;1.234,50;31.12.2020\n2;Ann;2,25;01.02.2021\n"


def expected(frame):
    assert dtypes(frame) == ["int64", "str", "float64", "datetime64[ns]"]
    assert frame["name"].tolist() == ["Zoë", "Ann"] and frame["x"].tolist() == [1234.5, 2.25]
    assert frame["joined"].tolist() == [pd.Timestamp("2020-12-31"), pd.Timestamp("2021-02-01")]


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2", ".xz", ".zip", ".zst"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_compressions_and_encodings(tmp_path, ending, encoding):
    data, path = TEXT.encode(encoding), tmp_path / f"t.csv{ending}"
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": lambda b: pa.Codec("zstd").compress(b, asbytes=True)}
    if ending == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("t.csv", data)
    else:
        path.write_bytes(pack[ending](data))
    expected(read_table(path).frame)


@pytest.mark.parametrize("kind", ["parquet", "feather", "jsonl", "jsonl.gz", "xlsx", "json"])
def test_formats_give_the_same_table(tmp_path, kind):
    frame = pd.DataFrame({"n": [1, 2, 3], "x": [0.5, None, 2.5], "word": ["a", None, "c d"], "flag": [True, False, True]})
    frame["day"] = pd.to_datetime(["2024-01-31", "2024-02-29", "2024-03-31"])
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "feather":
        frame.to_feather(path)
    elif kind == "xlsx":
        frame.to_excel(path, index=False)
    else:
        frame.assign(day=frame["day"].dt.strftime("%Y-%m-%d")).to_json(path, orient="records", lines=kind != "json")
    read = read_table(path)
    assert dtypes(read.frame) == ["int64", "float64", "str", "bool", "datetime64[ns]"]
    pd.testing.assert_frame_equal(read.frame, frame.astype({"day": "datetime64[ns]", "word": "str"}), check_dtype=False)


def test_a_file_is_read_as_what_it_is(tmp_path):
    pd.DataFrame({"a": [1, 2]}).to_parquet(tmp_path / "t.csv")
    read = read_table(tmp_path / "t.csv")
    assert read.frame["a"].tolist() == [1, 2] and told(read, "kind of file").value == "parquet"


def test_categories_decimals_and_zones_of_parquet(tmp_path):
    table = pa.table(
        {
            "c": pa.array(["x", "y", "x"]).dictionary_encode(),
            "t": pa.array([dt.datetime(2024, 1, 1, 12)] * 3, pa.timestamp("us", tz="Europe/Berlin")),
            "d": pa.array([dt.date(2024, 1, 1), None, dt.date(9999, 12, 31)]),
            "b": pa.array([True, None, False]),
        }
    )
    import pyarrow.parquet as pq

    pq.write_table(table, tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet")
    assert dtypes(read.frame) == ["str", "datetime64[ns]", "datetime64[ns]", "str"]
    assert read.frame["t"][0] == pd.Timestamp("2024-01-01 12:00") and read.frame["d"].isna().tolist() == [False, True, True]
    assert "Europe/Berlin" in told(read, "times brought to UTC").why and told(read, "dates beyond 1677 to 2262, read as missing")


def test_sheets(tmp_path):
    with pd.ExcelWriter(tmp_path / "book.xlsx") as book:
        pd.DataFrame({"a": [1, 2]}).to_excel(book, sheet_name="first", index=False)
        pd.DataFrame({"zip": ["00123", "04567"], "when": ["12:30", "07:00"]}).to_excel(book, sheet_name="second", index=False)
    assert read_table(tmp_path / "book.xlsx").frame["a"].tolist() == [1, 2]
    second = read_table(tmp_path / "book.xlsx", sheet="second").frame
    assert second["zip"].tolist() == ["00123", "04567"] and second["when"].tolist() == ["12:30", "07:00"]
    assert read_table(tmp_path / "book.xlsx", sheet=1).frame.equals(second)
    with pytest.raises(DataError, match="no sheet 'secnd'.*Did you mean 'second'"):
        read_table(tmp_path / "book.xlsx", sheet="secnd")
    write(tmp_path / "broken.xlsx", (tmp_path / "book.xlsx").read_bytes()[:1500])
    with pytest.raises(DataError, match=r"broken\.xlsx"):
        read_table(tmp_path / "broken.xlsx")


# numbers, dates, marks, codes


def test_codes_keep_their_zeros_wherever_they_stand(tmp_path):
    rows = "".join(f"{k + 10000},{k}\n" for k in range(40_000))
    for late in ("00501,1\n", '"00501",1\n'):
        f = read_table(write(tmp_path / "t.csv", "zip,n\n" + rows + late + "12345,2\n")).frame
        assert f["zip"].iloc[-2] == "00501" and f["n"].dtype == "int64"
    packed = tmp_path / "t.csv.gz"
    packed.write_bytes(gzip.compress(("zip,n\n" + rows + "00501,1\n").encode()))
    assert read_table(packed).frame["zip"].iloc[-1] == "00501"
    assert read_table(write(tmp_path / "u.csv", "x,y\n0,0.5\n100,00.5\n")).frame["x"].dtype == "int64"


def test_long_digits_and_times_of_day_stay_text(tmp_path):
    rows = "".join(f"{k},5\n" for k in range(40_000))
    f = read_table(write(tmp_path / "t.csv", "account,n\n" + rows + "12345678901234567890,1\n")).frame
    assert f["account"].iloc[-1] == "12345678901234567890"
    f = read_table(write(tmp_path / "t.csv", "n,at\n" + "1,\n" * 40_000 + "2,12:30\n")).frame
    assert f["at"].iloc[-1] == "12:30"


def test_numbers_after_a_long_stretch_of_something_else(tmp_path):
    "Types that the first block suggests do not decide."
    f = read_table(write(tmp_path / "t.csv", "a,b,c\n" + "1,,7\n" * 200_000 + "2.5,word,n/a\n3, ,8\n")).frame
    assert dtypes(f) == ["float64", "str", "float64"] and f["a"].iloc[-2] == 2.5 and f["b"].iloc[-2] == "word" and np.isnan(f["c"].iloc[-2])


@pytest.mark.parametrize(
    "cells, values",
    [
        (["1.234,56", "7,5"], [1234.56, 7.5]),
        (["1,234.56", "7.5"], [1234.56, 7.5]),
        (["1 234,5", "7,25"], [1234.5, 7.25]),
        (["1'234.5", "7.25"], [1234.5, 7.25]),
        (["$1,200", "$3"], [1200, 3]),
        (["12 %", "3 %"], [12, 3]),
        (["€ 5", "€ 7.50"], [5, 7.5]),
        (["1e-3", "-2"], [0.001, -2]),
        (["+5", "-7"], [5, -7]),
        (["1.234.567", "2"], [1234567, 2]),
        (["0.125", "3.250"], [0.125, 3.25]),
    ],
)
def test_ways_to_write_numbers(tmp_path, cells, values):
    f = read_table(write(tmp_path / "t.csv", "k;v\n" + "".join(f"a;{c}\n" for c in cells)))
    assert f.frame["v"].tolist() == values, f


@pytest.mark.parametrize(
    "cells, first",
    [
        (["31/12/2020", "01/02/2021"], "2020-12-31"),
        (["12/31/2020", "01/02/2021"], "2020-12-31"),
        (["2020/12/31", "2021/02/01"], "2020-12-31"),
        (["31.12.20", "01.02.21"], "2020-12-31"),
        (["31-Dec-2020", "01-Feb-2021"], "2020-12-31"),
        (["Dec 31, 2020", "Feb 1, 2021"], "2020-12-31"),
        (["31 December 2020", "1 May 2021"], "2020-12-31"),
        (["31/12/2020 23:59", "01/02/2021 00:00"], "2020-12-31 23:59"),
        (["12/31/2020 11:59 PM", "01/02/2021 1:00 AM"], "2020-12-31 23:59"),
        (["2020-12-31T23:59:00+02:00", "2021-02-01T00:00:00+02:00"], "2020-12-31 21:59"),
        (["2020-12-31 23:59:00.250", "2021-02-01 00:00:00.500"], "2020-12-31 23:59:00.25"),
    ],
)
def test_ways_to_write_dates(tmp_path, cells, first):
    read = read_table(write(tmp_path / "t.csv", "k,v\n" + "".join(f'a,"{c}"\n' for c in cells)))
    assert read.frame["v"].dtype == "datetime64[ns]" and read.frame["v"][0] == pd.Timestamp(first), read


def test_order_of_day_and_month(tmp_path):
    path = write(tmp_path / "t.csv", "sure,open\n31/12/2020,03/04/2020\n01/02/2021,05/06/2020\n")
    read = read_table(path)
    assert read.frame["open"].dt.day.tolist() == [3, 5] and any("other columns" in a.why for a in read.assumptions)
    assert read_table(path, date_format={"open": "%m/%d/%Y"}).frame["open"].dt.month.tolist() == [3, 5]
    alone = write(tmp_path / "u.csv", "k,open\na,03/04/2020\nb,05/06/2020\n")
    assert read_table(alone).frame["open"].dt.month.tolist() == [3, 5] and "no value decides" in told(read_table(alone), "dates").why
    assert read_table(alone, date_format="day first").frame["open"].dt.month.tolist() == [4, 6]
    mixed = read_table(write(tmp_path / "v.csv", "k,when\na,31/12/2020\nb,12/31/2020\n"))
    assert mixed.frame["when"].tolist() == ["31/12/2020", "12/31/2020"] and "only month first" in told(mixed, "dates of mixed form, kept as text").value
    iso = write(tmp_path / "w.csv", "k,when\na,2020-12-31\n")
    assert read_table(iso, date_format="text").frame["when"].tolist() == ["2020-12-31"]
    assert read_table(iso, date_format={"when": "text"}).frame["when"].tolist() == ["2020-12-31"]


def test_marks_for_missing(tmp_path):
    path = write(tmp_path / "t.csv", "job,pay,sign,mood\ncook,12,+,none\n?,-,-,fine\nn/a,7,+,none\n")
    f = read_table(path).frame
    assert f["job"].fillna("").tolist() == ["cook", "", ""] and f["pay"].tolist()[::2] == [12, 7] and np.isnan(f["pay"][1])
    assert f["sign"].tolist() == ["+", "-", "+"] and f["mood"].tolist() == ["none", "fine", "none"]
    assert read_table(path, missing_values=[]).frame["job"].tolist() == ["cook", "?", "n/a"]
    own = write(tmp_path / "u.csv", "a,b,c\n-999,x,1900-01-01\n5,y,2020-01-01\n")
    read = read_table(own, missing_values={"a": ["-999"], "c": ["1900-01-01"]})
    assert read.frame["a"].isna().tolist() == [True, False] and read.frame["c"].isna().tolist() == [True, False] and read.frame["b"].notna().all()


def test_truth_values(tmp_path):
    f = read_table(write(tmp_path / "t.csv", "a,b,c\nTrue,true,yes\nFalse,,no\nTrue,false,yes\n")).frame
    assert dtypes(f) == ["bool", "str", "str"] and f["b"].fillna("").tolist() == ["True", "", "False"]


def test_words_that_only_look_odd(tmp_path):
    f = read_table(write(tmp_path / "t.csv", 'a,b\n"x, y",1\n"say ""hi""",2\n"two\nlines",3\n')).frame
    assert f["a"].tolist() == ["x, y", 'say "hi"', "two\nlines"] and f["b"].tolist() == [1, 2, 3]


# shapes of files


def test_ragged_rows_are_told(tmp_path):
    read = read_table(write(tmp_path / "t.csv", "a,b,c\n1,2,3\n4,5\n6,7,8,9\n10,11,12,\n"))
    assert read.frame["a"].tolist() == [1, 4, 6, 10] and read.frame["c"].isna().tolist() == [False, True, False, False]
    assert "line 3" in told(read, "short rows").why and "1 row with 1 cell" in told(read, "long rows").value and "line 4" in told(read, "long rows").why


def test_ragged_far_below_the_sample(tmp_path):
    read = read_table(write(tmp_path / "t.csv", "a,b\n" + "1,2\n" * 100_000 + "3\n"))
    assert len(read.frame) == 100_001 and told(read, "short rows").value == "1 row" and dtypes(read.frame) == ["int64", "float64"]


def test_row_names_without_a_header_cell(tmp_path):
    read = read_table(write(tmp_path / "t.csv", "speed,dist\nr1,4,2\nr2,7,4\nr3,8,16\n"))
    assert list(read.frame.columns) == ["column_1", "speed", "dist"] and read.frame["dist"].tolist() == [2, 4, 16]


def test_separators_at_the_end_of_rows_only(tmp_path):
    read = read_table(write(tmp_path / "t.csv", "a,b\n1,x,\n2,y,\n3,z,\n"))
    assert read.frame.to_dict("list") == {"a": [1, 2, 3], "b": ["x", "y", "z"]}


def test_glued_files_and_blank_rows(tmp_path):
    read = read_table(write(tmp_path / "t.csv", "a,b\n1,x\n,\na,b\n2,y\n"))
    assert read.frame.to_dict("list") == {"a": [1, 2], "b": ["x", "y"]} and told(read, "repeated header").value == "1 row left out"


def test_headers_can_be_set(tmp_path):
    path = write(tmp_path / "t.csv", "made by hand\na,b\n1,2\n3,4\n")
    assert read_table(path).frame.to_dict("list") == {"a": [1, 3], "b": [2, 4]}
    assert read_table(path, header_row=3).frame.to_dict("list") == {"1": [3], "2": [4]}
    assert read_table(path, header_row=0).frame.shape == (3, 2)
    with pytest.raises(DataError, match="header_row=9"):
        read_table(path, header_row=9)


def test_one_column_and_old_line_ends(tmp_path):
    assert read_table(write(tmp_path / "t.csv", "word\nalpha\nbeta\n")).frame["word"].tolist() == ["alpha", "beta"]
    assert read_table(write(tmp_path / "u.csv", "a,b\r1,2\r3,4\r")).frame["b"].tolist() == [2, 4]
    assert read_table(write(tmp_path / "v.txt", "1.0  2.5   3\n4.0  5.5   6\n")).frame.shape == (2, 3)


def test_overrides(tmp_path):
    path = write(tmp_path / "t.csv", "a;b\n1,234;2\n5,678;3\n")
    assert read_table(path, decimal=",").frame["a"].tolist() == [1.234, 5.678]
    assert read_table(path, thousands=",").frame["a"].tolist() == [1234, 5678]
    assert read_table(path, separator="|").frame.shape == (2, 1)
    latin = write(tmp_path / "u.csv", "a,b\nZoë,1\n", "latin-1")
    assert read_table(latin, encoding="latin-1").frame["a"][0] == "Zoë"
    with pytest.raises(DataError, match="utf-8.*Leave encoding out"):
        read_table(latin, encoding="utf-8")
    assert read_table(path, n_rows=1).frame.shape == (1, 2)
    with pytest.raises(DataError, match="n_rows=0"):
        read_table(path, n_rows=0)


def test_five_thousand_columns(tmp_path):
    frame = pd.DataFrame(np.arange(60_000).reshape(12, 5000) / 8, columns=[f"c{k}" for k in range(5000)])
    frame.to_csv(tmp_path / "wide.csv", index=False)
    assert read_table(tmp_path / "wide.csv").frame.equals(frame)


CELL = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.sampled_from(["", "NA", "x", "Zoë", "00123", "2020-01-31", "1.5", "true", 'a "quoted" word', "comma, inside", "two\nlines", " padded "]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=2, max_size=12))
def test_the_fast_and_the_patient_reader_agree(tmp_path, rows):
    "The same cells give the same table whichever way they are read."
    import csv

    with open(tmp_path / "t.csv", "w", newline="") as file:
        csv.writer(file).writerows([["alpha", "beta", "gamma"], ["word", "word", "word"], *rows])
    fast, patient = read_table(tmp_path / "t.csv", header_row=1), read_table(tmp_path / "t.csv", header_row=1, n_rows=10_000)
    pd.testing.assert_frame_equal(fast.frame, patient.frame)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_table_or_in_words(tmp_path, content):
    try:
        assert isinstance(read_table(write(tmp_path / "t.csv", content)), TableRead)
    except DataError as error:
        assert "t.csv" in str(error)


# many files, folders, databases


def test_globs_and_folders(tmp_path):
    for k in (1, 2, 3):
        write(tmp_path / f"part_{k}.csv", f"id,when,code\n{k},2024-0{k}-01,{'7' if k < 3 else '007'}\n")
    read = read_table("part_*.csv", base=tmp_path)
    assert read.frame["id"].tolist() == [1, 2, 3] and read.frame["code"].tolist() == ["7", "7", "007"] and len(read.files) == 3
    assert read.frame["when"].dt.month.tolist() == [1, 2, 3] and read_table(tmp_path).frame.equals(read.frame)
    write(tmp_path / "part_4.csv", "id,extra\n4,x\n")
    more = read_table("part_*.csv", base=tmp_path)
    assert more.frame["extra"].fillna("").tolist() == ["", "", "", "x"] and "extra" in told(more, "columns not in every file").value
    write(tmp_path / "other.jsonl", '{"a": 1}\n')
    with pytest.raises(DataError, match=r"several kinds \(\.csv, \.jsonl\)"):
        read_table(tmp_path)
    with pytest.raises(DataError, match="no file matches"):
        read_table("*.parquet", base=tmp_path)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="holds no table"):
        read_table("nothing", base=tmp_path)


@pytest.fixture
def shop(tmp_path):
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("create table customers (id integer, plan text, spend real, joined text, zip text)")
        database.executemany("insert into customers values (?, ?, ?, ?, ?)", [(1, "gold", 12.5, "2024-05-01", "00501"), (2, "NA", None, "2024-06-01", "10001")])
    database.close()
    return tmp_path


def test_sqlite(shop):
    read = read_table("sqlite:///shop.db", table="customers", base=shop)
    assert dtypes(read.frame) == ["int64", "str", "float64", "datetime64[ns]", "str"] and read.files == [shop / "shop.db"]
    assert read.frame["plan"].isna().tolist() == [False, True] and "'NA' in plan" in told(read, "missing").value
    assert read_table(shop / "shop.db", query="select id from customers where plan like 'g%'").frame["id"].tolist() == [1]
    assert read_table(f"sqlite:///{shop}/shop.db", query="select strftime('%H:%M', joined) t from customers").frame.shape == (2, 1)


@pytest.mark.parametrize(
    "source, choices, words",
    [
        ("sqlite:///shop.db", {}, r"query='select \.\.\.' or table.*customers"),
        ("sqlite:///shop.db", {"table": "custmers"}, "Did you mean 'customers'"),
        ("sqlite:///shop.db", {"query": "selct 1"}, "syntax error.*selct 1"),
        ("sqlite:///shop.db", {"query": "select nme from customers"}, "no such column"),
        ("sqlite:///shop.db", {"query": "delete from customers"}, "readonly"),
        ("sqlite:///shop.db", {"query": "select * from customers where id > 9"}, "no rows"),
        ("sqlite:///shop.db", {"query": "select 1", "table": "customers"}, "exclude each other"),
        ("sqlite:///shp.db", {"table": "customers"}, "Did you mean 'shop.db'"),
        ("https://example.org/a.csv", {}, "Download the file first"),
    ],
)
def test_databases_say_what_is_wrong(shop, source, choices, words):
    with pytest.raises(DataError, match=words):
        read_table(source, base=shop, **choices)
    assert sqlite3.connect(shop / "shop.db").execute("select count(*) from customers").fetchone() == (2,) and not (shop / "shp.db").exists()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ana:canary-5b1f@127.0.0.1:9/shop",
        "mysql+pymysql://ana:canary-5b1f@127.0.0.1:9/shop",
        "nosuch+driver://ana:canary-5b1f@h/x",
        "https://ana:canary-5b1f@example.org/a.csv",
        "sqlite:///missing.db?password=canary-5b1f",
        "mssql+pyodbc://ana:canary-5b1f@h/x?driver=none",
        "postgresql://ana:canary-5b1f@[broken/x",
    ],
)
def test_passwords_are_in_no_error(tmp_path, address, capsys):
    import traceback

    with pytest.raises(DataError) as caught:
        read_table(address, query="select 1", base=tmp_path)
    printed = "".join(traceback.format_exception(caught.value)).replace(address, "") + "".join(capsys.readouterr())
    assert "canary" not in str(caught.value) and "canary" not in printed


def test_the_source_is_kept_without_its_password(shop):
    read = read_table("sqlite:///shop.db?password=canary-5b1f", table="customers", base=shop)
    assert "canary" not in repr(read) + read._repr_html_() + read.source


# faults


def test_missing_files_and_rights(tmp_path):
    write(tmp_path / "customers.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match="Did you mean 'customers.csv'"):
        read_table("custmers.csv", base=tmp_path)
    with pytest.raises(DataError, match="no folder"):
        read_table("nowhere/a.csv", base=tmp_path)


def test_a_file_without_permission(tmp_path):
    "The administrator may read everything, so the file is read by a child process that has become nobody."
    open_to_all(tmp_path)
    path = write(tmp_path / "secret.csv", "a,b\n1,2\n")
    path.chmod(0)
    said = as_nobody(lambda: read_table(path))
    assert re.match("DataError 1?.*: .*may not be read.*chmod", said), said


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"\n\n  \n", "empty"),
        ("a.csv", b"age,plan\n", "no rows.*age, plan"),
        ("a.csv", bytes(range(256)) * 40, "binary"),
        ("a.csv", b"\x89PNG\r\n\x1a\n" + bytes(100), "binary"),
        ("a.csv.gz", gzip.compress(os.urandom(5000).hex().encode())[:900], "damaged or incomplete"),
        ("a.csv.xz", lzma.compress(b"a,b\n1,2\n" * 50)[:40], "damaged|cannot be read"),
        ("a.parquet", b"PAR1" + bytes(40), "cannot be read as parquet"),
        ("a.parquet", b"a,b\n1,2\n", "no parquet file"),
        ("a.xlsx", b"a,b\n1,2\n", "no excel file"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2"),
        ("a.json", b"[1, 2]", "no JSON objects"),
        ("a.json", b"  ", "empty"),
        ("a.xls", b"\xd0\xcf\x11\xe0" + bytes(100), "Save it as .xlsx"),
    ],
)
def test_files_that_are_no_tables(tmp_path, name, content, words):
    write(tmp_path / name, content)
    with pytest.raises(DataError, match=words) as caught:
        read_table(tmp_path / name)
    assert name in str(caught.value)


def test_options_that_do_not_apply(tmp_path):
    path = write(tmp_path / "t.csv", "a,b\n1,2\n")
    for choice in ({"query": "select 1"}, {"table": "t"}, {"sheet": "s"}):
        with pytest.raises(DataError, match="Leave it out"):
            read_table(path, **choice)


# what comes back


def test_a_read_shows_itself(tmp_path):
    read = read_table(write(tmp_path / "t.csv", "a;b\n1,5;<x>\n2,5;y\n"))
    assert "decimal mark ','" in repr(read) and "<table>" in read._repr_html_() and read.size == "2 rows, 2 columns"
    assert list(read.told().columns) == ["assumed", "found", "because", "decide otherwise with"] and len(read.told()) == len(read.assumptions)


def test_fingerprints(tmp_path, shop):
    path = write(tmp_path / "t.csv", "a,b\n1,2\n")
    first = source_fingerprint("t.csv", tmp_path)
    assert first == source_fingerprint(path) and len(first) == 64
    assert first != source_fingerprint(path, decimal=",") and first == source_fingerprint(path, decimal=None)
    write(path, "a,b\n1,3\n")
    assert source_fingerprint(path) != first
    assert source_fingerprint("postgresql://a:b@h/d", query="select 1") is None
    assert source_fingerprint("sqlite:///shop.db", shop, table="a") != source_fingerprint("sqlite:///shop.db", shop, table="b")
    with pytest.raises(DataError, match="no file"):
        source_fingerprint("gone.csv", tmp_path)


def test_nothing_global_is_changed(tmp_path):
    import csv

    limit = csv.field_size_limit()
    long = "x" * 200_000
    assert read_table(write(tmp_path / "t.csv", f"a,b\n{long},1\ny,2\n")).frame["a"].str.len().tolist() == [200_000, 1]
    assert csv.field_size_limit() == limit


def test_a_sample_that_ends_within_a_quoted_text(tmp_path):
    "The fast reader stays in charge of long texts with line breaks."
    from mlbench.data.delimited import ReadOptions, find_dialect

    cell = '"' + "one line, and\nanother " * 40 + '"'
    path = write(tmp_path / "t.csv", "id,text\n" + "".join(f"{k},{cell}\n" for k in range(2_000)))
    assert not find_dialect(path, ReadOptions())[0].irregular
    f = read_table(path).frame
    assert len(f) == 2_000 and f["text"].str.count("\n").eq(40).all() and f["id"].dtype == "int64"
