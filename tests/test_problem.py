"problem.yaml: everything that people write wrongly, told at once with its line; tables that do not fit; proposals for real tables."

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from mlbench.core.errors import ProblemError, UsageError
from mlbench.data.schema import infer_schema
from mlbench.problem.checks import check_frame, labelled_rows
from mlbench.problem.problem import Problem
from mlbench.problem.proposal import _scalar, choose_target, problem_yaml, propose

BASE = {"name": "shop", "task": "binary", "data": "shop.csv", "target": "left"}


def write(folder, text):
    (folder / "problem.yaml").write_text(text)
    return folder


def refusal(folder, text):
    with pytest.raises(ProblemError) as refused:
        Problem.load(write(folder, text))
    return str(refused.value)


def test_the_file_of_the_design_is_read(tmp_path):
    text = """
name: churn
question: Which customers leave next month?
task: binary
data: {source: data/customers.csv}
target: churned
positive: "Yes"
columns:
  ignore: [customer_id]
  group: household
  time: signup_date
  sensitive: [gender, age_band]
  kinds: {notes: text}
metric: roc_auc
also: [log_loss, brier, f1]
success: {roc_auc: ">= 0.84", latency_p95_ms: "<= 10", model_size_mb: "<= 50", equalized_odds_difference: "<= 0.10"}
constraints: {time_budget_s: 300, memory_gb: 8, interpretable: false, device: auto}
split: {strategy: auto, test: 0.2, folds: 5, seed: 7}
"""
    problem = Problem.load(write(tmp_path, text))
    assert problem.base == tmp_path.resolve() and problem.seed == 7 and problem.columns.kinds == {"notes": "text"}
    assert problem.data.source == "data/customers.csv" and len(problem.criteria()) == 4
    assert problem.split_settings()["time"] == "signup_date" and problem.fold_settings()["group"] == "household"
    assert "Which customers leave" in repr(problem) and "<table>" in problem._repr_html_()


@pytest.mark.parametrize(
    "lines, words",
    [
        ("task: binray", ["line 2", "'binary'"]),
        ("task: forecast", ["line 2", "no notebooks"]),
        ("task: binary\nmetrik: auc", ["line 3", "Did you mean 'metric'"]),
        ("task: binary\nmetric: auc", ["line 3", "Write 'roc_auc'"]),
        ("task: regression\nmetric: roc_auc", ["line 3", "for binary, not for regression"]),
        ("task: regression\npositive: 1", ["line 3", "Remove the line"]),
        ("task: binary\nsplit: {test: 20}", ["line 3", "split.test is 20"]),
        ("task: binary\nsplit:\n  folds: one", ["line 4", "split.folds is 'one'"]),
        ("task: binary\nsplit: {strategy: group}", ["line 3", "needs columns.group"]),
        ("task: binary\nsplit: {strategy: column}", ["line 3", "needs split.column"]),
        ("task: binary\nsuccess: {roc_auc: 0.8}", ["line 3", 'Write ">= 0.8"']),
        ("task: binary\nsuccess: {log_loss: '> 0.2'}", ["line 3", "ask for a bad model"]),
        ("task: binary\nsuccess: {speed: '< 2'}", ["line 3", "nothing that mlbench measures"]),
        ("task: binary\nsuccess: {equalized_odds_difference: '< 0.1'}", ["line 3", "sensitive: [COLUMN]"]),
        ("task: binary\ncolumns: {ignore: [left]}", ["line 3", "which is the target"]),
        ("task: binary\ncolumns: {kinds: {a: number}}", ["line 3", "'number', which is unknown", "numeric"]),
        ("task: binary\nconstraints: {device: gpu}", ["line 3", "constraints.device is 'gpu'"]),
        ("task: binary\nconstraints: {time_budget_s: -1}", ["line 3", "constraints.time_budget_s is -1"]),
        ("task: binary\ncolumns: 7", ["line 3", "columns is 7"]),
    ],
)
def test_each_mistake_has_its_line_and_its_fix(tmp_path, lines, words):
    text = refusal(tmp_path, f"name: shop\n{lines}\ndata: {{source: a.csv}}\ntarget: left\n")
    assert text.startswith("problem.yaml: ") and "Traceback" not in text
    for word in words:
        assert word in text, text


def test_all_mistakes_come_together(tmp_path):
    text = refusal(tmp_path, "name: shop\ntask: binary\ndata: {sorce: a.csv}\ncolums: {}\nmetric: auc\nsplit: {test: 3}\nalso: [rmse]\n")
    wanted = ["'data.sorce'", "data.source is missing", "'colums'", "target is missing", "'auc'", "split.test", "'rmse'"]
    assert "7 mistakes" in text and all(w in text for w in wanted)
    numbers = [int(line.split("line ")[1].split(":")[0]) for line in text.splitlines() if "line " in line]
    assert numbers == sorted(numbers)


def test_files_that_are_no_problem(tmp_path):
    assert "mlbench new" in refusal_of_missing(tmp_path)
    assert "nothing in it" in refusal(tmp_path, "")
    assert "nothing in it" in refusal(tmp_path, "- a\n- b\n")
    with pytest.raises(UsageError, match="line 3 is not YAML"):
        Problem.load(write(tmp_path, "name: a\ntask: [binary\n"))


def refusal_of_missing(folder):
    with pytest.raises(ProblemError) as refused:
        Problem.load(folder)
    return str(refused.value)


def test_no_password_leaves_a_problem(tmp_path):
    text = 'name: a\ntask: binary\ntarget: y\ndata: {source: "postgresql://ann:s3cr3t@db/shop", querry: select 1}\n'
    assert "s3cr3t" not in refusal(tmp_path, text)
    problem = Problem.load(write(tmp_path, text.replace("querry", "query")))
    shown = f"{problem!r}{problem._repr_html_()}{problem.to_dict()}{problem}"
    assert "s3cr3t" not in shown and "s3cr3t" in problem.data.source


def test_paths_start_at_the_file(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    pd.DataFrame({"age": range(30), "left": ["a", "b"] * 15}).to_csv(tmp_path / "data" / "x.csv", index=False)
    problem = Problem.load(write(tmp_path, "name: a\ntask: binary\ntarget: left\ndata: data/x.csv\n"))
    monkeypatch.chdir(os.sep)
    assert len(problem.read().frame) == 30 and len(problem.read(n_rows=7).frame) == 7
    before = problem.fingerprint()
    assert before and before == problem.fingerprint()
    with (tmp_path / "data" / "x.csv").open("a") as file:
        file.write("31,a\n")
    assert problem.fingerprint() != before


def test_settled_knows_the_positive_class():
    from mlbench.problem.target import make_target

    problem = Problem.from_dict(BASE)
    target = make_target(pd.Series(["no", "yes"]), problem)
    assert problem.positive is None and problem.settled(target)["positive"] == "yes" and Problem.from_dict(problem.settled(target)).positive == "yes"


def shop(n=60):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"age": rng.integers(18, 80, n), "plan": rng.choice(["a", "b"], n), "left": rng.choice(["no", "yes"], n)})


@pytest.mark.parametrize(
    "frame, changes, words",
    [
        (shop(), {"target": "lefd"}, ["'left'"]),
        (shop(), {"target": "Left"}, ["Did you mean 'left'"]),
        (shop().assign(left=None), {}, ["no value in any of 60 rows"]),
        (shop().assign(left="no"), {}, ["'no' in all 60 rows", "nothing to tell apart"]),
        (shop(2).assign(left=["no", "yes"]), {}, ["2 rows", "Bring more rows"]),
        (shop(40).assign(left=range(40)), {}, ["40 different values", "task: regression"]),
        (shop(40).assign(left=[f"w{i % 5}" for i in range(40)]), {}, ["5 different values", "task: multiclass"]),
        (shop(), {"positive": "Yes"}, ["'Yes', which does not occur", "positive: 'no' or positive: 'yes'"]),
        (shop(), {"task": "regression"}, ["are no numbers", "task: binary"]),
        (shop(60).assign(left=[f"n{i}" for i in range(60)]), {"task": "multiclass"}, ["most occur once"]),
        (shop(300).assign(left=np.arange(300)), {"task": "multiclass"}, ["300 different numbers", "task: regression"]),
        (shop(), {"columns": {"group": "household"}}, ["columns.group names 'household'"]),
        (shop(), {"columns": {"sensitive": ["agee", "pln"]}}, ["Did you mean 'age'", "'pln'"]),
        (shop(), {"columns": {"time": "plan"}}, ["no dates that could be ordered"]),
        (shop().assign(day=[None] + ["2024-01-01"] * 59), {"columns": {"time": "day"}}, ["missing in 1 row"]),
        (shop(), {"columns": {"kinds": {"nots": "text"}}}, ["columns.kinds names 'nots'"]),
        (shop(), {"split": {"column": "part"}}, ["split.column names 'part'"]),
        (shop()[["left"]], {}, ["no column is left"]),
        (shop().head(0), {}, ["no rows"]),
    ],
)
def test_a_table_that_does_not_fit_says_what_to_do(frame, changes, words):
    with pytest.raises(ProblemError) as refused:
        check_frame(Problem.from_dict(BASE | changes), frame)
    for word in words:
        assert word in str(refused.value), str(refused.value)


def test_rows_without_target_are_left_out_and_do_not_count():
    frame = shop().assign(left=["no", "yes"] * 6 + [None] * 48)
    check_frame(Problem.from_dict(BASE), frame)
    assert len(labelled_rows(frame, "left")) == 12
    with pytest.raises(ProblemError, match="6 rows with a target"):
        check_frame(Problem.from_dict(BASE), frame.tail(54))


REAL = [
    ("adult.csv.gz", "income", {"task": "binary", "positive": ">50K"}, {"ignore": None, "sensitive": {"race", "sex", "marital-status", "native-country"}}),
    ("telco_churn.csv", "Churn", {"task": "binary", "positive": "Yes"}, {"ignore": {"customerID"}, "sensitive": {"gender", "SeniorCitizen"}}),
    ("ames_house_prices.csv", "SalePrice", {"task": "regression", "metric": "rmse"}, {"ignore": {"Id"}, "sensitive": None}),
    ("wine_quality.csv.gz", "quality", {"task": "multiclass", "metric": "log_loss"}, {"ignore": None}),
    ("california_housing.csv.gz", "MedHouseVal", {"task": "regression"}, {"sensitive": None, "ignore": None}),
    ("titanic.csv", "Survived", {"task": "binary", "positive": "1"}, {"ignore": {"PassengerId"}, "sensitive": {"Sex"}}),
    ("hr_attrition.csv", "Attrition", {"task": "binary", "positive": "Yes"}, {"ignore": {"EmployeeNumber"}, "sensitive": {"Gender", "MaritalStatus"}}),
    ("compas_two_years.csv.gz", "two_year_recid", {"task": "binary", "positive": "1"}, {"sensitive": {"sex", "race", "age_cat"}}),
    ("bike_sharing_hourly.csv.gz", "cnt", {"task": "regression"}, {"time": "date"}),
    ("mammography.csv.gz", "target", {"task": "binary", "metric": "average_precision"}, {}),
]


@pytest.mark.parametrize("file, target, expected, roles", REAL, ids=[r[0] for r in REAL])
def test_proposals_for_real_tables(shared_data, tmp_path, file, target, expected, roles):
    frame = pd.read_csv(shared_data(file), encoding="utf-8-sig")
    schema = infer_schema(frame)
    proposal = propose(frame, schema, target, Path(file).stem, file)
    assert {k: proposal.problem[k] for k in expected} == expected
    for role, names in roles.items():
        found = proposal.problem.get("columns", {}).get(role)
        assert (set(found) if isinstance(found, list) else found) == names
    text = problem_yaml(proposal)
    assert YAML(typ="safe").load(text) == proposal.problem
    problem = Problem.load(write(tmp_path, text))
    problem.check_frame(frame)
    assert choose_target(schema)[0] == target and all(r.why for r in proposal.reasons)
    assert problem.success and "ask for what your decision needs" in text


def test_a_target_that_cannot_be_is_refused_with_another_way():
    frame = shop(60).assign(id=[f"N{i}" for i in range(60)], same="x", empty=None)
    schema = infer_schema(frame)
    for name, words in [("id", "it is an identifier"), ("same", "only the value 'x'"), ("empty", "has no value"), ("lft", "Did you mean 'left'")]:
        with pytest.raises(ProblemError, match=words):
            propose(frame, schema, name)
    with pytest.raises(ProblemError, match="--target COLUMN"):
        propose(frame[["id", "same"]], infer_schema(frame[["id", "same"]]))


def test_repeating_identifiers_become_the_group():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"patient_id": np.repeat([f"P{i:04d}" for i in range(200)], 4), "pulse": rng.normal(70, 9, 800)})
    frame["ill"] = rng.choice(["no", "yes"], 800)
    problem = propose(frame, infer_schema(frame), "ill").problem
    assert problem["columns"] == {"group": "patient_id"}


names = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)


single = names | st.integers(-9, 9) | st.booleans() | st.none()
nested = st.recursive(single, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6)


@settings(max_examples=200, deadline=None)
@given(nested)
def test_values_are_written_so_that_yaml_reads_them_back(value):
    assert YAML(typ="safe", pure=True).load(f"key: {_scalar(value)}  # why")["key"] == value
