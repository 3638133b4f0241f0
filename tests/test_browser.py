"A person in a real JupyterLab moves one control, and a batch run obeys. Skipped where there is no Chromium."

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lab_browser import browser_page, chromium_path, press, run_all, running_lab, wait_until

from mlbench.chain import Project, Run
from mlbench.core.files import read_yaml
from mlbench.core.settings import child_environment
from mlbench.lab import lab_environment, quiet_lab_settings

pytestmark = [pytest.mark.slow, pytest.mark.browser]

PROBLEM = """name: tumours
question: Which tumours are malignant?
task: binary
data: {source: 'example:breast_cancer'}
target: diagnosis
metric: roc_auc
"""
PARAMETERS = """from typing import Optional

threshold: float = 0.5  # probability from which a customer is called [0..1 step 0.01]
column: Optional[str] = None  # column to look at; none takes the first"""
OPEN = "from mlbench.chain import Stage\nstage = Stage.open('01_look', globals(), writes=['seen'])"
EXPLORE = """import pandas as pd
import plotly.graph_objects as go
from mlbench.widgets import explore, stage_form, table_view

frame = pd.DataFrame({"age": [31, 45, 22, 58], "sex": ["Female", "Male", "Female", "Male"]})
explore(stage, lambda threshold, column: go.Figure(go.Bar(y=[threshold, 1]), {"title": {"text": f"{column} at {threshold}"}}), column=list(frame))"""


def code(source, tags=(), n=0):
    return {"cell_type": "code", "id": f"cell-{n}", "source": source, "metadata": {"tags": list(tags)}, "outputs": [], "execution_count": None}


def notebook(path: Path, *sources: str) -> None:
    "A stage with a parameters cell first."
    cells = [code(source, ["parameters"] if n == 0 else (), n) for n, source in enumerate(sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))


def batch(project: Path, *words: str) -> Run:
    "`mlbench run`, in a process without anybody in front of it."
    command = [sys.executable, "-c", "from mlbench.cli import main; main()", "run", str(project), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=child_environment(without=("MLBENCH_INTERACTIVE",)))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return Run.open(done.stdout.strip().splitlines()[-1].strip())


def given(project: Path) -> dict:
    "What params.yaml sets."
    return read_yaml(project / "params.yaml")


def test_a_slider_a_list_and_a_table_in_jupyterlab_and_then_a_batch_run(tmp_path):
    chromium_path()
    project = tmp_path / "shop"
    project.mkdir()
    close = "stage.save('seen', {'threshold': threshold, 'column': column, 'called': [p for p in (0.2, 0.6, 0.9) if p >= threshold]})\nstage.close()"
    notebook(project / "01_look.ipynb", PARAMETERS, OPEN, EXPLORE, "stage_form(stage)", "table_view(frame, 'Customers')", close)
    (project / "problem.yaml").write_text(PROBLEM)
    (project / "params.yaml").write_text("look:\n  threshold: 0.55  # agreed in May\n")
    first = batch(project)
    with running_lab(project, tmp_path / "lab") as address, browser_page(1280, 1700) as page:
        run_all(page, address.format("01_look.ipynb"))
        page.wait_for_selector(".js-plotly-plot .main-svg")
        press(page, page.locator(".noUi-handle").first, "ArrowRight", 10)
        wait_until(lambda: abs(given(project)["look"]["threshold"] - 0.65) < 1e-9)
        page.locator(".widget-dropdown select").first.select_option("sex")
        wait_until(lambda: given(project)["look"].get("column") == "sex")
        page.wait_for_function("document.querySelector('.js-plotly-plot .gtitle')?.textContent === 'sex at 0.65'")
        page.get_by_text("-p look.threshold=0.65 -p look.column=sex").wait_for()
        table = page.locator(".mlb-table")
        table.locator("input").fill("sex = male")
        table.get_by_text("rows 1 to 2 of 2 that match, 4 rows in all").wait_for()
        table.locator("th", has_text="age").click()
        page.wait_for_function("document.querySelector('.mlb-table tbody tr td:nth-child(2)').textContent === '45'")
        assert page.outside == [] and page.mistakes == []
    second = batch(project)
    assert first.load("seen") == {"threshold": 0.55, "column": None, "called": [0.6, 0.9]}
    assert second.load("seen") == {"threshold": 0.65, "column": "sex", "called": [0.9]}
    chosen = second.record["stages"]["01_look"]["parameters"]
    assert chosen["threshold"] == {"value": 0.65, "origin": "params.yaml"} and chosen["column"]["origin"] == "params.yaml"
    assert "agreed in May" in (project / "params.yaml").read_text() or "column: sex" in (project / "params.yaml").read_text()


def test_the_template_about_the_data_answers_to_its_slider(tmp_path):
    chromium_path()
    project = tmp_path / "tumours"
    Project.create(project, PROBLEM)
    batch(project, "--to", "01_problem")
    with running_lab(project, tmp_path / "lab") as address, browser_page(1280, 1700) as page:
        run_all(page, address.format("02_eda.ipynb"), seconds=180)
        explorer = page.locator(".jp-CodeCell", has=page.locator(".widget-dropdown")).first
        explorer.locator(".js-plotly-plot .main-svg").first.wait_for()
        explorer.locator(".widget-dropdown select").select_option("mean_texture")
        wait_until(lambda: (given(project)["eda"] or {}).get("column") == "mean_texture")
        explorer.locator(".gtitle", has_text="mean_texture").wait_for()
        press(page, explorer.locator(".noUi-handle"), "ArrowLeft", 4)
        wait_until(lambda: given(project)["eda"].get("groups") == 6)
        assert page.outside == [] and page.mistakes == []
    after = batch(project, "--to", "02_eda")
    chosen = after.record["stages"]["02_eda"]["parameters"]
    assert chosen["groups"] == {"value": 6, "origin": "params.yaml"} and chosen["column"]["value"] == "mean_texture"
    figure = json.loads((after.stage_folder("02_eda") / "figures" / "column_against_target.json").read_text())
    assert max(len(trace["x"]) for trace in figure["data"]) == 6 and "mean_texture" in json.dumps(figure["layout"])


def test_the_kernel_of_mlbench_lab_comes_from_the_fork_server(tmp_path):
    code = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3")
print(manager.provisioner.how, manager.provisioner.refused)
client.stop_channels()
manager.shutdown_kernel(now=True)
"""
    with quiet_lab_settings() as config:
        environment = lab_environment(config) | {"JUPYTER_DATA_DIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() in (["fork", "None"], ["pool", "None"]), done.stdout + done.stderr
