"Steps that learn from the rows: no leak of the target, the same numbers in the exported graph, and odd tables."

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlbench.core.errors import DataError, ParameterError
from mlbench.data.schema import conform, infer_schema
from mlbench.deployment.steps import converted
from mlbench.features import category_positions, feature_table, fit_features, make_plan, plan_markdown
from mlbench.features.categories import TargetMeans, prior_weight
from mlbench.features.text import TextTopics
from mlbench.problem.problem import Problem
from mlbench.training.store import estimator_bytes, read_estimator

STYLES = ("trees", "linear", "native")
TASKS = ("binary", "multiclass", "regression")


def problem_of(task: str = "binary", **more) -> Problem:
    return Problem.from_dict({"name": "p", "task": task, "target": "y", "data": "p.csv"} | more)


def staff(rows: int = 160, seed: int = 0) -> pd.DataFrame:
    "Every kind of column, with gaps in each."
    rng = np.random.default_rng(seed)
    title = [f"{rng.choice(['Senior', 'Junior', 'Head'])} {rng.choice(['nurse', 'driver', 'clerk', 'cook'])} {rng.integers(1, 9)}" for _ in range(rows)]
    signed = pd.Timestamp("2015-01-01") + pd.to_timedelta(rng.integers(0, 3_000, rows), unit="D")
    frame = pd.DataFrame(
        {
            "pay": rng.lognormal(8, 1.5, rows),
            "height": rng.normal(175, 8, rows),
            "bonus": np.where(rng.uniform(size=rows) < 0.8, 0.0, rng.lognormal(5, 1, rows)),
            "town": rng.choice([f"town {i}" for i in range(30)], rows),
            "title": title,
            "sex": rng.choice(["f", "m"], rows),
            "signed": signed,
            "left": signed + pd.to_timedelta(rng.integers(1, 900, rows), unit="D"),
            "note": [" ".join(rng.choice(["Late,", "kind", "quick/slow", "again", "never!", "on", "time"], 6)) + f" {i}" for i in range(rows)],
        }
    )
    for n, column in enumerate(frame.columns):
        frame.loc[n :: 11 + n, column] = None
    return frame


def target_of(frame: pd.DataFrame, task: str) -> np.ndarray:
    score = np.log(frame["pay"].fillna(3e3)).to_numpy() + frame["note"].fillna("").str.count("Late").to_numpy()
    return score if task == "regression" else np.digitize(score, np.quantile(score, [0.5] if task == "binary" else [0.3, 0.7]))


def strange() -> pd.DataFrame:
    "Values that nobody has seen."
    return pd.DataFrame(
        {
            "pay": [np.nan, np.inf, -1e300, 0.0],
            "height": [1e300, np.nan, 0.0, 175.0],
            "bonus": [np.nan, -5.0, 1e12, 0.0],
            "town": ["Atlantis", None, "town 3", ""],
            "title": ["Chief DRIVER 99", None, "nurse", "Head cook 3"],
            "sex": ["x", None, "f", "m"],
            "signed": pd.to_datetime([None, "1700-01-01", "2250-06-01", "2016-02-29"]),
            "left": pd.to_datetime(["2020-01-01", None, "1999-12-31", "2016-03-01"]),
            "note": ["LATE kind", None, "unheard of", "late, again quick/slow"],
        }
    )


def planned(task: str, **choices):
    frame = staff()
    frame["y"] = target_of(frame, task)
    schema = infer_schema(frame, kinds={"note": "text", "title": "categorical"})
    plan = make_plan(schema, problem_of(task), frame, **choices)
    return plan, schema, frame, frame["y"].to_numpy()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("style", STYLES)
def test_the_graph_gives_the_numbers_of_the_whole_transformer(style, task):
    plan, schema, frame, y = planned(task)
    transformer = plan.transformer(style).fit(conform(frame, schema, plan.inputs), y)
    for rows in (frame, strange()):
        rows = conform(rows, schema, plan.inputs)
        expected = transformer.transform(rows)
        assert np.isfinite(expected).all() or style != "linear"
        np.testing.assert_allclose(converted(transformer, rows), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "choices", [{"components": 3}, {"most_numbers": 2}, {"letters": True}, {"topics": 0}, {"unskew": False}, {"text_scores": False, "topics": 0}]
)
def test_other_choices_are_translated_too(choices):
    plan, schema, frame, y = planned("binary", **choices)
    rows = conform(strange(), schema, plan.inputs)
    for style in STYLES:
        transformer = plan.transformer(style).fit(conform(frame, schema, plan.inputs), y)
        np.testing.assert_allclose(converted(transformer, rows), transformer.transform(rows), rtol=1e-9, atol=1e-9)
        assert len(feature_table(transformer)) == transformer.transform(rows).shape[1]


@pytest.mark.parametrize("style", STYLES)
def test_a_stored_transformer_gives_the_same_and_two_fits_are_alike(style):
    plan, schema, frame, y = planned("multiclass")
    rows, odd = conform(frame, schema, plan.inputs), conform(strange(), schema, plan.inputs)
    first, second = (plan.transformer(style).fit(rows, y) for _ in range(2))
    assert estimator_bytes(first) == estimator_bytes(second)
    np.testing.assert_array_equal(read_estimator(estimator_bytes(first)).transform(odd), first.transform(odd))


def test_codes_of_the_native_style_tell_all_values_apart():
    plan, schema, frame, y = planned("binary")
    rows = conform(frame, schema, plan.inputs)
    transformer = plan.transformer("native").fit(rows, y)
    names = feature_table(transformer)["feature"].tolist()
    places = category_positions(transformer)
    assert [names[p] for p in places] == ["town", "title", "sex"]
    codes = transformer.transform(rows)[:, places[0]]
    assert len(np.unique(codes)) == frame["town"].nunique(dropna=False)
    assert transformer.transform(conform(strange(), schema, plan.inputs))[0, places[0]] == -1
    assert category_positions(plan.transformer("trees").fit(rows, y)) == ()


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_column_of_chance_gives_nothing_in_cross_validation(task):
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import r2_score, roc_auc_score

    rng = np.random.default_rng(3)
    rows = 1_500
    words = np.array(["red", "blue", "green", "old", "new", "big"])
    frame = pd.DataFrame({"code": [f"{a} {b} {n}" for a, b, n in zip(rng.choice(words, rows), rng.choice(words, rows), rng.integers(0, 20, rows))]})
    frame["y"] = rng.integers(0, 2, rows) if task == "binary" else rng.normal(size=rows)
    schema, y = infer_schema(frame, kinds={"code": "categorical"}), frame["y"].to_numpy()
    plan = make_plan(schema, problem_of(task))
    assert plan.columns[0].many and plan.columns[0].worded
    inputs, part, guess = conform(frame, schema, plan.inputs), np.arange(rows) % 3, np.zeros(rows)
    seen = []
    for fold in range(3):
        train, test = part != fold, part == fold
        transformer = plan.transformer("trees")
        matrix = transformer.fit_transform(inputs[train], y[train])
        kind = HistGradientBoostingClassifier if task == "binary" else HistGradientBoostingRegressor
        model = kind(max_iter=30, random_state=0).fit(matrix, y[train])
        output = model.predict_proba if task == "binary" else model.predict
        guess[test] = np.asarray(output(transformer.transform(inputs[test]))).reshape(test.sum(), -1)[:, -1]
        seen += [abs(np.corrcoef(column, y[train])[0, 1]) for column in matrix.T if column.std() > 0]
    assert (abs(roc_auc_score(y, guess) - 0.5) < 0.05) if task == "binary" else r2_score(y, guess) < 0.02
    assert max(seen, default=0) < 0.12, "no feature knows the training rows' own targets"


def test_means_are_learnt_where_categories_differ_and_only_there():
    rng = np.random.default_rng(0)
    town = rng.integers(0, 50, 3_000)
    frame = pd.DataFrame({"town": town.astype(str)})
    effect = rng.normal(size=50)
    means = TargetMeans().fit(frame, effect[town] + rng.normal(size=3_000))
    found = means.transform(pd.DataFrame({"town": np.arange(50).astype(str)}))[:, 0]
    assert np.corrcoef(found, effect)[0, 1] > 0.98
    assert prior_weight(np.array([5.0, 0, 5]), np.array([5.0, 0, 0]), np.array([5.0, 0, 0])) == 1, "an empty category is none"


def test_folds_with_odd_targets_are_survived():
    frame = pd.DataFrame({"town": [f"t{i % 15}" for i in range(45)]})
    assert TargetMeans("binary").fit_transform(frame, np.ones(45, int)).shape == (45, 1)
    assert TargetMeans("multiclass").fit_transform(frame, np.array([3, 7] * 22 + [3])).shape == (45, 1)
    assert TargetMeans("multiclass", most=4).fit_transform(frame, np.arange(45) % 12).shape == (45, 4)
    assert np.isfinite(TargetMeans().fit_transform(frame[:1], np.array([2.0]))).all()


def test_a_text_without_words_and_a_single_row_are_survived():
    assert TextTopics().fit(pd.DataFrame({"t": ["!!", None, ""]})).transform(pd.DataFrame({"t": ["a"]})).shape == (1, 0)
    plan, schema, frame, y = planned("binary")
    silent = conform(frame.assign(note=None, title=None, town=None), schema, plan.inputs)
    for style in STYLES:
        assert plan.transformer(style).fit(silent, y).transform(silent).shape[0] == len(frame)


def test_days_between_dates_are_features_and_can_be_left_away():
    plan, schema, frame, y = planned("binary")
    rows = conform(frame, schema, plan.inputs)
    names = feature_table(plan.transformer("trees").fit(rows, y))["feature"].tolist()
    assert "signed to left: days" in names and "signed:month sin" not in names
    assert "signed:month sin" in feature_table(plan.transformer("linear").fit(rows, y))["feature"].tolist()
    without = make_plan(schema, problem_of(), date_spans=False)
    assert "signed to left: days" not in feature_table(without.transformer("trees").fit(rows, y))["feature"].tolist()


def test_columns_that_add_nothing_are_left_out_with_their_reason():
    frame = staff().assign(y=["no", "yes"] * 80, nearly=[0.0] * 159 + [1.0])
    frame["town_code"] = frame["town"].map({t: f"c{i}" for i, t in enumerate(frame["town"].dropna().unique())})
    schema = infer_schema(frame, kinds={"note": "text"})
    reasons = {c.name: c.reason for c in make_plan(schema, problem_of(), frame).columns if not c.use}
    assert reasons["nearly"] == "the same in all but 1 row" and reasons["town_code"] == "says the same as town"
    assert "says the same as town" in plan_markdown(make_plan(schema, problem_of(), frame))
    assert {"nearly", "town_code"} <= set(make_plan(schema, problem_of(), frame, drop_useless=False).inputs)
    assert {"nearly", "town_code"} <= set(make_plan(schema, problem_of()).inputs), "without rows there is nothing to see"
    with pytest.raises(DataError, match="all but 1 row"):
        make_plan(infer_schema(frame[["nearly", "y"]]), problem_of(), frame[["nearly", "y"]])


@pytest.mark.parametrize("choices", [{"encode_above": -1}, {"topics": -1}, {"components": -2}, {"most_numbers": -1}])
def test_choices_out_of_range_are_refused(choices):
    with pytest.raises(ParameterError, match=next(iter(choices))):
        make_plan(infer_schema(staff().assign(y=["a", "b"] * 80)), problem_of(), **choices)


def test_a_look_at_the_features_has_the_target_at_hand():
    plan, schema, frame, _ = planned("multiclass")
    frame.loc[:2, "y"] = np.nan
    for style in STYLES:
        fitted = fit_features(plan, frame, schema, style)
        assert len(fitted.rows) == len(frame) - 3 and len(fitted.names) == fitted.matrix.shape[1]
