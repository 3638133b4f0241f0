"Judging a model: intervals, figures for every task, slices, explanations, verdicts; and what has no meaning."

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.data.examples import load_example
from mlbench.data.schema import infer_schema
from mlbench.data.splits import make_split
from mlbench.evaluation import (
    bootstrap_rows,
    bootstrap_values,
    calibration_error,
    confusion_matrix,
    criteria_metrics,
    evaluate_model,
    fairness_differences,
    judge,
    measured_figures,
    metrics_figure,
    model_card,
    percentile_interval,
    performance_figures,
    permutation_importance,
    ranked_columns,
    shap_values,
    slice_table,
    threshold_view,
    verdict_table,
)
from mlbench.features import make_plan
from mlbench.models.registry import model_spec
from mlbench.problem import Problem, make_target
from mlbench.training import fit_model


def judged(name, spec, tmp_path, rows=700, **problem):
    "A model of one kind on a bundled example, judged on its test rows."
    example = load_example(name)
    frame = example.frame.head(rows)
    record = {"name": name, "task": example.task, "target": example.target, "data": {"source": f"example:{name}"}, "columns": example.roles or {}}
    task = Problem.from_dict(record | ({"positive": example.positive} if example.positive else {}) | problem)
    split = make_split(frame, target=example.target, task=example.task)
    train, test = frame.iloc[split.train], frame.iloc[split.test]
    schema = infer_schema(train)
    target = make_target(train[example.target], task)
    y = target.encode(train[example.target])
    model = fit_model(model_spec(spec), make_plan(schema, task), train, y, problem=task, schema=schema, target=target)
    return evaluate_model(model, test, train, seed=0), train


CASES = [
    ("generated_churn", "lightgbm"),
    ("generated_churn", "linear"),
    ("generated_churn", "mlp"),
    ("generated_churn", "one_rule"),
    ("generated_segments", "hist_gradient_boosting"),
    ("generated_segments", "linear"),
    ("generated_prices", "lightgbm"),
    ("generated_prices", "linear"),
]


@pytest.mark.parametrize("name, spec", CASES)
def test_every_task_and_kind_of_model_is_judged_and_explained(tmp_path, name, spec):
    evaluation, train = judged(name, spec, tmp_path)
    table = evaluation.metrics(n_resamples=60)
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    first = table.iloc[0]
    assert metrics_figure(table).layout.title.text and first["value"] != first["constant"]
    for figure in (*performance_figures(evaluation).values(), threshold_view(evaluation, 0.4)):
        assert figure.layout.title.text and figure.data
        assert len(figure.to_json()) < 200_000
    explanation = shap_values(evaluation, train, n_rows=30)
    assert set(explanation.columns) == set(evaluation.model.plan.inputs)
    assert np.isfinite(explanation.values).all() and explanation.importance.iloc[0] > 0
    needed = permutation_importance(evaluation, n_repeats=2, n_rows=150)
    assert set(needed["column"]) == set(evaluation.model.plan.inputs)


def test_shap_values_of_trees_add_up_to_the_prediction(tmp_path):
    evaluation, train = judged("generated_prices", "hist_gradient_boosting", tmp_path)
    explanation = shap_values(evaluation, train, n_rows=50)
    predicted = evaluation.model.pipeline.predict(explanation.inputs)
    base = predicted - explanation.values.sum(axis=1)
    assert np.allclose(base, base[0], rtol=1e-6)


def test_the_same_seed_gives_the_same_intervals(tmp_path):
    evaluation, _ = judged("breast_cancer", "linear", tmp_path)
    pd.testing.assert_frame_equal(evaluation.metrics(n_resamples=50), evaluation.metrics(n_resamples=50))


def test_an_interval_of_grouped_rows_is_wider():
    rng = np.random.default_rng(0)
    households = np.repeat(np.arange(40), 10)
    right = rng.random(40)[households] < 0.7  # all rows of a household are right or wrong together
    y, p = np.zeros(400, dtype=int), np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
    width = {}
    for name, groups in {"rows": None, "households": households}.items():
        low, high = percentile_interval(bootstrap_values("accuracy", y, p, bootstrap_rows(400, 300, 0, groups)))
        width[name] = high - low
    assert width["households"] > 2 * width["rows"]


def test_one_class_in_the_test_rows_is_said_and_does_not_crash(tmp_path):
    evaluation, _ = judged("breast_cancer", "linear", tmp_path)
    keep = np.flatnonzero(evaluation.y == 0)
    evaluation.frame, evaluation.y, evaluation.p = evaluation.frame.iloc[keep].reset_index(drop=True), evaluation.y[keep], evaluation.p[keep]
    evaluation.constant = evaluation.constant[keep]
    evaluation.__dict__.pop("codes", None)
    table = evaluation.metrics(["roc_auc", "accuracy"], n_resamples=30).set_index("metric")
    assert np.isnan(table.loc["roc_auc", "value"]) and table.loc["accuracy", "value"] > 0.8
    assert "one class only" in performance_figures(evaluation)["roc"].layout.title.text


def test_the_threshold_decides_what_label_metrics_say(tmp_path):
    evaluation, _ = judged("breast_cancer", "linear", tmp_path)
    evaluation.threshold = 0.0
    assert evaluation.metrics(["recall"], n_resamples=20)["value"][0] == 1.0
    assert confusion_matrix(evaluation, 0.999999).sum() == len(evaluation.y)


def test_criteria_are_judged_with_their_interval_and_later_ones_are_left_open(tmp_path):
    success = {"roc_auc": ">= 0.9", "log_loss": "<= 0.0001", "calibration_error": "<= 0.5", "latency_p95_ms": "<= 5", "mcc": ">= 0.1"}
    evaluation, _ = judged("breast_cancer", "linear", tmp_path, success=success)
    assert "mcc" in criteria_metrics(evaluation.problem)
    figures = measured_figures(evaluation, evaluation.metrics(criteria_metrics(evaluation.problem), n_resamples=50))
    verdicts = {v.criterion.metric: v.passed for v in judge(evaluation.problem.criteria(), figures)}
    assert verdicts == {"roc_auc": True, "log_loss": False, "calibration_error": True, "latency_p95_ms": None, "mcc": True}
    assert verdict_table(judge(evaluation.problem.criteria(), figures))["verdict"].tolist() == ["met", "missed", "met", "later", "met"]


def test_planted_unfairness_is_measured(tmp_path):
    evaluation, _ = judged("generated_churn", "lightgbm", tmp_path, rows=2000, columns={"ignore": ["customer_id"], "sensitive": ["newsletter"]})
    fair = fairness_differences(evaluation)
    at = evaluation.frame["newsletter"].to_numpy(dtype=bool)
    evaluation.p = np.where(at[:, None], [[0.0, 1.0]], evaluation.p)  # everybody with the newsletter is called
    evaluation.__dict__.pop("codes", None)
    unfair = fairness_differences(evaluation)
    assert unfair["demographic_parity_difference"] > fair["demographic_parity_difference"] + 0.2
    assert unfair["equalized_odds_difference"] >= unfair["equal_opportunity_difference"]


def test_noise_alone_is_not_called_a_bad_slice():
    from types import SimpleNamespace

    from mlbench.evaluation import Evaluation
    from mlbench.problem.target import Target

    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(20):
        frame = pd.DataFrame({f"c{i}": rng.choice(list("abcd"), 400) for i in range(8)})
        p = rng.uniform(0.2, 0.8, 400)
        y = (rng.random(400) < p).astype(int)
        problem = SimpleNamespace(metric="log_loss", metrics=["log_loss"], columns=SimpleNamespace(group=None, sensitive=[]))
        evaluation = Evaluation(problem, Target("y", "binary", ["no", "yes"], "yes"), frame, y, np.column_stack([1 - p, p]), np.full((400, 2), 0.5))
        alarms += ranked_columns(evaluation)["p"].min() < 0.05
    assert alarms <= 4


def test_a_calibrated_model_has_a_small_calibration_error():
    rng = np.random.default_rng(0)
    from types import SimpleNamespace

    from mlbench.evaluation import Evaluation
    from mlbench.problem.target import Target

    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(int)
    problem = SimpleNamespace(metric="brier", metrics=["brier"], columns=SimpleNamespace(group=None, sensitive=[]))
    target = Target("y", "binary", ["no", "yes"], "yes")
    good = Evaluation(problem, target, pd.DataFrame(index=range(20_000)), y, np.column_stack([1 - p, p]), np.full((20_000, 2), 0.5))
    q = np.clip(2 * p - 0.5, 0, 1)
    bad = Evaluation(problem, target, good.frame, y, np.column_stack([1 - q, q]), good.constant)
    assert calibration_error(good) < 0.02 and calibration_error(bad) > 0.08


def test_slices_and_card_survive_hostile_names(tmp_path):
    evaluation, _ = judged("generated_churn", "linear", tmp_path)
    evaluation.frame["<script>alert(1)</script>"] = ["<b>x</b>" if i % 2 else None for i in range(len(evaluation.frame))]
    table = slice_table(evaluation, "<script>alert(1)</script>", n_resamples=20)
    assert set(table["slice"]) == {"<b>x</b>", "missing"}
    figures = measured_figures(evaluation, evaluation.metrics(n_resamples=20))
    card = model_card(evaluation, figures, [], ranked_columns(evaluation), pd.Series({"age": 1.0}), openings=2)
    assert "opened 2 times" in card and "No success criteria" in card


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(width=64) | st.integers(-(10**9), 10**9).map(float), min_size=1, max_size=80), st.sampled_from([0.0, 1e6, -122.4]))
def test_any_numbers_can_be_sliced(values, offset):
    from mlbench.evaluation.slices import slice_labels

    series = pd.Series(values).replace([np.inf, -np.inf], np.nan) + offset
    labels = slice_labels(series)
    assert len(labels) == len(series) and not labels.isna().any()
    assert (labels == "missing").sum() == series.isna().sum()
