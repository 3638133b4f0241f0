"Comparison, choice and the model on disk: real data, faults, sameness."

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlbench.core.errors import ArtifactError, DataError, StageError, UsageError
from mlbench.core.files import read_lines, sha256_path
from mlbench.core.progress import set_sink
from mlbench.core.show import number
from mlbench.data.schema import infer_schema
from mlbench.data.splits import make_folds
from mlbench.deployment.parity import proven_onnx
from mlbench.features.plan import make_plan
from mlbench.models.registry import ModelSpec, candidates, model_spec
from mlbench.problem.problem import Problem
from mlbench.problem.target import make_target
from mlbench.training import (
    Ensemble,
    Model,
    calibrated,
    choice_sentence,
    choose,
    corrected_difference,
    corrected_interval,
    cost_figure,
    cross_validate,
    decision_figures,
    fit_chosen,
    fit_model,
    folds_figure,
    gain_sentence,
    holm,
    leaderboard_figure,
    learning_figure,
    limit_rows,
    oof_figure,
    rule_lines,
    tell,
    with_ensemble,
)


class Case:
    "A table with everything that training wants."

    def __init__(self, frame: pd.DataFrame, target: str, task: str, **more):
        self.frame = frame
        self.problem = Problem.from_dict({"name": "case", "task": task, "target": target, "data": "case.csv"} | more)
        self.schema, self.target = infer_schema(frame), make_target(frame[target], self.problem)
        self.plan, self.y = make_plan(self.schema, self.problem), self.target.encode(frame[target])
        self.folds = make_folds(frame, target=target, task=task, folds=3, seed=0)

    def compare(self, models, **more):
        specs = [m if isinstance(m, ModelSpec) else model_spec(m) for m in models]
        arguments = {"schema": self.schema, "target": self.target, "metrics": self.problem.metrics} | more
        return cross_validate(specs, self.plan, self.frame, self.y, self.folds, **arguments)

    def fit(self, name, **more):
        arguments = {"schema": self.schema, "target": self.target, "problem": self.problem} | more
        return fit_model(model_spec(name), self.plan, self.frame, self.y, **arguments)


def mixed(rows: int = 150) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": rng.normal(size=rows).round(3),
            "kind": rng.choice(["a", "b", "c"], rows),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, rows), unit="D"),
            "note": [f"came {w} on day {i} of the long year" for i, w in enumerate(rng.choice(["late", "soon"], rows))],
        }
    )
    frame["value"] = 3 * frame["size"] + frame["kind"].map({"a": 0, "b": 2, "c": -2}) + rng.normal(size=rows)
    frame["two"] = np.where(frame["value"] > 0, "yes", "no")
    frame["three"] = pd.cut(frame["value"], [-99, -1, 1, 99], labels=["low", "mid", "high"]).astype(str)
    frame.loc[::11, "size"] = np.nan
    return frame


@pytest.fixture(scope="module", params=["binary", "multiclass", "regression"])
def case(request) -> Case:
    target = {"binary": "two", "multiclass": "three", "regression": "value"}[request.param]
    return Case(mixed().drop(columns={"two", "three", "value"} - {target}), target, request.param)


@pytest.fixture(scope="module")
def found(case):
    return case.compare([s.name for s in candidates(case.problem.task)])


def test_every_model_is_compared_on_every_task(case, found):
    board = found.leaderboard
    assert not found.failures and board["rank"].tolist() == list(range(1, len(candidates(case.problem.task)) + 1))
    assert found.metric == case.problem.metric and found.chosen == board["model"].iloc[0]
    assert board["model"].iloc[0] not in ("dummy", "one_rule")
    low, mid, high = (board[found.metric + end] for end in ("_low", "", "_high"))
    assert (low <= mid).all() and (mid <= high).all()


def test_out_of_fold_predictions_come_from_models_that_did_not_see_the_row(case, found):
    frame = found.oof_frame()
    assert len(frame) == len(case.frame) and set(frame["fold"]) == {1, 2, 3}
    train, test = case.folds[0]
    spec = model_spec("linear")
    alone = fit_model(spec, case.plan, case.frame.iloc[train], case.y[train], schema=case.schema, target=case.target)
    np.testing.assert_allclose(alone.output(case.frame.iloc[test]), found.oof["linear"][test], rtol=1e-9, atol=1e-9)


def test_figures_and_sentences_of_every_task(found):
    for figure in (leaderboard_figure(found), folds_figure(found), cost_figure(found), learning_figure(found), oof_figure(found), oof_figure(found, "dummy")):
        assert figure.data and figure.layout.title.text
    assert found.chosen in gain_sentence(found).text and found.metric in found.why
    assert "chosen" in found._repr_html_() and found.chosen in repr(found)


@pytest.mark.parametrize("name", ["dummy", "one_rule", "linear", "hist_gradient_boosting", "lightgbm", "mlp"])
def test_a_saved_model_predicts_the_same_and_is_the_same_file(case, name, tmp_path):
    model = case.fit(name)
    model.save(tmp_path / "a")
    again = Model.load(tmp_path / "a")
    np.testing.assert_array_equal(again.output(case.frame), model.output(case.frame))
    assert list(again.predict(case.frame.head())) == list(model.predict(case.frame.head()))
    again.save(tmp_path / "b")
    case.fit(name).save(tmp_path / "c")
    assert sha256_path(tmp_path / "a") == sha256_path(tmp_path / "b") == sha256_path(tmp_path / "c")
    assert again.problem.target == case.problem.target


def test_one_fit_on_all_rows_gets_the_temperature_that_the_folds_have_found(case, monkeypatch, tmp_path):
    monkeypatch.setattr("mlbench.training.chosen.guarded_temperature", lambda *known: (1.7, "A temperature."))
    names = ["linear", "lightgbm"] + ["lightgbm_balanced"] * (case.problem.task != "regression")
    found = case.compare(names)
    made = lambda name, **more: fit_chosen(found, schema=case.schema, problem=case.problem, name=name, bagged=False, **more)
    for name in names:
        warm, own = made(name), made(name, calibrate=False)
        if case.problem.task == "regression" or name == "linear":
            np.testing.assert_array_equal(warm.output(case.frame), own.output(case.frame))
            assert not warm.blended
            continue
        np.testing.assert_allclose(warm.output(case.frame), calibrated(own.output(case.frame), 1.7), atol=1e-12)
        assert warm.facts["notes"][0] == "A temperature." and len(warm.pipeline.members_) == 1 and warm.facts["rows"] == len(case.frame)
        again = Model.load(warm.save(tmp_path / name))
        np.testing.assert_array_equal(again.output(case.frame), warm.output(case.frame))
        assert proven_onnx(again, case.frame, 1e-5, rows=80)[1].passed
    assert "is to be read" in "".join(made("linear").facts["notes"]) or case.problem.task == "regression"


def test_the_reason_beside_an_ensemble_ends_with_the_simplest_model_as_good_as_the_best(case, found, monkeypatch):
    whole = {n: np.nan_to_num(p) for n, p in found.oof.items() if n != "dummy"}
    weights = {n: float(n in ("linear", "lightgbm")) / 2 for n in whole}
    mixed = sum(w * whole[n] for n, w in weights.items())
    made = Ensemble(weights, None, mixed, 0.1, 0.01, "The mixture is better.", used=True)
    monkeypatch.setattr("mlbench.training.ensemble.guarded_ensemble", lambda *given, **more: made)
    both = with_ensemble(found)
    assert both.chosen == "ensemble" and both.why.startswith("The mixture is better.") and both.why == choice_sentence(both).text
    score = number(both.score(both.simplest)[both.metric])
    assert both.simplest == "ensemble" or both.why.endswith(f'`{both.simplest}` ({score}): `choose = "simplest"` would take that one.')
    assert with_ensemble(found, rule="simplest").why.count("simplest") == 1


def test_classes_come_back_in_the_type_of_the_table():
    frame = mixed().drop(columns=["two", "three", "value"]).assign(y=lambda f: (f["size"].fillna(0) > 0).astype(int))
    model = Case(frame, "y", "binary").fit("linear")
    assert model.predict(frame).dtype.kind == "i" and set(model.predict(frame)) <= {0, 1}
    assert list(model.classes_) == [0, 1]


def test_the_threshold_moves_the_positive_class(tmp_path):
    case = Case(mixed().drop(columns=["three", "value"]), "two", "binary", positive="yes")
    model = case.fit("linear")
    model.threshold = 0.9
    said = model.predict(case.frame) == "yes"
    np.testing.assert_array_equal(said, model.predict_proba(case.frame)[:, 1] >= 0.9)
    assert Model.load(model.save(tmp_path / "m")).threshold == 0.9


def test_wrong_rows_are_refused_with_all_that_is_wrong():
    case = Case(mixed().drop(columns=["three", "value"]), "two", "binary")
    model = case.fit("linear")
    with pytest.raises(DataError) as caught:
        model.predict(case.frame.drop(columns="kind").assign(day="someday"))
    assert "kind" in str(caught.value) and "someday" in str(caught.value)
    with pytest.raises(DataError, match="DataFrame"):
        model.predict([[1, 2]])
    assert len(model.predict(case.frame.head(0))) == 0 and model.predict_proba(case.frame.head(0)).shape == (0, 2)
    assert len(model.predict(case.frame[["note", "kind", "day", "size"]].assign(other=1))) == len(case.frame)


def test_predict_proba_of_a_regression_is_refused():
    model = Case(mixed().drop(columns=["two", "three"]), "value", "regression").fit("dummy")
    with pytest.raises(UsageError, match="predict"):
        model.predict_proba(mixed())
    assert model.classes_ is None


@pytest.mark.parametrize("damage", ["cut", "changed", "absent"])
def test_a_damaged_model_is_not_opened(damage, tmp_path):
    case = Case(mixed().drop(columns=["three", "value"]), "two", "binary")
    folder = case.fit("dummy").save(tmp_path / "m")
    file = folder / "model.skops"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "changed":
        record = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(record | {"sha256": "0" * 64}))
    else:
        file.unlink()
    with pytest.raises(ArtifactError, match="changed|no model"):
        Model.load(folder)


def test_a_type_from_elsewhere_is_not_opened(tmp_path):
    import hashlib

    import skops.io

    case = Case(mixed().drop(columns=["three", "value"]), "two", "binary")
    folder = case.fit("dummy").save(tmp_path / "m")
    evil = skops.io.dumps({"x": subprocess.Popen})
    (folder / "model.skops").write_bytes(evil)
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(record | {"sha256": hashlib.sha256(evil).hexdigest()}))
    with pytest.raises(ArtifactError, match="subprocess.Popen"):
        Model.load(folder)


def save_two(folder) -> list[str]:
    "Fit and save two models; their hashes."
    case = Case(mixed().drop(columns=["three", "value"]), "two", "binary")
    return [sha256_path(case.fit(name).save(Path(folder) / name)) for name in ("hist_gradient_boosting", "mlp")]


def test_the_same_model_in_another_process_is_the_same_file(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from test_training import save_two; save_two({str(tmp_path / 'there')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ, PYTHONHASHSEED="7"))
    assert save_two(tmp_path / "here") == [sha256_path(tmp_path / "there" / name) for name in ("hist_gradient_boosting", "mlp")]


def broken(given):
    raise ValueError("this one is broken")


def test_a_failing_model_is_recorded_and_the_others_go_on():
    case = Case(mixed().drop(columns=["three", "value"]), "two", "binary")
    found = case.compare([ModelSpec("linear", "linear", "linear", 2, "", "", broken), "dummy"])
    assert found.chosen == "dummy" and "broken" in found.failures["linear"]
    assert "linear" not in found.oof and "broken" in found.table()["note"].iloc[-1]
    findings = []
    stage = type("S", (), {"metric": lambda s, *a: None, "finding": lambda s, *a, **k: findings.append(a)})()
    tell(found, stage)
    assert {f[0] for f in findings} == {"model failed", "no gain"}


def test_all_failing_is_an_error_with_every_reason():
    case = Case(mixed().drop(columns=["three", "value"]), "two", "binary")
    with pytest.raises(StageError, match="this one is broken"):
        case.compare([ModelSpec("linear", "linear", "linear", 2, "", "", broken)])


def test_a_class_that_a_fold_does_not_know_gets_probability_zero():
    frame = mixed().drop(columns=["two", "value"])
    frame.loc[:1, "three"] = "rare"
    case = Case(frame, "three", "multiclass")
    case.folds = [(np.arange(2, 150), np.arange(0, 2)), (np.arange(0, 100), np.arange(100, 150))]
    found = case.compare(["dummy", "one_rule", "linear", "hist_gradient_boosting", "lightgbm", "mlp"])
    assert not found.failures
    rare = case.target.classes.index("rare")
    assert all((p[:2, rare] == 0).all() and p.shape[1] == 4 for p in found.oof.values())


def test_folds_by_time_leave_early_rows_without_prediction():
    frame = mixed().drop(columns=["two", "three"])
    case = Case(frame, "value", "regression", columns={"time": "day"})
    case.folds = make_folds(frame, target="value", task="regression", time="day", folds=3)
    found = case.compare(["dummy", "linear"])
    assert np.isnan(found.oof["linear"]).any() and (found.fold_of_row == 0).any()
    assert oof_figure(found).data


def test_progress_and_metrics_are_logged_by_model_and_fold(tmp_path):
    case = Case(mixed().drop(columns=["three", "value"]), "two", "binary")
    set_sink(tmp_path, "04_training")
    try:
        case.compare(["dummy", "mlp"])
    finally:
        set_sink(None)
    metrics, events = read_lines(tmp_path / "metrics.jsonl"), read_lines(tmp_path / "events.jsonl")
    scores = [m for m in metrics if "roc_auc" in m["values"]]
    assert {(m["labels"]["model"], m["labels"]["fold"]) for m in scores} == {(m, f) for m in ("dummy", "mlp") for f in (1, 2, 3)}
    epochs = [m for m in metrics if "validation_loss" in m["values"]]
    assert epochs and all(m["labels"]["model"] == "mlp" and m["step"] >= 1 for m in epochs)
    assert any("cross-validation" in e["what"] for e in events) and events[-1]["done"] == events[-1]["total"]


def test_the_choice_takes_the_simplest_within_noise(found):
    chosen, simplest, why = choose(found.leaderboard, found.metric, "simplest")
    assert chosen == simplest and model_spec(simplest).complexity <= model_spec(found.chosen).complexity
    assert f"`{chosen}`" in why
    with pytest.raises(UsageError, match="simplest"):
        choose(found.leaderboard, found.metric, "fastest")


def test_p_values_of_the_leaderboard_are_corrected_for_the_number_of_models(found):
    board = found.leaderboard
    of = {name: part[found.metric].to_numpy() for name, part in found.folds.groupby("model")}
    alone = [corrected_difference(of[m], of[board["model"].iloc[0]], found.ratio).p_value for m in board["model"].iloc[1:]]
    np.testing.assert_allclose(board["p_holm"].iloc[1:].to_numpy(dtype=float), holm(alone), rtol=1e-9)
    assert (board["within_noise"] == ~(board["p_holm"] <= 0.05)).all()
    np.testing.assert_allclose(board["p_value"].iloc[1:].to_numpy(dtype=float), alone, rtol=1e-9)


def test_a_model_that_only_the_correction_lets_pass_is_not_taken_for_the_best(found):
    board = found.leaderboard.head(3).assign(model=["lightgbm", "linear", "dummy"], complexity=[4, 2, 0], error="")
    board = board.assign(within_noise=True, p_value=[1.0, 0.3, 0.03], p_holm=[1.0, 0.6, 0.09])
    assert choose(board, found.metric, "simplest")[0] == "linear" and "for these two alone" in choose(board, found.metric, "simplest")[2]
    alone = board.assign(p_value=[1.0, 0.01, 0.03])
    assert choose(alone, found.metric, "simplest")[:2] == ("lightgbm", "lightgbm") and "all others are behind" in choose(alone, found.metric)[2]


def test_the_table_for_people_is_narrow_and_says_how_each_stands_to_the_best(found):
    table = found.table()
    assert list(table) == ["model", "chosen", *found.metrics[:3], "fit seconds", "note"]
    assert table["note"].iloc[0] == "" and table["note"].iloc[1:].str.fullmatch(r"(within noise|behind), p .+").all()
    assert sum(max(len(str(v)) for v in [column, *table[column]]) for column in table) <= 120
    assert found.leaderboard.shape[1] > table.shape[1] and f"{found.metrics[-1]}_low" in found.leaderboard


def test_how_the_answers_were_settled_is_drawn(case, found):
    model = fit_chosen(found, schema=case.schema, problem=case.problem, name="mlp")
    figures = decision_figures(found, model)
    assert list(figures) == {"binary": ["calibration", "threshold"], "multiclass": ["calibration"], "regression": []}[case.problem.task]
    assert all(f.data and f.layout.title.text for f in figures.values())
    plain = fit_chosen(found, schema=case.schema, problem=case.problem, name="linear")
    assert list(decision_figures(found, plain)) == list(figures), "a model that is read has a line too"
    if case.problem.task == "multiclass":
        model.problem = Problem.from_dict(case.problem.to_dict() | {"costs": {"low": {"high": 10}}})
        assert "least expected cost" in decision_figures(found, model)["threshold"].layout.title.text
    if case.problem.task != "regression":
        model.spec_name = "mpl"
        with pytest.raises(UsageError, match="Did you mean 'mlp'"):
            decision_figures(found, model)


def test_the_corrected_interval_is_wider_and_stays_within_the_metric():
    scores = [0.99, 0.97, 1.0, 0.98, 0.99]
    plain, corrected = corrected_interval(scores, 0.0), corrected_interval(scores, 0.25, best=1.0)
    assert corrected[1] < plain[1] and corrected[2] == 1.0
    assert all(np.isnan(v) for v in corrected_interval([np.nan], 0.25))
    assert corrected_difference([0.5, np.nan, 0.6], [0.4, 0.2, 0.5], 0.25).mean == pytest.approx(0.1)


def test_folds_that_do_not_belong_to_the_rows_are_refused():
    case = Case(mixed().drop(columns=["three", "value"]), "two", "binary")
    case.folds = [(np.arange(100), np.arange(100, 400))]
    with pytest.raises(UsageError, match="row 399"):
        case.compare(["dummy"])
    case.folds = []
    with pytest.raises(UsageError, match="no folds"):
        case.compare(["dummy"])


def test_limit_rows_keeps_every_class():
    y = np.array([0] * 500 + [1] * 498 + [2] * 2)
    rows = limit_rows(y, 50, classes=True, seed=3)
    assert set(y[rows]) == {0, 1, 2} and len(rows) <= 54
    np.testing.assert_array_equal(rows, limit_rows(y, 50, classes=True, seed=3))


def test_a_rule_on_a_date_and_another_model_is_refused():
    frame = mixed().drop(columns=["two", "three", "value"])
    frame["y"] = np.where(frame["day"] > pd.Timestamp("2024-06-01"), "after", "before")
    case = Case(frame, "y", "binary")
    column, table = rule_lines(case.fit("one_rule"))
    assert column == "day" and table["rows where"].str.contains("day:").all()
    with pytest.raises(UsageError, match="one_rule"):
        rule_lines(case.fit("dummy"))


def test_real_tables_reach_known_scores(shared_data):
    frame = pd.read_csv(shared_data("telco_churn.csv")).head(3000)
    case = Case(frame, "Churn", "binary", positive="Yes")
    found = case.compare(["dummy", "one_rule", "linear", "lightgbm"])
    scores = found.leaderboard.set_index("model")["roc_auc"]
    assert scores["linear"] > 0.82 and scores["lightgbm"] > 0.8 and scores["dummy"] == 0.5
    assert 0.65 < scores["one_rule"] < scores["linear"]
    column, table = rule_lines(case.fit("one_rule"))
    assert column in frame and len(table) < 12
