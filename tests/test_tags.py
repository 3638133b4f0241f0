"Cells of tags as codes: the best way against all ways, pieces against a count by hand, and what is told of tables that do not fit."

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.core.errors import ProblemError
from mlbench.data.examples import list_examples, load_example
from mlbench.data.schema import infer_schema
from mlbench.problem.metrics import evaluate_metric
from mlbench.problem.problem import Problem
from mlbench.problem.proposal import propose, tagged_text
from mlbench.problem.spans import span_f1, spans_of
from mlbench.problem.tags import best_codes, decode_tags, encode_tags, looks_in, mended, tag_classes, tagged_answer
from mlbench.problem.target import make_target

CLASSES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
SENTENCES = st.lists(st.lists(st.sampled_from(CLASSES), max_size=7), min_size=1, max_size=5)


def sentences(rows: int = 40) -> pd.DataFrame:
    "A table of sentences with tags."
    texts = ["Ann Smith lives in Rome", "Oslo sleeps", "Bob met Ann"] * rows
    tags = ["B-PER I-PER O O B-LOC", "B-LOC O", "B-PER O B-PER"] * rows
    return pd.DataFrame({"id": [f"s{n}" for n in range(rows)], "text": texts[:rows], "tags": tags[:rows]})


def problem_of(frame: pd.DataFrame) -> Problem:
    return Problem.from_dict({"name": "names", "task": "tagging", "data": "x.csv", "target": "tags", "columns": {"ignore": ["id"]}})


@pytest.mark.parametrize("seed", range(4))
def test_the_best_way_is_the_best_of_all_ways(seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(5, 0.4), (3, 4))
    p[1, 2:], p[2, :] = 0, 0  # two words, and none
    allowed = [way for way in product(range(5), repeat=4) if mended([CLASSES[k] for k in way]) == [CLASSES[k] for k in way]]
    best = max(allowed, key=lambda way: sum(np.log(p[0, n, k] + 1e-300) for n, k in enumerate(way)))
    codes = best_codes(p)
    assert codes[0].tolist() == list(best) and codes[2].tolist() == [-1] * 4 and codes[1, 2:].tolist() == [-1, -1]


@settings(deadline=None, max_examples=60)
@given(SENTENCES, SENTENCES)
def test_f_of_codes_is_the_f_of_tags(true, said):
    said = [(b + ["O"] * len(a))[: len(a)] for a, b in zip(true, said * 5)]
    cells = lambda rows: [" ".join(mended(r)) for r in rows]
    y, p = encode_tags(cells(true), CLASSES), encode_tags(cells(said), CLASSES)
    assert evaluate_metric("span_f1", y, p) == pytest.approx(span_f1(true, said)) or not (y >= 0).any()
    assert decode_tags(y, CLASSES).tolist() == cells(true)


def test_metrics_take_probabilities_whose_length_is_another_one():
    y = encode_tags(["B-PER O", "B-LOC"], CLASSES)
    p = np.eye(5)[np.maximum(y, 0)] * (y >= 0)[:, :, None]
    longer = np.pad(p, [(0, 0), (0, 3), (0, 0)])
    assert evaluate_metric("span_f1", y, longer) == 1.0 == evaluate_metric("accuracy", np.pad(y, [(0, 0), (0, 2)], constant_values=-1), p)
    with pytest.raises(ProblemError, match="the same sentences"):
        evaluate_metric("accuracy", y, p[:, :1])


def test_a_table_of_sentences_is_recognised_and_proposed_whole():
    frame = sentences()
    made = propose(frame, infer_schema(frame), None, source="x.csv").problem
    assert (made["task"], made["target"], made["metric"]) == ("tagging", "tags", "span_f1") and made["columns"]["ignore"] == ["id"]
    problem = Problem.from_dict(made)
    problem.check_frame(frame)
    target = make_target(frame["tags"], problem)
    assert target.classes == CLASSES and target.decode(target.encode(frame["tags"])).tolist() == frame["tags"].tolist()


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (["O", "B-pos", "A-pos"] * 10, ["Ann", "Bob", "Cleo"] * 10),  # blood groups
        (["O O", "O"] * 15, ["a b", "c"] * 15),  # nothing is tagged
        (["B-X O", "O B-X"] * 15, ["one two three", "four five six"] * 15),  # other numbers of words
        (["good film", "bad film"] * 15, ["a b", "c d"] * 15),  # words that are no tags
        ([1.0, 2.0] * 15, ["a b", "c d"] * 15),
    ],
)
def test_other_tables_are_not_taken_for_tags(target, text):
    assert tagged_text(pd.DataFrame({"text": text, "target": target}), "target") is None


def test_no_bundled_table_is_taken_for_tags():
    for example in list_examples():
        frame = load_example(example.name)
        frame = frame if isinstance(frame, pd.DataFrame) else frame.frame
        assert not any(tagged_text(frame, str(column)) for column in frame), example.name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tags": ["B-PER I-PER O O", *["B-LOC O", "B-PER O B-PER", "B-PER I-PER O O B-LOC"] * 13]}, "row 0 has 5 words and 4 tags"),
        ({"tags": ["PER I-PER O O LOC", *["B-LOC O", "B-PER O B-PER", "B-PER I-PER O O B-LOC"] * 13]}, "'PER' in row 0"),
        ({"tags": ["O O O O O", "O O", "O O O"] * 13 + ["O O O O O"]}, "nothing to find"),
        ({"tags": range(40)}, "holds no text"),
        ({"text": "one"}, "no column has as many words"),
    ],
)
def test_what_does_not_fit_is_told_with_its_row(change, words):
    frame = sentences().assign(**change)
    with pytest.raises(ProblemError, match=words):
        problem_of(frame).check_frame(frame)


def test_a_piece_without_its_beginning_is_mended():
    frame = sentences().assign(tags=["I-PER I-PER O O B-LOC", "I-LOC O", "B-PER O I-PER", *sentences()["tags"][3:]])
    problem_of(frame).check_frame(frame)
    target = make_target(frame["tags"], problem_of(frame))
    assert target.decode(target.encode(frame["tags"]))[0] == "B-PER I-PER O O B-LOC"
    assert all(spans_of(mended(c.split())) == spans_of(c.split()) for c in frame["tags"])


def test_tags_that_training_does_not_know_are_told_when_they_are_judged():
    classes = tag_classes(["B-PER O"])
    with pytest.raises(ProblemError, match="row 1 has the tag 'B-ORG'"):
        encode_tags(["O", "B-ORG"], classes)


def test_looks_and_answers_of_sentences_without_words():
    assert looks_in([]).shape == (0, 3, 2) and (looks_in(["", None]) == "").all()
    said = tagged_answer(CLASSES, ["", None], np.zeros((2, 1, 5)))
    assert said["predictions"] == ["", ""] and said["pieces"] == [[], []]
