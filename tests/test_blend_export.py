"A blend of every family, on a table with every kind of column, says in ONNX what it says in Python."

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_deployment_export import TASKS, customers

from mlbench.core.errors import ExportError
from mlbench.data.schema import infer_schema
from mlbench.deployment.graph import CONVERTERS, Block, converter_of
from mlbench.deployment.onnx import to_onnx
from mlbench.deployment.parity import proven_onnx
from mlbench.features.plan import make_plan
from mlbench.models.catboosting import CatBoostTreesClassifier, CatBoostTreesRegressor
from mlbench.models.forests import forest
from mlbench.models.linear import sparse_linear_model
from mlbench.models.neighbours import NearestRowsClassifier, NearestRowsRegressor
from mlbench.models.registry import ModelSpec, Setting, model_spec
from mlbench.models.vectors import SupportVectorsClassifier, SupportVectorsRegressor
from mlbench.models.xgboosting import XGBoostTreesClassifier, XGBoostTreesRegressor
from mlbench.problem.target import make_target
from mlbench.training.arena import Arena
from mlbench.training.blend import assembled
from mlbench.training.ensemble import fit_stacker
from mlbench.training.model import Model


def _kind(name: str, style: str, classes: type, values: type, **settings) -> ModelSpec:
    "A candidate that is quick to fit."

    def make(given: Setting):
        if name == "catboost":
            settings["cat_features"] = given.categories
        return (values if given.task == "regression" else classes)(**settings)

    return ModelSpec(name, name, style, 3, "", "", make)


def members() -> list[ModelSpec]:
    "One quick candidate of every family."
    return [
        model_spec("linear"),
        ModelSpec("sparse", "linear", "linear", 2, "", "", lambda g: sparse_linear_model(g.task, rows=g.rows, columns=10)),
        ModelSpec("forest", "forest", "trees", 3, "", "", lambda g: forest(g.task, rows=g.rows).set_params(n_estimators=8)),
        ModelSpec("extra", "forest", "trees", 3, "", "", lambda g: forest(g.task, random_thresholds=True).set_params(n_estimators=8)),
        model_spec("hist_gradient_boosting").variant("histogram", {"max_iter": 8}),
        model_spec("lightgbm").variant("light", {"n_estimators": 8}),
        _kind("xgboost", "trees", XGBoostTreesClassifier, XGBoostTreesRegressor, n_estimators=8),
        _kind("catboost", "native", CatBoostTreesClassifier, CatBoostTreesRegressor, iterations=8),
        _kind("vectors", "linear", SupportVectorsClassifier, SupportVectorsRegressor),
        _kind("nearest", "linear", NearestRowsClassifier, NearestRowsRegressor),
    ]


def arena_of(frame: pd.DataFrame, task: str, specs: list[ModelSpec], missing_class: bool = False):
    "Candidates fitted on two folds; the training rows of the second may lack a class."
    data = frame.drop(columns=[t for t in TASKS if t != task])
    roles = SimpleNamespace(ignore=[], group=None, time=None, sensitive=[])
    problem = SimpleNamespace(target=task, task=task, positive=None, columns=roles, split=SimpleNamespace(column=None), to_dict=lambda: None)
    schema, target = infer_schema(data, {"note": "text", "plan code": "categorical"}), make_target(data[task], problem)
    y, number = target.encode(data[task]), np.arange(len(data)) % 2
    if missing_class:
        number = np.where(y == target.classes.index("top"), 1, number)
    folds = [(np.flatnonzero(number != k), np.flatnonzero(number == k)) for k in (0, 1)]
    plan = make_plan(schema, problem)
    scored = "rmse" if task == "regression" else "log_loss"
    arena = Arena(plan, data, y, folds, schema=schema, target=target, metrics=[scored], n_jobs=1)
    arena.compete(specs)
    assert set(arena.entries) == {s.name for s in specs}
    return arena, Model(None, problem, schema, target, plan, "blend"), data


def blended(arena, model: Model, weights: dict[str, float] | None = None, temperature: float = 1.0, stacked: bool = False) -> Model:
    "A model around a blend of an arena."
    names = list(weights or arena.entries)
    weights = weights or {n: 1 / len(names) for n in names}
    stacker = None
    if stacked:
        outputs = [arena.oof(n) for n in names]
        stacker = fit_stacker(outputs, arena.y)
    model.pipeline = assembled(arena, weights, temperature, stacker)
    return model


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return customers(300)


@pytest.fixture(scope="module")
def arenas(table):
    return {task: arena_of(table, task, members(), task == "multiclass") for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_every_family_alone(arenas, task):
    arena, model, data = arenas[task]
    for spec in members():
        exact = spec.name not in ("xgboost",)
        _, parity = proven_onnx(blended(arena, model, {spec.name: 1.0}), data, 1e-9 if exact else 1e-5, rows=150)
        assert parity.passed, spec.name


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("stacked", [False, True])
def test_all_together(arenas, task, stacked):
    arena, model, data = arenas[task]
    temperature = 1.0 if task == "regression" else 1.2
    onnx, parity = proven_onnx(blended(arena, model, None, temperature, stacked), data, 1e-5, rows=150)
    assert parity.passed and parity.wrong_labels == 0
    tried = {c["change"] for c in parity.changes}
    assert {"real rows", "column missing", "category never seen", "extreme number", "far date", "everything missing"} <= tried
    assert to_onnx(model) == onnx


def test_a_class_that_a_fold_lacks_keeps_its_place(arenas):
    arena, model, data = arenas["multiclass"]
    lacking = [f.estimator for f in arena.fitted("light").values() if len(f.estimator.classes_) < len(arena.target.classes)]
    assert lacking
    said = blended(arena, model, {"light": 0.5, "forest": 0.5}).predict_proba(data)
    assert said.shape[1] == len(arena.target.classes) and np.allclose(said.sum(axis=1), 1)


def test_a_logarithm_is_undone(table):
    from dataclasses import replace

    shifted = table.assign(regression=np.expm1(table["regression"] / 4e6) - 3)
    specs = [replace(model_spec("lightgbm").variant("light", {"n_estimators": 8}), scale="log"), replace(model_spec("linear"), scale="log")]
    arena, model, data = arena_of(shifted, "regression", specs)
    assert proven_onnx(blended(arena, model, {"light": 0.7, "linear": 0.3}), data.dropna(), 1e-9, rows=100)[1].passed


def test_the_trees_of_a_fold_share_an_operation(arenas):
    import onnx

    arena, model, _ = arenas["binary"]
    names = {"histogram": 0.25, "light": 0.25, "xgboost": 0.25, "extra": 0.25}
    nodes = onnx.load_from_string(to_onnx(blended(arena, model, names))).graph.node
    assert sum(n.op_type == "TreeEnsemble" for n in nodes) == 2
    watched = onnx.load_from_string(to_onnx(model, watch=True)).graph.node
    assert sum(n.op_type == "TreeEnsemble" for n in watched) == 8


@pytest.mark.parametrize(("key", "member"), [("lightgbm.LGBMClassifier", "light"), ("sklearn.LogisticRegression", "linear")])
def test_a_wrong_converter_is_named_with_fold_and_member(arenas, monkeypatch, key, member):
    arena, model, data = arenas["binary"]
    blended(arena, model, {"linear": 0.5, "light": 0.5})
    converter_of(model.pipeline)
    honest = CONVERTERS[key]

    def shifted(graph, step, blocks):
        return [Block(graph.node("Mul", b.tensor, graph.constant(1 + 1e-6)), b.kind, b.width) for b in honest(graph, step, blocks)]

    monkeypatch.setitem(CONVERTERS, key, shifted)
    monkeypatch.setattr("mlbench.deployment.blending.tree_sums", lambda *given: None)
    with pytest.raises(ExportError, match=rf"First to differ: BlendClassifier > fold 1, {member} \({key.split('.')[1]}\)"):
        proven_onnx(model, data, rows=60)


def test_a_blend_is_explained_over_its_raw_columns(arenas):
    from mlbench.evaluation.explain import permutation_importance, shap_values
    from mlbench.evaluation.intervals import Evaluation

    for task, metric in (("binary", "log_loss"), ("multiclass", "log_loss"), ("regression", "rmse")):
        arena, model, data = arenas[task]
        blended(arena, model, {"light": 0.5, "catboost": 0.5})
        said = model.output(data)
        columns = SimpleNamespace(group=None, sensitive=[])
        problem = SimpleNamespace(metrics=[metric], metric=metric, columns=columns, success={})
        evaluation = Evaluation(problem, model.target, data, arena.y, said, said, model=model)
        explanation = shap_values(evaluation, data, n_rows=20)
        assert set(explanation.columns) == set(model.plan.inputs) and explanation.signed == (task != "multiclass")
        assert explanation.importance.index[0] in ("income", "since", "member", "city")
        assert permutation_importance(evaluation, ["income", "visits"], n_repeats=2, n_rows=100).loc[0, "column"] == "income"


def test_a_bundle_names_members_and_decides_by_costs(arenas, tmp_path):
    from mlbench.deployment.bundle import write_bundle

    arena, model, data = arenas["multiclass"]
    blended(arena, model, {"light": 0.5, "forest": 0.5})
    model.costs = (1 - np.eye(4)).tolist()
    model.costs[3][0] = 50.0
    onnx, parity = proven_onnx(model, data, rows=50)
    bundle = write_bundle(tmp_path / "b", model, onnx, parity, data, name="costly")
    assert [m["name"] for m in bundle.record["model"]["members"]] == ["light", "forest"]
    rows = data[[f.name for f in bundle.fields]].head(60)
    assert list(bundle.predict(rows)) == list(model.predict(rows))
    assert bundle.native().pipeline.members_[0]["weight"] == 0.5
    model.costs = None
