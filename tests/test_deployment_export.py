"Every model of the house, on a table with every kind of column, says in ONNX what it says in Python."

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mlbench.core.errors import ExportError
from mlbench.data.schema import infer_schema
from mlbench.deployment.graph import CONVERTERS
from mlbench.deployment.onnx import input_kinds, pipeline_to_onnx, to_onnx
from mlbench.deployment.parity import check_parity, proven_onnx
from mlbench.deployment.rows import Scorer
from mlbench.deployment.steps import feeds
from mlbench.features.plan import make_plan
from mlbench.models.registry import MODELS, model_spec
from mlbench.problem.target import make_target
from mlbench.training.model import fit_model

QUICK = {  # settings that make a fit quick and change nothing about its form
    "hist_gradient_boosting": {"max_iter": 20},
    "additive_boosting": {"max_iter": 20},
    "lightgbm": {"n_estimators": 20},
    "xgboost": {"n_estimators": 20},
    "catboost": {"iterations": 20},
    "random_forest": {"n_estimators": 20},
    "extra_trees": {"n_estimators": 20},
    "tabm": {"max_epochs": 2},
}
TASKS = ["binary", "multiclass", "regression"]


def customers(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    "A table with numbers, categories, codes, flags, dates and text, gaps in all of them."
    rng = np.random.default_rng(seed)
    words = ["late", "broken", "great", "thanks", "refund", "Größe", "n't"]
    frame = pd.DataFrame(
        {
            "income": rng.lognormal(10, 1, rows),
            "visits": rng.integers(0, 50, rows).astype(float),
            "city": pd.Series(rng.choice(["Wien", "Graz", "Linz", "São Paulo", "東京", "'quoted' \"city\""], rows), dtype="str"),
            "plan code": rng.choice([1, 2, 3], rows),
            "member": rng.random(rows) < 0.4,
            "since": pd.Timestamp("2015-02-27") + pd.to_timedelta(rng.integers(0, 4000 * 24, rows), unit="h"),
            "note": pd.Series([" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(rows)], dtype="str"),
        }
    )
    for column in ("income", "city", "since", "note"):
        frame.loc[rng.random(rows) < 0.1, column] = None
    score = np.log(frame["income"].fillna(2e4)) + (frame["city"] == "Wien") + frame["member"] + (frame["since"].dt.month.fillna(1) > 6)
    frame["binary"] = np.where(score + rng.normal(size=rows) > score.median(), "yes", "no")
    frame["multiclass"] = np.array(["low", "mid", "high", "top"])[np.digitize(score, np.quantile(score, [0.3, 0.6, 0.97]))]
    frame["regression"] = 1e6 * score + rng.normal(size=rows)
    return frame


def fitted(frame: pd.DataFrame, task: str, name: str, target: str | None = None):
    "A fitted model of mlbench."
    target = target or task
    data = frame.drop(columns=[t for t in TASKS if t != target and t in frame])
    roles = SimpleNamespace(ignore=[], group=None, time=None, sensitive=[])
    problem = SimpleNamespace(target=target, task=task, positive=None, columns=roles, split=SimpleNamespace(column=None), to_dict=lambda: None)
    schema, meaning = infer_schema(data, {"note": "text", "plan code": "categorical"} if "note" in data else None), make_target(data[target], problem)
    plan = make_plan(schema, problem)
    spec = model_spec(name)
    spec = spec.variant(name, QUICK[name]) if name in QUICK else spec
    return fit_model(spec, plan, data, meaning.encode(data[target]), schema=schema, target=meaning, problem=problem), data


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return customers()


@pytest.mark.parametrize("name", [spec.name for spec in MODELS])
@pytest.mark.parametrize("task", TASKS)
def test_parity(table, task, name):
    model, data = fitted(table, task, name)
    onnx, parity = proven_onnx(model, data)
    assert parity.passed and parity.wrong_labels == 0 and (parity.max_rel < 1e-10 or name in ("xgboost", "network", "word_bag"))
    tried = {c["change"] for c in parity.changes}
    if name != "dummy":
        assert {"real rows", "column missing", "category never seen", "extreme number", "far date", "everything missing"} <= tried
    unseen = customers(300, seed=1).assign(city="Bregenz", since=pd.NaT)
    assert check_parity(model, onnx, unseen).passed


def test_the_file_stands_alone(table):
    import onnx

    model, _ = fitted(table, "binary", "lightgbm")
    proto = onnx.load_from_string(to_onnx(model))
    onnx.checker.check_model(proto, full_check=True)
    assert {o.domain for o in proto.opset_import} == {"", "ai.onnx.ml"} and {n.domain for n in proto.graph.node} <= {"", "ai.onnx.ml"}
    assert not any(t.external_data for t in proto.graph.initializer)
    assert [i.name for i in proto.graph.input] == list(model.plan.inputs) and proto.graph.output[0].name == "probabilities"
    assert to_onnx(model) == to_onnx(model)


def test_a_class_without_rows_has_probability_zero(table):
    model, data = fitted(table, "multiclass", "linear")
    kept = data[data["multiclass"] != "top"]
    codes = model.target.encode(kept["multiclass"])
    partial = fit_model(model_spec("linear"), model.plan, kept, codes, schema=model.schema, target=model.target, problem=model.problem)
    onnx, parity = proven_onnx(partial, data)
    kinds = input_kinds(partial)
    answer = Scorer(onnx)(feeds(partial.conform(data), kinds))
    assert parity.passed and answer.shape[1] == 4 and not answer[:, model.target.classes.index("top")].any()


def test_columns_with_awkward_names():
    frame = customers(120)[["income", "city", "binary"]].rename(columns={"income": "probabilities", "city": "constant_1"})
    model, data = fitted(frame, "binary", "linear")
    onnx, parity = proven_onnx(model, data)
    assert parity.passed and Scorer(onnx).outputs == ["probabilities_"]


def test_a_column_that_was_empty_in_training(table):
    frame = table.assign(income=np.nan)[["income", "visits", "city", "binary"]]
    for name in ("linear", "lightgbm", "mlp"):
        model, data = fitted(frame, "binary", name)
        assert proven_onnx(model, data)[1].passed


def test_an_unknown_estimator_is_refused_by_name(table):
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import Pipeline

    model, data = fitted(table, "binary", "linear")
    features = model.pipeline.named_steps["features"]
    model.pipeline = Pipeline([("features", features), ("estimator", GaussianNB().fit(features.transform(model.conform(data)), data["binary"]))])
    with pytest.raises(ExportError, match=r"estimator \(GaussianNB\) cannot be written as ONNX"):
        proven_onnx(model, data)


def test_a_subclass_is_not_taken_for_its_parent():
    from sklearn.linear_model import Ridge

    class Doubled(Ridge):
        def predict(self, X):
            return 2 * super().predict(X)

    with pytest.raises(ExportError, match="no converter for"):
        pipeline_to_onnx(Doubled().fit([[1.0], [2.0]], [1.0, 2.0]), {"x": "number"})


@pytest.mark.parametrize("wrong", ["sklearn.OneHotEncoder", "mlbench.DateParts", "sklearn.SimpleImputer", "sklearn.LogisticRegression"])
def test_a_converter_that_is_wrong_is_found_and_named(table, monkeypatch, wrong):
    from mlbench.deployment.graph import Block

    honest = CONVERTERS[wrong]

    def shifted(graph, step, blocks):
        return [Block(graph.node("Mul", b.tensor, graph.constant(1 + 1e-6)), b.kind, b.width) for b in honest(graph, step, blocks)]

    model, data = fitted(table, "binary", "linear")
    monkeypatch.setitem(CONVERTERS, wrong, shifted)
    with pytest.raises(ExportError, match=rf"First to differ: .*\({wrong.split('.')[1]}\)"):
        proven_onnx(model, data)


def test_adult_income(shared_data):
    frame = pd.read_csv(shared_data("adult.csv.gz"), nrows=3000)
    target = "income" if "income" in frame else frame.columns[-1]
    model, data = fitted(frame, "binary", "hist_gradient_boosting", target)
    assert proven_onnx(model, data)[1].passed


def test_wine_quality_many_classes(shared_data):
    frame = pd.read_csv(shared_data("wine_quality.csv.gz"), nrows=1500)
    model, data = fitted(frame, "multiclass", "lightgbm", "quality")
    onnx, parity = proven_onnx(model, data)
    assert parity.passed and Scorer(onnx).width == frame["quality"].nunique()
