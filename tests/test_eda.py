"Looking at the data: strength of columns, quality, findings and figures, on odd tables and real ones."

from __future__ import annotations

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mlbench.core.errors import DataError, UsageError
from mlbench.data.schema import infer_schema
from mlbench.eda import column_against_target, correlation_figure, find_all, look_at, missing_figure, quality_report, quality_sentence
from mlbench.eda.findings import Findings
from mlbench.eda.look import Finding, candidate_columns
from mlbench.eda.quality import placeholders
from mlbench.eda.rows import contradictions, row_hashes
from mlbench.eda.strength import bin_codes, column_strength, fold_numbers, strengths
from mlbench.eda.views import group_column, strength_figure, wilson_interval
from mlbench.problem.target import Target, make_target


def asked(target, task="binary", **roles):
    "The part of a problem that the searches look at."
    roles = {"ignore": [], "group": None, "time": None, "sensitive": []} | roles
    return SimpleNamespace(target=target, task=task, positive=None, columns=SimpleNamespace(**roles), split=SimpleNamespace(column=None, folds=5))


def searched(frame, target, task="binary", **roles):
    "Everything that is found in a table."
    problem = asked(target, task, **roles)
    look = look_at(frame, infer_schema(frame), problem, make_target(frame[target], problem))
    return look, find_all(look)


def shop(n=400, seed=0):
    rng = np.random.default_rng(seed)
    plan = rng.choice(["basic", "gold"], n)
    left = np.where(rng.random(n) < 0.2 + 0.4 * (plan == "basic"), "Yes", "No")
    return pd.DataFrame({"age": rng.integers(18, 80, n), "plan": plan, "spend": rng.normal(50, 9, n).round(2), "left": left})


COPIES = {"same": {"Yes": "Yes", "No": "No"}, "coded": {"Yes": 1, "No": 0}, "missing": {"Yes": "paid", "No": None}}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_a_column_that_equals_the_target_stops(copy):
    frame = shop()
    _, found = searched(frame.assign(answer=frame["left"].map(copy)), "left")
    assert found.found[0].kind == "leak" and found.found[0].severity == "stop" and found.found[0].columns == ["answer"]
    assert '-p \'features.exclude=["answer"]\'' in found.found[0].proposal


def test_a_shifted_copy_of_a_quantity_is_a_leak():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.uniform(40, 200, 900)})
    frame["price"] = 3000 * frame["size"] + rng.normal(0, 60_000, 900)
    frame["price_with_tax"] = frame["price"] * 1.19
    _, found = searched(frame, "price", "regression")
    assert any(f.kind == "leak" and f.columns == ["price_with_tax"] for f in found)
    assert not any("size" in f.columns for f in found.of("leak"))


def test_honest_columns_are_no_leaks():
    _, found = searched(shop(), "left")
    assert not len(found.of("leak", "duplicate rows", "contradictions"))


def test_an_identifier_is_no_leak_although_it_separates_every_row():
    frame = shop().assign(customer_id=[f"C{i:04d}" for i in range(400)])
    look, found = searched(frame, "left")
    assert look.strengths.set_index("column").loc["customer_id", "strength"] == 0
    assert found.of("identifier").found[0].columns == ["customer_id"]


def test_rows_of_a_group_do_not_teach_about_each_other():
    "Every household has its own rent and its own answer: strong by rows, nothing by households."
    rng = np.random.default_rng(0)
    household, answer = np.repeat(np.arange(300), 4), np.repeat(rng.integers(0, 2, 300), 4)
    codes = bin_codes(pd.Series(household).astype(str), "categorical")
    assert column_strength(codes, answer, 2, fold_numbers(1200)) > 0.5
    assert column_strength(codes, answer, 2, fold_numbers(1200, groups=household)) == 0


def test_duplicates_and_contradictions_are_counted():
    frame = shop()
    wrong = frame.head(10).assign(left=frame["left"].head(10).map({"Yes": "No", "No": "Yes"}))
    _, found = searched(pd.concat([frame, frame.iloc[100:125], wrong], ignore_index=True), "left")
    assert found.of("duplicate rows").found[0].evidence["rows"] == 25
    assert found.of("contradictions").found[0].evidence["rows"] == 20
    assert "at least 10 rows of 435 wrong" in found.of("contradictions").found[0].proposal


def test_contradictions_count_what_no_model_can_get_right():
    assert contradictions(np.array([1, 1, 1, 2, 2, 3], dtype="uint64"), np.array([0, 0, 1, 1, 1, 0])) == (3, 1 / 6)
    assert contradictions(np.array([1, 2], dtype="uint64"), np.array([0, 1])) == (0, 0.0)
    assert len(row_hashes(pd.DataFrame(index=range(3)))) == 3


def test_missing_values_hash_alike():
    frame = pd.DataFrame({"a": [np.nan, np.nan], "b": pd.array([None, None], dtype="str")})
    assert len(np.unique(row_hashes(frame))) == 1


def test_five_thousand_columns_take_seconds():
    rng = np.random.default_rng(1)
    frame = pd.concat([shop(300), pd.DataFrame(rng.normal(size=(300, 5000)).round(3), columns=[f"sensor_{i}" for i in range(5000)])], axis=1)
    frame = pd.concat([frame.assign(cancelled=frame["left"].map({"Yes": "1 cancelled", "No": "0 stayed"})), frame.head(0)], ignore_index=True)
    frame = pd.concat([frame, frame.head(40)], ignore_index=True)
    schema, problem = infer_schema(frame), asked("left")
    start = time.process_time()
    found = find_all(look_at(frame, schema, problem, make_target(frame["left"], problem)))
    assert time.process_time() - start < 20
    assert found.found[0].columns == ["cancelled"] and found.of("duplicate rows").found[0].evidence["rows"] == 40
    assert len(found) < 20, "noise gives no findings"
    assert "duplicate" in json.dumps(found.records())


def test_drift_needs_a_time_column():
    n = 1000
    level = np.arange(n) + np.random.default_rng(0).normal(0, 50, n)
    frame = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=n), "level": level, "y": np.tile([0, 1], n // 2)})
    assert not len(searched(frame, "y")[1].of("drift"))
    drift = searched(frame, "y", time="day")[1].of("drift")
    assert [f.columns for f in drift] == [["level"]]


def test_sampling_is_told():
    frame = shop(5000)
    for i in range(50):
        frame[f"x{i}"] = np.arange(5000) % (i + 2)
    problem, schema = asked("left"), infer_schema(frame)
    look = look_at(frame, schema, problem, make_target(frame["left"], problem))
    look.strengths.attrs["rows"] = 2000
    assert "2,000 of 5,000 rows" in find_all(look).of("sampled").found[0].what


@pytest.mark.parametrize("rows", [2, 3, 7])
def test_tiny_tables_do_not_crash(rows):
    frame = shop().groupby("left").head(rows).reset_index(drop=True)
    look, found = searched(frame, "left")
    assert len(found.table()) == len(found)
    for name in frame:
        column_against_target(frame, name, look.target)


def test_odd_columns_do_not_crash():
    n = 60
    frame = pd.DataFrame({
        "empty": pd.array([None] * n, dtype="str"),
        "infinite": np.r_[np.inf, -np.inf, np.arange(n - 2)],
        "one": 1,
        "flag": np.tile([True, False], n // 2),
        "when": pd.date_range("2024-01-01", periods=n, freq="D"),
        "<b>name</b>": [f"w{i % 3}" for i in range(n)],
        "huge": np.full(n, 1e300),
        "y": np.tile(["a", "b", "c"], n // 3),
    })
    look, found = searched(frame, "y", "multiclass")
    assert {"empty", "one", "huge"} <= {c for f in found.of("constant") for c in f.columns}
    assert "infinite value" in look.quality.set_index("column").loc["infinite", "notes"]
    figures = [column_against_target(frame, c, look.target) for c in frame] + [missing_figure(look.quality), strength_figure(look.strengths)]
    assert all(json.loads(f.to_json()) for f in figures)
    assert "<b>name</b>" not in found._repr_html_()
    correlation_figure(frame, look.of("numeric"))


def test_a_table_with_nothing_but_the_target():
    look, found = searched(pd.DataFrame({"y": [0, 1] * 20}), "y")
    assert look.most_telling == "y" and strength_figure(look.strengths).layout.title.text == "No column says anything alone"
    assert found.sentence()


def test_a_target_with_gaps_is_refused():
    frame = shop()
    frame.loc[3, "left"] = None
    problem = asked("left")
    with pytest.raises(DataError, match="no target 'left'"):
        look_at(frame, infer_schema(frame), problem, make_target(frame["left"], problem))


def test_roles_are_not_candidates():
    frame = shop().assign(household=1, part="train")
    problem = asked("left", ignore=["age"], group="household")
    problem.split.column = "part"
    assert candidate_columns(infer_schema(frame), problem) == ["plan", "spend"]


def test_wrong_calls_name_what_is_near():
    frame = shop()
    with pytest.raises(UsageError, match="'spend'"):
        column_against_target(frame, "spent", Target("left", "binary", ["No", "Yes"], "Yes"))
    with pytest.raises(UsageError, match="'plan'"):
        strengths(frame, np.zeros(400, int), infer_schema(frame), 2, ["plam"])
    with pytest.raises(UsageError, match="same length"):
        column_strength(np.zeros(3, int), np.zeros(4, int), 2, np.zeros(3, int))


def test_the_same_seed_gives_the_same_findings():
    first, again = (searched(shop(), "left")[1].records() for _ in range(2))
    assert first == again


def test_findings_are_told_worst_first():
    told = []
    found = Findings([Finding("leak", "a", "stop"), Finding("missing", "b", "note")])
    found.tell(SimpleNamespace(finding=lambda *entry: told.append(entry)))
    assert [t[2] for t in told] == ["stop", "note"] and found.sentence() == "2 findings: 1 to stop for, 1 note. First: a."


def test_groups_of_a_column():
    codes, names = group_column(pd.Series([np.nan] * 4 + [1.5] * 4))
    assert names == ["1.5", "missing"] and codes.tolist() == [1] * 4 + [0] * 4
    assert group_column(pd.Series([np.nan] * 3))[1] == ["missing"]
    low, high = wilson_interval(np.array([0]), np.array([0]))
    assert low[0] == 0 and high[0] > 0.999999


def test_placeholders_need_distance():
    assert placeholders(np.array([])) == [] and placeholders(np.full(50, 999.0)) == []
    assert placeholders(np.r_[np.arange(1000.0), [999.0] * 5]) == []
    assert placeholders(np.r_[np.arange(40.0), [-999.0] * 5]) == [(-999.0, 5)]


@pytest.mark.parametrize(
    "file, target, task, roles, expected",
    [
        ("adult.csv.gz", "income", "binary", {}, {"placeholder": "capital-gain", "same columns": "education", "duplicate rows": None}),
        ("bike_sharing_hourly.csv.gz", "cnt", "regression", {"time": "date"}, {"leak": "registered", "drift": "cnt", "same columns": "atemp"}),
        ("california_housing.csv.gz", "MedHouseVal", "regression", {}, {"capped target": None}),
        ("hr_attrition.csv", "Attrition", "binary", {}, {"constant": "EmployeeCount", "identifier": "EmployeeNumber"}),
        ("wine_quality.csv.gz", "quality", "multiclass", {}, {"duplicate rows": None, "imbalance": None}),
        ("ames_house_prices.csv", "SalePrice", "regression", {}, {"missing": "PoolQC", "skewed target": None, "identifier": "Id"}),
    ],
)
def test_what_is_known_about_real_data_is_found(shared_data, file, target, task, roles, expected):
    from mlbench.data.sources import read_table

    frame = read_table(shared_data(file)).frame
    look, found = searched(frame, target, task, **roles)
    for kind, column in expected.items():
        assert found.of(kind).found, kind
        assert column is None or any(column in f.columns for f in found.of(kind)), (kind, column)
    assert 0 < len(found) <= 25
    assert "of the cells are filled" in quality_sentence(quality_report(frame, look.schema))


def test_the_package_imports_nothing_heavy():
    code = "import sys, mlbench.eda; print(sorted(m for m in ('pandas', 'plotly', 'sklearn', 'scipy') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
