"What candidates learn on: drawn-in targets and balanced rows, in the arena, as one model, in ONNX and as a script."

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_blend_export import arena_of, blended
from test_deployment_export import customers
from test_eject import TARGETS, Case, check_same, well_formed

import mlbench as mb
from mlbench.deployment.parity import proven_onnx
from mlbench.models.registry import model_spec
from mlbench.training.lineup import line_up
from mlbench.training.model import fit_model
from mlbench.training.scales import from_scale, rows_for, to_scale


def on(scale, *names):
    "Candidates on a scale."
    quick = {"lightgbm": {"n_estimators": 12}, "extra_trees": {"n_estimators": 8}}
    return [model_spec(n).variant(f"{n}_{scale}", quick.get(n, {}), scale=scale) for n in names]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    frame = customers(300)
    frame["regression"] = 100 - np.exp((frame["regression"] - frame["regression"].mean()) / 6e5)
    return frame


def test_a_target_that_crowds_below_its_maximum_is_drawn_in_and_back(table):
    y = table["regression"].to_numpy()
    learnt, shift = to_scale(y, "power")
    assert abs(pd.Series(learnt).skew()) < 0.6 < 1 < abs(pd.Series(y).skew())
    assert np.allclose(from_scale(learnt, "power", shift), y)
    arena, model, data = arena_of(table, "regression", on("power", "linear", "lightgbm") + [model_spec("linear")])
    assert arena.entries["linear_power"].mean("rmse") < arena.entries["linear"].mean("rmse")
    model = blended(arena, model, {"linear_power": 0.4, "lightgbm_power": 0.6})
    assert proven_onnx(model, data, 1e-6, rows=150)[1].passed
    assert np.isfinite(model.output(data.assign(income=1e300))).all()


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_balanced_rows_give_probabilities_of_all_rows(table, task):
    few = table.assign(binary=np.where(np.arange(len(table)) % 11 == 0, table["binary"], "no"))
    arena, model, data = arena_of(few, task, on("balanced", "linear", "lightgbm", "extra_trees"), task == "multiclass")
    model = blended(arena, model, dict.fromkeys(arena.entries, 1 / 3))
    said = model.predict_proba(data)
    assert np.allclose(said.sum(axis=1), 1) and (said >= 0).all()
    shares = np.bincount(arena.y, minlength=said.shape[1]) / len(arena.y)
    assert np.allclose(said.mean(axis=0), shares, atol=0.12), "corrected: as frequent as they are"
    assert proven_onnx(model, data, 1e-6, rows=150)[1].passed


def test_who_competes_follows_the_target():
    rng = np.random.default_rng(0)
    even, tail = rng.normal(size=600), np.exp(rng.normal(size=600))
    scales = lambda y, task="regression": {s.scale for s in line_up(task, y, 10)}
    assert (scales(even), scales(tail), scales(-tail)) == ({"identity"}, {"identity", "log"}, {"identity", "power"})
    rare = (np.arange(600) % 30 == 0).astype(int)
    assert scales(rare, "binary") == {"identity"} and len(rows_for(rare, "balanced")) == 100


@pytest.mark.parametrize("scale", ["log", "power"])
def test_one_fit_on_all_rows_learns_on_the_scale_that_was_chosen(scale):
    "A readable model is fitted once more on all rows; without its scale it would be another model than the one that was judged."
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.normal(size=300), "b": rng.choice(list("xyz"), 300)})
    frame["y"] = np.exp(1.5 * frame["a"] + rng.normal(0, 0.1, 300)) * (1 if scale == "log" else -1)
    asked = mb.fit(frame, "y", models=["linear"], ensemble=False, search_trials=0, verbose=False)
    arena = asked.comparison.arena
    more = {"schema": asked.schema, "target": asked.target, "problem": asked.problem}
    plain, scaled = (fit_model(s, arena.plan, frame, arena.y, **more) for s in [model_spec("linear"), *on(scale, "linear")])
    error = lambda m: float(np.abs(m.predict(frame) - frame["y"]).mean())
    assert error(scaled) < 0.5 * error(plain)
    assert (scaled.predict(frame.assign(a=9.0, b="x")) * (1 if scale == "log" else -1) > 0).all()


@pytest.mark.parametrize(("task", "scale"), [("regression", "power"), ("binary", "balanced")])
def test_as_a_script(task, scale, tmp_path, monkeypatch):
    monkeypatch.setitem(TARGETS, "binary", lambda z: np.where(z > z.quantile(0.92), "yes", "no"))
    case = Case(task, ["linear"])
    case.arena.compete(on(scale, "linear", "lightgbm"))
    text = check_same(case.blend(), case.rows, case.new, tmp_path)
    assert "from_scale(said" in text and "rows_for(goal" in text
    well_formed(text, tmp_path)


def test_alone_as_a_script(tmp_path):
    "One fit on all rows, on a scale: one fold that every row belongs to."
    case = Case("regression", ["linear"], scale="log")
    model = case.alone()
    assert model.blended and len(model.pipeline.members_) == 1
    check_same(model, case.rows, case.new, tmp_path)
