"A small project of three stages that learns nothing: what the tests of the chain run."

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

IMPORTS = "from mlbench.chain import Stage"
STAGES = {
    "01_problem": (
        "rows: int = 8  # rows kept [1..20]\nnote: Optional[str] = None  # written into the facts",
        [
            "stage = Stage.open('01_problem', globals(), writes=['train', 'facts'])\nstage",
            "import pandas as pd\n\nframe = pd.read_csv('data.csv')  # the data",
            "stage.save('train', frame.head(rows))\nstage.seal('test', frame.tail(4))",
            "stage.save('facts', {'rows': rows, 'note': note, 'task': stage.problem.task})",
            "stage.close()",
        ],
    ),
    "04_training": (
        "factor: float = 2.0  # multiplies [0..10]\nseed: int = 0  # of every draw",
        [
            "stage = Stage.open('04_training', globals(), reads=['train'], writes=['model', 'timings'])",
            "import helper\nimport time\n\nfrom mlbench.core.progress import report",
            "train = stage.load('train')\nreport('fitting', 1, 2)",
            "with stage.folder('model') as path:\n"
            "    (path / 'weights.txt').write_text(str(helper.total(train.x) * factor))\n"
            "    (path / 'rows.txt').write_text(str(len(train)))",
            "stage.save('timings', {'now': time.time()}, volatile=True)",
            "stage.close()",
        ],
    ),
    "05_evaluation": (
        'threshold: float = 0.5  # limit [0..1 step 0.01]\nview: Literal["bars", "boxes"] = "bars"  # how groups are drawn',
        [
            "stage = Stage.open('05_evaluation', globals(), reads=['train', 'model'], writes=['metrics', 'card'], opens=['test'])",
            "test = stage.unseal('test')",
            "weight = float((stage.load('model') / 'weights.txt').read_text())",
            "stage.save('metrics', {'weight': weight, 'threshold': threshold, 'rows': len(test)})\nstage.metric('weight', weight, low=0.0)",
            "stage.save('card.md', f'weight {weight} of {stage.openings(\"test\")} openings' if False else 'a card')",
            "stage.close()",
        ],
    ),
}


def write_notebook(path: Path, parameters: str | None, sources: list[str], title: str = "# What is there?", imports: str = IMPORTS) -> Path:
    "Write a notebook of a title, an import, the tagged cell and further cells."
    cells = [("markdown", title, []), ("code", f"from typing import Literal, Optional\n\n{imports}", [])]
    cells += [("code", parameters, ["parameters"])] if parameters is not None else []
    cells += [("code", source, []) for source in sources]
    raw = []
    for n, (kind, source, tags) in enumerate(cells):
        cell = {"cell_type": kind, "id": f"cell-{n}", "source": source, "metadata": {"tags": tags} if tags else {}}
        raw.append(cell | ({"outputs": [], "execution_count": None} if kind == "code" else {}))
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": raw, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=1))
    return path


def make_project(folder: Path, stages: tuple[str, ...] = tuple(STAGES)) -> Path:
    "Write the project into a folder."
    folder.mkdir(parents=True, exist_ok=True)
    for name in stages:
        parameters, sources = STAGES[name]
        write_notebook(folder / f"{name}.ipynb", parameters, sources, f"# {name}: what is there?")
    rows = "".join(f"{n},{'yes' if n % 3 else 'no'}\n" for n in range(24))
    (folder / "data.csv").write_text("x,label\n" + rows)
    (folder / "helper.py").write_text('"Help."\n\n\ndef total(values):\n    return float(sum(values))  # all of them\n')
    (folder / "problem.yaml").write_text("name: small\ntask: binary\ndata: {source: data.csv}\ntarget: label\n")
    (folder / "params.yaml").write_text("# what was chosen\ntraining:\n  factor: 3.0  # three times\n")
    return folder


def edit(path: Path, old: str, new: str) -> None:
    "Replace text in a file; the text must be there."
    text = path.read_text()
    assert old in text, f"{old!r} is not in {path.name}"
    path.write_text(text.replace(old, new))


RUNNER = """
import json, sys
import mlbench.chain.cache, mlbench.chain.record
mlbench.chain.cache.mlbench_source = mlbench.chain.record.mlbench_source = lambda: "m" * 64
from mlbench.chain import run_chain
from mlbench.chain.plan import RunOptions
from mlbench.core.errors import MlbenchError
given = json.loads(sys.argv[2])
try:
    print(run_chain(sys.argv[1], force=given.pop("force", False), options=RunOptions(**given)).folder)
except MlbenchError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def start(project: Path, **options) -> subprocess.Popen:
    "Start a run in a process of its own."
    given = json.dumps(options)
    return subprocess.Popen([sys.executable, "-c", RUNNER, str(project), given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
