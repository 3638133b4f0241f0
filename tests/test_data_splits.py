"Properties that every split must have, and words for those that cannot be made."

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlbench.core.errors import SplitError
from mlbench.data.splits import STRATEGIES, choose_strategy, duplicate_facts, make_folds, make_split, row_codes


def table(n, seed, groups=None, classes=2, moments=None):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.normal(size=n), "y": [f"c{k}" for k in rng.integers(0, classes, n)]})
    frame["g"] = rng.integers(0, groups or max(2, n // 4), n)
    frame["t"] = rng.integers(0, moments or n, n)
    frame["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(frame["t"], "D")
    return frame


sizes, seeds, shares = st.integers(8, 150), st.integers(0, 10_000), st.floats(0.05, 0.6)


@settings(max_examples=60, deadline=None)
@given(sizes, seeds, shares, st.sampled_from(["random", "stratified", "group", "time"]), st.integers(2, 4))
def test_every_split_is_disjoint_complete_and_repeatable(n, seed, share, strategy, classes):
    frame = table(n, seed, classes=classes)
    assume(frame["g"].nunique() > 1 and frame["t"].nunique() > 1)
    options = {"target": "y", "task": "multiclass", "strategy": strategy, "test": share, "seed": seed}
    options |= {"group": "g"} if strategy == "group" else {"time": "day"} if strategy == "time" else {}
    split = make_split(frame, **options)
    assert sorted([*split.train, *split.test]) == list(range(n)) and len(split.train) and len(split.test)
    assert (np.diff(split.train) > 0).all() and (np.diff(split.test) > 0).all()
    again = make_split(frame, **options)
    assert again.test.tolist() == split.test.tolist() and again.facts == split.facts
    if strategy == "group":
        assert not set(frame["g"].iloc[split.train]) & set(frame["g"].iloc[split.test])
    if strategy == "time":
        assert frame["day"].iloc[split.train].max() < frame["day"].iloc[split.test].min()
    if strategy == "stratified":
        counts = frame["y"].value_counts()
        test = frame["y"].iloc[split.test].value_counts()
        assert all(0 < test.get(c, 0) < k for c, k in counts.items() if k > 1)


@settings(max_examples=60, deadline=None)
@given(sizes, seeds, st.integers(2, 8), st.sampled_from(["random", "stratified", "group"]), st.integers(2, 4))
def test_every_row_is_validated_once(n, seed, k, strategy, classes):
    frame = table(n, seed, classes=classes)
    assume(frame["y"].nunique() > 1 and frame["g"].nunique() > 1)
    folds = make_folds(frame, target="y", task="multiclass", strategy=strategy, folds=k, group="g" if strategy == "group" else None, seed=seed)
    assert 2 <= len(folds) <= k and (len(folds) == k or folds.notes)
    assert sorted(np.concatenate([v for _, v in folds])) == list(range(n))
    for train, valid in folds:
        assert len(train) and len(valid) and not set(train) & set(valid) and len(train) + len(valid) == n
        if strategy == "group":
            assert not set(frame["g"].iloc[train]) & set(frame["g"].iloc[valid])
        if strategy == "random":
            assert abs(len(valid) - n / len(folds)) <= 1
    if strategy == "stratified":
        per_fold = [frame["y"].iloc[v].value_counts() for _, v in folds]
        for name in frame["y"].unique():
            got = [int(c.get(name, 0)) for c in per_fold]
            assert max(got) - min(got) <= 1


@settings(max_examples=40, deadline=None)
@given(sizes, seeds, st.integers(2, 6), st.integers(2, 40), st.booleans())
def test_folds_by_time_look_forward_only(n, seed, k, moments, grouped):
    frame = table(n, seed, moments=moments)
    assume(frame["t"].nunique() > 2)
    try:
        folds = make_folds(frame, time="day", folds=k, group="g" if grouped else None)
    except SplitError as error:
        assert "too few different moments" in str(error)
        return
    seen: set[int] = set()
    for train, valid in folds:
        assert len(train) and len(valid) and not seen & set(valid)
        seen |= set(valid)
        if grouped:
            assert not set(frame["g"].iloc[train]) & set(frame["g"].iloc[valid])
            first = frame.groupby("g")["day"].min()
            assert first[frame["g"].iloc[train]].max() < first[frame["g"].iloc[valid]].min()
        else:
            assert frame["day"].iloc[train].max() < frame["day"].iloc[valid].min()


@settings(max_examples=30, deadline=None)
@given(st.integers(20, 150), seeds, shares)
def test_a_group_split_comes_near_the_size_that_was_asked_for(n, seed, share):
    frame = table(n, seed, groups=max(10, n // 3))
    split = make_split(frame, group="g", test=share, seed=seed)
    largest = frame["g"].value_counts().iloc[0]
    assert abs(len(split.test) - share * n) <= max(2, largest + 1)


def test_auto_says_what_it_chose_and_why():
    frame = table(100, 0)
    assert make_split(frame, target="y", task="binary").strategy == "stratified"
    assert make_split(frame, target="x", task="regression").strategy == "random"
    assert make_split(frame, target="y", task="binary", group="g").strategy == "group"
    chosen = make_split(frame, target="y", task="binary", group="g", time="day")
    assert chosen.strategy == "time" and "'day'" in chosen.why and "whole groups" in chosen.why
    assert all(choose_strategy(task, "g", "t", "c")[1] for task in ("binary", "multiclass", "regression", None))
    assert make_folds(frame, target="y", task="binary").strategy == "stratified"


def test_a_group_is_whole_under_every_strategy():
    frame = table(120, 3)
    for strategy in ("random", "stratified", "group", "time"):
        split = make_split(frame, target="y", task="binary", strategy=strategy, group="g", time="day")
        assert not set(frame["g"].iloc[split.train]) & set(frame["g"].iloc[split.test])
        for train, valid in make_folds(frame, target="y", task="binary", strategy=strategy, group="g", time="day"):
            assert not set(frame["g"].iloc[train]) & set(frame["g"].iloc[valid])


def test_stratified_regression_has_the_same_spread_on_both_sides():
    frame = table(500, 0)
    split = make_split(frame, target="x", task="regression", strategy="stratified")
    train, test = frame["x"].iloc[split.train], frame["x"].iloc[split.test]
    assert abs(train.median() - test.median()) < 0.1 and abs(train.std() - test.std()) < 0.15


def test_rare_classes_stay_learnable_and_are_told():
    frame = pd.DataFrame({"y": ["a"] * 60 + ["b"] * 38 + ["c"] + ["d"] * 1})
    split = make_split(frame, target="y", task="multiclass")
    assert set(frame["y"].iloc[split.train]) == {"a", "b", "c", "d"} and "'c' (1 row)" in split.notes[0]
    folds = make_folds(frame, target="y", task="multiclass")
    assert len(folds) == 3 and "rarest class" in folds.notes[0]


def test_wine_quality_keeps_its_grades(shared_data):
    frame = pd.read_csv(shared_data("wine_quality.csv.gz"))
    split = make_split(frame, target="quality", task="multiclass")
    assert set(frame["quality"].iloc[split.test]) == set(frame["quality"])
    assert split.facts["duplicate_rows"] == 1177 and split.facts["duplicates_across"] > 100


def test_duplicates_are_counted():
    frame = pd.DataFrame({"a": [1, 1, 2, None, None], "b": ["x", "x", "y", None, None]})
    codes = row_codes(frame)
    assert codes.tolist() == [0, 0, 1, 2, 2] and row_codes(frame, ["a"]).tolist() == [0, 0, 1, 2, 2]
    assert duplicate_facts(codes, np.array([0, 1, 3]), np.array([2, 4])) == {"duplicate_rows": 2, "duplicates_across": 1}
    assert row_codes(frame.head(0)).tolist() == []


@pytest.mark.parametrize("words", [["train", "test"], ["fit", "holdout"], [False, True], [0, 1], [0.0, 1.0], ["No", "Yes"]])
def test_a_column_may_say_it(words):
    frame = pd.DataFrame({"part": [words[0]] * 6 + [words[1]] * 3, "x": range(9)})
    split = make_split(frame, column="part")
    assert split.test.tolist() == [6, 7, 8] and split.strategy == "column" and not split.notes
    assert len(make_folds(frame, strategy="column", column="part")) == 2


@pytest.mark.parametrize(
    "options, words",
    [
        ({"strategy": "grup"}, "Did you mean 'group'"),
        ({"test": 1.5}, "share between 0 and 1"),
        ({"strategy": "time"}, "set columns.time in problem.yaml"),
        ({"group": "h"}, "columns.group names 'h', which is no column"),
        ({"strategy": "stratified"}, "set target in problem.yaml"),
        ({"group": "one"}, "all rows have the same 'one'"),
        ({"time": "one"}, "every row has the same 'one'"),
        ({"time": "hole"}, "3 missing values"),
        ({"time": "y"}, "holds words such as 'c"),
        ({"column": "y"}, "says neither train nor test"),
    ],
)
def test_impossible_splits_say_what_to_change(options, words):
    frame = table(40, 0).assign(one=1, hole=[None] * 3 + list(range(37)))
    with pytest.raises(SplitError) as refused:
        make_split(frame, **options)
    assert words in str(refused.value)


def test_two_rows_and_other_impossible_folds():
    for rows in range(4):
        with pytest.raises(SplitError, match="cannot be divided"):
            make_split(pd.DataFrame({"y": range(rows)}))
    with pytest.raises(SplitError, match="too few rows"):
        make_folds(pd.DataFrame({"y": range(2)}))
    with pytest.raises(SplitError, match="too few groups"):
        make_folds(table(20, 0).assign(g=1), group="g")
    with pytest.raises(SplitError, match="two are the least"):
        make_folds(table(20, 0), folds=1)
    with pytest.raises(SplitError, match="too few different moments"):
        make_folds(table(20, 0).assign(day=pd.Timestamp("2024-01-01")), time="day")
    assert make_split(pd.DataFrame({"y": range(4)})).test.size == 1
    assert "auto" in STRATEGIES


def test_a_test_that_is_larger_than_asked_is_told():
    frame = pd.DataFrame({"day": pd.to_datetime(["2024-01-01"] * 10 + ["2024-01-02"] * 10), "x": range(20)})
    split = make_split(frame, time="day")
    assert len(split.test) == 10 and "50 %" in split.notes[0]


def test_a_million_rows_take_seconds():
    import time

    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"y": rng.integers(0, 2, 1_000_000), "g": rng.integers(0, 50_000, 1_000_000)})
    started = time.perf_counter()
    make_split(frame, target="y", task="binary", group="g")
    assert len(make_folds(frame, target="y", task="binary")) == 5
    assert time.perf_counter() - started < 20
