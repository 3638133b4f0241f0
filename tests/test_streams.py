"""A model that learns a stream of texts."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from mlbench.core.errors import DataError, ExportError, UsageError
from mlbench.deployment.steps import converted
from mlbench.features.streams import WordStream, stream_scores

TEXTS = ["late again", "fine thanks", "so late", "all fine", "", "😀 fine", "很晚 late", "שלום fine"] * 10
SAID = ["bad", "good"] * 40


def test_portions_are_learnt_one_after_the_other_and_what_is_kept_goes_on():
    one = WordStream(10)
    for start in range(0, 80, 20):
        one.partial_fit(TEXTS[start : start + 20], SAID[start : start + 20], classes=["bad", "good", "never"])
    again = pickle.loads(pickle.dumps(one)).partial_fit(TEXTS, SAID)
    assert one.seen_ == 80 and again.seen_ == 160 and one.classes_.tolist() == ["bad", "good", "never"]
    assert one.predict(["late", "fine"]).tolist() == ["bad", "good"] and one.predict_proba(["x"]).shape == (1, 3)
    two, three = (model.partial_fit(TEXTS, SAID, ["bad", "good"]) for model in (clone(one), WordStream(10)))
    assert np.array_equal(two.predict_proba(TEXTS), three.predict_proba(TEXTS))


def test_fit_begins_anew_and_an_empty_portion_changes_nothing():
    model = WordStream(10).fit(TEXTS, SAID)
    before = model.predict_proba(TEXTS)
    assert np.array_equal(model.partial_fit([], []).predict_proba(TEXTS), before) and np.array_equal(model.fit(TEXTS, SAID).predict_proba(TEXTS), before)
    scores = stream_scores(WordStream(10), [(TEXTS[:40], SAID[:40]), ([], []), (TEXTS[40:], SAID[40:])], ["bad", "good"])
    assert scores["texts"].tolist() == [40, 0, 40] and scores["accuracy"].isna().tolist() == [True, True, False] and scores["accuracy"].iloc[2] > 0.8


def test_what_is_refused():
    cases = [
        (lambda m: m.partial_fit(["a"], ["b"]), UsageError),
        (lambda m: m.partial_fit("a", ["b"], ["b", "c"]), DataError),
        (lambda m: m.partial_fit(["a"], ["d"], ["b", "c"]), DataError),
        (lambda m: m.partial_fit(["a"], [], ["b", "c"]), DataError),
    ]
    for wrong, error in cases:
        with pytest.raises(error):
            wrong(WordStream(10))
    model = WordStream(10).fit(TEXTS, SAID)
    with pytest.raises(ExportError, match="word_linear"):
        converted(model.hashed_, pd.DataFrame({"text": TEXTS}))
