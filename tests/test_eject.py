"An ejected script trains without mlbench and says what the model says, to the last digits."

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from mlbench.cli.app import said
from mlbench.core.errors import ExportError, UsageError
from mlbench.core.files import read_json
from mlbench.data.schema import infer_schema
from mlbench.data.splits import make_folds
from mlbench.deployment.eject import eject_model, largest_difference
from mlbench.features.plan import make_plan
from mlbench.models.registry import model_spec
from mlbench.problem.problem import Problem
from mlbench.problem.target import make_target
from mlbench.training.arena import Arena
from mlbench.training.blend import assembled
from mlbench.training.chosen import fit_chosen
from mlbench.training.compare import compared
from mlbench.training.ensemble import fit_stacker
from mlbench.training.model import Model

ROOT = Path(__file__).resolve().parents[1]
QUICK = {
    "lightgbm": {"n_estimators": 30},
    "xgboost": {"n_estimators": 20},
    "catboost": {"iterations": 20},
    "hist_gradient_boosting": {"max_iter": 25},
    "random_forest": {"n_estimators": 8},
    "extra_trees": {"n_estimators": 8},
    "mlp": {"max_epochs": 4},
    "tabm": {"max_epochs": 3, "members": 4, "width": 32},
}
WORDS = ["good", "bad", "late", "never", "came", "again", "early", "fine", "service", "slow", "quick", "rude", "kind", "staff"]


def customers(rows: int, seed: int = 0, unseen: bool = False) -> pd.DataFrame:
    "A table with every kind of column and with gaps; `unseen` brings values that no other table has."
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"age": rng.integers(18, 80, rows).astype(float), "income": rng.lognormal(3, 1, rows)})
    table["code"] = rng.choice(["007", "011", "100", "1e5"], rows)
    table["size"] = rng.choice([1, 2, 3], rows)
    table["plan"] = rng.choice(["basic", "plus", "très cher", None], rows)
    table["town"] = [f"town {k}" for k in rng.integers(0, 40 + 20 * unseen, rows)]
    table["flag"] = rng.choice([True, False], rows)
    table["since"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, rows), "D")
    table["until"] = table["since"] + pd.to_timedelta(rng.integers(1, 90, rows), "D")
    table["notes"] = [" ".join(rng.choice(WORDS, rng.integers(5, 12))) for _ in range(rows)]
    for k, name in enumerate(["age", "income", "since", "notes"]):
        table.loc[rng.random(rows) < 0.05 + 0.05 * k, name] = None
    if unseen:
        table.loc[::5, "plan"], table.loc[::6, "notes"], table.loc[::7, "income"] = 'new: "plan"', "words nobody knows", 1e30
    hidden = table["age"].fillna(40) / 20 + table["notes"].fillna("").str.count("bad") + (table["plan"] == "plus") + rng.normal(0, 0.4, rows)
    return table.assign(hidden=hidden)


TARGETS = {
    "binary": lambda z: np.where(z > z.median(), "yes", "no"),
    "multiclass": lambda z: np.digitize(z, [2.2, 3.4, 4.6]) * 10,
    "regression": lambda z: np.exp(z),
}


class Case:
    "A trained arena on a small table, and rows that it has not seen."

    def __init__(self, task: str, kinds: list[str], scale: str = "identity", more: dict | None = None):
        rows, new = customers(260), customers(80, 1, unseen=True)
        self.rows, self.new = (t.drop(columns="hidden").assign(answer=TARGETS[task](t["hidden"])) for t in (rows, new))
        self.problem = Problem.from_dict({"name": "case", "task": task, "target": "answer", "data": "case.csv"} | (more or {}))
        self.schema, self.target = infer_schema(self.rows), make_target(self.rows["answer"], self.problem)
        self.plan, self.y = make_plan(self.schema, self.problem, self.rows), self.target.encode(self.rows["answer"])
        self.folds = make_folds(self.rows, **self.problem.fold_settings() | {"folds": 2})
        given = {"schema": self.schema, "target": self.target, "metrics": self.problem.metrics, "n_jobs": 1}
        self.arena = Arena(self.plan, self.rows, self.y, self.folds, **given)
        fixed = {"scale": scale} if task == "regression" else {}
        self.arena.compete([model_spec(k).variant(f"my {k}", QUICK.get(k, {}), **fixed) for k in kinds])
        assert not [e.failure for e in self.arena.entries.values() if e.failure]

    def blend(self, temperature: float = 1.0, stacker=None, **more) -> Model:
        names = list(self.arena.entries)
        pipeline = assembled(self.arena, {n: (k + 1) / sum(range(len(names) + 1)) for k, n in enumerate(names)}, temperature, stacker)
        return Model(pipeline, self.problem, self.schema, self.target, self.plan, "ensemble", {}, {"rows": len(self.rows), "versions": {}}, **more)

    def alone(self, **more) -> Model:
        return fit_chosen(compared(self.arena), schema=self.schema, problem=self.problem, name=next(iter(self.arena.entries)), bagged=False, **more)


def kept(model: Model, folder: Path) -> Model:
    "The model as a run has it."
    return Model.load(model.save(folder))


def without_mlbench(folder: Path) -> dict[str, str]:
    "An environment in which importing mlbench fails."
    (folder / "mlbench").mkdir(parents=True, exist_ok=True)
    (folder / "mlbench" / "__init__.py").write_text("raise ImportError('there is no mlbench here')\n")
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_WAIT_POLICY": "PASSIVE"}


def answers(folder: Path, new: pd.DataFrame, scratch: Path) -> pd.DataFrame:
    "What the script of a folder says about some rows."
    new.to_csv(scratch / "new.csv", index=False)
    done = subprocess.run(
        [sys.executable, folder / "train.py", scratch / "new.csv", scratch / "said.csv"],
        env=without_mlbench(scratch / "fake"),
        cwd=scratch,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return pd.read_csv(scratch / "said.csv", float_precision="round_trip")


def check_same(model: Model, table: pd.DataFrame, new: pd.DataFrame, scratch: Path) -> str:
    "Eject a model, run the script, compare; the script."
    model = kept(model, scratch / "model")
    folder = eject_model(model, table, scratch / "plain", "20261121")
    text = (folder / "train.py").read_text()
    told = answers(folder, new, scratch)
    output, columns = model.output(new), [f"probability_{c}" for c in model.target.classes or []]
    assert np.abs((told[columns] if columns else told["prediction"]).to_numpy() - output).max() <= 1e-6 * max(1.0, np.abs(output).max())
    if columns:
        assert told["prediction"].astype(str).tolist() == [str(p) for p in model.predict(new)]
    return text


def well_formed(text: str, scratch: Path) -> None:
    "No name is missing, no import too many, the layout is that of ruff."
    assert "mlbench" not in {n.module for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom)}
    assert not [a for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import) for a in n.names if a.name.startswith("mlbench")]
    ruff = Path(sys.executable).parent / "ruff"
    if not ruff.exists():
        pytest.skip("ruff is not installed")
    (scratch / "train.py").write_text(text)
    for words in (["check"], ["format", "--diff"]):
        done = subprocess.run([ruff, *words, "--config", ROOT / "ruff.toml", scratch / "train.py"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_blend_of_boosters_and_a_linear_model(tmp_path):
    case = Case("binary", ["lightgbm", "linear", "hist_gradient_boosting"])
    text = check_same(case.blend(temperature=1.3, threshold=0.35), case.rows, case.new, tmp_path)
    assert "THRESHOLD = 0.35" in text and "calibrated(" in text and "torch" not in text
    well_formed(text, tmp_path)
    folder = tmp_path / "plain"
    needed = (folder / "requirements.txt").read_text().splitlines()[1:]
    assert {line.split("==")[0] for line in needed} == {"lightgbm", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "threadpoolctl"}
    assert pd.read_parquet(folder / "folds.parquet").sum(axis=1).tolist() == [1] * len(case.rows)


def test_three_classes_with_costs_by_catboost_xgboost_and_forests(tmp_path):
    case = Case("multiclass", ["catboost", "xgboost", "random_forest", "extra_trees"])
    costs = (1 - np.eye(4) + np.arange(4)).tolist()
    text = check_same(case.blend(costs=costs), case.rows, case.new, tmp_path)
    assert "COSTS = [" in text and "LABELS = [0, 10, 20, 30]" in text and "callback" not in text
    well_formed(text, tmp_path)


def test_a_regression_on_the_logarithm_with_networks(tmp_path):
    case = Case("regression", ["lightgbm", "tabm", "mlp"], scale="log")
    text = check_same(case.blend(), case.rows, case.new, tmp_path)
    assert "np.expm1(said)" in text and "inner_piece" not in text and "report(" not in text
    well_formed(text, tmp_path)


def test_folds_in_time_with_a_column_that_is_empty_in_the_first(tmp_path, monkeypatch):
    whole = customers(260).sort_values("since", na_position="first", ignore_index=True)
    whole["since"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(260), "D")
    whole.loc[: 260 // 2, "income"] = None
    monkeypatch.setattr(sys.modules[__name__], "customers", lambda rows, *more, **options: whole.head(rows).copy())
    case = Case("regression", ["hist_gradient_boosting", "catboost"], more={"columns": {"time": "since"}})
    assert isinstance(case.blend().pipeline.folds, list)
    text = check_same(case.blend(), case.rows, case.new, tmp_path)
    assert "without_empty_columns(X)" in text and 'DateParts(parts=("month"' in text


def test_a_stacked_ensemble_of_neighbours_vectors_and_one_rule(tmp_path):
    case = Case("multiclass", ["k_neighbors", "svm", "one_rule"])
    stacker = fit_stacker([case.arena.oof(n) for n in case.arena.entries], case.y)
    text = check_same(case.blend(stacker=stacker), case.rows, case.new, tmp_path)
    assert "stacked(outputs, **STACKER)" in text and "_fit_classes_of_vectors" in text
    well_formed(text, tmp_path)


@pytest.mark.parametrize("task, kind", [("binary", "linear"), ("regression", "additive_boosting"), ("binary", "xgboost")])
def test_a_model_that_was_fitted_once(task, kind, tmp_path):
    case = Case(task, [kind])
    model = case.alone(calibrate=False)
    assert not model.blended
    text = check_same(model, case.rows, case.new, tmp_path)
    assert "MEMBERS" not in text and not (tmp_path / "plain" / "folds.parquet").exists()
    well_formed(text, tmp_path)


def test_a_blend_of_boosters_is_short(tmp_path):
    "Numbers and categories; dates and texts bring lines of their own."
    table = customers(260).assign(answer=lambda t: TARGETS["binary"](t["hidden"])).drop(columns=["notes", "hidden", "since", "until"])
    problem = Problem.from_dict({"name": "case", "task": "binary", "target": "answer", "data": "case.csv"})
    schema, target = infer_schema(table), make_target(table["answer"], problem)
    plan, y = make_plan(schema, problem, table, text_scores=False), target.encode(table["answer"])
    folds = make_folds(table, target="answer", task="binary", folds=2)
    arena = Arena(plan, table, y, folds, schema=schema, target=target, metrics=["log_loss"], n_jobs=1)
    arena.compete([model_spec(k).variant(f"my {k}", QUICK[k]) for k in ("lightgbm", "catboost", "xgboost", "hist_gradient_boosting")])
    model = Model(assembled(arena, dict.fromkeys(arena.entries, 0.25)), problem, schema, target, plan, "ensemble")
    text = (eject_model(model, table, tmp_path / "plain") / "train.py").read_text()
    assert len(text.splitlines()) < 550
    well_formed(text, tmp_path)


def test_the_notebook_holds_the_same_code(tmp_path):
    case = Case("binary", ["linear"])
    model = case.alone()
    folder = eject_model(model, case.rows, tmp_path / "plain")
    book, text = read_json(folder / "train.ipynb"), (folder / "train.py").read_text()
    codes = ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == "code"]
    assert all(code in text for code in codes[1:-1]) and codes[-1] == 'run(HERE / "rows.parquet")'
    runner = "import json, sys; cells = [''.join(c['source']) for c in json.load(open('train.ipynb'))['cells'] if c['cell_type'] == 'code']\n"
    runner += "import __future__\nspace, flags = {}, __future__.annotations.compiler_flag  # which a notebook keeps from its first cell on\n"
    runner += "for cell in cells[:-1]:\n    exec(compile(cell, 'cell', 'exec', flags), space)\neval(cells[-1], space).to_parquet('said.parquet')"
    done = subprocess.run([sys.executable, "-c", runner], cwd=folder, env=without_mlbench(tmp_path / "fake"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = pd.read_parquet(folder / "said.parquet")
    assert np.abs(told["probability_yes"] - model.output(case.rows)[:, 1]).max() < 1e-9


def test_what_does_not_fit_is_said(tmp_path):
    case = Case("binary", ["linear"])
    folder = eject_model(case.alone(), case.rows, tmp_path / "plain")
    with pytest.raises(AssertionError, match="dates like 2024-05-31"):
        answers(folder, case.new.assign(since="31.05.2024"), tmp_path)


class Own(ClassifierMixin, BaseEstimator):
    "An estimator that mlbench does not have."


def test_errors_name_what_to_do(tmp_path):
    case = Case("binary", ["linear"])
    model = case.alone()
    eject_model(model, case.rows, tmp_path / "plain")
    with pytest.raises(UsageError, match="exists already"):
        eject_model(model, case.rows, tmp_path / "plain")
    with pytest.raises(UsageError, match="learned from 260 rows, and here are 259"):
        eject_model(model, case.rows.iloc[1:], tmp_path / "other")
    model.pipeline.steps[-1] = ("estimator", Own())
    with pytest.raises(UsageError, match="the model holds Own of test_eject"):
        eject_model(model, case.rows, tmp_path / "other")
    assert not (tmp_path / "other").exists() and not list(tmp_path.glob("*.tmp*"))


def test_a_script_that_says_something_else_is_found_out(tmp_path):
    case = Case("regression", ["linear"])
    model = case.alone()
    folder = eject_model(model, case.rows, tmp_path / "plain")
    text = (folder / "train.py").read_text()
    (folder / "train.py").write_text(text.replace("prediction=output", "prediction=output + 1"))
    assert largest_difference(folder, model) == pytest.approx(1)
    (folder / "train.py").write_text(text.replace("def train(", "def trains("))
    with pytest.raises(ExportError, match="ended with an error: NameError"):
        largest_difference(folder, model)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_one_fit_with_a_temperature(tmp_path, monkeypatch, task):
    monkeypatch.setattr("mlbench.training.chosen.guarded_temperature", lambda *known: (1.6, "A temperature."))
    case = Case(task, ["lightgbm"])
    model = case.alone()
    assert model.blended and model.facts["notes"][0] == "A temperature." and model.spec_name == "my lightgbm"
    text = check_same(model, case.rows, case.new, tmp_path)
    assert ", 1.6)" in text and "calibrated(" in text
    notebook = json.loads(next(tmp_path.rglob("train.ipynb")).read_text())
    assert any("One model, fitted once." in "".join(cell["source"]) for cell in notebook["cells"])


def shop_in(folder: Path) -> tuple[pd.DataFrame, list[str], dict[str, Any]]:
    "A project named shop, made by the command line: its table, the command, and how to call it."
    table = customers(300).assign(answer=lambda t: TARGETS["binary"](t["hidden"]))
    table[["age", "code", "plan", "since", "answer"]].to_csv(folder / "rows.csv", index=False)
    here: dict[str, Any] = {"cwd": folder, "capture_output": True, "text": True}
    mlbench = [sys.executable, "-m", "mlbench"]
    made = subprocess.run([*mlbench, "new", "shop", "--data", "rows.csv", "--target", "answer"], **here)
    assert made.returncode == 0, made.stdout + made.stderr
    return table, mlbench, here


def test_a_run_of_a_project(tmp_path):
    "As a user does it: a project, its run up to the training on a part of the rows with a search in a space of one's own, the script."
    _, mlbench, here = shop_in(tmp_path)
    chosen = "models: [linear, lightgbm]\n  max_rows: 200\n  search_trials: 2\n  search_space: {linear: {C: [0.01, 0.1, log]}}\n"
    (tmp_path / "shop" / "params.yaml").write_text(f"training:\n  {chosen}")
    code, text = said("eject", "--project", str(tmp_path / "shop"))
    assert code == 2 and "There is no run yet" in text
    ran = subprocess.run([*mlbench, "run", "shop", "--to", "training"], **here)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    done = subprocess.run([*mlbench, "eject", "--project", "shop", "--to", "mine", "--check"], **here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "says the same as the model" in done.stdout and done.stdout.strip().splitlines()[-1] == "mine"
    assert len(pd.read_parquet(tmp_path / "mine" / "rows.parquet")) == 200
    run = next((tmp_path / "shop" / "runs").glob("2*"))
    found = run / "stages" / "04_training" / "artifacts" / "search"
    trials = pd.read_csv(found / "trials.csv")
    assert trials["kind"].tolist() == ["linear"] * 2 and trials["settings"].str.startswith("C 0.0").all() and (found / "search.sqlite").exists()
    shutil.rmtree(run / "stages" / "04_training")
    code, text = said("eject", str(run), "--to", str(tmp_path / "other"))
    assert code == 2 and "has no trained model" in text and not (tmp_path / "other").exists()
    assert json.loads((tmp_path / "mine" / "train.ipynb").read_text())["nbformat"] == 4


def test_a_run_on_the_rows_that_there_was_time_for(tmp_path):
    "Small numbers in the project's own notebook make its table a long one."
    table, mlbench, here = shop_in(tmp_path)
    (tmp_path / "shop" / "params.yaml").write_text("training:\n  models: [linear, lightgbm]\n")
    book = next((tmp_path / "shop").rglob("04_training.ipynb"))
    content = json.loads(book.read_text())
    at = next(n for n, cell in enumerate(content["cells"]) if "rows_to_learn(" in "".join(cell["source"]))
    content["cells"][at]["source"].insert(0, "import mlbench.training.extent as of; of.LARGE, of.TRIED, of.SHARE, of.MOST = 100, 120, 0, 0\n")
    book.write_text(json.dumps(content))
    ran = subprocess.run([*mlbench, "run", "shop", "--to", "training"], **here)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    stage = next((tmp_path / "shop" / "runs").glob("2*")) / "stages" / "04_training"
    trials = json.loads((stage / "artifacts" / "trials.json").read_text())
    assert (trials["rows"], trials["max_rows"]) == (120, None) and trials["time_limit"] < 300, "the look at the rows is part of the budget"
    card = json.loads((stage / "card.json").read_text())
    left_out = next(f for f in card["findings"] if f["kind"] == "rows left out")
    assert "It is learnt from 120 of 240 rows, drawn at random" in left_out["what"] and "max_rows" in left_out["proposal"]
    done = subprocess.run([*mlbench, "eject", "--project", "shop", "--to", "mine", "--check"], **here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(pd.read_parquet(tmp_path / "mine" / "rows.parquet")) == 120
    again = subprocess.run([*mlbench, "run", "shop", "--to", "training", "-p", f"training.replay={stage / 'artifacts' / 'trials.json'}"], **here)
    assert again.returncode == 0, again.stdout + again.stderr
    runs = sorted((tmp_path / "shop" / "runs").glob("2*"))
    first, second = (Model.load(run / "stages" / "04_training" / "artifacts" / "model") for run in runs)
    assert np.array_equal(first.output(table), second.output(table)) and second.facts["rows"] == 120
