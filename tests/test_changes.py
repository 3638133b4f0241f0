"What is done to the columns is told for every style, every choice and every odd table."

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_engine_bad_input import hostile

import mlbench as mb
from mlbench.data.schema import infer_schema
from mlbench.deployment.parity import proven_onnx
from mlbench.features import changes_figure, changes_of, changes_sentence, changes_table, fit_features, make_plan, most_changed, plan_markdown
from mlbench.problem.problem import Problem
from mlbench.problem.proposal import propose


def parts(frame: pd.DataFrame, target: str, **choices):
    "Plan and schema of a table."
    problem = Problem.from_dict(propose(frame, infer_schema(frame), target, source="rows.csv").problem)
    schema = infer_schema(frame, problem.columns.kinds)
    return make_plan(schema, problem, frame, **choices), schema


def told(frame: pd.DataFrame, target: str, style: str = "linear", **choices):
    "The changes of one style, by column and what."
    plan, schema = parts(frame, target, **choices)
    return {(c.column, c.what): c for c in changes_of(fit_features(plan, frame, schema, style))}


def numbers(columns: int, rows: int = 150, seed: int = 0) -> pd.DataFrame:
    "Many numbers, of which two speak."
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, columns)), columns=[f"x{i}" for i in range(columns)])
    return frame.assign(y=3 * frame["x0"] - 2 * frame["x1"] + rng.normal(0, 0.5, rows))


@pytest.mark.parametrize("style", ["linear", "trees", "native"])
@pytest.mark.parametrize("target", ["late", "hours"])
def test_a_hostile_table_is_told_in_full(style, target):
    frame = hostile().drop(columns="again")
    plan, schema = parts(frame, target)
    fitted = fit_features(plan, frame, schema, style)
    changes = changes_of(fitted)
    text = changes_table(changes).to_string()
    assert "nan" not in text and "inf " not in text and all(c.why and c.what and c.style == style for c in changes)
    assert ("km", "infinities taken out") in {(c.column, c.what) for c in changes}
    several = {c.column for c in changes if c.column.startswith("all ")}
    assert {n for n in plan.inputs if n not in plan.of_kind("numeric")} <= {c.column for c in changes} and len(several) == 1
    figure = changes_figure({style: fitted}, changes)
    assert len(figure.data) % 2 == 0 and most_changed(changes, plan.inputs) in plan.inputs and changes_sentence(changes).text.endswith(".")


def test_components_and_selected_numbers_are_told():
    frame = numbers(12)
    condensed = told(frame, "y", components=3)["all 12 numbers", "condensed"]
    assert condensed.before == "12 numbers" and condensed.after.startswith("3 components that hold ")
    chosen = told(frame, "y", "trees", most_numbers=4)["all 12 numbers", "numbers selected"]
    assert chosen.after == "4 numbers" and "most_numbers" in chosen.why


def test_a_column_that_is_not_changed_is_not_drawn():
    frame = numbers(3)
    plan, schema = parts(frame, "y")
    fitted = fit_features(plan, frame, schema, "trees")
    assert [c.what for c in changes_of(fitted)] == ["left as they are"]
    assert "No column is changed" in changes_figure({"trees": fitted}, changes_of(fitted)).layout.title.text


def test_the_document_holds_the_changes():
    frame = numbers(2).assign(town=[f"t|{i % 3}" for i in range(150)])
    plan, schema = parts(frame, "y")
    text = plan_markdown(plan, changes=changes_table(changes_of(fit_features(plan, frame, schema, "linear"))))
    assert "## What was done, and why" in text and "| town | linear | a column per category |" in text


def test_fewer_numbers_where_parts_of_the_rows_speak_for_fewer():
    "Linear models get two of eighty numbers and a few more; where all speak they get all; trees are never asked."
    frame = numbers(80)
    few = told(frame, "y")["all 80 numbers", "numbers selected"]
    assert int(few.after.split()[0]) <= 20 and "select_numbers" in few.why
    assert not [k for k in told(frame, "y", select_numbers=False) if k[1] == "numbers selected"]
    assert not [k for k in told(frame, "y", "trees") if k[1] == "numbers selected"]
    every = frame.assign(y=frame.drop(columns="y").sum(axis=1))
    assert not [k for k in told(every, "y") if k[1] == "numbers selected"]


def test_selected_numbers_predict_better_and_are_exported():
    frame, new = numbers(300, 120), numbers(300, 400, seed=1)
    model = mb.fit(frame, "y", models=["linear"], ensemble=False, search_trials=0, verbose=False)
    error = float(((model.predict(new) - new["y"]) ** 2).mean())
    assert error < 0.5 * float(new["y"].var())
    assert proven_onnx(model, frame, 1e-6, rows=60)[1].passed
