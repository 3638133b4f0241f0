"Texts and pictures in a comparison: who competes, what is kept and told, and that plain tables notice nothing."

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from test_media_chain import digits, sentences

import mlbench as mb
from mlbench.core.errors import UsageError
from mlbench.data.schema import conform, infer_schema
from mlbench.evaluation.explain import permutation_importance, shap_values
from mlbench.evaluation.intervals import evaluate_model
from mlbench.features.blocks import TABLE_STYLES
from mlbench.features.plan import FeatureColumn, FeaturePlan, make_plan
from mlbench.models.registry import ORDER, READABLE_ORDER, model_spec, portfolio, portfolio_spec
from mlbench.models.wordlinear import ASIDE, STRENGTHS, WordLinearClassifier, WordLinearRegressor, class_ratios, rows_aside, value_scales, word_scales
from mlbench.problem.problem import Problem
from mlbench.training.chosen import fit_chosen, settled
from mlbench.training.extent import feature_cost
from mlbench.training.lineup import line_up, line_up_for
from mlbench.training.rules import best_rule
from mlbench.training.store import estimator_bytes, read_estimator


def reviews(rows: int = 120, seed: int = 0) -> pd.DataFrame:
    "Texts, whether they praise, and a number."
    said, liked = sentences(rows, seed)
    return pd.DataFrame({"review": said, "stars": np.random.default_rng(seed + 99).integers(1, 6, rows), "liked": np.where(liked == 1, "yes", "no")})


def asked(frame: pd.DataFrame, target: str, **more) -> tuple[Problem, FeaturePlan]:
    "A problem over a frame, and the plan of its features."
    task = "binary" if frame[target].nunique() == 2 else "multiclass"
    problem = Problem.from_dict({"name": "x", "task": task, "target": target, "data": "x.csv"} | more)
    return problem, make_plan(infer_schema(frame), problem, frame)


# words and a linear model


def test_ratios_are_those_of_naive_bayes_worked_out_by_hand():
    X, ranks = csr_matrix([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1]], dtype=float), np.array([0, 0, 1, 1])
    inside, outside = np.array([0, 1, 2]) + 1, np.array([2, 1, 0]) + 1
    assert np.allclose(class_ratios(X, ranks, 2), np.log(inside / 4) - np.log(outside / 4))
    assert np.allclose(class_ratios(X, 1 - ranks, 2), -class_ratios(X, ranks, 2)), "the other class has the other sign"
    both = class_ratios(X, np.array([0, 1, 2, 2]), 3, smoothing=0.5)
    first = (np.array([1, 1, 0]) + 0.5) / (1 + 1), (np.array([1, 1, 2]) + 0.5) / (3 + 1)
    assert both.shape == (3, 3) and np.allclose(both[0], np.log(first[0]) - np.log(first[1]))


def test_columns_that_are_no_words_keep_their_scale():
    X = csr_matrix([[1, 0.5, 0, 2], [1, 0, 0, 2], [0, 1.0, 0, 2], [0, 1.0, 0, 2]])
    assert word_scales(X, np.array([0, 0, 1, 1]), 2)[1:].tolist() == [1, 1, 1] and word_scales(X, np.array([0, 0, 1, 1]), 2)[0] > 0
    assert value_scales(X, np.array([1.0, 1, 3, 3]))[0] == pytest.approx(2 / 3) and value_scales(X, np.full(4, 2.0)).tolist() == [0, 1, 1, 1]


def test_the_strength_is_chosen_on_rows_that_no_ratio_has_seen():
    rng = np.random.default_rng(0)
    X, y = csr_matrix((rng.random((200, 600)) < 0.02).astype(float)), rng.integers(0, 2, 200)  # nothing to learn
    model = WordLinearClassifier(random_state=0).fit(X, y)
    assert min(STRENGTHS) == model.C_, "with ratios of all rows every word would look telling, and the boldest would win"
    held = rows_aside(y, 0)
    assert held.sum() == sum(n // ASIDE for n in np.bincount(y)) and rows_aside(np.zeros(4), 0).sum() == 0


def test_it_is_an_estimator_like_any_other():
    said, liked = sentences(150)
    frame = pd.DataFrame({"review": said, "liked": liked})
    problem, plan = asked(frame, "liked")
    rows = conform(frame, infer_schema(frame), plan.inputs)
    pipeline = make_pipeline(plan.transformer("words"), WordLinearClassifier(random_state=0))
    assert cross_val_score(pipeline, rows, liked, cv=3).mean() > 0.75
    model, same = pipeline.fit(rows, liked), clone(pipeline).fit(rows, liked)
    assert np.array_equal(model.predict_proba(rows), same.predict_proba(rows))
    stored = estimator_bytes(model)
    assert np.array_equal(read_estimator(stored).predict_proba(rows), model.predict_proba(rows)) and estimator_bytes(read_estimator(stored)) == stored


def test_class_weights_by_name_and_balanced_move_the_answer():
    rng = np.random.default_rng(1)
    X, y = csr_matrix((rng.random((300, 40)) < 0.1).astype(float)), np.where(rng.random(300) < 0.1, "rare", "usual")
    share = lambda **more: WordLinearClassifier(C=1.0, random_state=0, **more).fit(X, y).predict_proba(X)[:, 0].mean()
    assert share(class_weight="balanced") > 2 * share() and share(class_weight={"rare": 20.0}) > 2 * share()


@pytest.mark.parametrize(
    ("model", "y", "words"),
    [
        (WordLinearClassifier(), np.zeros(6), "one class only"),
        (WordLinearClassifier(C=-1), np.arange(6) % 2, "C=-1 must be 0"),
        (WordLinearClassifier(smoothing=0), np.arange(6) % 2, "smoothing=0 above 0"),
        (WordLinearClassifier(), np.linspace(0, 1, 6), "continuous"),
        (WordLinearRegressor(alpha=-1), np.arange(6.0), "alpha=-1 must be 0"),
        (WordLinearRegressor(), np.array([1, 2, 3, 4, 5, np.nan]), "NaN"),
    ],
)
def test_what_it_cannot_learn_is_refused_in_words(model, y, words):
    with pytest.raises(ValueError, match=words):
        model.fit(np.eye(6), y)
    with pytest.raises(ValueError, match="weights of rows"):
        type(model)().fit(np.eye(6), np.arange(6) % 2, sample_weight=np.ones(6))


def test_no_words_at_all_give_the_shares_of_the_classes():
    model = WordLinearClassifier(random_state=0).fit(csr_matrix((40, 3)), np.array([0] * 30 + [1] * 10))
    assert np.allclose(model.predict_proba(csr_matrix((2, 3))), [[0.75, 0.25]] * 2, atol=1e-3)
    assert WordLinearRegressor().fit(csr_matrix((4, 2)), np.arange(4.0)).predict(csr_matrix((1, 2))) == pytest.approx([1.5])


# who competes


def test_plain_tables_have_the_candidates_that_they_had():
    for task in ("binary", "multiclass", "regression"):
        for readable, order in ((False, ORDER), (True, READABLE_ORDER)):
            had = [s for s in map(portfolio_spec, order) if task in s.tasks and (s.largest is None or s.largest >= 900)]
            for kinds in ({}, {"numeric": 4, "categorical": 2, "date": 1}, {"text": 0, "image": 0, "numeric": 1}):
                assert portfolio(task, 900, 7, readable=readable, kinds=kinds) == had
    assert not {"word_linear", "patch_linear", "word_bag", "network"} & {*ORDER, *READABLE_ORDER}
    y = np.arange(900) % 2
    assert line_up("binary", y, 7) == line_up("binary", y, 7, kinds={"numeric": 7}, device="cuda", latency_ms=0.1)


def test_the_line_up_follows_the_columns_that_models_see():
    frame = reviews()
    problem, plan = asked(frame, "liked")
    y = (frame["liked"] == "yes").to_numpy().astype(int)
    names = lambda plan, **more: [s.name for s in line_up_for(replace_problem(problem, **more), plan, y)]
    assert names(plan)[:4] == ["dummy", "linear", "word_linear", "lightgbm"] and "network" in names(plan)
    alone = make_plan(infer_schema(frame), problem, frame, exclude=["stars"])
    assert names(alone) == ["dummy", "word_linear", "linear", "word_bag", "network"]
    unread = make_plan(infer_schema(frame), problem, frame, exclude=["review"])
    assert names(unread) == [s.name for s in line_up("binary", y, 1)], "a text that no model may see brings nobody"
    assert "network" not in names(alone, success={"latency_p95_ms": "<= 1"}) and "network" in names(alone, success={"latency_p95_ms": "<= 50"})
    assert all(s.readable for s in line_up_for(replace_problem(problem, constraints={"interpretable": True}), plan, y))
    placed = {s.name: s.params.get("device") for s in line_up_for(replace_problem(problem, constraints={"device": "cpu"}), plan, y)}
    assert placed["network"] == "cpu" and placed["lightgbm"] is None


def replace_problem(problem: Problem, **more) -> Problem:
    "The same problem with other sections."
    return Problem.from_dict({"name": "x", "task": problem.task, "target": problem.target, "data": "x.csv"} | more)


def test_a_latency_that_is_in_no_criterion_bounds_nobody_and_every_kind_can_be_named():
    assert [s.name for s in portfolio("binary", 100, 1, kinds={"text": 1}, families=["word_bag"])] == ["dummy", "word_bag"]
    assert [s.name for s in portfolio("binary", 100, 1, families=["network", "linear"])][-1] == "network"
    assert model_spec("word_linear_weighted").params == {"class_weight": "balanced"} and model_spec("word_linear_balanced").scale == "balanced"
    assert model_spec("network_weighted").params == {"class_weight": "balanced"}
    with pytest.raises(UsageError, match="k_neighbors cannot weigh classes"):
        model_spec("k_neighbors_weighted")


# a comparison with networks


@pytest.fixture(scope="module")
def compared():
    "A comparison of all that reads, on sentences with a number beside them."
    quick = {"models": ["dummy", "word_linear", "network", "lightgbm"], "search_trials": 0, "verbose": False}
    return mb.fit(reviews(), "liked", **quick), quick


def test_networks_compete_blend_and_are_kept(compared):
    model, _ = compared
    arena = model.comparison.arena
    assert not model.comparison.failures and {"word_linear", "network"} < set(arena.entries)
    for fit in arena.entries["network"].fits.values():
        assert set(fit.again) == {"steps", "keep", "validation_fraction"} and fit.curve and np.isfinite(fit.output).all()
    rows = reviews(20, seed=5)
    stored = read_estimator(estimator_bytes(model.pipeline))
    assert np.array_equal(stored.predict_proba(model.conform(rows)), model.predict_proba(rows))
    assert log_loss(rows["liked"], model.predict_proba(rows)[:, [0, 1]], labels=["no", "yes"]) < 0.69


def test_a_comparison_with_networks_replays_from_its_record(compared):
    model, quick = compared
    record = json.loads(json.dumps(model.comparison.arena.record()))
    again = mb.fit(reviews(), "liked", **quick, replay=record)
    for name in ("word_linear", "network"):
        assert np.array_equal(again.comparison.arena.oof(name), model.comparison.arena.oof(name)), name
    rows = reviews(20, seed=5)
    assert np.array_equal(again.predict_proba(rows), model.predict_proba(rows))


def test_a_model_of_one_fit_is_made_and_explained_by_whole_columns(compared):
    found = compared[0].comparison
    for name in ("network", "word_linear"):
        alone = fit_chosen(found, schema=compared[0].schema, problem=compared[0].problem, name=name, bagged=False)
        assert not alone.blended and alone.facts["versions"].get("torch" if name == "network" else "python")
        rows = reviews(40, seed=6)
        judged = evaluate_model(alone, rows, reviews(60))
        told = shap_values(judged, reviews(60), n_rows=10)
        assert set(told.columns) == {"review", "stars"} and told.importance.index[0] == "review"
        assert permutation_importance(judged, n_repeats=2).loc[0, "column"] == "review"


def test_steps_that_changed_on_the_way_do_not_break_the_middle_of_the_folds():
    fits = {0: SimpleNamespace(again={"steps": [[0, 900], [300, 700]], "keep": 640}), 1: SimpleNamespace(again={"steps": 800, "keep": 600})}
    entry = SimpleNamespace(fits=fits, spec=model_spec("network"))
    found = settled(SimpleNamespace(arena=SimpleNamespace(entries={"network": entry})), "network")
    assert found.params == {"steps": [[0, 900], [300, 700]], "keep": 620}


def test_pictures_by_path_are_learnt_from_and_have_no_rule(tmp_path):
    files, truth = digits(90)
    for n, data in enumerate(files):
        (tmp_path / f"{n}.png").write_bytes(data)
    frame = pd.DataFrame({"file": [str(tmp_path / f"{n}.png") for n in range(90)], "digit": [f"d{t % 3}" for t in truth]})
    frame.assign(file=[f"{n}.png" for n in range(90)]).to_csv(tmp_path / "scans.csv", index=False)
    quick = {"models": ["dummy", "patch_linear"], "ensemble": False, "search_trials": 0, "verbose": False}
    model, beside = mb.fit(frame, "digit", **quick), mb.fit(tmp_path / "scans.csv", "digit", **quick)
    assert np.array_equal(beside.predict_proba(frame), model.predict_proba(frame)), "paths in a file start where the file lies"
    assert model.comparison.score("patch_linear")["log_loss"] < model.comparison.score("dummy")["log_loss"]
    assert model.predict(frame).shape == (90,)
    problem, plan = asked(frame, "digit")
    column, table = best_rule(plan, frame, np.zeros(90, dtype=int), schema=infer_schema(frame), target=model.target)
    assert column == "" and table.empty
    with_number = FeaturePlan([*plan.columns, FeatureColumn("size", "numeric", True, "", "")], plan.options, None, "digit", "multiclass")
    both = frame.assign(size=np.arange(90.0))
    assert best_rule(with_number, both, np.arange(90) // 30, schema=infer_schema(both), target=model.target)[0] == "size"


def test_features_are_priced_by_the_styles_that_are_asked_for():
    frame = reviews(300)
    problem, plan = asked(frame, "liked")
    y, schema = (frame["liked"] == "yes").to_numpy().astype(int), infer_schema(frame)
    assert TABLE_STYLES == ("trees", "linear", "native")
    for styles in (TABLE_STYLES, ("words",), ("parts",)):
        assert feature_cost(plan, frame, y, schema, tried=100, styles=styles).row > 0
    assert replace(model_spec("network"), name="mine").style == "parts"


def test_slow_features_of_other_styles_do_not_keep_a_network_out():
    from mlbench.training.arena import _features_ahead

    folds = [SimpleNamespace(seconds={"linear": 20.0}) for _ in range(4)]
    arena = SimpleNamespace(folds=folds, n_folds=4)
    assert _features_ahead(arena, "parts") == 0 and _features_ahead(arena, "trees") == 80 and _features_ahead(arena, "linear") == 0
    folds[0].seconds["parts"] = 2.0
    assert _features_ahead(arena, "parts") == 6
