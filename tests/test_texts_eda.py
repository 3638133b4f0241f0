"""Texts looked at: languages, odd texts, copies, words that tell, and tables without texts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlbench.data.schema import infer_schema
from mlbench.eda.languages import UNSURE, languages_of, scripts_of
from mlbench.eda.look import look_at
from mlbench.eda.texts import TextLook, folded, telling_words, text_figures, text_findings, text_looks
from mlbench.problem.problem import Problem
from mlbench.problem.target import make_target


def looked(frame: pd.DataFrame, target: str, task: str = "binary"):
    "A look at a table with the columns `note` and others."
    problem = Problem.from_dict({"name": "h", "task": task, "target": target, "data": "h.csv"})
    schema = infer_schema(frame, {"note": "text"} if "note" in frame else {})
    return look_at(frame, schema, problem, make_target(frame[target], problem))


def kinds(texts: list[str], y=None) -> set[str]:
    "Kinds of the findings of a column of texts."
    frame = pd.DataFrame({"note": pd.Series(texts, dtype=object), "n": np.arange(len(texts)) % 7, "back": np.arange(len(texts)) % 2 if y is None else y})
    return {f.kind for f in text_findings(looked(frame.astype({"back": str}), "back"))}


SENTENCES = [f"it was the best of {a} and the worst of {b}" for a in ("times", "rooms", "meals", "days") for b in ("noise", "beds", "tea", "rain", "dust")]


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (SENTENCES * 3 + [""] * 10, "empty texts"),
        (SENTENCES + [SENTENCES[0].upper() + "!!", "  " + SENTENCES[1]] * 4, "repeated texts"),
        ([s + " café" for s in SENTENCES] + [s + " cafÃ©" for s in SENTENCES[:3]], "wrong encoding"),
        ([s + "<br/>" for s in SENTENCES], "markup"),
        (SENTENCES + ["x " * 500_000], "long texts"),
        ([s + " word" * n for n, s in enumerate(SENTENCES, 300)], "long texts"),
        (
            SENTENCES + ["das ist nicht der beste Tag und die Zimmer sind nicht gut"] * 1 + [f"das Bett ist nicht gut und der Tee {i}" for i in range(9)],
            "several languages",
        ),
        ([f"これは{i}番目のとても良い部屋です" for i in range(30)], "no blanks"),
    ],
    ids=["empty", "repeated", "encoding", "markup", "one long", "all long", "languages", "unspaced"],
)
def test_each_oddity_is_found_and_plain_texts_are_not_odd(texts, kind):
    assert kind in kinds(texts)
    assert kinds(SENTENCES) == set()


def test_texts_of_every_sort_are_looked_at_without_a_fall():
    odd = ["", " ", "😀", "שלום עולם", "مرحبا بالعالم", "\x00", "\ufffd" * 3, "a" * 1_000_000, "late " * 200_000, "<script>alert(1)</script>", "x\ty\nz", "--"]
    frame = pd.DataFrame({"note": [*odd, None] * 4, "n": range(52), "back": ["yes", "no"] * 26})
    look = looked(frame, "back")
    figures = text_figures(look)
    assert "wrong encoding" in {f.kind for f in text_findings(look)} and {"lengths of note", "words of note"} <= set(figures)
    assert all("<script>" not in f.to_json() and "\\u003cscript" not in f.to_json() for f in figures.values()), "a text is no HTML of a figure"
    assert all(len(f.to_json()) < 100_000 for f in figures.values())
    assert scripts_of(odd)[3:5] == ["Hebrew", "Arabic"] and languages_of(odd)[3] == "Hebrew"


def test_copies_with_other_answers_are_counted():
    y = ["0", "1"] * 10 + ["1", "0"] * 5
    frame = pd.DataFrame({"note": SENTENCES + [s.title() + "." for s in SENTENCES[:10]], "n": range(30), "back": y})
    found = next(f for f in text_findings(looked(frame, "back")) if f.kind == "repeated texts")
    assert found.evidence == {"rows": 10, "contradicting": 20} and found.severity == "warning" and len(found.details) == 10
    assert all(d["rows"] == 2 and d["answers"] == 2 for d in found.details)


def test_a_quantity_has_copies_and_no_words_of_classes():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"note": SENTENCES * 2, "n": range(40), "price": rng.normal(size=40)})
    look = looked(frame, "price", "regression")
    assert [f.evidence["contradicting"] for f in text_findings(look)] == [0]
    assert list(text_figures(look)) == ["lengths of note", "repeated texts of note", "vocabulary of note"]


def test_tables_without_texts_have_nothing_to_show():
    frame = pd.DataFrame({"n": range(40), "town": ["a", "b"] * 20, "back": ["yes", "no"] * 20})
    assert text_findings(looked(frame, "back")) == [] and text_figures(looked(frame, "back")) == {} and text_looks(looked(frame, "back")) == []


def test_words_of_a_class_stand_there_more_often():
    y = np.array([0] * 30 + [1] * 30 + [2] * 30)
    texts = ["apple tree here", "banana here", "cherry here tree"]
    table = telling_words(TextLook("note", [texts[k] for k in y]), y, ["a", "b", "c"])
    first = table.groupby("class", sort=False).first()
    assert first["word"].tolist() == ["apple", "banana", "cherry"] and (first["times"] > 10).all()
    assert table.loc[table["word"] == "here", "times"].between(0.9, 1.1).all() and len(telling_words(TextLook("n", ["", ""]), y[:2], ["a", "b"])) == 0


@pytest.mark.parametrize(
    ("text", "language"),
    [("l'hôtel est très bien situé et le personnel est gentil", "French"), ("O quarto não é muito limpo mas o café é bom", "Portuguese"),
     ("Rummet är inte rent och det var inte bra för mig", "Swedish"), ("Pokój nie jest czysty i to się nie zmienia", "Polish"),
     ("Готель дуже гарний, але він не для всіх і це є проблема", "Ukrainian"), ("این هتل است که از آن می گویند", "Persian"), ("42", UNSURE)],
)  # fmt: skip
def test_languages_by_their_short_words(text, language):
    assert languages_of([text]) == [language]


def test_folding_leaves_words_alone():
    assert folded("Straße -- STRASSE!") == "strasse strasse" and folded("!?") == "" and folded("a_b") == "a b"
