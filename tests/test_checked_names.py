"Names of models, kinds and metrics in the parameters of the templates are refused before anything runs, wherever they were given."

from __future__ import annotations

import pytest

from mlbench.chain.grid import read_grid
from mlbench.chain.parameters import read_parameters
from mlbench.chain.plan import plan_chain
from mlbench.chain.project import Project
from mlbench.chain.stage import Stage
from mlbench.core.errors import ParameterError, ProblemError, UsageError
from mlbench.models.registry import MODELS
from mlbench.models.spaces import SPACES, check_kinds, check_models

PROBLEM = """name: clinic
question: Is it malignant?
task: binary
data: {source: "example:breast_cancer"}
target: diagnosis
positive: malignant
metric: roc_auc
also: [brier]
"""
MISTYPED = [
    ("models", "[dummy, lightgb]", "there is no model 'lightgb'. Did you mean 'lightgbm'"),
    ("search_kinds", "[lightgmb]", "there is no model 'lightgmb'. Did you mean 'lightgbm'"),
    ("search_kinds", "[dummy]", "no settings worth searching"),
    ("search_kinds", "[svm, svm]", "named twice"),
    ("search_space", "{lightgbm: {num_leafs: [8, 256]}}", "has no setting 'num_leafs'. Did you mean 'num_leaves'"),
    ("search_space", "{lightgbm: {num_leaves: [256, 8]}}", "the smaller first"),
    ("search_space", "[lightgbm]", "expected"),
    ("metric", "roc_au", "Did you mean 'roc_auc'"),
    ("metric", "auc", "Write 'roc_auc'"),
    ("metric", "accuracy", "add accuracy to `also` in problem.yaml"),
    ("sampler", "tpee", "one of"),
]


@pytest.fixture
def clinic(tmp_path, monkeypatch):
    "A project with the real templates, of which nothing has run; the working directory is the folder above it."
    monkeypatch.chdir(tmp_path)
    return Project.create(tmp_path / "clinic", PROBLEM)


def give(project: Project, text: str, problem: str = PROBLEM) -> Project:
    "The project with a section `training` in params.yaml, opened anew."
    (project.path / "params.yaml").write_text(f"training:\n  {text}\n")
    (project.path / "problem.yaml").write_text(problem)
    return Project.open(project.path)


@pytest.mark.parametrize(("name", "value", "words"), MISTYPED)
def test_a_mistyped_name_ends_a_run_before_a_kernel(clinic, say, name, value, words):
    for arguments in (("run", "clinic", "--dry-run"), ("run", "clinic"), ("params", "--project", "clinic"), ("why", "training", "--project", "clinic")):
        give(clinic, f"{name}: {value}")
        code, _, err = say(*arguments)
        flat = " ".join(err.split())
        assert code == 2 and words in flat and f"params.yaml: training.{name}" in flat, err
    give(clinic, "choose: best")
    code, _, err = say("run", "clinic", "--dry-run", "-p", f"training.{name}={value}")
    assert code == 2 and words in " ".join(err.split()) and "command line: training" in err, err
    assert not (clinic.path / "runs").exists()


@pytest.mark.parametrize(("name", "value", "words"), [m for m in MISTYPED if m[0] != "sampler"])
def test_a_sweep_looks_at_every_value(clinic, name, value, words):
    good = "{}" if name == "search_space" else "[linear]" if value.startswith("[") else "brier"
    with pytest.raises(ParameterError, match=words.replace("(", r"\(")):
        read_grid(clinic, {f"training.{name}": f"{good},{value}"})


def test_the_form_and_a_notebook_opened_by_hand_refuse_too(clinic, monkeypatch):
    with pytest.raises(ParameterError, match="Did you mean 'lightgbm'"):
        clinic.set_parameter("training", "models", ["lightgb"])
    assert not clinic.given.get("04_training") and clinic.set_parameter("training", "models", ["lightgbm"]) == ["lightgbm"]
    monkeypatch.chdir(clinic.path)
    with pytest.raises(ParameterError, match="notebook: training.search_kinds: there is no model 'svn'"):
        Stage.open("04_training", {"search_kinds": ["svn"]})


def test_what_a_person_must_be_able_to_follow(clinic):
    readable = PROBLEM + "constraints: {interpretable: true}\n"
    with pytest.raises(ParameterError, match="lightgbm, svm cannot be read by a person.*or name dummy"):
        plan_chain(give(clinic, "models: [lightgbm, svm]", readable))
    with pytest.raises(ParameterError, match="nobody can follow how lightgbm decides.*Search linear"):
        plan_chain(give(clinic, "search_kinds: [tree, lightgbm]", readable))
    with pytest.raises(ParameterError, match="bilstm_crf is not for the task binary"):
        plan_chain(give(clinic, "search_kinds: [bilstm_crf]"))
    assert plan_chain(give(clinic, "search_kinds: [tree, linear]", readable)).stages


def test_all_mistakes_come_together_and_good_names_pass(clinic):
    with pytest.raises(ParameterError) as caught:
        plan_chain(give(clinic, "models: [lightgb, linea]\n  search_kinds: [svn]\n  metric: brie"), parameters={"evaluation.threshold": "2"})
    told = str(caught.value)
    assert all(words in told for words in ("'lightgb'", "'linea'", "'svn'", "'brie'", "between 0 and 1"))
    every = ", ".join(s.name for s in MODELS)
    plan = plan_chain(give(clinic, f"models: [{every}]\n  search_kinds: [{', '.join(s.name for s in MODELS if s.name in SPACES)}]\n  metric: brier"))
    assert len(plan.stages) == len(clinic.stages) and plan_chain(give(clinic, "models: []\n  metric: null")).stages


def test_the_problem_is_asked_for_only_where_a_name_was_given(clinic):
    broken = PROBLEM.replace("task: binary", "task: binry")
    assert plan_chain(give(clinic, "choose: simplest", broken)).stages
    with pytest.raises(ProblemError, match="binry"):
        plan_chain(give(clinic, "models: [linear]", broken))


def test_names_are_taken_from_the_notebook_as_the_project_has_it(clinic):
    parameters = clinic.stages["04_training"].parameters
    assert {n: p.checked_by.rpartition(".")[2] for n, p in parameters.items() if p.checked_by} == {
        "models": "check_models",
        "search_kinds": "check_kinds",
        "search_space": "check_space",
        "metric": "check_metric",
    }
    assert "[" not in parameters["models"].help and parameters["metric"].help.endswith("the one that chooses")
    for cell in ("a: str = 'x'  # [checked by os.path.join]", "a: str = 'x'  # by name [check it]", "a: str = 'x'  # [checked by mlbench]"):
        with pytest.raises(ParameterError, match="has a check that cannot be read"):
            read_parameters(cell)


def test_checks_say_what_the_stage_would_say(clinic):
    for check in (check_models, check_kinds):
        assert check([], clinic.problem) is None and check(["linear"], clinic.problem) is None
        with pytest.raises(UsageError, match="there is no model 'foret'"):
            check(["foret", "linear"], clinic.problem)
