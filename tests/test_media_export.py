"""Models of texts and images as ONNX: raw text and pixels in, the answers of the fitted model out."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from mlbench.core.errors import ExportError
from mlbench.data.schema import infer_schema
from mlbench.deployment.graph import Graph, image_form
from mlbench.deployment.onnx import input_kinds, to_onnx
from mlbench.deployment.parity import check_parity, fair_tolerance, proven_onnx
from mlbench.deployment.parts import image_inputs
from mlbench.deployment.rows import Scorer
from mlbench.deployment.steps import converted, feeds
from mlbench.features.pixels import Pixels
from mlbench.features.plan import make_plan
from mlbench.features.records import Records
from mlbench.features.tokens import Tokens
from mlbench.models.deep import DeepClassifier
from mlbench.models.fusion import NETWORKS
from mlbench.models.registry import model_spec
from mlbench.problem.target import make_target
from mlbench.training.arena import Arena
from mlbench.training.blend import assembled
from mlbench.training.model import Model, fit_model

WORDS = ["good", "bad", "film", "the", "plot", "actors", "great", "boring", "Čaj,", "music!"]
QUICK = {"network": {"max_epochs": 1}, "word_bag": {"max_epochs": 1}, "lightgbm": {"n_estimators": 5}}


def png(pixels: np.ndarray) -> str:
    "A picture as a data URI."
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def offers(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    "A number, a category, a text and a photo of each offer; some are missing."
    rng = np.random.default_rng(seed)
    bright, price = rng.integers(40, 200, rows), rng.normal(50, 10, rows)
    photos = [png(np.clip(rng.normal(b, 30, (10, 9, 3)), 0, 255).astype(np.uint8)) for b in bright]
    notes = [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(rows)]
    frame = pd.DataFrame({"price": price, "town": rng.choice(["Graz", "Linz"], rows), "note": notes, "photo": photos}).astype({"note": "str", "photo": "str"})
    frame["binary"] = np.where((bright > 120) ^ (rng.random(rows) < 0.1), "sold", "left")
    frame["regression"] = price + 0.5 * bright + rng.normal(size=rows)
    frame.loc[::7, "note"], frame.loc[3::11, "photo"], frame.loc[5::9, "price"] = None, None, None
    return frame


def planned(frame: pd.DataFrame, task: str, drop: tuple[str, ...] = ()):
    "Everything that a model of the offers is fitted with."
    data = frame.drop(columns=[t for t in ("binary", "regression") if t != task] + list(drop))
    roles = SimpleNamespace(ignore=[], group=None, time=None, sensitive=[])
    problem = SimpleNamespace(target=task, task=task, positive=None, columns=roles, split=SimpleNamespace(column=None), to_dict=lambda: None)
    kinds = {k: v for k, v in {"note": "text", "photo": "image"}.items() if k in data}
    schema, target = infer_schema(data, kinds), make_target(data[task], problem)
    return data, problem, schema, target, make_plan(schema, problem, data)


def fitted(frame: pd.DataFrame, task: str, name: str, drop: tuple[str, ...] = ()):
    "A fitted model of mlbench, and its rows."
    data, problem, schema, target, plan = planned(frame, task, drop)
    spec = model_spec(name)
    spec = spec.variant(name, QUICK[name]) if name in QUICK else spec
    return fit_model(spec, plan, data, target.encode(data[task]), schema=schema, target=target, problem=problem), data


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return offers()


@pytest.mark.parametrize("name", ["network", "word_linear", "patch_linear", "lightgbm"])
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_the_file_takes_raw_texts_and_pixels_and_says_what_the_model_says(frame, task, name):
    model, data = fitted(frame, task, name)
    onnx, parity = proven_onnx(model, data)
    assert parity.passed
    assert parity.wrong_labels == 0
    assert {"odd image", "column missing", "category never seen", "everything missing"} <= {c["change"] for c in parity.changes}
    assert parity.max_rel < (1e-4 if name == "network" else 1e-6)
    assert check_parity(model, onnx, offers(20, seed=1).drop(columns=[t for t in ("binary", "regression") if t != task])).passed
    inputs = {i.name: (i.type, i.shape[1:]) for i in onnxruntime.InferenceSession(onnx).get_inputs()}
    assert inputs["photo"][0] == "tensor(uint8)"
    assert inputs["note"] == ("tensor(string)", [1])
    assert inputs["price"] == ("tensor(double)", [1])


@pytest.mark.parametrize("drop", [("photo", "price", "town"), ("note", "price", "town"), ("note", "photo")], ids=["text", "image", "table"])
def test_one_kind_alone(frame, drop):
    model, data = fitted(frame, "binary", "network", drop)
    assert proven_onnx(model, data)[1].passed


def test_a_blend_of_networks_linear_models_and_trees(frame):
    data, problem, schema, target, plan = planned(frame, "binary")
    number = np.arange(len(data)) % 2
    folds = [(np.flatnonzero(number != k), np.flatnonzero(number == k)) for k in (0, 1)]
    arena = Arena(plan, data, target.encode(data["binary"]), folds, schema=schema, target=target, metrics=["log_loss"], n_jobs=1)
    names = ["network", "word_linear", "lightgbm"]
    arena.compete([model_spec(n).variant(n, QUICK[n]) if n in QUICK else model_spec(n) for n in names])
    assert set(arena.entries) == set(names)
    model = Model(assembled(arena, dict.fromkeys(names, 1 / 3), 1.2), problem, schema, target, plan, "blend")
    onnx, parity = proven_onnx(model, data)
    assert parity.passed
    assert fair_tolerance(model.pipeline) == 1e-4
    alone = Model(assembled(arena, {"lightgbm": 1.0}, 1.0), problem, schema, target, plan, "blend")
    assert check_parity(alone, to_onnx(alone), data).max_abs < 1e-9, "trees keep their digits"
    assert input_kinds(model)["photo"] == input_kinds(alone)["photo"]
    assert Scorer(onnx).chunk >= 16


PARTS = {"tokens": ("tokens_0", Tokens(), ["note"]), "pixels": ("pixels_0", Pixels(size=16), ["photo"])}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_is_written(frame, name):
    kind = NETWORKS[name].kind
    if kind == "table":
        rows = np.random.default_rng(0).normal(size=(40, 3))
        target = (rows[:, 0] > 0).astype(int)
    else:
        records = Records([PARTS[kind]]).fit(frame)
        rows, target = records.transform(frame), (frame["binary"] == "sold").to_numpy()
    model = DeepClassifier(network=name, steps=2, random_state=0, augment="none").fit(rows, target)
    graph = Graph()
    if kind == "table":
        given, fed = [graph.input(c, "number") for c in "abc"], {c: rows[:, [n]] for n, c in enumerate("abc")}
    else:
        form = image_inputs(records).get("photo")
        given = graph.convert(records, [graph.input("note", "text") if kind == "tokens" else graph.input("photo", form.kind)])
        fed = feeds(frame, {"note": "text"} if kind == "tokens" else {"photo": form.kind})
    answer = graph.convert(model, given)[0]
    session = onnxruntime.InferenceSession(graph.build({"answer": answer}), providers=["CPUExecutionProvider"])
    for some in (slice(0, 1), slice(0, len(rows))):
        got = session.run(None, {n: v[some] for n, v in fed.items()})[0]
        assert np.abs(got - model.predict_proba(rows[some])).max() <= 1e-4


ODD_TEXTS = ["", " ", "   \t ", "good", "GOOD!!", "good\nbad", "שלום עולם good", "👍🏽 good 👨‍👩‍👧", "good " * 400, "x" * 5000]
ODD_TEXTS += ["\u202egood", "Čaj, čaj ČAJ,", "a\u00a0b"]


def test_odd_texts_become_the_same_ids(frame):
    tokens = Tokens().fit(frame[["note"]])
    odd = pd.DataFrame({"note": pd.Series(ODD_TEXTS, dtype="str")})
    assert (converted(tokens, odd) == tokens.transform(odd)).all()
    for n in range(len(odd)):
        assert (converted(tokens, odd.iloc[n : n + 1]) == tokens.transform(odd.iloc[n : n + 1])).all(), ODD_TEXTS[n]


def test_pixels_of_different_forms_in_two_folds_are_refused(frame):
    blend = SimpleNamespace(members_=[], features_=[{"parts": Records([("pixels_0", Pixels(size=s), ["photo"])]).fit(frame)} for s in (8, 9)])
    with pytest.raises(ExportError, match="image:8x8x3.*image:9x9x3.*image_size"):
        image_inputs(blend)


def test_the_kind_of_an_input_decodes_images_as_the_step_does(frame):
    for step in (Pixels(size=8), Pixels(size=12, grey="yes", fit_way="stretch"), Pixels(size=10, fit_way="crop", fill=(1, 2, 3))):
        records = Records([("pixels_0", step, ["photo"])]).fit(frame)
        form = image_inputs(records)["photo"]
        assert image_form(form.kind) == form
        given = feeds(frame, {"photo": form.kind})["photo"]
        assert (given.reshape(len(frame), -1) == records.transform(frame)["pixels photo"].reshape(len(frame), -1)).all()


def test_a_difference_is_blamed_on_the_network(frame):
    model, data = fitted(frame, "binary", "network")
    with pytest.raises(ExportError, match="First to differ: .*DeepClassifier"):
        proven_onnx(model, data, tolerance=1e-14)


def test_an_estimator_that_stands_alone_refuses_blocks_that_are_not_its_parts(frame):
    records = Records([PARTS["tokens"]]).fit(frame)
    model = DeepClassifier(steps=1, random_state=0).fit(records.transform(frame), frame["binary"])
    graph = Graph()
    with pytest.raises(ExportError, match=r"reads tokens note \(\d+,\), and was given number"):
        graph.convert(model, [graph.input("x", "number")])
