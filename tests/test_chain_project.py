"Projects, plans and what makes a stage outdated: everything that needs no kernel."

from __future__ import annotations

import json
import shutil
import time

import pytest
from chain_project import edit, make_project, write_notebook

from mlbench.chain import Project, list_runs, run_chain
from mlbench.chain.cards import CARD_SCHEMA, check_card
from mlbench.chain.plan import plan_chain
from mlbench.core.errors import ParameterError, ProblemError, UsageError


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "small")


def test_creating_a_project(project, tmp_path):
    made = Project.create(tmp_path / "new", "name: new\n", templates=project)
    assert sorted(p.name for p in made.path.iterdir()) == sorted(
        [".gitignore", "01_problem.ipynb", "04_training.ipynb", "05_evaluation.ipynb", "params.yaml", "problem.yaml"]
    )
    assert made.given == {"01_problem": {}, "04_training": {}, "05_evaluation": {}}
    assert "runs/" in (made.path / ".gitignore").read_text()
    with pytest.raises(UsageError, match="holds a project already"):
        Project.create(tmp_path / "new", "name: other\n", templates=project)
    assert (made.path / "problem.yaml").read_text() == "name: new\n"
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        Project.create(tmp_path / "file", "name: x\n", templates=project)


def test_setting_a_value_keeps_the_rest_of_the_file(project):
    opened = Project.open(project)
    text = "# mine\ntraining:   # the model\n    factor: 3.0  # three times\n    # seed: 0\n\n# looked at twice\nevaluation:\n  # threshold: 0.5\n"
    (project / "params.yaml").write_text(text)
    opened.set_parameter("evaluation", "threshold", 0.25)
    opened.set_parameter("training", "factor", 4)
    opened.set_parameter("problem", "note", "a: b # c")
    after = (project / "params.yaml").read_text()
    assert opened.given == {"04_training": {"factor": 4.0}, "05_evaluation": {"threshold": 0.25}, "01_problem": {"note": "a: b # c"}}
    assert all(line in after for line in ("# mine", "# looked at twice", "training:   # the model", "    # seed: 0", "    factor: 4.0  # three times"))
    (project / "params.yaml").write_text("problem:\n  rows:\n    - 3\n  note: 'x'\n")
    opened.set_parameter("problem", "rows", 5)
    opened.set_parameter("problem", "note", None)
    assert opened.given == {"01_problem": {"rows": 5, "note": None}}
    (project / "params.yaml").write_text("problem: {rows: 3}\n")
    with pytest.raises(ParameterError, match="in braces"):
        opened.set_parameter("problem", "rows", 5)


def test_wrong_parameters_end_before_a_kernel(project):
    given = {"evaluation.treshold": "0.4", "threshold": "0.4", "evaluation.threshold": "high", "training.factor": "11", "tuning.x": "1", "05.view": "pie"}
    start = time.perf_counter()
    with pytest.raises(ParameterError) as caught:
        run_chain(project, parameters=given)
    assert time.perf_counter() - start < 0.5
    text = str(caught.value)
    for words in (
        "evaluation.treshold is not a parameter. Did you mean 'threshold'?",
        "threshold names no stage. Write evaluation.threshold.",
        "expected a number",
        "between 0 and 10",
        "There is no stage 'tuning'",
        'one of "bars", "boxes"',
    ):
        assert words in text
    assert caught.value.exit_code == 2 and not (project / "runs").exists()


def test_a_missing_or_doubled_tag_ends_before_a_kernel(project):
    write_notebook(project / "04_training.ipynb", None, ["stage = Stage.open('04_training', globals())"])
    raw = json.loads((project / "05_evaluation.ipynb").read_text())
    raw["cells"][1]["metadata"] = {"tags": ["parameters"]}
    (project / "05_evaluation.ipynb").write_text(json.dumps(raw))
    with pytest.raises(ParameterError, match=r"(?s)04_training.ipynb: no code cell is tagged.*05_evaluation.ipynb: 2 code cells are tagged"):
        run_chain(project)
    assert not (project / "runs").exists()


def test_a_wrong_problem_and_a_missing_file_end_before_a_kernel(project):
    edit(project / "problem.yaml", "task: binary", "task: binry")
    with pytest.raises(ProblemError, match="binary"):
        run_chain(project)
    edit(project / "problem.yaml", "task: binry", "task: binary")
    (project / "data.csv").unlink()
    with pytest.raises(Exception, match=r"data\.csv") as caught:
        run_chain(project)
    assert caught.value.exit_code == 2 and list_runs(project) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Stage.open('04_training'", "Stage.open('04_tuning'", "opens the stage '04_tuning'"),
        ("reads=['train']", "reads=['model']", "04_training.ipynb reads 'model'"),
        ("writes=['model', 'timings']", "writes=['model', 'train', 'timings']", "and so does 01_problem"),
        ("reads=['train']", "reads=names", "must be a list of names that is written out"),
        ("import helper", "import helper as", "is not Python"),
    ],
)
def test_a_chain_that_does_not_fit_ends_before_a_kernel(project, old, new, words):
    edit(project / "04_training.ipynb", old, new)
    with pytest.raises(UsageError, match=words):
        run_chain(project)


def test_stages_are_named_in_three_ways_and_scratch_notebooks_do_no_harm(project):
    write_notebook(project / "09_scratch.ipynb", None, ["1 + 1"])
    opened = Project.open(project / "problem.yaml")
    assert [s.name for s in plan_chain(opened, to="training").stages] == ["01_problem", "04_training"]
    assert opened.stage_name("05") == opened.stage_name("05_evaluation.ipynb") == "05_evaluation"
    shutil.rmtree(project)
    with pytest.raises(UsageError, match="mlbench new"):
        Project.open(project)


def test_a_card_is_checked_as_jsonschema_would():
    jsonschema = pytest.importorskip("jsonschema")
    good = {"format": 1, "stage": "s", "title": "t", "figures": [], "tables": [], "metrics": [], "findings": [], "verdicts": []}
    metric, finding = {"name": "a", "value": None}, {"kind": "k", "what": "w", "severity": "note", "evidence": {"any": [1]}}
    verdict = {"metric": "a", "passed": None, "sentence": "s", "goal": 1}
    cases = [
        good,
        good | {"metrics": [metric, metric | {"low": 1.5}]},
        good | {"metrics": [metric | {"value": "1"}]},
        good | {"metrics": [metric | {"value": True}]},
        good | {"metrics": {}},
        good | {"findings": [finding]},
        good | {"findings": [finding | {"severity": "bad"}]},
        good | {"verdicts": [verdict, verdict | {"passed": True}]},
        good | {"verdicts": [verdict | {"passed": 1}]},
        good | {"extra": 1},
        {k: v for k, v in good.items() if k != "stage"},
        good | {"format": 1.5},
        good | {"tables": [{"name": "t", "columns": ["a"], "rows": [[1]], "total": 1}]},
        good | {"tables": [{"name": "t", "columns": [1], "rows": [1], "total": 1}]},
        [],
    ]
    validator = jsonschema.Draft202012Validator(CARD_SCHEMA)
    for case in cases:
        try:
            ours = check_card(case) is case
        except UsageError:
            ours = False
        assert ours == validator.is_valid(case), case
