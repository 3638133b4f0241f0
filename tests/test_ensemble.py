"Ensembles, calibration, thresholds, costs and comparisons: known answers, and no answer where there is only noise."

import time

import numpy as np
import pandas as pd
import pytest

import mlbench as mb
from mlbench.core.errors import ArtifactError, DataError, ProblemError, UsageError
from mlbench.evaluation import evaluate_model
from mlbench.problem import Problem, Target, cost_matrix, cost_of, decide, least_cost
from mlbench.problem.costs import cost_threshold
from mlbench.problem.metrics import TASKS, evaluate_metric, greater_is_better, metrics_for
from mlbench.training import (
    against_best,
    best_threshold,
    better,
    blend_outputs,
    calibrated,
    corrected_difference,
    decision_table,
    ensemble_weights,
    fit_temperature,
    guarded_ensemble,
    guarded_temperature,
    holm,
    paired_bootstrap,
    reliability_table,
    temperature_figure,
    threshold_figure,
)
from mlbench.training.ensemble import _pick, fit_stacker, stack_features, stack_output, usable_members
from mlbench.training.intervals import corrected_error
from mlbench.training.scoring import make_scorer


def sigmoid(z):
    "Probabilities of two classes from log-odds."
    p = 1 / (1 + np.exp(-z))
    return np.column_stack([1 - p, p])


def members(task, rows, skilled=4, noisy=3, seed=0):
    "Truth, and outputs of models that know something and of some that know nothing."
    rng = np.random.default_rng(seed)
    k = {"binary": 2, "multiclass": 4, "regression": None}[task]
    if k is None:
        y = rng.gamma(3, size=rows)
        good = {f"good{i}": y + rng.normal(scale=0.6, size=rows) for i in range(skilled)}
        return y, good | {f"noise{i}": rng.gamma(3, size=rows) for i in range(noisy)}
    y = rng.integers(0, k, rows)
    shares = lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    good = {f"good{i}": shares(1.5 * np.eye(k)[y] + rng.normal(size=(rows, k))) for i in range(skilled)}
    return y, good | {f"noise{i}": shares(rng.normal(size=(rows, k))) for i in range(noisy)}


BLENDED = [task for task in TASKS if task != "tagging"]  # tags of words come from one network
EVERY_METRIC = [(task, m.name) for task in BLENDED for m in metrics_for(task)]


@pytest.mark.parametrize("task,name", EVERY_METRIC)
def test_a_scorer_gives_what_the_metric_gives(task, name):
    for rows in (1, 2, 9, 200):
        y, oof = members(task, rows, seed=rows)
        for p in oof.values():
            known = evaluate_metric(name, y, p)
            sign = 1 if greater_is_better(name) else -1
            assert np.isclose(make_scorer(name, y, p.shape[1] if p.ndim == 2 else None)(p), sign * known, equal_nan=True), (rows, known)


@pytest.mark.parametrize("task,name", [pair for pair in EVERY_METRIC if pair[1] not in ("precision", "recall")])  # alone, these want everybody or nobody called
def test_weights_help_for_every_metric_whichever_way_it_points(task, name):
    y, oof = members(task, 1200)
    learn, judge = np.arange(1200) < 600, np.arange(1200) >= 600
    weights = ensemble_weights({m: p[learn] for m, p in oof.items()}, y[learn], name)
    assert np.isclose(sum(weights.values()), 1) and all(w > 0 for w in weights.values())
    assert sum(w for m, w in weights.items() if m.startswith("noise")) < 0.35
    blend = evaluate_metric(name, y[judge], blend_outputs(oof, weights)[judge])
    single = np.mean([evaluate_metric(name, y[judge], p[judge]) for m, p in oof.items() if m.startswith("good")])
    assert (blend > single) == greater_is_better(name)


def test_two_opposite_errors_share_the_weight():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=300)
    assert ensemble_weights({"high": truth + 1, "low": truth - 1}, truth, "rmse") == {"high": 0.5, "low": 0.5}
    third = ensemble_weights({"high": truth + 2, "low": truth - 1}, truth, "rmse")
    assert np.isclose(third["low"], 2 / 3, atol=0.02), "two parts of the nearer one"


def test_equal_members_are_not_counted_twice():
    y, oof = members("binary", 400, skilled=1, noisy=0)
    copies = {f"copy{i}": oof["good0"] for i in range(4)}
    assert ensemble_weights(copies, y, "roc_auc") == {"copy0": 1.0}


def test_rows_that_no_fold_tests_do_not_matter():
    y, oof = members("multiclass", 500)
    holes = {m: p.copy() for m, p in oof.items()}
    for p in holes.values():
        p[::7] = np.nan
    kept = np.arange(500) % 7 != 0
    assert ensemble_weights(holes, y, "log_loss") == ensemble_weights({m: p[kept] for m, p in oof.items()}, y[kept], "log_loss")
    folds = np.where(kept, np.arange(500) % 5 + 1, 0)
    made = guarded_ensemble(holes, y, "log_loss", folds)
    assert np.isnan(made.oof[~kept]).all() and np.isfinite(made.oof[kept]).all()


def test_a_member_with_fewer_rows_is_left_out_and_none_is_an_error():
    y, oof = members("regression", 100, skilled=2, noisy=0)
    oof["good1"][:50] = np.nan
    assert ensemble_weights(oof, y, "rmse") == {"good0": 1.0}
    with pytest.raises(UsageError, match="no out-of-fold predictions"):
        ensemble_weights({}, y, "rmse")
    with pytest.raises(UsageError, match="finished models"):
        usable_members({"a": np.array([1.0, np.nan]), "b": np.array([np.nan, 1.0])})


@pytest.mark.parametrize("task", BLENDED)
@pytest.mark.parametrize("rows", [4, 7, 30])
def test_very_few_rows_still_give_something(task, rows):
    y, oof = members(task, rows)
    for found in metrics_for(task)[:: 1 if rows == 7 else 4]:
        made = guarded_ensemble(oof, y, found.name, np.arange(rows) % 3 + 1, stack=rows > 4)
        assert np.isclose(sum(made.weights.values()), 1) and made.why and np.isfinite(made.oof).all()


def test_one_class_in_a_fold_and_in_all_rows():
    y, oof = members("binary", 60)
    order = np.argsort(y)
    made = guarded_ensemble({m: p[order] for m, p in oof.items()}, y[order], "roc_auc", np.arange(60) // 12 + 1)
    assert made.why and np.isclose(sum(made.weights.values()), 1), "most folds hold one class only"
    assert guarded_ensemble(oof, np.zeros(60, int), "roc_auc", np.arange(60) % 5 + 1).weights


def test_few_rows_do_not_choose_nonsense_for_ranking():
    "On sixty rows with a coarse metric, members that know nothing must not take over."
    share = []
    for seed in range(6):
        y, oof = members("binary", 60, skilled=4, noisy=8, seed=seed)
        weights = ensemble_weights(oof, y, "roc_auc", seed=seed)
        share.append(sum(w for m, w in weights.items() if m.startswith("noise")))
    assert np.mean(share) < 0.35, share


def test_the_guard_keeps_a_lead_that_is_real_and_is_not_fooled_by_luck():
    y, oof = members("binary", 1000)
    made = guarded_ensemble(oof, y, "log_loss", np.arange(1000) % 5 + 1)
    assert made.used and made.gain > 0 and made.p_value < 0.05 and len(made.weights) > 2
    rng, gains = np.random.default_rng(0), []
    for seed in range(4):
        truth = rng.integers(0, 2, 250)
        noise = {f"n{i}": sigmoid(rng.normal(size=250)) for i in range(8)}
        luck = guarded_ensemble(noise, truth, "roc_auc", np.arange(250) % 5 + 1, seed=seed)
        inside = evaluate_metric("roc_auc", truth, blend_outputs(noise, ensemble_weights(noise, truth, "roc_auc")))
        assert inside > 0.52, "on its own rows, noise looks like skill"
        assert luck.gain < 0.1 and (luck.gain > 0 or luck.p_value > 0.1 or not luck.used)
        gains.append(np.nanmean([evaluate_metric("roc_auc", truth, luck.oof)]))
    assert abs(np.mean(gains) - 0.5) < 0.05, "on rows that had no say, it does not"


def test_the_single_model_has_to_be_clearly_better_to_be_used_alone():
    clear = pd.DataFrame({"single": [0.80, 0.81, 0.79, 0.80, 0.82], "weights": [0.75, 0.76, 0.75, 0.74, 0.77]})
    noisy = pd.DataFrame({"single": [0.80, 0.95, 0.60, 0.80, 0.90], "weights": [0.82, 0.80, 0.66, 0.81, 0.86]})
    assert _pick(clear, 1, True, 0.25) == "single" and _pick(clear, -1, True, 0.25) == "weights"
    assert noisy["single"].mean() > noisy["weights"].mean() and _pick(noisy, 1, True, 0.25) == "weights"
    assert _pick(clear, -1, False, 0.25) == "single", "there is nothing to mix"
    assert _pick(clear.assign(stack=clear["single"]), 1, True, 0.25) == "single" and _pick(noisy.assign(stack=0.99), 1, True, 0.25) == "stack"
    assert _pick(noisy, 1, True, 0.25, plain=True) == "single", "one that a person can follow is replaced by what is better alone"
    assert _pick(clear, -1, True, 0.25, plain=True) == "weights"


def test_an_ensemble_replaces_a_readable_model_only_when_it_is_better():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=400)
    oof = {"straight": truth + rng.normal(scale=0.30, size=400), "bent": truth + rng.normal(scale=0.9, size=400)}
    folds, plain = np.arange(400) % 5 + 1, {"straight"}
    one, other = guarded_ensemble(oof, truth, "rmse", folds, readable=plain), guarded_ensemble(oof, truth, "rmse", folds)
    assert one.single == "straight" and one.used == (one.folds["weights"].mean() < one.folds["single"].mean())
    assert other.used or len(ensemble_weights(oof, truth, "rmse")) < 2
    twins = {"straight": truth + rng.normal(scale=0.3, size=400), "bent": truth + rng.normal(scale=0.3, size=400)}
    assert guarded_ensemble(twins, truth, "rmse", folds, readable=plain).used, "here it is better"
    with pytest.raises(UsageError, match="2 folds"):
        guarded_ensemble(oof, truth, "rmse", np.array([1, 2]))


def test_one_good_member_among_noise_is_used_alone():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=500)
    oof = {"right": truth + rng.normal(scale=0.1, size=500)} | {f"n{i}": rng.normal(size=500) for i in range(10)}
    made = guarded_ensemble(oof, truth, "rmse", np.arange(500) % 5 + 1)
    assert made.single == "right" and made.weights["right"] > 0.95


def test_the_same_seed_gives_the_same_ensemble():
    y, oof = members("binary", 300, skilled=6)
    one, two = (guarded_ensemble(oof, y, "roc_auc", np.arange(300) % 5 + 1, stack=True, seed=4) for _ in range(2))
    assert one.weights == two.weights and np.array_equal(one.oof, two.oof) and one.why == two.why


def test_a_single_fold_is_judged_on_parts_of_it():
    y, oof = members("regression", 300)
    made = guarded_ensemble(oof, y, "rmse", np.ones(300, int))
    assert len(made.folds) == 5 and made.used


def test_stacking_corrects_what_a_mean_cannot():
    y, oof = members("binary", 1500, skilled=3, noisy=0)
    timid = {m: calibrated(p, 5.0) for m, p in oof.items()}
    made = guarded_ensemble(timid, y, "log_loss", np.arange(1500) % 5 + 1, stack=True)
    assert made.stacker is not None and "stacking" in made.why
    bold = stack_output(made.stacker, [timid[m] for m in made.weights])
    assert evaluate_metric("log_loss", y, bold) < evaluate_metric("log_loss", y, blend_outputs(timid, made.weights)) - 0.05
    assert "stack" in made.folds and made.oof.shape == (1500, 2)
    assert guarded_ensemble(timid, y, "log_loss", np.arange(1500) % 5 + 1).stacker is None, "only where it is asked for"


def test_a_stacking_model_of_a_regression_has_no_negative_weights():
    y, oof = members("regression", 400)
    stacker = fit_stacker(list(oof.values()), y)
    assert (stacker.coef_ >= 0).all() and stack_output(stacker, list(oof.values())).shape == (400,)
    assert stack_features([np.full((2, 3), 1 / 3)]).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_class_that_no_row_has_stays_at_zero_in_a_stacking_model():
    p = np.random.default_rng(0).dirichlet(np.ones(4), 200)
    stacker = fit_stacker([p], np.arange(200) % 3)
    out = stack_output(stacker, [p])
    assert out.shape == (200, 4) and not out[:, 3].any() and np.allclose(out.sum(axis=1), 1)


def test_thirty_members_of_ten_classes_take_seconds():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 20_000)
    oof = {f"m{i}": (lambda p: p / p.sum(axis=1, keepdims=True))(rng.random((20_000, 10)) + np.eye(10)[y] * rng.random()) for i in range(30)}
    start = time.process_time()
    weights = ensemble_weights(oof, y, "log_loss")
    assert len(weights) > 1 and time.process_time() - start < 8


# Calibration


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_distorted_scale_is_found_again(temperature):
    rng = np.random.default_rng(1)
    honest = rng.dirichlet(np.ones(3) * 1.5, 4000)
    y = (honest.cumsum(axis=1) > rng.random(4000)[:, None]).argmax(axis=1)
    distorted = calibrated(honest, 1 / temperature)
    assert np.isclose(fit_temperature(distorted, y), temperature, rtol=0.12)
    found, why = guarded_temperature(distorted, y, np.arange(4000) % 5 + 1)
    assert (abs(found - 1) < 0.1) if temperature == 1 else np.isclose(found, temperature, rtol=0.12), why
    assert np.array_equal(calibrated(distorted, found).argmax(axis=1), distorted.argmax(axis=1)), "the order of the classes stays"


def test_temperature_is_rarely_used_where_nothing_is_wrong():
    loss = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        p = rng.beta(2, 2, 80)
        y = (rng.random(80) < p).astype(int)
        t, _ = guarded_temperature(np.column_stack([1 - p, p]), y, np.arange(80) % 5 + 1)
        fresh = (rng.random(20_000) < (q := rng.beta(2, 2, 20_000))).astype(int)
        pair = np.column_stack([1 - q, q])
        loss.append(evaluate_metric("log_loss", fresh, calibrated(pair, t)) - evaluate_metric("log_loss", fresh, pair))
    assert np.mean(loss) < 0.02


def test_calibration_takes_what_comes():
    sure = np.array([[0.0, 1.0], [1.0, 0.0], [np.nan, np.nan]])
    assert calibrated(sure, 3.0)[:2].tolist() == [[0, 1], [1, 0]] and np.isnan(calibrated(sure, 3.0)[2]).all()
    assert np.isfinite(fit_temperature(sure, np.array([1, 0, 0]))), "perfect and certain predictions do not break the search"
    assert guarded_temperature(sure[:2], np.array([1, 1]), np.array([1, 2]))[0] == 1.0
    table = reliability_table(np.array([0.2] * 50 + [0.8] * 50), np.array([0] * 40 + [1] * 10 + [1] * 40 + [0] * 10), 2)
    assert table["said"].round(6).tolist() == table["happened"].round(6).tolist() == [0.2, 0.8]
    assert "off by" in temperature_figure(np.array([0.2, 0.8] * 20), np.array([0, 1] * 20), 0.7).layout.title.text


# Thresholds and costs


def test_a_known_cost_matrix_moves_the_line_where_it_belongs():
    rng = np.random.default_rng(0)
    p = rng.beta(1, 4, 8000)
    y = (rng.random(8000) < p).astype(int)
    bill = np.array([[0, 1], [9, 0]])
    line, why = best_threshold(p, y, "roc_auc", bill, np.arange(8000) % 5 + 1)
    assert abs(line - 0.1) < 0.03 and "cost per row" in why
    paid = {at: cost_of(y, decide(np.column_stack([1 - p, p]), at), bill) for at in (line, 0.5)}
    assert paid[line] < paid[0.5] and decision_table(p, y, bill, line)["cost"].iloc[0] == pytest.approx(paid[line])
    assert cost_threshold(bill) == pytest.approx(0.1) and cost_threshold(np.zeros((2, 2))) == 0.5


@pytest.mark.parametrize("name", ["f1", "balanced_accuracy", "mcc", "f1_macro", "cohen_kappa"])
def test_the_line_of_a_metric_is_better_on_other_rows(name):
    rng = np.random.default_rng(2)
    p = 1 / (1 + np.exp(-rng.normal(-3, 1.8, 6000)))
    y = (rng.random(6000) < p).astype(int)
    line, why = best_threshold(p[:3000], y[:3000], name, fold_of_row=np.arange(3000) % 5)
    assert line < 0.45 and name in why
    other = np.column_stack([1 - p[3000:], p[3000:]])
    assert evaluate_metric(name, y[3000:], other, line) > evaluate_metric(name, y[3000:], other, 0.5) + 0.01


def test_lines_that_cannot_be_meant_stay_at_one_half():
    p, y = np.array([0.2, 0.9, np.nan, 0.4]), np.array([0, 1, 1, 0])
    for name in ("roc_auc", "log_loss", "precision", "recall"):
        assert best_threshold(p, y, name)[0] == 0.5
    assert best_threshold(np.full((4, 3), 1 / 3), y, "accuracy", np.ones((3, 3)))[0] == 0.5
    assert 0 <= best_threshold(p, y, "f1")[0] <= 1 and best_threshold(np.full(20, 0.3), np.zeros(20, int), "f1")[0] == 0.5


def test_the_answer_of_least_cost_for_several_classes():
    target = Target("state", "multiclass", ["hurt", "sick", "well"])
    matrix = cost_matrix({"sick": {"well": 10}}, target)
    assert least_cost(np.array([[0.0, 0.2, 0.8], [0.0, 0.05, 0.95]]), matrix).tolist() == [1, 2]
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 3000)
    y = (p.cumsum(axis=1) > rng.random(3000)[:, None]).argmax(axis=1)
    table = decision_table(p, y, matrix).set_index("answer")["cost"]
    assert table["least expected cost"] < table["most probable class"] and "per row" in threshold_figure(p, y, 0.5, "log_loss", matrix).layout.title.text
    assert np.array_equal(least_cost(p, 1 - np.eye(3)), p.argmax(axis=1)), "where all mistakes cost the same, the most probable class is it"


def test_costs_in_the_file_are_checked_with_their_lines(tmp_path):
    head = "name: a\ntask: binary\ndata: a.csv\ntarget: bad\n"
    (tmp_path / "problem.yaml").write_text(head + "costs: {false_positive: 1, false_negative: 5}\n")
    problem = Problem.load(tmp_path)
    assert problem.cost_matrix(Target("bad", "binary", ["no", "yes"], "yes")).tolist() == [[0, 1], [5, 0]]
    assert Problem.from_dict(problem.to_dict()).costs == problem.costs
    for text, words in {
        "costs:\n  false_positive: 1\n  false_negatives: 5\n": "line 7: costs.false_negatives is no kind of mistake. Did you mean 'false_negative'",
        "costs: {false_positive: -1}\n": "line 5: costs.false_positive is -1: a cost is a number from 0 on",
        "costs: {false_positive: .inf}\n": "line 5: costs.false_positive is inf",
        "costs: 5\n": "line 5: costs is 5",
        "costs: {yes: {no: much}}\n": "costs.yes.no is 'much'",
        "costs: {yes: {no: 5}, no: 2}\n": "while others name answers",
    }.items():
        (tmp_path / "problem.yaml").write_text(head + text)
        with pytest.raises(ProblemError) as refused:
            Problem.load(tmp_path)
        assert words in str(refused.value), str(refused.value)
    frame = pd.DataFrame({"x": range(40), "bad": ["yes", "no"] * 20})
    with pytest.raises(ProblemError, match="costs names 'Yes', which is no class of 'bad'. Did you mean 'yes'"):
        Problem.from_dict({"name": "a", "task": "binary", "data": "a.csv", "target": "bad", "costs": {"Yes": {"no": 5}}}).check_frame(frame)
    with pytest.raises(ProblemError, match="costs belong to classification"):
        Problem.from_dict({"name": "a", "task": "regression", "data": "a.csv", "target": "x", "costs": {"false_positive": 1}})


# Comparisons


def test_only_what_a_test_says_is_claimed():
    rng = np.random.default_rng(0)
    scores = np.array([0.81, 0.84, 0.79, 0.83, 0.82])
    clear, hazy = corrected_difference(scores, scores - 0.05 + rng.normal(scale=0.002, size=5), 0.25), corrected_difference(scores, scores[::-1], 0.25)
    assert "`a` is better than `b`" in better("a", "b", clear, "roc_auc").text and "`b` is better" in better("a", "b", clear, "log_loss").text
    assert "cannot be told apart" in better("a", "b", hazy, "roc_auc").text
    assert "cannot be told apart" in better("a", "a", corrected_difference(scores, scores, 0.25), "roc_auc").text


def test_the_paired_bootstrap_sees_what_is_there():
    y, oof = members("multiclass", 600, skilled=2, noisy=1)
    gap = paired_bootstrap("log_loss", y, oof["good0"], oof["noise0"], draws=200)
    truth = evaluate_metric("log_loss", y, oof["good0"]) - evaluate_metric("log_loss", y, oof["noise0"])
    assert np.isclose(gap.mean, truth) and gap.low < truth < gap.high < 0 and not gap.noise
    assert paired_bootstrap("log_loss", y, oof["good0"], oof["good1"], draws=200).noise
    groups = np.arange(600) // 100
    assert paired_bootstrap("accuracy", y, oof["good0"], oof["noise0"], draws=100, groups=groups).high > 0


def test_many_comparisons_are_paid_for():
    assert holm([0.02, 0.02, 0.02]).tolist() == pytest.approx([0.06] * 3)
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(100):
        scores = {f"m{i}": 0.8 + rng.normal(scale=0.01, size=5) for i in range(8)}
        wrong += bool(against_best(scores, "roc_auc", 0.25)["worse"].any())
    assert wrong <= 12, "eight times the same model, and seldom a claim"


# Judged in one line


@pytest.fixture(scope="module")
def rides():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"heat": rng.normal(size=240), "day": rng.choice(["Mon", "Sat"], 240)})
    frame["busy"] = np.where(frame["heat"] + (frame["day"] == "Sat") + rng.normal(scale=0.5, size=240) > 0.5, "yes", "no")
    return frame.head(160), frame.tail(80), mb.fit(frame.head(160), "busy", models=["dummy", "linear"])


def test_a_model_is_judged_and_explained_in_one_line(rides):
    train, test, model = rides
    scores = model.evaluate(test, draws=100)
    assert scores["roc_auc"] > 0.8 and (scores.table["low"] <= scores.table["high"]).all()
    assert "roc_auc" in repr(scores) and "<table" in scores._repr_html_() and "80 rows" in repr(scores)
    assert scores["roc_auc"] == mb.evaluate(model, test, draws=10)["roc_auc"]
    assert set(model.explain(test, background=train, rows=30).importance.index) == {"heat", "day"}


def test_a_blend_is_judged_and_explained_as_well(rides):
    train, test, _ = rides
    blend = mb.fit(train, "busy", models=["hist_gradient_boosting", "linear"])
    model = blend if blend.blended else mb.fit(train, "busy", models=["hist_gradient_boosting"])
    assert model.blended and model.evaluate(test, draws=20)["roc_auc"] > 0.75
    assert model.explain(test, background=train, rows=10).importance.index[0] == "heat"


def test_what_cannot_be_judged_says_what_is_missing(rides):
    _, test, model = rides
    with pytest.raises(DataError, match="with the true 'busy' in it; this has the columns heat, day"):
        model.evaluate(test.drop(columns="busy"))
    with pytest.raises(DataError, match="this is a list"):
        model.evaluate([1, 2])
    with pytest.raises(UsageError, match="Write 'roc_auc'"):
        model.evaluate(test, metrics=["auc"])
    with pytest.raises(DataError, match="None of the 80 test rows"):
        model.evaluate(test.assign(busy=None))


def test_a_loaded_model_can_do_the_same(rides, tmp_path):
    _, test, model = rides
    again = mb.load(model.save(tmp_path / "rides"))
    assert np.array_equal(again.predict_proba(test), model.predict_proba(test))
    assert again.evaluate(test, draws=20)["roc_auc"] == model.evaluate(test, draws=20)["roc_auc"]
    with pytest.raises(ArtifactError, match="there is no folder"):
        mb.load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="holds no model"):
        mb.load(tmp_path / "empty")


def test_costs_of_several_classes_decide_what_is_said(rides):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=300)})
    frame["state"] = np.select([frame["x"] + rng.normal(scale=0.7, size=300) < -0.5, frame["x"] > 0.7], ["sick", "hurt"], "well")
    model = mb.fit(frame, "state", models=["linear"])
    plain = evaluate_model(model, frame, frame)
    assert plain.codes.tolist() == plain.p.argmax(axis=1).tolist()
    model.problem.costs = {"sick": {"well": 20}}
    model.costs = model.problem.cost_matrix(model.target).tolist()
    careful = model.evaluate(frame, metrics=["accuracy"], draws=50)
    assert (model.predict(frame) == "sick").sum() > (plain.codes == model.target.classes.index("sick")).sum()
    assert careful["cost"] < cost_of(plain.y, plain.codes, model.problem.cost_matrix(model.target))
    assert careful["accuracy"] == pytest.approx((model.predict(frame) == frame["state"]).mean())


def test_on_two_folds_the_guard_looks_at_blocks_of_rows(monkeypatch):
    monkeypatch.setattr("mlbench.training.ensemble.ensemble_weights", lambda *given, **named: {"good": 0.5, "bad": 0.5})
    rng, folds = np.random.default_rng(0), np.arange(4_000) % 2 + 1
    y = rng.normal(size=4_000)
    oof = {"good": y + rng.normal(scale=0.2, size=4_000), "bad": y + rng.normal(size=4_000) * np.where(folds == 1, 0.5, 3.0)}
    made = guarded_ensemble(oof, y, "rmse", folds)
    assert not made.used and made.weights == {"good": 1.0} and len(made.folds) == 2
    gaps = made.folds["weights"] - made.folds["single"]
    assert gaps.mean() < corrected_error(gaps.to_numpy(), 1.0), "two folds alone would have let it pass"
    few = slice(0, 300)
    assert guarded_ensemble({m: p[few] for m, p in oof.items()}, y[few], "rmse", folds[few]).used, "six blocks are too few to judge by"
