"Widgets without a browser: what the front end sends is sent through `set_state`, and a real stage of a real project answers."

from __future__ import annotations

import html
import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from mlbench.chain import Project, Stage
from mlbench.core.errors import ParameterError, UsageError
from mlbench.core.files import read_yaml
from mlbench.widgets import explore, stage_form, table_view
from mlbench.widgets.form import NONE, make_field, present_values, run_command
from mlbench.widgets.table import StaticTable, filter_rows, page_of

CELL = """threshold: float = 0.5  # probability from which the positive class is predicted [0..1 step 0.01]
column: Optional[str] = None  # column to look at; none takes the first
view: Literal["bars", "boxes"] = "bars"  # how groups are drawn
rate: float = 0.1  # step of the learner
"""
PARAMS = "# mine\nlook:\n  threshold: 0.4   # chosen in May\n  # view: bars\nother:\n  a: 1\n"


def code(source, tags=()):
    return {"cell_type": "code", "source": source, "metadata": {"tags": list(tags)}, "outputs": [], "execution_count": None, "id": f"c{len(source)}"}


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    cells = [code(CELL, ["parameters"]), code("stage = Stage.open('01_look', globals(), writes=['seen'])")]
    (folder / "01_look.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    other = [code("a: int = 1", ["parameters"]), code("stage = Stage.open('02_other', globals(), reads=['seen'])")]
    (folder / "02_other.ipynb").write_text(json.dumps({"cells": other, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    (folder / "problem.yaml").write_text("name: shop\n")
    (folder / "params.yaml").write_text(PARAMS)
    return Project.open(folder)


@pytest.fixture
def opened(project, monkeypatch):
    def open_stage(interactive):
        monkeypatch.setenv("MLBENCH_PROJECT", str(project.path))
        monkeypatch.setenv("MLBENCH_INTERACTIVE", "1" if interactive else "0")
        notebook = {}
        return Stage.open("01_look", notebook, writes=["seen"]), notebook

    return open_stage


def rows_of(form):
    return {row.children[0].value: row.children[1:] for row in form.children[1:-1]}


def test_a_slider_writes_params_yaml_and_the_notebook_and_keeps_comments(opened, project):
    stage, notebook = opened(True)
    control, note = rows_of(stage_form(stage))["<b>threshold</b>"]
    assert control.value == 0.4 and notebook["threshold"] == 0.4
    control.set_state({"value": 0.31})
    assert notebook["threshold"] == 0.31 and "default 0.5" in note.value
    text = (project.path / "params.yaml").read_text()
    assert "# mine" in text and "other:\n  a: 1" in text and read_yaml(project.path / "params.yaml")["look"]["threshold"] == 0.31
    assert Project.open(project.path).given["01_look"]["threshold"] == 0.31


def test_a_wrong_value_is_told_beside_the_field_and_written_nowhere(opened, project):
    stage, notebook = opened(True)
    before = (project.path / "params.yaml").read_text()
    control, note = rows_of(stage_form(stage))["<b>rate</b>"]
    control.set_state({"value": "fast"})
    assert "expected a number" in note.value and "role='alert'" in note.value
    assert notebook["rate"] == 0.1 and (project.path / "params.yaml").read_text() == before
    control.set_state({"value": "1e-3"})
    assert notebook["rate"] == 0.001 and "role='alert'" not in note.value


GOOD = "name: shop\ntask: binary\ndata: {source: shop.csv}\ntarget: paid\npositive: yes\nmetric: roc_auc\nalso: [brier]\n"
BROKEN = [
    (GOOD.replace("binary", "binry") + "metrc: f1\n", ["2 mistakes", "line 2: task 'binry' is unknown. Did you mean 'binary'?", "line 8: the key 'metrc'"]),
    ("name: [shop\n", ["problem.yaml, line 2 is not YAML", "quotes, colons and indentation"]),
    ("", ["there is nothing in it", "Write at least name, task, data and target"]),
    (None, ["there is no problem.yaml", "mlbench new"]),
    (GOOD.encode() + b"question: \xf6\n", ["is not UTF-8 text", "encoding UTF-8"]),
]


@pytest.mark.parametrize(("content", "words"), BROKEN, ids=["two mistakes", "no YAML", "empty", "not there", "latin-1"])
def test_a_broken_problem_is_told_beside_the_field_as_on_the_command_line(project, monkeypatch, say, content, words):
    cell = CELL + 'metric: Optional[str] = None  # drawn [checked by mlbench.problem.problem.check_metric]\nmark: str = "a"  # any text\n'
    cells = [code(cell, ["parameters"]), code("stage = Stage.open('01_look', globals(), writes=['seen'])")]
    (project.path / "01_look.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    monkeypatch.setenv("MLBENCH_PROJECT", str(project.path))
    monkeypatch.setenv("MLBENCH_INTERACTIVE", "1")
    file = project.path / "problem.yaml"
    file.write_text(GOOD)
    notebook = {}
    stage = Stage.open("01_look", notebook, writes=["seen"])
    form, drawn = stage_form(stage), []
    live = explore(stage, lambda metric: drawn.append(metric), metric=["roc_auc", "brier"])
    control, note = rows_of(form)["<b>metric</b>"]
    file.unlink() if content is None else file.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = (project.path / "params.yaml").read_text()
    control.set_state({"value": "brier"})
    told = html.unescape(note.value)
    assert all(w in told for w in words) and "Nothing was changed" in told and "choose again" in told and "Traceback" not in told
    if content is not None:
        exit_code, _, said = say("run", str(project.path), "--dry-run", "-p", "look.metric=brier")
        assert exit_code == 2 and all(" ".join(w.split()) in " ".join(said.split()) for w in words), said
    live.children[0].children[0].children[1].set_state({"index": 2})
    assert all(w in html.unescape(live.children[2].value) for w in words)
    assert control.value == "" and notebook["metric"] is None and drawn == [None] and (project.path / "params.yaml").read_text() == before
    rows_of(form)["<b>mark</b>"][0].set_state({"value": "b"})
    assert notebook["mark"] == "b"  # what does not need the problem goes on
    file.write_text(GOOD)
    control.set_state({"value": "brier"})
    assert notebook["metric"] == "brier" and drawn == [None, "brier"] and "role='alert'" not in note.value


def test_form_and_figure_of_one_parameter_follow_each_other(opened):
    stage, notebook = opened(True)
    drawn = []

    def view(column, threshold):
        drawn.append((column, threshold))
        return go.Figure(layout={"title": {"text": f"{column} {threshold}"}})

    form, live = stage_form(stage), explore(stage, view, column=["age", "sex"])
    column, threshold = (box.children[1] for box in live.children[0].children)
    assert column.label == "none" and drawn == [(None, 0.4)]
    column.set_state({"index": 2})
    rows_of(form)["<b>threshold</b>"][0].set_state({"value": 0.2})
    assert drawn[-1] == ("sex", 0.2) and threshold.value == 0.2 and notebook["column"] == "sex"
    assert rows_of(form)["<b>column</b>"][0].value == "sex"
    figure = live.children[1].outputs[0]["data"]["application/vnd.plotly.v1+json"]
    assert figure["layout"]["title"]["text"] == "sex 0.2" and "_esm" not in json.dumps(figure)
    column.set_state({"index": 0})
    assert notebook["column"] is None


def test_running_the_cell_again_replaces_the_old_view(opened):
    stage, _ = opened(True)
    calls = []

    def cell(mark):
        return explore(stage, lambda threshold: calls.append(mark))

    first, second = cell("old"), cell("new")
    calls.clear()
    second.children[0].children[0].children[1].set_state({"value": 0.1})
    assert calls == ["new"] and first is not second


def test_a_view_that_fails_keeps_its_controls(opened):
    stage, _ = opened(True)
    live = explore(stage, lambda threshold: 1 / (threshold - 0.4))
    assert live.children[1].outputs[0]["ename"] == "ZeroDivisionError"
    live.children[0].children[0].children[1].set_state({"value": 0.9})
    assert live.children[1].outputs[0]["output_type"] == "display_data"


def test_in_batch_nothing_is_live_and_no_widget_library_is_imported(opened, project):
    import subprocess
    import sys

    stage, _ = opened(False)
    seen = explore(stage, lambda column, threshold: go.Figure(), column=["age"])
    assert isinstance(seen.figure, go.Figure) and "`threshold` = `0.4`" in seen.note and "-p look.threshold=…" in seen.note
    assert "<b>0.4</b>" in stage_form(stage)._repr_html_()
    program = "import sys; from mlbench.widgets import explore, stage_form, table_view; print('ipywidgets' in sys.modules, 'anywidget' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]


def test_what_a_view_may_not_ask_for(opened):
    stage, _ = opened(False)
    with pytest.raises(UsageError, match="Did you mean 'threshold'"):
        explore(stage, lambda treshold: None)
    with pytest.raises(UsageError, match="no argument"):
        explore(stage, lambda: None)
    with pytest.raises(UsageError, match="no argument of the view"):
        explore(stage, lambda threshold: None, colour=[1])


@pytest.mark.parametrize("value", ["a, b", "it's", "", "None", "no", "a\tb", "ü=1", "2021"])
def test_a_text_goes_through_field_and_command_unchanged(value):
    import shlex

    from mlbench.chain.parameters import read_parameters

    parameter = read_parameters("mark: str = 'x'  # any text")["mark"]
    assert make_field(parameter, value).read() == value
    words = shlex.split(run_command("01_look", {"mark": parameter}, {"mark": value}))
    assert parameter.parse(words[3].split("=", 1)[1]) == value


def test_a_value_that_the_list_does_not_offer_is_kept():
    from mlbench.chain.parameters import read_parameters

    parameter = read_parameters("column: Optional[str] = None  # one")["column"]
    field = make_field(parameter, "gone", choices=["age"])
    assert field.read() == "gone" and [v for _, v in field.control.options] == [NONE, "age", "gone"]


def test_present_values_and_refusal(opened):
    stage, _ = opened(True)
    assert present_values(stage)["view"] == "bars"
    with pytest.raises(ParameterError, match="between 0 and 1"):
        stage.choose("threshold", 3)


# --- tables --------------------------------------------------------------------------------------------------------------------


def mixed(n=1000):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.integers(18, 90, n).astype(float), "sex": rng.choice(["Female", "Male"], n)})
    frame["seen"] = pd.date_range("2024-01-01", periods=n, freq="h")
    frame.loc[::10, "age"] = np.nan
    return frame


def test_sorting_means_the_whole_frame_and_not_the_page():
    frame = mixed()
    page = page_of(frame, sort="age", descending=True, size=5)
    assert [row[1] for row in page.rows] == [f"{v:.0f}" for v in frame["age"].nlargest(5)] and page.pages == 200
    assert page_of(frame, sort="age", number=199, size=5).rows[-1][1] is None


def test_conditions_agree_with_pandas():
    frame = mixed()
    assert filter_rows(frame, "age >= 40 and sex = female").sum() == ((frame["age"] >= 40) & (frame["sex"] == "Female")).sum()
    assert filter_rows(frame, "seen < 2024-01-02").sum() == 24 and filter_rows(frame, "age =").sum() == 100
    assert filter_rows(frame, "sex != Male").sum() == (frame["sex"] == "Female").sum()
    with pytest.raises(UsageError, match="not a number"):
        filter_rows(frame, "age > old")


@pytest.mark.parametrize("frame", [
    pd.DataFrame(),
    pd.DataFrame({"a": []}),
    pd.DataFrame({"a": [1, "x", None, [1, 2]]}),
    pd.DataFrame([[1, 2]], columns=["same", "same"]),
    pd.DataFrame({3: [1.5], ("b", 1): [pd.Timedelta("1h")]}),
    pd.DataFrame({"c": pd.Categorical(["x", None])}),
    pd.DataFrame({"i": pd.array([1, None], dtype="Int64"), "b": pd.array([True, None], dtype="boolean")}),
])
def test_any_frame_has_a_page(frame):
    page = page_of(frame, query="x", sort=str(frame.columns[0]) if len(frame.columns) else "")
    assert json.dumps(page.columns) and json.dumps(page.rows) is not None
    assert "mlbench-table" in StaticTable(frame)._repr_html_()
    table_view(frame, interactive=True).set_state({"sort": str(frame.columns[0]) if len(frame.columns) else "", "query": "x > 1"})


def test_the_live_table_sends_one_page_only():
    live = table_view(mixed(50_000), interactive=True)
    assert len(json.dumps(live.page)) < 5_000
    live.set_state({"sort": "age", "descending": True, "number": 3})
    assert live.page["number"] == 3 and live.page["caption"].startswith("rows 31 to 40 of 50,000")


def test_markup_in_data_stays_text():
    frame = pd.DataFrame({"<script>alert(1)</script>": ["<img src=x onerror=alert(1)>"]})
    assert "<script>" not in StaticTable(frame, "<b>")._repr_html_() and "<img" not in StaticTable(frame)._repr_html_()


def test_images_of_a_project_stand_in_a_table_as_small_pictures(tmp_path, monkeypatch):
    from PIL import Image

    from mlbench.data.images import ImageStore
    from mlbench.widgets.table import small_picture

    (tmp_path / "problem.yaml").write_text("name: x\n")
    Image.new("RGB", (300, 100), (200, 30, 30)).save(tmp_path / "red.png")
    reference = ImageStore.of(tmp_path).put((tmp_path / "red.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    shown = table_view(pd.DataFrame({"photo": [reference, None, "image:<b>"], "n": [1, 2, 3]}), interactive=False)._repr_html_()
    assert shown.count("<img src='data:image/jpeg;base64,") == 1 and f"title='{reference}'" in shown
    assert "image:&lt;b&gt;" in shown and len(small_picture(reference)) < 3_000
    monkeypatch.chdir(tmp_path.parent)
    assert small_picture(reference) == "" and reference[:18] in table_view(pd.DataFrame({"photo": [reference]}), interactive=False)._repr_html_()
