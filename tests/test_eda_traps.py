"Traps of every kind, in real tables that have them and in tables that have none: what stops, and what must not."

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mlbench.data.examples import load_example
from mlbench.data.schema import infer_schema
from mlbench.data.sources import read_table
from mlbench.eda import Findings, find_all, look_at, split_drift
from mlbench.eda.drift import adversarial, area_with_interval, level_shift
from mlbench.eda.labels import doubtful_classes, find_label_noise
from mlbench.eda.leaks import order_errors, target_parts
from mlbench.eda.quick import compare_folds, out_of_fold, quick_folds, quick_table
from mlbench.eda.rows import near_clusters
from mlbench.problem.target import make_target


def asked(target, task="binary", strategy="auto", **roles):
    "The part of a problem that the searches look at."
    roles = {"ignore": [], "group": None, "time": None, "sensitive": []} | roles
    split = SimpleNamespace(strategy=strategy, column=None, folds=5)
    return SimpleNamespace(target=target, task=task, positive=None, metric=None, columns=SimpleNamespace(**roles), split=split)


def looked(frame, target, task="binary", **roles):
    problem = asked(target, task, **roles)
    return look_at(frame, infer_schema(frame), problem, make_target(frame[target], problem))


def real(path, rows=2_500):
    frame = read_table(path).frame
    at = np.sort(np.random.default_rng(0).permutation(len(frame))[:rows])
    return frame.iloc[at].reset_index(drop=True)


def stopped(findings):
    return {c for f in findings if f.severity == "stop" for c in f.columns}


def noise(n=1_200, classes=2, seed=0):
    "Columns of every kind that have nothing to do with the target."
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, 8)).round(3), columns=[f"x{i}" for i in range(8)])
    frame["town"], frame["plan"] = rng.choice([f"t{i}" for i in range(200)], n), rng.choice(["a", "b", "c"], n)
    frame["since"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 700, n), unit="D")
    frame.loc[rng.random(n) < 0.2, "x1"] = np.nan
    return frame.assign(y=rng.normal(size=n) if classes is None else rng.integers(0, classes, n))


def test_compas_after_the_fact(shared_data):
    frame = real(shared_data("compas_two_years.csv.gz"))
    look = looked(frame, "two_year_recid", time="compas_screening_date")
    found = find_all(look, label_noise=False, adversarial=False)
    assert {"is_recid", "r_offense_date", "r_charge_degree", "r_charge_desc"} <= stopped(found)
    assert not stopped(found) & {"age", "priors_count", "sex", "race", "c_charge_degree", "juv_fel_count", "dob", "age_cat"}
    assert {"r_offense_date", "vr_offense_date"} <= {c for f in found.of("late date") for c in f.columns}
    assert "decile_score" in found.of("another answer").found[0].columns
    copies = [set(f.columns) for f in found.of("same columns")]
    assert {"decile_score", "decile_score.1"} in copies and {"priors_count", "priors_count.1"} in copies
    assert "is_recid" in found.found[0].columns or "is_recid" in found.found[1].columns


def test_bike_sharing_sum_order_and_shift(shared_data):
    frame = real(shared_data("bike_sharing_hourly.csv.gz"))
    found = find_all(looked(frame, "cnt", "regression"), label_noise=False)
    assert stopped(found) >= {"registered", "casual"} and not stopped(found) & {"temp", "hum", "windspeed", "holiday"}
    assert found.of("time leak").found[0].columns == ["date"] and found.of("time leak").found[0].evidence["low"] > 0
    by_time = find_all(looked(frame, "cnt", "regression", time="date"), label_noise=False, adversarial=False)
    assert not len(by_time.of("time leak"))
    shift = by_time.of("drift").found[0]
    assert shift.columns == ["cnt"] and shift.evidence["later"] > 1.3 * shift.evidence["earlier"]


@pytest.mark.parametrize(
    "file, target, task",
    [("hr_attrition.csv", "Attrition", "binary"), ("titanic.csv", "Survived", "binary"), ("telco_churn.csv", "Churn", "binary")],
)
def test_nothing_stops_where_nothing_should(shared_data, file, target, task):
    found = find_all(looked(real(shared_data(file), 1_500), target, task))
    assert not stopped(found) and not len(found.of("leak", "time leak", "too easy"))
    assert [f.severity for f in found.of("label noise")] in ([], ["note"])


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes", "iris", "generated_churn", "generated_prices"])
def test_clean_examples_are_clean(name):
    example = load_example(name)
    found = find_all(looked(example.frame.head(1_500), example.target, example.task))
    assert not [f for f in found if f.severity != "note"], found


@pytest.mark.parametrize("classes", [2, 4, None], ids=["binary", "multiclass", "regression"])
def test_noise_gives_no_warning(classes):
    frame = noise(classes=classes)
    task = {2: "binary", 4: "multiclass", None: "regression"}[classes]
    for roles in ({}, {"time": "since"}):
        found = find_all(looked(frame, "y", task, **roles))
        assert not [f for f in found if f.severity != "note"], found
    assert split_drift(frame, np.random.default_rng(1).permutation(len(frame))[:240], infer_schema(frame), asked("y", task)) == []


def test_duplicates_are_judged_by_what_they_do(shared_data):
    wine = find_all(looked(real(shared_data("wine_quality.csv.gz")), "quality", "regression"), label_noise=False, adversarial=False)
    copies = wine.of("duplicate rows").found[0]
    assert copies.evidence["share"] > 0.02 and copies.evidence["random"] > copies.evidence["honest"]
    scan = looked(real(shared_data("mammography.csv.gz"), 4_000), "target")
    (copies,) = find_all(scan, label_noise=False, adversarial=False).of("duplicate rows")
    assert copies.severity == "note" and "no sure difference" in copies.what


@pytest.mark.parametrize("flips", [0.0, 0.1])
def test_flipped_labels_are_found_and_clean_ones_left_alone(flips):
    example = load_example("breast_cancer")
    rng = np.random.default_rng(0)
    wrong = rng.random(len(example.frame)) < flips
    words = {"benign": "malignant", "malignant": "benign"}
    frame = example.frame.assign(diagnosis=example.frame["diagnosis"].where(~wrong, example.frame["diagnosis"].map(words)))
    look = looked(frame, "diagnosis")
    found = list(find_label_noise(look))
    if not flips:
        assert not [f for f in found if f.severity != "note"]
        return
    rows = look.quick.at[doubtful_classes(look.quick.y, look.quick.out)["row"].to_numpy(dtype=int)]
    assert found[0].severity == "warning" and len(found[0].details) == 10
    assert wrong[rows].mean() > 0.6 and wrong[rows].sum() > 0.6 * wrong.sum()


def test_rare_and_absent_classes_are_left_alone():
    p = np.full((30, 3), 1 / 3)
    assert doubtful_classes(np.r_[np.zeros(28, int), 1, 2], p).empty
    frame = noise(300).assign(y=["rare" if i < 2 else "ab"[i % 2] for i in range(300)])
    assert len(find_all(looked(frame, "y", "multiclass"))) > 0


def test_the_target_of_the_test_rows_is_never_read():
    "The same answer whatever the test rows' target is, even none."
    frame = noise(800).assign(level=np.arange(800) + np.random.default_rng(2).normal(0, 20, 800))
    test, schema, problem = np.arange(640, 800), infer_schema(frame), asked("y")
    answers = []
    for value in (0, 1, np.nan):
        changed = frame.astype({"y": "float64"})
        changed.loc[test, "y"] = value
        answers.append([f.to_dict() for f in split_drift(changed, test, schema, problem, "time")])
    assert answers[0] == answers[1] == answers[2] and answers[0][0]["columns"] == ["level"]
    assert answers[0][0]["kind"] == "drift" and answers[0][0]["evidence"]["low"] > 0.9


def test_a_random_split_that_is_not_random():
    frame = noise(800)
    test = np.flatnonzero(frame["plan"] == "a")
    (odd,) = split_drift(frame, test, infer_schema(frame), asked("y"), "random")
    assert odd.severity == "warning" and odd.columns == ["plan"]


def test_findings_of_the_split_come_along():
    before = [{"kind": "drift", "what": "the test rows can be told", "severity": "stop", "columns": ["x0"]}]
    found = find_all(looked(noise(300), "y"), label_noise=False, adversarial=False, before=before)
    assert found.found[0].what == "the test rows can be told" and found.found[0].severity == "stop"


def test_sums_products_cuts():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.gamma(2, 3, 500), "b": rng.gamma(3, 2, 500), "gap": np.where(rng.random(500) < 0.3, np.nan, rng.normal(size=500))})
    assert target_parts(looked(frame.assign(y=2 * frame["a"] - frame["b"]), "y", "regression"))[:2] == ("add up to", ["a", "b"])
    assert target_parts(looked(frame.assign(y=frame["a"] / frame["b"]), "y", "regression"))[0] == "multiply to"
    assert target_parts(looked(frame.assign(y=frame["a"] + frame["gap"].fillna(0)), "y", "regression"))[1] == ["a", "gap"]
    assert target_parts(looked(frame.assign(y=frame["a"] + rng.normal(size=500)), "y", "regression"))[1] == []
    assert order_errors(frame["a"].to_numpy(), (frame["a"] > 5).to_numpy(int)) == 0
    assert order_errors(np.arange(20.0), np.arange(20) // 10) == 1, "too few rows to say"


def test_an_encoded_and_a_one_sided_answer_stop_or_warn():
    frame = noise(900)
    frame["code"] = frame["y"].map({0: 17, 1: -4})
    frame["called"] = np.where((frame["y"] == 1) & (np.arange(900) % 3 == 0), "yes", "no")
    frame["note"] = np.where((frame["y"] == 1) & (np.arange(900) % 3 == 1), "spoke to them", None)
    found = find_all(looked(frame, "y"), label_noise=False, adversarial=False)
    assert {"code", "note"} <= stopped(found)
    assert [f.severity for f in found.of("leak") if f.columns == ["called"]] == ["warning"]


def test_groups_in_folds_flatter_and_are_named():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(200), 5)
    X = np.repeat(rng.normal(size=(200, 3)), 5, axis=0) + rng.normal(0, 0.01, (1000, 3))
    frame = pd.DataFrame(X, columns=list("abc")).assign(patient=[f"P{i:03d}" for i in who], y=np.repeat(rng.integers(0, 2, 200), 5))
    torn = find_all(looked(frame, "y"), label_noise=False, adversarial=False).of("torn groups").found[0]
    assert torn.columns == ["patient"] and torn.evidence["low"] > 0.1 and "group: patient" in torn.proposal
    kept = looked(frame, "y", group="patient")
    assert not len(find_all(kept, label_noise=False, adversarial=False).of("torn groups"))
    assert compare_folds(X, frame["y"].to_numpy(), 2, rng.integers(0, 200, 1000)).low < 0.1


def test_near_twins_are_found_across_rounding_case_and_one_column():
    frame = noise(400)[["x0", "x2", "plan", "town"]]
    again = frame.assign(plan=frame["plan"].str.upper() + " ", x0=frame["x0"] * (1 + 1e-9), town="elsewhere")
    codes, without = near_clusters(pd.concat([frame, again], ignore_index=True))
    assert without == "town" and (codes[:400] == codes[400:]).mean() > 0.95


def test_everything_is_the_same_again():
    frame = noise(600).assign(level=np.arange(600) + np.random.default_rng(0).normal(0, 60, 600))
    first, again = (find_all(looked(frame, "y", time="since")).records() for _ in range(2))
    assert json.dumps(first) == json.dumps(again)


def test_odd_tables_do_not_crash_the_experiments():
    n = 260
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"empty": np.nan, "infinite": np.r_[np.inf, -np.inf, np.zeros(n - 2)], "when": pd.NaT, "one": 1, "x": rng.normal(size=n)})
    frame["words"] = "a few words that repeat in every row " + pd.Series(rng.integers(0, 99, n).astype(str))
    frame["y"] = np.arange(n) % 2
    for target, task in (("y", "binary"), ("x", "regression")):
        found = find_all(looked(frame, target, task))
        assert isinstance(found, Findings) and json.dumps(found.records()) and found._repr_html_()
    assert find_all(looked(frame[["one", "y"]], "y")).sentence()
    look = looked(frame.assign(when=pd.Timestamp("2024-01-01")), "y", time="when")
    assert find_all(look) is not None and level_shift(look)["p"] > 0.001


def test_the_quick_model_is_bounded():
    frame = noise(6_000)
    wide = pd.concat([frame, pd.DataFrame(np.random.default_rng(1).normal(size=(6_000, 60)), columns=[f"w{i}" for i in range(60)])], axis=1)
    quick = quick_table(wide, wide["y"].to_numpy(), 2, infer_schema(wide), [c for c in wide if c != "y"])
    assert quick.X.shape[0] == 2_500 and len(quick.names) == 30
    out = out_of_fold(quick.X[:300], np.r_[np.zeros(297, int), 1, 2, 2], 3, quick_folds(np.zeros(300, int), 3))
    assert np.allclose(out.sum(axis=1), 1)
    assert "2,500 of 6,000 rows" in find_all(looked(wide.head(6_000), "y"), label_noise=False).of("sampled").found[-1].what


def test_alike_parts_are_alike():
    rng = np.random.default_rng(0)
    frame = noise(900)
    schema, names = infer_schema(frame), ["x0", "x1", "town", "plan"]
    lows = [adversarial(frame, rng.random(900) < 0.3, schema, names, seed=s).low for s in range(5)]
    assert max(lows) < 0.55
    area, low, high = area_with_interval(rng.random(500) < 0.5, rng.random(500))
    assert low < 0.5 < high and abs(high - area - (area - low)) < 1e-9
