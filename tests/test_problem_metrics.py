"Metrics, targets, criteria and the baseline, in odd samples as well."

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as skm

from mlbench.core.errors import DataError, ProblemError, UsageError
from mlbench.data.splits import make_folds
from mlbench.problem import default_metric, evaluate_metric, metric, metrics_for
from mlbench.problem.baseline import constant_prediction, constant_scores
from mlbench.problem.criteria import FIGURES, Criterion, figure_names, parse_criterion
from mlbench.problem.metrics import ALIASES, METRICS
from mlbench.problem.target import Target, make_target


def problem(task, target="y", positive=None):
    return SimpleNamespace(task=task, target=target, positive=positive)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 9999))
def test_classification_metrics_survive_any_sample(n, k, seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(k), n)
    y = rng.choice(rng.choice(k, rng.integers(1, k + 1), replace=False), n)
    for found in metrics_for("binary" if k == 2 else "multiclass"):
        value = evaluate_metric(found.name, y, p)
        assert np.isnan(value) or np.isfinite(value)
        if found.needs == "label" and found.name not in ("mcc", "cohen_kappa"):
            assert 0 <= value <= 1


def test_they_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 300), rng.random(300)
    both = np.column_stack([1 - p, p])
    assert evaluate_metric("roc_auc", y, both) == skm.roc_auc_score(y, p)
    assert evaluate_metric("average_precision", y, both) == skm.average_precision_score(y, p)
    assert evaluate_metric("log_loss", y, both) == pytest.approx(skm.log_loss(y, p))
    assert evaluate_metric("brier", y, both) == pytest.approx(skm.brier_score_loss(y, p))
    assert evaluate_metric("f1", y, both, threshold=0.3) == skm.f1_score(y, p >= 0.3)
    weight = rng.random(300)
    assert evaluate_metric("roc_auc", y, both, weight=weight) == skm.roc_auc_score(y, p, sample_weight=weight)
    y3, p3 = rng.integers(0, 3, 200), rng.dirichlet(np.ones(3), 200)
    assert evaluate_metric("roc_auc_ovr", y3, p3) == pytest.approx(skm.roc_auc_score(y3, p3, multi_class="ovr"))
    assert evaluate_metric("f1_macro", y3, p3) == skm.f1_score(y3, p3.argmax(1), average="macro")
    t, v = rng.normal(size=99), rng.normal(size=99)
    assert evaluate_metric("rmse", t, v) == pytest.approx(skm.root_mean_squared_error(t, v))
    assert evaluate_metric("r2", t, v[:, None]) == pytest.approx(skm.r2_score(t, v))


def test_a_perfect_prediction_is_best_and_a_worse_one_is_not():
    y, t = np.array([0, 1, 1, 0, 1]), np.array([1.0, 2.0, 4.0, 3.0, 9.0])
    for task in ("binary", "regression"):
        for found in metrics_for(task):
            good, bad = (np.eye(2)[y], np.eye(2)[1 - y]) if task == "binary" else (t, t[::-1])
            at_best, worse = evaluate_metric(found.name, y if task == "binary" else t, good), evaluate_metric(found.name, y if task == "binary" else t, bad)
            assert at_best == pytest.approx(found.best, abs=1e-9) and found.better(at_best, worse)


def test_names_from_elsewhere_lead_to_ours():
    assert all(meant in METRICS for meant in ALIASES.values()) and not set(ALIASES) & set(METRICS)
    for alias in ("auc", "AUC", "neg_log_loss", "mse", "r2_score"):
        with pytest.raises(UsageError, match=f"Write '{ALIASES[alias.lower()]}'"):
            metric(alias)
    with pytest.raises(UsageError, match="no metrics for the task 'forecast'"):
        default_metric("forecast")


def test_sums_of_probabilities_that_are_not_quite_one():
    p = np.array([[0.3, 0.69999], [0.9, 0.1001]], dtype="float32")
    assert np.isfinite(evaluate_metric("log_loss", np.array([1, 0]), p))
    assert evaluate_metric("log_loss", np.array([0, 1]), np.array([[0.0, 1.0], [1.0, 0.0]])) > 10


@pytest.mark.parametrize(
    "values, task, classes",
    [
        ([0, 1, 0], "binary", ["0", "1"]),
        ([True, False], "binary", ["False", "True"]),
        ([1.0, 2.0], "binary", ["2", "1"]),
        (["b", "a", "c"], "multiclass", ["a", "b", "c"]),
        ([10, 9, 2], "multiclass", ["2", "9", "10"]),
    ],
)
def test_targets_go_there_and_back(values, task, classes):
    series = pd.Series(values)
    target = make_target(series, problem(task))
    assert target.classes == classes
    assert target.decode(target.encode(series)).tolist() == values
    assert Target.from_dict(json.loads(json.dumps(target.to_dict()))) == target
    assert target.encode(series.astype(object)).tolist() == target.encode(series).tolist()


def test_a_part_of_the_rows_has_the_same_codes():
    whole = pd.Series(["no"] * 10 + ["yes"] * 3)
    target = make_target(whole, problem("binary"))
    assert target.encode(whole.tail(3)).tolist() == [1, 1, 1] and target.labels.tolist() == ["no", "yes"]


def test_targets_that_do_not_fit():
    with pytest.raises(ProblemError, match="1 different values"):
        make_target(pd.Series(["a", "a"]), problem("binary"))
    with pytest.raises(ProblemError, match="learning needs two classes"):
        make_target(pd.Series(["a", None]), problem("multiclass"))
    target = make_target(pd.Series(["a", "b"]), problem("binary"))
    with pytest.raises(DataError, match="2 of 3 rows have no target"):
        target.encode(pd.Series(["a", None, None]))


@given(st.sampled_from([">=", "<=", ">", "<"]), st.floats(-1e6, 1e6, allow_nan=False), st.floats(-1e6, 1e6, allow_nan=False), st.floats(0, 10))
def test_verdicts_agree_with_arithmetic(operator, goal, value, width):
    verdict = Criterion("rmse", operator, goal).verdict(value, value - width, value + width)
    expected = {">=": value >= goal, "<=": value <= goal, ">": value > goal, "<": value < goal}[operator]
    assert verdict.passed is expected and ("meets" in verdict.sentence) is expected
    assert verdict.sure is not True or Criterion("rmse", operator, goal).holds(value - width) == Criterion("rmse", operator, goal).holds(value + width)
    assert json.loads(json.dumps(verdict.to_dict()))["passed"] is expected


def test_what_was_not_measured_has_not_failed():
    for value in (None, float("nan")):
        verdict = Criterion("latency_p95_ms", "<=", 10).verdict(value)
        assert verdict.passed is None and "was not measured" in verdict.sentence and "<= 10" in str(verdict)


@pytest.mark.parametrize("text", [">=0.8", " >= .8 ", "> 8e-1", ">= 80%", ">= 80 %"])
def test_criteria_as_people_write_them(text):
    assert parse_criterion("roc_auc", text, "binary").value == pytest.approx(0.8)


@pytest.mark.parametrize("text", ["", "high", "0.8 or more", "=> 0.8", "== 0.8", "0.8", 0.8, None, "<= 0.8", True])
def test_criteria_that_cannot_be_meant(text):
    with pytest.raises(UsageError, match="roc_auc"):
        parse_criterion("roc_auc", text, "binary")


def test_every_figure_can_be_a_goal():
    for name in figure_names("regression"):
        wanted = "<=" if name in FIGURES or not METRICS[name].greater_is_better else ">="
        assert str(parse_criterion(name, f"{wanted} 0.5", "regression")) == f"{name} {wanted} 0.5"


def test_the_baseline_is_that_of_scikit_learn():
    from sklearn.dummy import DummyClassifier

    rng = np.random.default_rng(0)
    y = rng.choice(3, 300, p=[0.6, 0.3, 0.1])
    frame = pd.DataFrame({"y": y})
    folds = make_folds(frame, target="y", task="multiclass")
    target = make_target(frame["y"], problem("multiclass"))
    found = constant_scores(y, folds, ["log_loss", "accuracy"], target).scores
    dummy = [skm.log_loss(y[v], DummyClassifier(strategy="prior").fit(y[t, None], y[t]).predict_proba(y[v, None]), labels=[0, 1, 2]) for t, v in folds]
    assert found["log_loss"]["mean"] == pytest.approx(np.mean(dummy)) and found["log_loss"]["low"] == pytest.approx(min(dummy))
    assert np.isfinite(evaluate_metric("log_loss", np.array([2]), constant_prediction(np.array([0, 1]), 1, 3)))
