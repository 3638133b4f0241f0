"Files of tagged words: read as tables of sentences, whatever they are packed in, and refused with the line where one is torn."

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from mlbench.core.errors import DataError
from mlbench.data.schema import infer_schema
from mlbench.data.sources import read_table
from mlbench.problem.problem import Problem
from mlbench.problem.proposal import propose
from mlbench.problem.tags import encode_tags, mended, tag_classes

NAMES = ["Ann", "Bob", "Cleo", "Dan"]
PLACES = ["Rome", "Oslo", "Graz"]


def corpus(sentences: int, inner: str = "I", last: str = "I", single: str = "B") -> str:
    "Sentences with a name of two words and a place of one."
    rng = np.random.default_rng(0)
    made = ["-DOCSTART- -X- O\n"]
    for _ in range(sentences):
        lines = [(rng.choice(NAMES), "NNP", "B-PER"), ("van", "NNP", f"{inner}-PER"), ("Dyk", "NNP", f"{last}-PER"), ("sees", "VBZ", "O")]
        lines += [(rng.choice(PLACES), "NNP", f"{single}-LOC"), (".", ".", "O")]
        made.append("".join(" ".join(cells) + "\n" for cells in lines))
    return "\n".join(made)


@pytest.mark.parametrize("name", ["names.conll", "names.iob2", "names.conll.gz"])
def test_a_corpus_is_a_table_and_a_problem_of_tagging(tmp_path, name):
    data = corpus(40).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    read = read_table(name, base=tmp_path)
    assert read.frame.shape == (40, 2) and read.frame["sentence"].str.split().str.len().eq(6).all()
    assert "column 1, its tag in the last of 3" in str(read)
    record = propose(read.frame, infer_schema(read.frame), "tags", source=name).problem
    assert record["task"] == "tagging"
    Problem.from_dict(record).check_frame(read.frame)
    assert len(read_table(name, base=tmp_path, n_rows=7).frame) == 7


def test_ends_and_single_words_of_other_schemes_mean_the_same(tmp_path):
    tables = []
    for n, marks in enumerate([{}, {"last": "E", "single": "S"}, {"last": "L", "single": "U"}]):
        (tmp_path / f"{n}.bioes").write_text(corpus(12, **marks), encoding="utf-8")
        tables.append(read_table(f"{n}.bioes", base=tmp_path).frame["tags"].tolist())
    classes = tag_classes(tables[0])
    assert all(tag_classes(cells) == classes == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"] for cells in tables)
    assert all(np.array_equal(encode_tags(cells, classes), encode_tags(tables[0], classes)) for cells in tables)
    assert mended(["E-PER", "E-PER", "S-PER", "I-LOC"]) == ["B-PER", "I-PER", "B-PER", "B-LOC"], "ends without a beginning are mended"


def test_words_in_another_encoding_are_read(tmp_path):
    (tmp_path / "a.conll").write_bytes("Zoë B-PER\nKöhler I-PER\nläuft O\n\n".encode("latin-1") * 20)
    assert read_table("a.conll", base=tmp_path).frame["sentence"][0] == "Zoë Köhler läuft"
    assert read_table("a.conll", base=tmp_path, encoding="latin-1").frame["sentence"][0] == "Zoë Köhler läuft"
    with pytest.raises(DataError, match="is not written in encoding='utf-8'"):
        read_table("a.conll", base=tmp_path, encoding="utf-8")


def test_an_encoding_that_shows_late_is_recognised_or_told(tmp_path):
    (tmp_path / "a.conll").write_bytes(b"Ann B-PER\nsings O\n\n" * 20_000 + "Zoë B-PER\n".encode("latin-1"))
    assert read_table("a.conll", base=tmp_path).frame["sentence"].iloc[-1] == "Zoë"
    with pytest.raises(DataError, match="a.conll is not written in encoding='utf-8': .* at byte 380002. Leave encoding out"):
        read_table("a.conll", base=tmp_path, encoding="utf-8")


def test_empty_cells_are_kept_in_their_place(tmp_path):
    (tmp_path / "a.conll").write_text("Ann\t\tB-PER\n\tx\tO\n", encoding="utf-8")
    assert read_table("a.conll", base=tmp_path).frame.iloc[0].tolist() == ["Ann _", "B-PER O"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Ann B-PER\nlives\n", "line 2 of a.conll has 1 cells, 'lives'. Expected a word and its tag, 2 cells on every line"),
        ("Ann B-PER\nNew York B-LOC\n", "line 2 of a.conll has 3 cells, 'New York B-LOC'"),
        ("just\nwords\n", "line 1 of a.conll has 1 cells, 'just'. Expected a word and its tag, 2 cells"),
        ("Ann NNP\nlives VBZ\n", "line 1 of a.conll ends with 'NNP', which is no tag. Expected O, B-TYPE or I-TYPE"),
        ("Ann B-PER\nlives\t\n", "line 1 of a.conll has 1 cells"),
        ("\n\n# nothing\n", "a.conll has no sentences"),
        ("", "a.conll is empty"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_line(tmp_path, text, told):
    (tmp_path / "a.conll").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        read_table("a.conll", base=tmp_path)


def test_a_separator_is_not_for_such_files(tmp_path):
    (tmp_path / "a.conll").write_text(corpus(3), encoding="utf-8")
    with pytest.raises(DataError, match="separator= is for text files, and a.conll is read as conll. Leave it out"):
        read_table("a.conll", base=tmp_path, separator=";")


def test_a_hash_may_be_a_word(tmp_path):
    (tmp_path / "a.conll").write_text("# sent_id = 1\n# O\n1 B-NUM\n\n# O\n2 B-NUM\n", encoding="utf-8")
    assert read_table("a.conll", base=tmp_path).frame.equals(pd.DataFrame({"sentence": ["# 1", "# 2"], "tags": ["O B-NUM"] * 2}).astype("str"))
