"Far values of chosen columns are pulled in for linear models and networks: proposed, learned inside the folds, told, stored, exported and written as a script."

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_changes import parts, told
from test_eject import answers

import mlbench as mb
from mlbench.core.errors import ParameterError
from mlbench.deployment.eject import eject_model
from mlbench.deployment.parity import proven_onnx
from mlbench.eda import look_at
from mlbench.eda.findings import find_outliers
from mlbench.features import before_after, changes_figure, changes_of, fit_features, make_plan, plan_markdown, proposals
from mlbench.models.registry import model_spec
from mlbench.problem.problem import Problem
from mlbench.problem.target import make_target
from mlbench.training.model import Model, fit_model


def rivers(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    "Levels of two gauges of which one fails, a flow with an honest tail, and the depth that follows them."
    rng = np.random.default_rng(seed)
    level, other = rng.normal(2, 0.4, rows), rng.normal(5, 1, rows)
    depth = 3 * level + other + rng.normal(0, 0.2, rows)
    fails = rng.random(rows) < 0.04
    return pd.DataFrame({"level": np.where(fails, level + 4, level), "other": other, "flow": rng.lognormal(2, 1.2, rows), "depth": depth})


def fitted(frame: pd.DataFrame, **choices) -> Model:
    "A linear model."
    problem = Problem.from_dict({"name": "rivers", "task": "regression", "target": "depth", "data": "rivers.csv"})
    plan, schema = parts(frame, "depth", **choices)
    target = make_target(frame["depth"], problem)
    return fit_model(model_spec("linear"), plan, frame, target.encode(frame["depth"]), schema=schema, target=target, problem=problem)


def test_a_gauge_that_fails_spoils_less_when_it_is_pulled_in():
    frame, new = rivers(), rivers(seed=1)
    error = lambda m: float(np.abs(m.predict(new) - new["depth"]).mean())
    plain, clipped = fitted(frame), fitted(frame, clip=["level"])
    assert error(clipped) < 0.9 * error(plain)


def test_trees_get_the_numbers_as_they_are():
    frame = rivers()
    for style in ("trees", "native"):
        plans = [parts(frame, "depth", **choices) for choices in ({}, {"clip": ["level", "flow"]})]
        plain, clipped = (fit_features(plan, frame, schema, style).matrix for plan, schema in plans)
        assert np.array_equal(plain, clipped)


def test_the_fences_are_learned_from_the_rows_of_the_fold():
    frame = rivers()
    plan, schema = parts(frame, "depth", clip=["level"])
    half, whole = (fit_features(plan, rows, schema).transformer.named_transformers_["numeric"]["fences"] for rows in (frame.head(100), frame))
    assert half.high_[0] != whole.high_[0] and np.isfinite(half.high_[0]) and not np.isfinite(half.high_[1:]).any()


def test_it_is_told_before_and_after_with_the_reason():
    frame = rivers()
    change = told(frame, "depth", clip=["level"])["level", "far values pulled in"]
    assert "quartile ranges outside the quartiles (clip)" in change.why and change.before != change.after
    plan, schema = parts(frame, "depth", clip=["level"])
    features = fit_features(plan, frame, schema)
    changes = changes_of(features)
    assert "far values pulled in, linear" in changes_figure({"linear": features}, changes).to_json()
    assert "level: numbers are pulled to the fences" in before_after(features, "level").layout.title.text
    assert "far values pulled in, drawn in where skewed" in plan_markdown(plan) and "- clip: ['level']" in plan_markdown(plan)
    assert ("level", "far values pulled in") not in told(frame, "depth", "trees", clip=["level"])


def test_it_is_proposed_for_what_has_no_long_tail():
    frame = rivers()
    problem = Problem.from_dict({"name": "rivers", "task": "regression", "target": "depth", "data": "rivers.csv"})
    plan, schema = parts(frame, "depth")
    found = list(find_outliers(look_at(frame, schema, problem, make_target(frame["depth"], problem))))
    assert set(found[0].columns) == {"level", "flow"} and found[0].proposal.endswith("""-p 'features.clip=["level"]'""")
    table = proposals(plan, [f.to_dict() for f in found])
    assert "features.clip" in table["proposal"].iloc[0]


@pytest.mark.parametrize("choices", [{"clip": ["level"]}, {"clip": ["other", "level"], "unskew": False}, {"clip": ["flow"], "most_numbers": 2}])
def test_stored_exported_and_written_as_a_script(choices, tmp_path):
    frame, new = rivers(), rivers(80, seed=1)
    frame.loc[::13, "level"] = np.nan
    model = fitted(frame, **choices)
    model = Model.load(model.save(tmp_path / "model"))
    assert proven_onnx(model, frame, 1e-9, rows=100)[1].passed
    folder = eject_model(model, frame, tmp_path / "plain", "rivers")
    said = answers(folder, new, tmp_path)["prediction"].to_numpy()
    assert np.abs(said - model.predict(new)).max() < 1e-6 and "class Fences" in (folder / "train.py").read_text()


def test_choices_that_cannot_be():
    frame = rivers().assign(bank=["left", "right"] * 150)
    _, schema = parts(frame, "depth")
    problem = Problem.from_dict({"name": "rivers", "task": "regression", "target": "depth", "data": "rivers.csv"})
    for clip, words in ((["levl"], "clip names 'levl', which is no column. Did you mean 'level'?"), (["bank"], "clip names bank (")):
        with pytest.raises(ParameterError) as error:
            make_plan(schema, problem, frame, clip=clip)
        assert words in str(error.value)
    assert make_plan(schema, problem, frame, clip=["level"], exclude=["level"]).transformer("linear").transformers[0][1].named_steps.get("fences") is None


def test_odd_columns_keep_their_shape():
    "Empty cells, equal quartiles, infinities: nothing breaks, and nothing is pulled in that should not be."
    frame = rivers().assign(mostly=np.where(np.arange(300) % 20 == 0, 7.0, 0.0))
    frame.loc[::5, "level"], frame.loc[3, "other"] = np.nan, np.inf
    model = fitted(frame, clip=["mostly", "level", "other"])
    assert np.isfinite(model.predict(frame.assign(level=[np.inf, -np.inf, np.nan] * 100, mostly=1e300))).all()
    assert ("mostly", "far values pulled in") not in told(frame, "depth", clip=["mostly"])
    assert mb.fit(frame, "depth", models=["linear"], ensemble=False, search_trials=0, verbose=False).plan.options.clip == []
