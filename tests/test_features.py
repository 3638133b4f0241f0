"The feature plan and its steps: roles, edge cases, faults, exact values."

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.core.errors import DataError, ParameterError, UsageError
from mlbench.data.schema import Column, Schema, conform, infer_schema
from mlbench.features import (
    DateParts,
    FeaturePlan,
    FillText,
    Numbers,
    WordWeights,
    before_after,
    check_features,
    feature_table,
    fit_features,
    make_plan,
    plan_markdown,
    preview_rows,
    proposals,
    proposals_sentence,
)
from mlbench.features.dates import PARTS, date_parts, epoch_seconds
from mlbench.problem.problem import Problem


def problem_of(target: str = "y", **more) -> Problem:
    return Problem.from_dict({"name": "p", "task": "binary", "target": target, "data": "p.csv"} | more)


def y_of(frame: pd.DataFrame) -> np.ndarray:
    return (frame["y"] == "yes").to_numpy().astype(int)


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "number": np.where(rng.uniform(size=120) < 0.1, np.nan, rng.normal(size=120)),
            "word": rng.choice(["a", "b", "c"], 120),
            "flag": rng.uniform(size=120) > 0.5,
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 400, 120), unit="D"),
            "text": [f"the {w} thing came in {i} parts today" for i, w in enumerate(rng.choice(["red", "blue"], 120))],
            "y": rng.choice(["no", "yes"], 120),
        }
    )


@given(st.datetimes(min_value=dt.datetime(1700, 1, 1), max_value=dt.datetime(2250, 1, 1)))
@settings(max_examples=200, deadline=None)
def test_date_parts_agree_with_the_calendar(moment):
    moment = moment.replace(microsecond=0)
    row = date_parts(np.array([(moment - dt.datetime(1970, 1, 1)).total_seconds()]))[0]
    assert tuple(row[:5]) == (moment.year, moment.month, moment.day, moment.weekday(), moment.hour)


def test_dates_with_a_zone_are_read_in_utc_and_resolution_does_not_matter():
    moment = pd.Timestamp("2024-03-31 01:30", tz="Europe/Oslo")
    zoned = pd.DataFrame({"t": pd.Series([moment, pd.NaT])})
    seconds = epoch_seconds(zoned)[:, 0]
    assert seconds[0] == moment.timestamp() and np.isnan(seconds[1])
    coarse = pd.DataFrame({"t": pd.to_datetime(["2024-03-31 01:30"]).astype("datetime64[s]")})
    assert epoch_seconds(coarse)[0, 0] == pd.Timestamp("2024-03-31 01:30").timestamp()


def test_date_parts_refuses_words_and_unknown_parts():
    with pytest.raises(DataError, match="pd.to_datetime"):
        DateParts().fit(pd.DataFrame({"t": ["2024"]}))
    with pytest.raises(UsageError, match="weekday"):
        DateParts(("weekdya",)).fit(pd.DataFrame({"t": pd.to_datetime(["2024-01-01"])}))


def test_numbers_take_whatever_pandas_calls_a_number():
    frame = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [np.inf, -np.inf], "c": [True, False]})
    out = Numbers().fit_transform(frame)
    assert out.dtype == np.float64
    np.testing.assert_array_equal(out, [[1, np.nan, 1], [np.nan, np.nan, 0]])


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_text_is_the_empty_string(missing):
    assert FillText().fit_transform(pd.DataFrame({"a": pd.Series(["x", missing], dtype=object)})).tolist() == [["x"], [""]]


def test_words_know_no_case_and_no_punctuation_and_empty_texts_weigh_nothing():
    column = pd.DataFrame({"t": ["A a  a\tb,", "(A)", "", None]})
    words = WordWeights(min_texts=1).fit(column)
    assert words.vocabulary_ == ["a", "b"]
    out = words.transform(column)
    assert np.allclose(np.linalg.norm(out, axis=1), [1, 1, 0, 0])


def test_a_text_column_without_any_frequent_word_gives_no_feature():
    column = pd.DataFrame({"t": ["one", "two", "three"]})
    assert WordWeights(min_texts=2).fit(column).transform(column).shape == (3, 0)


def test_roles_are_left_out_with_their_reason(frame):
    wide = frame.assign(household=np.arange(120) // 3, fold="train", note="x")
    wide.loc[100:, "fold"] = "test"
    problem = problem_of(columns={"group": "household", "ignore": ["word"]}, split={"strategy": "column", "column": "fold"})
    reasons = {c.name: c.reason for c in make_plan(infer_schema(wide), problem).columns if not c.use}
    assert reasons["y"] == "the target"
    assert "group" in reasons["household"] and "ignored" in reasons["word"] and "test rows" in reasons["fold"]
    assert "one value" in reasons["note"]


def test_the_time_column_keeps_only_what_repeats(frame):
    plan = make_plan(infer_schema(frame), problem_of(columns={"time": "day"}))
    names = feature_table(plan.transformer("trees").fit(conform(frame, infer_schema(frame), plan.inputs), y_of(frame)))["feature"]
    assert {"day:month", "day:weekday"} <= set(names) and not {"day:year", "day:days"} & set(names)


@pytest.mark.parametrize("style", ["trees", "linear", "native"])
def test_feature_names_fit_the_matrix_in_both_styles(frame, style):
    schema = infer_schema(frame)
    plan = make_plan(schema, problem_of())
    fitted = fit_features(plan, frame, schema, style)
    assert len(fitted.names) == fitted.matrix.shape[1]
    assert set(fitted.names["column"]) == set(plan.inputs) == {"number", "word", "flag", "day", "text"}
    assert np.isfinite(fitted.matrix).all() == (style == "linear")


@pytest.mark.parametrize("style", ["trees", "linear", "native"])
def test_unseen_and_missing_values_do_not_break_a_fitted_plan(frame, style):
    schema = infer_schema(frame)
    plan = make_plan(schema, problem_of())
    transformer = plan.transformer(style).fit(conform(frame, schema, plan.inputs), y_of(frame))
    days = [pd.NaT, pd.Timestamp("1900-01-01")]
    strange = pd.DataFrame({"number": [np.nan, np.inf], "word": ["zebra", None], "flag": [None, "maybe"], "day": days, "text": [None, "?"]})
    out = transformer.transform(conform(strange, schema, plan.inputs))
    assert out.shape[0] == 2
    assert np.isfinite(out).all() == (style == "linear")


def test_a_number_missing_in_a_whole_fold_is_survived(frame):
    schema = infer_schema(frame)
    plan = make_plan(schema, problem_of())
    part = conform(frame.assign(number=np.nan), schema, plan.inputs)
    matrix = plan.transformer("linear").fit_transform(part, y_of(frame))
    assert np.isfinite(matrix).all()


def test_rare_categories_are_joined():
    frame = pd.DataFrame({"word": ["a"] * 50 + ["b"] * 48 + ["c", "d"], "y": ["no", "yes"] * 50})
    schema = infer_schema(frame)
    plan = make_plan(schema, problem_of(), rare_share=0.02)
    names = feature_table(plan.transformer("linear").fit(conform(frame, schema, plan.inputs)))["feature"].tolist()
    assert names == ["word = a", "word = b", "word = rare"]
    codes = plan.transformer("trees").fit_transform(conform(frame, schema, plan.inputs))
    assert codes[-1] == codes[-2] == 2


@pytest.mark.parametrize(
    "choices",
    [{"rare_share": -1}, {"rare_share": 0.5}, {"max_categories": 1}, {"missing": "drop"}, {"max_words": 0}, {"exclude": ["numbre"]}, {"unknown": 1}],
)
def test_wrong_choices_are_refused(frame, choices):
    with pytest.raises(ParameterError) as caught:
        make_plan(infer_schema(frame), problem_of(), **choices)
    assert next(iter(choices)) in str(caught.value)


def test_all_mistakes_are_told_at_once(frame):
    with pytest.raises(ParameterError) as caught:
        make_plan(infer_schema(frame), problem_of(), rare_share=2, max_words=0, exclude=["numbre"])
    assert all(word in str(caught.value) for word in ("rare_share", "max_words", "'number'"))


def test_no_column_left_says_what_happened_to_each():
    frame = pd.DataFrame({"a": [1] * 30, "y": ["no", "yes"] * 15})
    with pytest.raises(DataError, match="one value only"):
        make_plan(infer_schema(frame), problem_of())


def test_a_plan_comes_back_from_json_the_same(frame):
    import json

    plan = make_plan(infer_schema(frame), problem_of(columns={"time": "day"}), exclude=["text"])
    again = FeaturePlan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan and again.version == plan.version and "text" not in again.inputs


def test_the_style_must_be_known(frame):
    with pytest.raises(UsageError, match="linear"):
        make_plan(infer_schema(frame), problem_of()).transformer("liner")


def test_five_thousand_columns_are_planned_and_fitted_in_seconds():
    rng = np.random.default_rng(0)
    data = {f"n{i}": rng.normal(size=60) for i in range(4_000)} | {f"c{i}": rng.choice(["a", "b"], 60) for i in range(1_000)}
    frame = pd.DataFrame(data | {"y": rng.choice(["no", "yes"], 60)})
    kind = lambda name: "numeric" if name.startswith("n") else "categorical"
    schema = Schema([Column(n, kind(n), "given", "str", 0, 2, categories=["a", "b"]) for n in frame], len(frame))
    plan = make_plan(schema, problem_of(), select_numbers=False)
    assert len(plan.inputs) == 5_000
    rows = conform(frame, schema, plan.inputs)
    for style in ("trees", "linear", "native"):
        matrix = plan.transformer(style).fit_transform(rows, y_of(frame))
        assert matrix.shape == (60, plan.options.most_numbers + (2_000 if style == "linear" else 1_000))
    assert plan.summary().startswith("5,000 columns used")
    assert len(plan._repr_html_()) < 60_000


def test_many_categories_make_a_sparse_matrix_with_the_same_numbers():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"c{i}": rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 150) for i in range(130)} | {"y": rng.choice(["no", "yes"], 150)})
    schema = infer_schema(frame)
    plan = make_plan(schema, problem_of(), encode_above=0)
    rows = conform(frame, schema, plan.inputs)
    wide = plan.transformer("linear").fit_transform(rows)
    assert hasattr(wide, "toarray")
    narrow_plan = make_plan(schema, problem_of(), exclude=[f"c{i}" for i in range(100, 130)], encode_above=0)
    narrow = narrow_plan.transformer("linear").fit_transform(rows)
    np.testing.assert_array_equal(wide.toarray()[:, : narrow.shape[1]], narrow)
    checks = check_features(fit_features(plan, frame, schema))
    assert checks["passed"].iloc[0] and not checks["passed"].iloc[3]


def test_preview_figure_and_document_cover_every_column(frame):
    schema = infer_schema(frame)
    plan = make_plan(schema, problem_of(columns={"sensitive": ["word"]}))
    for style in ("linear", "trees", "native"):
        fitted = fit_features(plan, frame, schema, style)
        assert preview_rows(fitted)["column"].tolist() == plan.inputs
        assert all(before_after(fitted, c).layout.title.text.startswith(f"{c}: ") for c in plan.inputs)
    text = plan_markdown(plan)
    assert all(f"| {c} |" in text for c in frame) and "sensitive" in text


def test_open_advice_is_told(frame):
    plan = make_plan(infer_schema(frame), problem_of())
    findings = [
        {"what": "number settles y", "severity": "stop", "columns": ["number"], "proposal": "exclude it"},
        {"what": "word is odd", "severity": "note", "columns": ["word"], "proposal": ""},
    ]
    table = proposals(plan, findings)
    assert "**Look at number**" in proposals_sentence(table).text
    assert proposals_sentence(proposals(plan, [])).text.startswith("The look at the data found nothing")


def test_parts_are_told_once():
    assert PARTS[:5] == ("year", "month", "day", "weekday", "hour") and len(set(PARTS)) == len(PARTS)


def test_rows_of_the_whole_table_count_where_a_sample_is_looked_at(monkeypatch):
    from mlbench.features import preview

    monkeypatch.setattr(preview, "ROWS", 30)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(300, 40)), columns=[f"c{n}" for n in range(40)]).assign(y=rng.choice(["a", "b"], 300))
    fitted = fit_features(make_plan(infer_schema(frame), problem_of(), frame), frame, infer_schema(frame))
    checks = check_features(fitted).set_index("check")
    assert len(fitted.rows) == 30 and checks.loc["there are more rows than features", "passed"]
    assert checks.loc["there are more rows than features", "seen"] == "300 rows, 40 features"
