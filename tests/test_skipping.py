"Nothing stale is kept and nothing runs for nothing: dozens of edits of a small chain, each with the stages that must run for it."

from __future__ import annotations

import ast
import importlib
import json
import platform
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chain_project import edit, make_project, write_notebook

import mlbench
import mlbench.chain.cache
import mlbench.chain.record
from mlbench.chain import Project, list_runs, run_chain
from mlbench.chain.cache import mlbench_source, packages_of, problem_parts, stage_key
from mlbench.chain.imports import reach, read_code
from mlbench.chain.plan import plan_chain
from mlbench.chain.why import explain, explanation
from mlbench.cli.app import said
from mlbench.core.files import read_json, write_json

P, T, E = "01_problem", "04_training", "05_evaluation"
FILES = {
    "helper.py": '"Help."\n\nimport tools\n\n\ndef total(values):\n    from late import SHIFT\n\n    return float(sum(values)) * tools.SCALE + SHIFT  # all\n',
    "late.py": "SHIFT = 0\n",
    "tools/__init__.py": "from .scale import SCALE\n",
    "tools/scale.py": "from .deep.base import BASE\n\nSCALE = BASE\n",
    "tools/deep/__init__.py": "",
    "tools/deep/base.py": "from pathlib import Path\n\nBASE = int((Path(__file__).parent / 'base.txt').read_text())\n",
    "tools/deep/base.txt": "1",
    "tools/unused.py": "UNUSED = 1\n",
    "dynamic.py": "LIMIT = 1\n",
    "prepare.py": "import prepare_more\n\nready = prepare_more.READY\n",
    "prepare_more.py": "READY = True\n",
    "typed_only.py": "class Shape: ...\n",
    "lookup.csv": "x,name\n1,one\n",
    "limits/low.json": '{"low": 0}',
    "unused.csv": "a\n1\n",
    "lib/extra.py": "EXTRA = 1\n",
}
OUTSIDE = {
    "local/shared_code.py": "import shared_more\n\nVALUE = shared_more.VALUE\n",
    "local/shared_more.py": "VALUE = 1\n",
    "local/shared_unused.py": "VALUE = 1\n",
    "site-packages/colours/__init__.py": "RED = 1\n",
    "site-packages/colour_tools-1.0.dist-info/top_level.txt": "colours\n",
    "site-packages/shades.py": "DARK = 1\n",
    "site-packages/shade_tools-2.0.dist-info/RECORD": "shades.py,sha256=x,9\nshade_tools-2.0.dist-info/RECORD,,\n",
    "site-packages/unused_thing-1.0.dist-info/top_level.txt": "unused_thing\n",
    "first/site-packages/.keep": "",
}
EVALUATION = [
    "stage = Stage.open('05_evaluation', globals(), reads=['train', 'model'], writes=['metrics'], opens=['test'])",
    "import importlib\nimport json\nimport os\nfrom typing import TYPE_CHECKING\n\nimport colours\nimport shades\n\nif TYPE_CHECKING:\n    import typed_only",
    "%run prepare.py\ndynamic = importlib.import_module('dynamic')",
    "import sys\n\nsys.path.append('lib')\nimport extra",
    "%%time\nimport pandas as pd\n\nnames = pd.read_csv('lookup.csv')\nlow = json.load(open(os.path.join('limits', 'low.json')))['low']",
    "test = stage.unseal('test')\nweight = float((stage.load('model') / 'weights.txt').read_text())",
    "stage.save('metrics', {'weight': weight, 'threshold': threshold, 'rows': len(test), 'low': low, 'names': len(names), 'dynamic': dynamic.LIMIT})",
    "with open('report.txt', 'w') as file:\n    file.write(f'{weight}')",
    "stage.close()",
]


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@dataclass
class Place:
    "The project, what lies beside it, and a way to change the surroundings."

    project: Path
    outside: Path
    patch: pytest.MonkeyPatch

    def edit(self, name: str, old: str, new: str) -> None:
        edit(self.project / name, old, new)

    def notebook(self, stage: str, change: Callable[[dict], None]) -> None:
        path = self.project / f"{stage}.ipynb"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content, indent=1))

    def cell(self, stage: str, old: str, new: str) -> None:
        def change(content: dict) -> None:
            cells = [c for c in content["cells"] if old in c["source"]]
            assert len(cells) == 1, f"{old!r} is in {len(cells)} cells of {stage}"
            cells[0]["source"] = cells[0]["source"].replace(old, new)

        self.notebook(stage, change)

    def insert(self, stage: str, position: int, kind: str, source: str) -> None:
        more = {"outputs": [], "execution_count": None} if kind == "code" else {}
        self.notebook(stage, lambda c: c["cells"].insert(position, {"cell_type": kind, "id": "new", "source": source, "metadata": {}} | more))


def _outputs(content: dict) -> None:
    for n, cell in enumerate(content["cells"]):
        if cell["cell_type"] == "code":
            cell |= {"execution_count": n, "outputs": [{"output_type": "stream", "name": "stdout", "text": ["seen\n"]}]}


def _ids(content: dict) -> None:
    for n, cell in enumerate(content["cells"]):
        cell["id"] = f"other-{n}"
        cell["metadata"] |= {"collapsed": True}
        cell["source"] = [line + "\n" for line in cell["source"].split("\n")[:-1]] + [cell["source"].split("\n")[-1]]
    content["metadata"]["kernelspec"]["display_name"] = "Other"


def _swap(content: dict) -> None:
    cells = content["cells"]
    assert "import helper" in cells[4]["source"]
    cells[4], cells[5] = cells[5], cells[4]


def _reverse(content: dict) -> None:
    cell = content["cells"][2]
    assert "factor: float" in cell["source"]
    cell["source"] = "\n".join(reversed(cell["source"].split("\n")))


def _raises(content: dict) -> None:
    content["cells"][5]["metadata"]["tags"] = ["raises-exception"]


def _upgrade(place: Place, old: str, new: str) -> None:
    folder = place.outside / "site-packages"
    (folder / old).rename(folder / new)


def _no_numpy_like_before(place: Place) -> None:
    (place.outside / "first/site-packages/numpy-0.0.1.dist-info").mkdir()


def _change(place: Place, path: str, old: str, new: str) -> None:
    edit(place.outside / path, old, new)


def _harmless_version(place: Place) -> None:
    (place.outside / "site-packages/unused_thing-1.0.dist-info").rename(place.outside / "site-packages/unused_thing-2.0.dist-info")


def _damage(place: Place, stage: str, path: str, text: str | None) -> None:
    file = list_runs(place.project)[0].stage_folder(stage) / "artifacts" / path
    if text is None:
        file.unlink()
    else:
        file.write_text(text)


MUTATIONS: dict[str, tuple[Callable[[Place], object], tuple[str, ...]]] = {
    # code of notebooks
    "code: first stage": (lambda p: p.cell(P, "frame.tail(4)", "frame.tail(5)"), (P,)),
    "code: middle stage": (lambda p: p.cell(T, "total(train.x) * factor", "total(train.x) + factor"), (T,)),
    "code: a constant": (lambda p: p.cell(E, "'rows': len(test)", "'row': len(test)"), (E,)),
    "code: a line that IPython alone reads": (lambda p: p.cell(E, "%run prepare.py", "%run -i prepare.py"), (E,)),
    "code: below %%time": (lambda p: p.cell(E, "names = pd.read_csv('lookup.csv')", "names = pd.read_csv('lookup.csv', sep=',')"), (E,)),
    "code: a new cell": (lambda p: p.insert(T, 4, "code", "y = 1"), (T,)),
    "code: a cell is gone": (lambda p: p.cell(T, "stage.save('timings', {'now': time.time()}, volatile=True)", ""), (T,)),
    "code: cells change places": (lambda p: p.notebook(T, _swap), (T,)),
    "code: a docstring": (lambda p: p.edit("helper.py", '"Help."', '"More help."'), (T,)),
    "code: a tag that lets a cell fail": (lambda p: p.notebook(T, _raises), (T,)),
    "code: what the stage declares": (lambda p: p.cell(P, "writes=['train', 'facts']", "writes=['facts', 'train']"), (P,)),
    # modules
    "module: imported by a cell": (lambda p: p.edit("helper.py", "float(sum(values))", "float(max(values))"), (T,)),
    "module: imported in a function": (lambda p: p.edit("late.py", "0", "1"), (T,)),
    "module: a package": (lambda p: p.edit("tools/__init__.py", "import SCALE", "import SCALE as SCALE2\nfrom .scale import SCALE"), (T,)),
    "module: by a relative import": (lambda p: p.edit("tools/scale.py", "SCALE = BASE", "SCALE = 2 * BASE"), (T,)),
    "module: at the end of a row of imports": (lambda p: p.edit("tools/deep/base.py", "int(", "float("), (T,)),
    "module: an empty __init__": (lambda p: (p.project / "tools/deep/__init__.py").write_text("NEW = 1\n"), (T,)),
    "module: import_module": (lambda p: p.edit("dynamic.py", "1", "2"), (E,)),
    "module: %run": (lambda p: p.edit("prepare.py", "ready = ", "ready = not "), (E,)),
    "module: imported by what %run runs": (lambda p: p.edit("prepare_more.py", "True", "False"), (E,)),
    "module: from a folder on sys.path": (lambda p: p.edit("lib/extra.py", "1", "2"), (E,)),
    "module: outside the project": (lambda p: _change(p, "local/shared_code.py", "VALUE = ", "VALUE = 1 + "), (T,)),
    "module: outside, through another": (lambda p: _change(p, "local/shared_more.py", "1", "2"), (T,)),
    "module: appears and hides another": (lambda p: (p.project / "shared_more.py").write_text("VALUE = 3\n"), (T,)),
    "module: gone": (lambda p: (p.project / "late.py").unlink(), (T,)),
    # data
    "data: the source": (lambda p: p.edit("data.csv", "23,", "24,"), (P,)),
    "data: a file that a cell reads": (lambda p: p.edit("lookup.csv", "one", "two"), (E,)),
    "data: a path in two parts": (lambda p: p.edit("limits/low.json", "0", "1"), (E,)),
    "data: a file beside a module": (lambda p: p.edit("tools/deep/base.txt", "1", "2"), (T,)),
    # parameters
    "parameter: in params.yaml": (lambda p: p.edit("params.yaml", "factor: 3.0", "factor: 4.0"), (T,)),
    "parameter: another default": (lambda p: p.cell(E, "threshold: float = 0.5", "threshold: float = 0.6"), (E,)),
    "parameter: other type, equal value": (lambda p: p.cell(T, "seed: int = 0", "seed: float = 0.0"), (T,)),
    "parameter: true for one": (lambda p: p.cell(T, "seed: int = 0", "seed: bool = False"), (T,)),
    "parameter: a new one": (lambda p: p.cell(P, "rows: int = 8", "rows: int = 8\nmore: int = 1"), (P,)),
    # surroundings
    "surroundings: numpy": (_no_numpy_like_before, (P, T, E)),
    "surroundings: a package of another name": (lambda p: _upgrade(p, "colour_tools-1.0.dist-info", "colour_tools-1.1.dist-info"), (E,)),
    "surroundings: a package without a list of modules": (lambda p: _upgrade(p, "shade_tools-2.0.dist-info", "shade_tools-2.1.dist-info"), (E,)),
    "surroundings: Python": (lambda p: p.patch.setattr(platform, "python_version", lambda: "3.99.0"), (P, T, E)),
    "surroundings: mlbench": (lambda p: p.patch.setattr(mlbench.chain.cache, "mlbench_source", lambda: "n" * 64), (P, T, E)),
    # the problem
    "problem: the metric": (lambda p: p.edit("problem.yaml", "target: label", "target: label\nmetric: log_loss"), (P, T, E)),
    "problem: a nested value": (lambda p: p.edit("problem.yaml", "target: label", "target: label\nsplit: {seed: 7}"), (P, T, E)),
    # outputs
    "output: edited": (lambda p: _damage(p, T, "model/weights.txt", "0"), (T,)),
    "output: gone": (lambda p: _damage(p, P, "train.parquet", None), (P,)),
    "output: a sealed one is gone": (lambda p: next(list_runs(p.project)[0].stage_folder(P).rglob("*test*")).unlink(), (P,)),
    "output: a file too many in a folder": (lambda p: _damage(p, T, "model/more.txt", "x"), (T,)),
    # nothing that matters
    "nothing: a comment in a cell": (lambda p: p.cell(P, "# the data", "# another comment\n# and one more"), ()),
    "nothing: a comment in a module": (lambda p: p.edit("helper.py", "  # all", "  # every one"), ()),
    "nothing: a comment in a module outside": (lambda p: _change(p, "local/shared_more.py", "1", "1  # one"), ()),
    "nothing: a cell of comments": (lambda p: p.insert(T, 4, "code", "# nothing but this"), ()),
    "nothing: an empty cell": (lambda p: p.insert(E, 3, "code", "\n  \n"), ()),
    "nothing: markdown": (lambda p: p.insert(P, 2, "markdown", "# More\n\nwords"), ()),
    "nothing: the title": (lambda p: p.cell(E, "# 05_evaluation: what", "# Another title: what"), ()),
    "nothing: outputs and counts": (lambda p: [p.notebook(s, _outputs) for s in (P, T, E)], ()),
    "nothing: identifiers, metadata, lists of lines": (lambda p: [p.notebook(s, _ids) for s in (P, T, E)], ()),
    "nothing: white space in a cell": (lambda p: p.cell(T, "stage.save('timings', {'now'", "\n\nstage.save( 'timings',\n    {'now'"), ()),
    "nothing: white space in a module": (lambda p: p.edit("tools/scale.py", "SCALE = BASE", "SCALE   =   (BASE)\n\n\n"), ()),
    "nothing: the other quotes": (lambda p: p.cell(P, "pd.read_csv('data.csv')", 'pd.read_csv("data.csv")'), ()),
    "nothing: help of a parameter": (lambda p: p.cell(T, "# multiplies [0..10]", "# times [0..20]"), ()),
    "nothing: a default that is overruled": (lambda p: p.cell(T, "factor: float = 2.0", "factor: float = 1.0"), ()),
    "nothing: a default written out": (lambda p: p.edit("params.yaml", "factor: 3.0", "factor: 3.0\n  seed: 0"), ()),
    "nothing: a value that moves to the default": (
        lambda p: (p.edit("params.yaml", "training:\n  factor: 3.0  # three times\n", ""), p.cell(T, "factor: float = 2.0", "factor: float = 3.0")),
        (),
    ),
    "nothing: order in params.yaml": (
        lambda p: (p.project / "params.yaml").write_text("evaluation:\n  view: bars\n  threshold: 0.5\ntraining: {seed: 0, factor: 3}\n"),
        (),
    ),
    "nothing: order of parameters": (lambda p: p.notebook(T, _reverse), ()),
    "nothing: a comment in problem.yaml": (lambda p: p.edit("problem.yaml", "name: small", "name: small  # a comment"), ()),
    "nothing: order in problem.yaml": (
        lambda p: (p.project / "problem.yaml").write_text("target: label\ndata:\n  source: data.csv\ntask: binary\nname: small\n"),
        (),
    ),
    "nothing: a default of the problem written out": (lambda p: p.edit("problem.yaml", "target: label", "target: label\nsplit: {folds: 5}"), ()),
    "nothing: a module that nobody imports": (lambda p: p.edit("tools/unused.py", "1", "2"), ()),
    "nothing: a module outside that nobody imports": (lambda p: _change(p, "local/shared_unused.py", "1", "2"), ()),
    "nothing: a module for type checkers": (lambda p: p.edit("typed_only.py", "Shape", "Form"), ()),
    "nothing: a file that nobody reads": (lambda p: p.edit("unused.csv", "1", "2"), ()),
    "nothing: a file that the stage writes": (lambda p: (p.project / "report.txt").write_text("edited"), ()),
    "nothing: a package that nobody imports": (_harmless_version, ()),
    "nothing: times of files": (lambda p: [f.touch() for f in p.project.rglob("*") if f.is_file()], ()),
    "nothing: compiled modules": (lambda p: [shutil.rmtree(f) for f in p.project.rglob("__pycache__")], ()),
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Iterator[tuple[Path, Path]]:
    "The chain after its first run, and the code outside the project."
    base = tmp_path_factory.mktemp("skipping")
    project, outside = base / "small", base / "outside"
    make_project(project)
    write_files(project, FILES)
    write_files(outside, OUTSIDE)
    edit(project / "04_training.ipynb", "import helper\\nimport time", "import helper\\nimport shared_code\\nimport time")
    write_notebook(
        project / "05_evaluation.ipynb", 'threshold: float = 0.5  # limit\nview: Literal["bars", "boxes"] = "bars"  # how', EVALUATION, "# 05_evaluation: what"
    )
    folders = [str(outside / name) for name in ("first/site-packages", "local", "site-packages")]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLBENCH_RUN", "MLBENCH_STAGE", "MLBENCH_PROJECT", "MLBENCH_PARAMETERS"):
            patch.delenv(name, raising=False)
        patch.setenv("PYTHONPATH", ":".join(folders))
        patch.setattr(sys, "path", [*folders, *sys.path])
        patch.setattr(mlbench.chain.cache, "mlbench_source", lambda: "m" * 64)
        patch.setattr(mlbench.chain.record, "mlbench_source", lambda: "m" * 64)
        run_chain(project)
        yield project, outside


@pytest.fixture
def place(finished, tmp_path, monkeypatch) -> Iterator[Place]:
    "A copy of the project and of what lies outside, which a test may change."
    project, outside = (Path(shutil.copytree(p, tmp_path / p.name)) for p in finished)
    folders = [str(outside / name) for name in ("first/site-packages", "local", "site-packages")]
    rest = [p for p in sys.path if not p.startswith(str(finished[1]))]
    monkeypatch.setattr(sys, "path", [*folders, *rest])
    monkeypatch.setenv("PYTHONPATH", ":".join(folders))
    importlib.invalidate_caches()
    yield Place(project, outside, monkeypatch)


def would_run(project: Path) -> tuple[str, ...]:
    "The stages that a run would certainly execute."
    return tuple(one.stage for one in explain(plan_chain(Project.open(project))) if one.state == "runs")


def _kept(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _restore(folders: list[Path], before: list[dict[Path, bytes]]) -> None:
    "Put the files back as they were."
    for folder, files in zip(folders, before, strict=True):
        for path in [p for p in folder.rglob("*") if p.is_file() and p not in files]:
            path.unlink()
        for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
            if not any(path.iterdir()) and not any(f.is_relative_to(path) for f in files):
                path.rmdir()
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)


def _try(place: Place, names: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    "Apply some edits: what must run, and what would."
    expected = tuple(sorted({stage for name in names for stage in MUTATIONS[name][1]}))
    folders = [place.project, place.outside]
    before = [_kept(f) for f in folders]
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in names:
                MUTATIONS[name][0](Place(place.project, place.outside, patch))
            importlib.invalidate_caches()
            return expected, would_run(place.project)
    finally:
        _restore(folders, before)
        importlib.invalidate_caches()


def _table(rows: list[tuple[str, tuple[str, ...], tuple[str, ...]]]) -> str:
    lines = [""]
    for name, must, would in rows:
        verdict = "stale" if set(must) - set(would) else "needless" if set(would) - set(must) else "ok"
        lines.append(f"{verdict:9} {name:60} must {', '.join(must) or '-':42} would {', '.join(would) or '-'}")
    return "\n".join(lines)


def test_each_edit_makes_the_right_stages_run(place):
    assert would_run(place.project) == (), [explanation(one) for one in explain(plan_chain(Project.open(place.project)))]
    rows = [(name, *_try(place, [name])) for name in MUTATIONS]
    assert len(rows) >= 60 and all(expected == found for _, expected, found in rows), _table(rows)
    assert would_run(place.project) == ()


def test_edits_together_make_the_stages_of_each_run(place):
    draw, rows = random.Random(0), []
    alone = [n for n in MUTATIONS if not n.startswith("output") and n not in ("module: gone", "code: cells change places", "nothing: order in params.yaml")]
    while len(rows) < 40:
        names = draw.sample(alone, draw.randint(2, 4))
        try:
            rows.append((" + ".join(n.split(": ")[1] for n in names)[:60], *_try(place, names)))
        except AssertionError as error:  # two edits of the same words
            assert "is not in" in str(error) or "cells of" in str(error)
    assert all(expected == found for _, expected, found in rows), _table(rows)


REALLY = {  # what runs besides, because the stage before made something else
    "code: middle stage": (E,),
    "module: at the end of a row of imports": (E,),
    "module: outside, through another": (),
    "data: the source": (T, E),
    "data: a file that a cell reads": (),
    "output: gone": (),
    "nothing: a cell of comments": (),
    "nothing: order in params.yaml": (),
}


@pytest.mark.parametrize("name", REALLY)
def test_what_is_said_is_what_runs(place, name):
    change, expected = MUTATIONS[name]
    before = list_runs(place.project)
    change(place)
    importlib.invalidate_caches()
    run = run_chain(place.project)
    ran = tuple(s for s, e in run.record["stages"].items() if e["status"] == "done") if run not in before else ()
    assert set(expected) <= set(ran) <= {*expected, *REALLY[name]}, run.record["stages"]
    assert would_run(place.project) == () and run_chain(place.project) == run


def why(place: Place, stage: str, *words: str) -> str:
    code, out = said("why", stage, "--project", str(place.project), *words)
    assert code == 0, out
    return out.strip()


def test_why_in_words(place):
    run = list_runs(place.project)[0]
    told = why(place, "training")
    assert told.startswith(f"04_training is up to date: made by run {run.id} at 20") and "UTC, in " in told
    place.edit("tools/deep/base.py", "int(", "float(")
    place.cell(T, "train = stage.load('train')", "train = stage.load('train').copy()")
    place.edit("params.yaml", "factor: 3.0", "factor: 4.0")
    assert why(place, "training").splitlines() == [
        "04_training has to run again:",
        "  cell 5 (`train = stage.load('train').copy()`) changed",
        "  tools/deep/base.py changed, imported by tools/scale.py",
        "  training.factor was 3.0, is 4.0",
    ]
    assert why(place, "evaluation").splitlines() == [
        "05_evaluation may have to run again:",
        "  model may change, because 04_training has to run again: cell 5 (`train = stage.load('train').copy()`) changed",
    ]
    place.edit("lookup.csv", "one", "two")
    assert "  lookup.csv changed, read by cell 7" in why(place, "evaluation", "-p", "evaluation.threshold=0.25")
    assert "  evaluation.threshold was 0.5, is 0.25" in why(place, "evaluation", "-p", "evaluation.threshold=0.25")


def test_why_follows_the_chain_to_its_beginning(place):
    place.edit("data.csv", "23,", "24,")
    assert why(place, "problem") == "01_problem has to run again:\n  data.csv changed"
    cause = "because 01_problem has to run again: data.csv changed"
    assert why(place, "training").splitlines() == ["04_training may have to run again:", f"  train may change, {cause}"]
    assert why(place, "evaluation").splitlines()[1:] == [f"  train, test may change, {cause}", f"  model may change, {cause}"]


def test_why_of_packages_outputs_and_old_records(place):
    _upgrade(place, "colour_tools-1.0.dist-info", "colour_tools-1.1.dist-info")
    assert why(place, "evaluation").splitlines()[1:] == ["  colour-tools was 1.0, is 1.1"]
    _damage(place, T, "model/weights.txt", "0")
    assert why(place, "training").splitlines()[1:] == ["  its output model is not what it wrote"]
    _damage(place, P, "train.parquet", None)
    assert why(place, "problem").splitlines()[1:] == ["  its output train is gone"]
    path = list_runs(place.project)[0].stage_folder(P) / "manifest.json"
    write_json(path, read_json(path) | {"key": {"code": "a" * 64, "modules": {}, "parameters": {"rows": 8}, "mlbench": "b" * 64}})
    assert why(place, "problem").splitlines()[1:] == ["  its result was made by an earlier version of mlbench"]
    run = run_chain(place.project)
    assert run.status == "done" and "up to date" in why(place, "problem")


def test_a_module_that_is_edited_while_its_stage_runs_is_not_trusted(place):
    place.cell(T, "import helper", "import helper\nfrom pathlib import Path as At\n\nAt('late.py').write_text('SHIFT = 5\\n')")
    run = run_chain(place.project)
    assert run.status == "done" and run.manifests[T]["key"]["modules"]["late.py"] == "was edited while the stage ran"
    assert why(place, "training").splitlines()[1:] == ["  late.py was edited while the stage ran, imported by helper.py"]


def test_data_of_a_server_are_read_each_time(place, monkeypatch):
    from mlbench.problem.problem import Problem

    monkeypatch.setattr(Problem, "fingerprint", lambda self: None)
    first, second = (run_chain(place.project) for _ in range(2))
    assert first != second and [r.record["stages"][P]["status"] for r in (first, second)] == ["done", "done"]
    assert second.record["stages"][T]["status"] == "reused"
    assert why(place, "problem").splitlines()[1:] == ["  its data are in a database, where nobody can see whether they changed"]


def test_a_later_stage_that_reads_the_source_itself(place):
    place.cell(T, "train = stage.load('train')", "train = stage.load('train')\nfull = stage.problem.read().frame")
    run_chain(place.project)
    place.edit("data.csv", "23,", "24,")
    assert would_run(place.project) == (P, T)


def test_the_source_of_mlbench_counts_but_for_what_only_shows(tmp_path, monkeypatch):
    package = tmp_path / "mlbench"
    shutil.copytree(Path(mlbench.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(mlbench, "__file__", str(package / "__init__.py"))
    first = mlbench_source()
    (package / "cli" / "output.py").write_text("x = 1\n")
    (package / "chain" / "report.py").write_text("x = 1\n")
    assert mlbench_source() == first
    (package / "chain" / "stage.py").write_text("x = 1\n")
    assert mlbench_source() != first


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import a.b.c", {"a.b.c"}),
        ("import a as b, c", {"a", "c"}),
        ("from . import x", {".", ".x"}),
        ("from ...up import x", {"...up", "...up.x"}),
        ("try:\n    import fast\nexcept ImportError:\n    import slow", {"fast", "slow"}),
        ("async def f():\n    from late import x", {"late", "late.x"}),
        ("class A:\n    import inner", {"inner"}),
        ("__import__('hidden')", {"hidden"}),
        ("import importlib as i\ni.import_module(name='given')", {"importlib", "given"}),
        ("runpy.run_module('script')", {"script"}),
        ("import typing\nif typing.TYPE_CHECKING:\n    import never", {"typing"}),
        ("'!python -m tools.make now'", {"tools.make"}),
    ],
)
def test_imports_in_every_dress(source, modules):
    assert read_code(source).modules == modules


@pytest.mark.parametrize(
    ("source", "counts"),
    [
        ("pd.read_csv('t.csv')", True),
        ("PATH = Path('t.csv')\nopen(PATH)", True),
        ("Path('sub', '..').joinpath('t.csv').read_text()", True),
        ("(Path('none') / 't.csv').read_text()", False),
        ("(Path('.') / 't.csv').read_text()", True),
        ("open('t.csv', mode='r')", True),
        ("np.loadtxt(fname='t.csv')", True),
        ("stage.save('seen', pd.read_csv('t.csv'))", True),
        ("frame = pd.read_csv('t.csv')\nframe.to_parquet('other.csv')", True),
        ("glob.glob('sub/*.csv')", True),
        ("frame.to_csv('t.csv')", False),
        ("OUT = Path('t.csv')\nOUT.write_text('x')", False),
        ("with open('t.csv', 'a') as f:\n    f.write('x')", False),
        ("fig.savefig(fname='t.csv')", False),
        ("shutil.rmtree('t.csv')", False),
        ("if os.path.exists('t.csv'):\n    x = 1", False),
        ("print('see t.csv')", False),
        ("stage.load('t.csv')", False),
        ("pd.read_csv('../outside.csv')", False),
        ("pd.read_csv('runs/t.csv')", False),
        ("pd.read_csv('https://host/t.csv')", False),
    ],
)
def test_files_that_are_read_and_files_that_are_written(tmp_path, source, counts):
    root = tmp_path / "p"
    write_files(root, {"t.csv": "1", "sub/t.csv": "1", "runs/t.csv": "1", "../outside.csv": "1"})
    assert bool(reach(root, [("cell 1", ast.parse(source))]).files) == counts


def test_modules_and_the_packages_they_come_with():
    assert packages_of("numpy") == ["numpy"] and packages_of("yaml") in (["pyyaml"], []) and packages_of("sklearn") == ["scikit-learn"]
    assert packages_of("jupyter_client") == ["jupyter-client"] and packages_of("_pytest") == ["pytest"]


def test_a_key_does_not_depend_on_where_the_project_lies(place, tmp_path):
    def keys(folder: Path) -> list[dict]:
        project = Project.open(folder)
        parts = problem_parts(project)
        return [stage_key(s.notebook, s.values, {}, parts, project.path) for s in plan_chain(project).stages]

    moved = Path(shutil.copytree(place.project, tmp_path / "elsewhere {x}" / "ünder"))
    assert keys(moved) == keys(place.project)
