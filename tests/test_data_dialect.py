"How text files are written: separators, headers and number marks over many generated files, and evidence in words."

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.data.dialect import cell_kind, clean_names, find_encoding, is_utf8, looks_binary, sniff
from mlbench.data.typing import date_format_of

NAME = st.text("abcdefghijklmnop_", min_size=3, max_size=8)
WORD = st.text("abc defg,;|'äß", min_size=1, max_size=12).map(str.strip).filter(bool)


@st.composite
def tables(draw):
    "Names and rows: a word, a whole number and a decimal in each."
    rows = draw(st.lists(st.tuples(WORD, st.integers(0, 999_999), st.floats(-1e4, 1e4)), min_size=4, max_size=30))
    return ["name", "count", "share"], [[w, str(n), f"{x:.2f}"] for w, n, x in rows]


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from([",", ";", "\t", "|"]))
def test_separator_and_header_are_found(table, separator):
    names, rows = table
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows([names, *rows])
    d = sniff(out.getvalue())
    assert (d.separator, d.names, d.width, d.skip) == (separator, names, 3, 1)
    assert d.decimal == "." and d.thousands is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-(10**9), 10**9), min_size=3, max_size=20), st.sampled_from([(",", "."), (".", ",")]))
def test_number_marks_are_found(numbers, marks):
    decimal, thousands = marks
    swap = str.maketrans({",": thousands, ".": decimal})
    text = "".join(f"a;{n / 100:,.2f}\n".translate(swap) for n in numbers)
    assert sniff("k;v\n" + text).decimal == decimal


@given(st.lists(st.one_of(st.just(""), NAME, st.sampled_from(["x", "x.1", "x.2", "column_1", "column_2"])), min_size=1, max_size=12))
def test_names_are_all_different_and_filled(cells):
    names, told = clean_names(cells)
    assert len(set(names)) == len(cells) and all(names)
    assert names == cells if len(set(cells)) == len(cells) and all(cells) else told


@given(st.binary(max_size=400))
def test_every_sample_has_an_encoding_or_is_binary(sample):
    if not looks_binary(sample):
        encoding, why = find_encoding(sample)
        sample.decode(encoding, errors="replace")
        assert why


@given(st.text(max_size=80))
def test_utf8_is_recognised(text):
    assert is_utf8(text.encode()) and find_encoding(text.encode())[0] in ("utf-8", "utf-8-sig", "utf-16-le", "utf-16-be")


@pytest.mark.parametrize(
    "text, names, skip",
    [
        ("a,b\n1,2\n", ["a", "b"], 1),
        ("1,2\n3,4\n", ["column_1", "column_2"], 0),
        ("red,square\nblue,round\nred,round\n", ["column_1", "column_2"], 0),
        ("color,shape\nblue,round\nred,round\n", ["color", "shape"], 1),
        ("Year,2000,2001,2002\nTimber,5,6,7\n", ["Year", "2000", "2001", "2002"], 1),
        ("0,1,2,3\n0.5,0.25,x,7\n0.75,0.5,y,8\n", ["0", "1", "2", "3"], 1),
        ("# made by hand\n# twice\na,b\n1,2\n", ["a", "b"], 3),
        ("Report,,\n,,\nname,age,city\nAnn,31,Cork\nBo,45,Galway\n", ["name", "age", "city"], 3),
        ('"first\nname",age\nAnn,31\nBo,45\n', ["first name", "age"], 2),
        ("sep=;\na;b\n1;2\n", ["a", "b"], 2),
        ("name,1990,born\nAnn,5,2001\nBo,6,2002\n", ["name", "1990", "born"], 1),
    ],
)
def test_headers(text, names, skip):
    d = sniff(text)
    assert (d.names, d.skip) == (names, skip), d.told


def test_evidence_is_given():
    told = {a.what: a for a in sniff("Report;;\nk;v;v\na;1,5;1\nb;2,5;2\n").told}
    assert told["separator"].why == "4 of 4 rows have 3 cells with it" and told["title"].override == "header_row=2"
    assert told["repeated column names"].value == "v -> v.1" and "decimal comma" in told["numbers"].why
    assert all(a.override for a in told.values())


@pytest.mark.parametrize(
    "cell, kind", [("1e5", "number"), ("(12)", "number"), ("12.5.2020", "date"), ("1/2", "text"), ("N/A", "mark"), ("\u00a0", "blank"), ("B12", "text")]
)
def test_cells(cell, kind):
    assert cell_kind(cell) == kind


@given(st.datetimes(), st.sampled_from(["%Y-%m-%d", "%d %B %Y", "%b %d, %Y", "%Y/%m/%d %H:%M", "%Y-%m-%dT%H:%M:%S.%f"]))
def test_date_formats_are_read_off_the_words(moment, form):
    if moment.year >= 1000 and moment.strftime("%B") != "May":  # May is long and short at once
        assert date_format_of(moment.strftime(form)) == form
