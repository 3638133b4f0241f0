"What styles and folds share changes no number: in fitting, in predicting, and after a model was stored."

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from test_features_encoding import STYLES, TASKS, planned, staff, strange

from mlbench.core.errors import DataError
from mlbench.data.schema import conform
from mlbench.features.scores import TextScores
from mlbench.features.sharing import SharedFits, SharedRows
from mlbench.features.text import TextTopics, WordWeights, cut_texts, filled_text, learn_tokens, learn_words, pieces_of, words_of
from mlbench.training.arena import Fold
from mlbench.training.blend import BlendClassifier, BlendRegressor, recipe
from mlbench.training.store import estimator_bytes, read_estimator

CHOICES = [{}, {"components": 3}, {"most_numbers": 2}, {"letters": True}, {"topics": 0}, {"text_scores": False}, {"max_words": 10_000, "max_categories": 5_000}]


def split(task: str, **choices):
    "Rows in canonical form, the target, a plan, and the rows of one fold."
    plan, schema, frame, y = planned(task, **choices)
    rows, number = conform(frame, schema, plan.inputs), np.arange(len(frame)) % 3
    return rows, y, plan, conform(strange(), schema, plan.inputs), np.flatnonzero(number != 0), np.flatnonzero(number == 0)


def same(a, b) -> bool:
    "Whether two matrices, dense or sparse, are the same to the last bit."
    dense = [m.toarray() if hasattr(m, "toarray") else m for m in (a, b)]
    return type(a) is type(b) and np.array_equal(*dense, equal_nan=True)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_every_style_is_what_it_would_be_alone(task, choices):
    rows, y, plan, odd, train, test = split(task, **choices)
    for order in (STYLES, STYLES[::-1]):
        fold = Fold(0, rows, y, train, test, plan)
        for style in order:
            seen, held = fold.features(style)
            alone = plan.transformer(style)
            assert same(alone.fit_transform(rows.iloc[train], y[train]), seen)
            assert same(alone.transform(rows.iloc[test]), held)
            assert same(alone.transform(odd), fold.transformer(style).transform(odd))
            assert estimator_bytes(alone) == estimator_bytes(fold.transformer(style)), "the file of an ordinary transformer"


def test_a_fold_that_gave_its_matrices_up_makes_the_same_again():
    rows, y, plan, odd, train, test = split("binary")
    fold = Fold(0, rows, y, train, test, plan)
    before = {style: fold.features(style) for style in STYLES}
    fold.forget()
    for style in STYLES[::-1]:
        assert all(same(a, b) for a, b in zip(before[style], fold.features(style)))


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_rows_on_their_way_through_many_transformers(choices):
    rows, y, plan, odd, train, test = split("multiclass", **choices)
    folds = [Fold(i, rows, y, a, b, plan) for i, (a, b) in enumerate(((train, test), (test, train)))]
    for frame in (rows, odd, rows.iloc[:1], rows.iloc[::-1]):
        shared = SharedRows(frame)
        for fold in folds:
            for style in STYLES:
                assert same(shared.through(fold.transformer(style)), fold.transformer(style).transform(frame))
            shared.next_fold()


def blends():
    "A blend of all styles for each kind of target."
    for task, kind in (("binary", BlendClassifier), ("multiclass", BlendClassifier), ("regression", BlendRegressor)):
        rows, y, plan, odd, _, _ = split(task)
        given = [recipe("linear", "linear", {}, 0.5, [{}] * 2), recipe("catboost", "catboost", {}, 0.3, [{"iterations": 5}] * 2)]
        given += [recipe("forest", "random_forest", {"n_estimators": 5}, 0.2, [{}] * 2)]
        yield kind(given, plan.to_dict(), folds=2).fit(rows, y), rows, odd


def test_a_blend_says_what_its_transformers_and_estimators_say_and_keeps_what_is_shared():
    from mlbench.training.fitting import output_of

    for blend, rows, odd in blends():
        say = blend.predict_proba if hasattr(blend, "predict_proba") else blend.predict
        again = read_estimator(estimator_bytes(blend))
        assert estimator_bytes(again) == estimator_bytes(blend)
        told = again.predict_proba if hasattr(again, "predict_proba") else again.predict
        for frame in (rows, odd, odd.head(1)):
            by_hand = 0.0
            for member in blend.members_:
                for fold, estimator in zip(member["folds"], member["estimators"]):
                    seen = blend.features_[fold][member["style"]].transform(frame)
                    by_hand = by_hand + member["weight"] / 2 * output_of(estimator, seen, len(blend.classes_) if hasattr(blend, "classes_") else None)
            np.testing.assert_allclose(say(frame), by_hand, rtol=1e-12)
            np.testing.assert_array_equal(told(frame), say(frame))
        for made in (*blend.features_, *again.features_):
            scores = [t.named_transformers_["score_0"].named_steps["score"] for t in made.values()]
            assert len(made) == 3 and all(s is scores[0] for s in scores), "one object for all styles, also when it was read from a file"
        with pytest.raises(DataError, match="'town'"):
            say(odd.drop(columns="town"))


def test_what_is_given_to_a_fit_is_not_kept_longer_than_needed():
    rows, y, plan, _, train, test = split("binary")
    fits, kept = SharedFits(plan), []
    for style in STYLES:
        fits.made(style, rows.iloc[train], y[train], rows.iloc[test])
        kept.append(len(fits.parts))
    assert kept == [len(fits.wanted), len(fits.wanted), 0], "nothing is kept once all styles are made"


def words_by_hand(texts: list[str], most: int, least: int, letters: bool) -> list[str]:
    "The vocabulary, counted one text after the other."
    count: dict[str, int] = {}
    for text in texts:
        for word in {w for token in words_of(text) for w in pieces_of(token, letters)}:
            count[word] = count.get(word, 0) + 1
    return sorted(sorted((w for w, n in count.items() if n >= least), key=lambda w: (-count[w], w))[:most])


@pytest.mark.parametrize("letters", [False, True])
def test_words_of_odd_texts(letters):
    texts = ["", " ", "Straße STRASSE", "a/b/c/d/e a.b", "l'été L'ÉTÉ", "ﬁne İstanbul", "x\ty\nz", "  late,  late ", "— … _", "a b"]
    column = np.array([*texts, *texts[2:6], "late"], dtype=object)
    for most, least in ((3, 1), (100, 1), (100, 2), (100, 99)):
        cut = cut_texts(column)
        vocabulary, idf = learn_words(cut, most, least, letters)
        assert vocabulary == words_by_hand(list(column), most, least, letters) and len(idf) == len(vocabulary)
        for tokens, places in learn_tokens(cut, vocabulary, letters):
            assert tokens == sorted(tokens) and all(vocabulary[p] in pieces_of(t, letters) for t, p in zip(tokens, places))
        step = WordWeights(most, least, letters)
        frame = pd.DataFrame({"t": column})
        given = step.fit_transform(frame)
        length = np.linalg.norm(given, axis=1)
        assert np.allclose(length[length > 0], 1) and given.shape == (len(column), len(vocabulary))
        assert np.array_equal(read_estimator(estimator_bytes(step)).transform(frame), given)


def test_columns_that_are_cut_at_the_same_time_stay_apart():
    frame = staff(400)
    columns = [pd.DataFrame({"t": filled_text(frame[["note"]])[:, 0] + f" {n % 12}"}) for n in range(60)]
    y = np.arange(400) % 2
    make = lambda X: (TextTopics(4).fit_transform(X), TextScores("binary").fit_transform(X, y))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(make, columns))
    for X, given in zip(columns, together):
        assert all(np.array_equal(a, b) for a, b in zip(make(X), given))
