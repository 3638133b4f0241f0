"Sentences with tags through everything that the six notebooks call: proposal, folds, candidates, evaluation, file, bundle, service."

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mlbench as mb
from mlbench.core.errors import UsageError
from mlbench.data.schema import infer_schema
from mlbench.data.splits import make_folds, make_split
from mlbench.deployment import proven_onnx, write_bundle
from mlbench.deployment.client import ask, smoke_test, start_service
from mlbench.deployment.rows import InputError
from mlbench.deployment.whatif import swings, what_if_figure
from mlbench.eda import find_all, look_at
from mlbench.eda.images import media_figures_of
from mlbench.evaluation import evaluate_model, performance_figures, permutation_importance, ranked_columns, shap_values, slice_figure
from mlbench.features import make_plan
from mlbench.features.media import media_figures
from mlbench.problem.problem import Problem
from mlbench.problem.proposal import propose
from mlbench.problem.target import make_target
from mlbench.training import Arena, Model, choice_sentence, compared, fit_chosen, gain_sentence, oof_figure, with_ensemble
from mlbench.training.lineup import line_up_for
from mlbench.training.search import search

SMALL = {"width": 32, "embedding": 16, "max_epochs": 6, "learning_rate": 0.02}


def spoken(rows: int, seed: int) -> pd.DataFrame:
    "Sentences in which the words around a name say whether it is a person or a place."
    rng, names = np.random.default_rng(seed), ["Paris", "Austin", "Jordan", "Chelsea", "Florence", "Ann", "Rome"]
    made = []
    for _ in range(rows):
        who, where = rng.choice(names, 2)
        if rng.random() < 0.6:
            made.append((f"{who} Smith lives in {where} .", "B-PER I-PER O O B-LOC O"))
        else:
            made.append((f"in {where} sleeps {who} .", "O B-LOC O B-PER O"))
    return pd.DataFrame(made, columns=["text", "tags"]).assign(id=[f"s{n}" for n in range(rows)])


@pytest.fixture(scope="module")
def work():
    "A small comparison of all three candidates, and a model of each."
    frame = spoken(90, 0)
    problem = Problem.from_dict(propose(frame, infer_schema(frame), None, source="x.csv").problem)
    problem.check_frame(frame)
    target, split = make_target(frame["tags"], problem), make_split(frame, **problem.split_settings())
    train, test = (frame.iloc[rows].reset_index(drop=True) for rows in (split.train, split.test))
    schema = infer_schema(frame, problem.columns.kinds).seen_in(train)
    plan, y = make_plan(schema, problem, train), target.encode(train["tags"])
    specs = [s if s.family == "baseline" else replace(s, params=dict(s.params) | SMALL) for s in line_up_for(problem, plan, y)]
    folds = make_folds(train, **(problem.fold_settings() | {"folds": 2}))
    found = compared(Arena(plan, train, y, folds, schema=schema, target=target, metrics=problem.metrics, n_jobs=1).compete(specs))
    models = {s.name: fit_chosen(found, schema=schema, problem=problem, name=s.name) for s in specs}
    return found, models, train, test


def test_the_three_candidates_are_compared_on_pieces(work):
    found, models, train, _ = work
    assert set(models) == {"word_tags", "bilstm_crf", "transformer_crf"} and not found.failures and found.metric == "span_f1"
    assert found.chosen != "word_tags", "names are persons or places by the words around them"
    assert with_ensemble(found).chosen == found.chosen and "span_f1" in choice_sentence(found).text and "word_tags" in gain_sentence(found).text
    oof = found.oof_frame()
    assert set(oof) == {"fold", "truth", *models} and oof["truth"].tolist() == train["tags"].tolist()
    assert "recognised least" in oof_figure(found).layout.title.text


def test_candidates_are_named_and_a_table_is_fitted_in_one_call(work):
    found, models, train, test = work
    problem, plan = models["word_tags"].problem, models["word_tags"].plan
    assert [s.name for s in line_up_for(problem, plan, found.y, ["bilstm_crf", "word_tags"])] == ["word_tags", "bilstm_crf"]
    with pytest.raises(UsageError, match="task here is tagging"):
        line_up_for(problem, plan, found.y, ["linear"])
    model = mb.fit(train, target="tags", models=["word_tags"], time_limit=30)
    assert model.target.task == "tagging" and "span_f1" in repr(model.evaluate(test, train=train))


def test_a_model_is_saved_and_says_the_same(work, tmp_path):
    _, models, _, test = work
    for name, model in models.items():
        again = Model.load(model.save(tmp_path / name))
        assert (again.predict(test) == model.predict(test)).all() and np.array_equal(again.output(test), model.output(test))
        assert model.predict(test.head(0)).tolist() == [] and model.predict(pd.DataFrame({"text": ["", None]})).tolist() == ["", ""]


def test_the_evaluation_counts_pieces_and_draws_sentences(work):
    found, models, train, test = work
    evaluation = evaluate_model(models[found.chosen], test, train)
    metrics = evaluation.metrics(n_resamples=60).set_index("metric")
    assert metrics.loc["span_f1", "value"] > metrics.loc["span_f1", "constant"] and metrics.loc["span_f1", "low"] <= metrics.loc["span_f1", "value"]
    assert len(evaluation.frame) == test["text"].str.split().str.len().sum() and len(set(evaluation.groups)) == len(test)
    assert list(performance_figures(evaluation)) == ["types", "errors", "confusion", "calibration"]
    ranked = ranked_columns(evaluation)
    assert "accuracy" in slice_figure(evaluation, "shape").layout.title.text and "text" not in set(ranked["column"])
    explanation = shap_values(evaluation, train, 30)
    assert "the word itself" in explanation.columns and len(permutation_importance(evaluation, n_repeats=2)) == 2


def test_a_look_at_tags_counts_pieces_in_their_place(work):
    found, models, train, _ = work
    model = models[found.chosen]
    look = look_at(train, model.schema, model.problem, found.target)
    assert look.target.classes is None and look.tags is found.target and {"words of types", "unclear words"} <= set(media_figures_of(look))
    assert "unclear words" in {f.kind for f in find_all(look).found}


def test_words_are_drawn_as_a_tagger_reads_them(work):
    _, models, train, _ = work
    model = models["word_tags"]
    (drawn,) = media_figures(model.plan, train, model.schema).items()
    assert drawn[0] == "text as taggers read it" and {0, 2} == set(drawn[1].data[0].z.ravel().tolist())


@pytest.mark.parametrize("name", ["word_tags", "bilstm_crf", "transformer_crf"])
def test_the_file_says_what_the_model_says(work, tmp_path, name):
    _, models, train, test = work
    model = models[name]
    data, parity = proven_onnx(model, train)
    assert parity.passed and parity.max_rel < 1e-5
    bundle = write_bundle(tmp_path / name, model, data, parity, train, name=name, metric="span_f1")
    odd = pd.DataFrame({"text": ["", None, "Žluťoučký kůň 🙂", "Rome", " ".join(["Ann", "lives", "in", "Rome"] * 40)]})
    for rows in (test, odd):
        assert (bundle.predict(rows) == model.predict(rows)).all()
    assert bundle.predict({"text": []}).tolist() == [] and len(bundle.answer([{"text": "Ann"}])["probabilities"][0]) == 1
    assert "tagged" in what_if_figure(bundle, train).layout.title.text and list(swings(bundle, train, 0)["word"]) == train["text"][0].split()


def test_the_service_answers_and_refuses_in_words(work, tmp_path):
    found, models, train, _ = work
    model = models[found.chosen]
    data, parity = proven_onnx(model, train)
    bundle = write_bundle(tmp_path / "bundle", model, data, parity, train, name="names", metric="span_f1")
    for sent, words in (({"text": 3.5}, "send text"), ({"text": "a " * 1001}, "1,001 words"), ({"txt": "a"}, "Did you mean 'text'")):
        with pytest.raises(InputError, match=words):
            bundle.answer([sent])
    with start_service(bundle.folder) as service:
        assert smoke_test(service.url, model, bundle, train, tolerance=parity.tolerance)["rows"] == 50
        answer = ask(service.url, [{"text": "Ann Smith lives in Rome ."}, {"text": ""}])
        assert len(answer["predictions"][0].split()) == 6 == len(answer["probabilities"][0]) and answer["predictions"][1] == ""
        with pytest.raises(Exception, match="422"):
            ask(service.url, [{"text": ["Ann"]}])


def test_networks_are_made_again_with_the_same_weights(work):
    found, *_ = work
    arena = found.arena
    before = [f.estimator.model_ for _, f in sorted(arena.entries["bilstm_crf"].fits.items())]
    for fit in arena.entries["bilstm_crf"].fits.values():
        fit.estimator = None
    again = [f.estimator.model_ for _, f in sorted(arena.fitted("bilstm_crf").items())]
    assert all(np.array_equal(a, b) for a, b in zip(before, again))


def test_settings_of_networks_are_searched(work):
    arena = work[0].arena
    quick = {"bilstm_crf": {"width": {"choices": [32, 64]}, "dropout": [0.0, 0.5]}}
    tried = search(arena, [arena.entries["bilstm_crf"].spec], trials=2, spaces=quick)
    made = [t for t in tried.records if t.number]
    assert [t.state in ("finished", "stopped") for t in made] == [True, True] and tried.metric == "span_f1", tried.notes
    assert all(set(t.params) == {"width", "dropout"} for t in made[1:])
