"Named pieces of sentences: every way to write them, and counts against a count by hand."

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.core.errors import UsageError
from mlbench.problem.spans import Span, span_f1, span_report, spans_of

PIECES = st.lists(st.tuples(st.sampled_from(["PER", "LOC", "a-b"]), st.integers(1, 4), st.integers(0, 3)), max_size=6)


def written(pieces: list[tuple[str, int, int]], iob1: bool = False) -> tuple[list[str], list[Span]]:
    "Tags of pieces (type, words, words outside after it), and the pieces."
    tags: list[str] = []
    spans: list[Span] = []
    for kind, length, gap in pieces:
        touching = bool(spans) and spans[-1].end == len(tags) and spans[-1].type == kind
        spans.append(Span(kind, len(tags), len(tags) + length))
        tags += [f"I-{kind}" if iob1 and not touching else f"B-{kind}", *[f"I-{kind}"] * (length - 1), *["O"] * gap]
    return tags, spans


@given(PIECES, st.booleans())
def test_pieces_are_read_as_they_were_written(pieces, iob1):
    tags, spans = written(pieces, iob1)
    assert spans_of(tags) == spans


@settings(deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=4))
def test_a_tagger_that_is_right_has_one_and_the_order_of_sentences_does_not_matter(sentences):
    tags = [written(p)[0] for p in sentences]
    anything = any(spans_of(t) for t in tags)
    assert span_f1(tags, tags) == float(anything)
    report = span_report(tags, tags[::-1] if len({len(t) for t in tags}) == 1 else tags)
    assert report.loc["all", "support"] == sum(len(spans_of(t)) for t in tags)


def test_the_example_of_the_shared_task():
    "Two names, three named, one right: precision 1/3, recall 1/2."
    report = span_report([["B-PER", "O", "B-ORG", "I-ORG"]], [["B-PER", "B-LOC", "B-ORG", "O"]])
    assert report.loc["all"].to_dict() == pytest.approx({"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5, "support": 2})
    assert report.loc["LOC", "support"] == 0 and list(report.index) == ["ORG", "PER", "LOC", "all"]


@pytest.mark.parametrize("tag", ["PER", "b-PER", "B_PER", "E-PER", "", "B-", None, 3])
def test_what_is_no_tag_is_refused_with_the_way_to_write_it(tag):
    with pytest.raises(UsageError, match=r"Write O for words outside, B-TYPE"):
        spans_of(["O", tag])
