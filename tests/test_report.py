"The report: safe, offline, whole, and honest about runs that did not end well."

from __future__ import annotations

import json
import re

import pandas as pd
import plotly.graph_objects as go
import pytest
from lab_browser import browser_page

from mlbench.chain import Run
from mlbench.chain.compare import compare_runs, judge
from mlbench.chain.render import clean_html, markdown_html, notebook_html, output_html
from mlbench.chain.report import Overview, report_html, verdict_line, write_report
from mlbench.chain.sidebyside import write_comparison

EVIL = "<script>window.hacked=1</script>"
ATTACKS = [
    EVIL,
    "<img src=x onerror=window.hacked=1>",
    "<svg onload=window.hacked=1><script>window.hacked=1</script></svg>",
    "<a href='javascript:window.hacked=1'>a</a><a href=' jAva\tscript:window.hacked=1'>b</a>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe><object data='x'></object><embed src=x>",
    "<div style='background:url(http://example.org/x)'>a</div><style>body{display:none}</style><link rel=stylesheet href=http://example.org>",
    "<math><mtext></table><img src=x onerror=window.hacked=1></mtext></math>",
    "<details ontoggle=window.hacked=1 open><summary>a</summary></details><form action=http://example.org><button>b</button></form>",
    "</section></main></body><script>window.hacked=1</script>",
    "<scr<script>ipt>window.hacked=1</scr</script>ipt>",
    "<meta http-equiv=refresh content='0;url=http://example.org'><base href=http://example.org>",
]


def md(text):
    return {"cell_type": "markdown", "source": text, "metadata": {}}


def code(source, *outputs):
    return {"cell_type": "code", "source": source, "metadata": {}, "outputs": list(outputs)}


def shown(**data):
    kinds = {"html": "text/html", "plotly": "application/vnd.plotly.v1+json", "markdown": "text/markdown", "plain": "text/plain"}
    return {"output_type": "display_data", "data": {kinds[k]: v for k, v in data.items()}, "metadata": {}}


def make_run(folder, cells=None, status="done", error=None, name="20260101-120000-abc", roc=0.93, threshold=0.5, passed=True):
    run = folder / "runs" / name
    stage = run / "stages" / "05_evaluation"
    (stage / "figures").mkdir(parents=True)
    figure = go.Figure(go.Bar(x=["a", EVIL], y=[1, 2]), layout={"title": {"text": EVIL}})
    (stage / "figures" / "bars.json").write_text(figure.to_json())
    verdict = {"metric": "roc_auc", "operator": ">=", "goal": 0.9, "value": roc, "passed": passed, "sentence": f"It is {roc}. {EVIL}"}
    card = {"format": 1, "stage": "05_evaluation", "title": "Would we trust it?", "verdicts": [verdict],
            "figures": [{"name": "bars", "file": "figures/bars.json", "caption": EVIL}],
            "tables": [{"name": "leaderboard", "columns": [EVIL, "roc_auc"], "rows": [[EVIL, 0.91234]], "total": 1}],
            "metrics": [{"name": "roc_auc", "value": roc, "low": roc - 0.01, "high": roc + 0.01}],
            "findings": [{"kind": "leak", "what": f"{EVIL} is the target", "severity": "stop", "proposal": EVIL}]}
    manifest = {"format": 1, "stage": "05_evaluation", "title": card["title"], "seconds": 4.0, "inputs": {}, "sealed": {},
                "parameters": {"threshold": {"value": threshold, "origin": "params.yaml"}},
                "artifacts": {"metrics": {"path": "artifacts/metrics.json", "sha256": f"{roc}" * 9, "volatile": False}}}
    entry = {"status": "failed" if error else status, "title": card["title"], "seconds": 4.0, "parameters": manifest["parameters"], "error": error}
    record = {"format": 1, "id": name, "project": "demo", "status": status, "created": "2026-01-01T12:00:00.000Z", "seconds": 4.0,
              "stages": {"05_evaluation": entry}, "error": error}
    figure_output = shown(plotly=json.loads(figure.to_json()))
    table = shown(html=pd.DataFrame({EVIL: range(40), "b": range(40)}).to_html())
    cells = cells if cells is not None else [md(f"# Would we trust it? {EVIL}\n\n## How good?"), code("f", figure_output), code("t", table)]
    (stage / "notebook.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    (run / "run.json").write_text(json.dumps(record))
    if not error:
        (stage / "card.json").write_text(json.dumps(card))
        (stage / "manifest.json").write_text(json.dumps(manifest))
    (folder / "problem.yaml").write_text(f"question: Which? {EVIL}\ntask: binary\ntarget: y\nmetric: roc_auc\n")
    return Run.open(run)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_runs_or_fetches_passes(attack):
    for made in (clean_html(attack), markdown_html(attack), output_html(shown(html=attack), "a")):
        folded = made.lower()
        assert not re.search(r"<(script|iframe|object|embed|link|meta|base|form|button|style|math)", folded), made
        assert not re.search(r"<[^>]*\son\w+\s*=", folded) and not re.search(r"href=\"\s*j", folded) and "url(" not in folded
        assert made.count("<div") == made.count("</div>") and "</section>" not in made and "</main>" not in made


def test_tables_of_pandas_keep_their_content_and_styled_ones_their_colours():
    frame = pd.DataFrame({"a<b": [1, 2], "c": ["x", "y"]})
    assert "a&lt;b" in clean_html(frame.to_html()) and "<style>" not in clean_html(frame._repr_html_())
    pytest.importorskip("jinja2")
    styled = clean_html(frame.style.map(lambda v: "color: red", subset=["c"]).to_html())
    assert "color: red" in styled and re.search(r"#T_\w+_row0_col1", styled) and 'id="T_' in styled


def test_one_file_no_network_one_plotly(tmp_path):
    file = write_report(make_run(tmp_path))
    text = file.read_text()
    assert file.name == "report.html" and text.count("plotly.js v") == 1 and 4_000_000 < len(text) < 6_500_000
    head = text[: text.index("<script>")]
    assert not re.search(r"(src|href)=['\"]?https?:", head) and "default-src 'none'" in head and "unsafe-eval" not in head
    assert EVIL not in text and text.count("<script>") == 2


def test_the_page_draws_its_figures_without_asking_anybody(tmp_path):
    file = write_report(make_run(tmp_path))
    with browser_page() as page:
        page.goto(f"file://{file}")
        page.wait_for_function("document.documentElement.dataset.ready === 'yes'")
        assert page.inner_text("h1").startswith("Which? <script>")
        assert page.inner_text(".tile.first .value") == "0.93"
        page.evaluate("document.querySelector('.canvas').scrollIntoView()")
        page.wait_for_selector(".canvas .main-svg")
        page.click(".frame th:has-text('b') >> nth=-1")
        rows = page.locator(".frame:has(input) tbody tr")
        assert rows.count() == 15
        page.fill(".frame input", "39")
        assert rows.count() == 1
        page.click("#code")
        assert page.locator("details.code[open]").count() >= 2
        page.click("#theme")
        page.wait_for_timeout(300)
        assert page.outside == [] and page.mistakes == [] and page.evaluate("window.hacked") is None


def test_a_long_title_is_broken_and_none_of_it_is_cut(tmp_path):
    from mlbench.core.plots import figure_layout

    title = "Row 436: the model says benign (probability of malignant 0.487); with another worst_texture: 0.0255 to 0.781"
    figures = [figure_layout(go.Figure(go.Bar(x=["a"], y=[1])), text) for text in ("Short", title)]
    cells = [code("f", shown(plotly=json.loads(figure.to_json()))) for figure in figures]
    file = write_report(make_run(tmp_path, cells=[md("# a"), *cells]))
    with browser_page(width=420) as page:
        page.goto(f"file://{file}")
        page.wait_for_function("document.documentElement.dataset.ready === 'yes'")
        page.evaluate("drawAll()")
        page.wait_for_function("document.querySelectorAll('.canvas .gtitle').length === 2")
        measured = """[...document.querySelectorAll('.canvas')].map((holder) => {
            const own = holder.getBoundingClientRect(), title = holder.querySelector('.gtitle').getBoundingClientRect();
            const plot = holder.querySelector('.bglayer').getBoundingClientRect(), bar = getComputedStyle(holder.querySelector('.modebar-group'));
            return [title.top - own.top, own.right - title.right, plot.top - title.bottom, title.height, bar.backgroundColor]; })"""
        short, long = page.evaluate(measured)
        assert long[3] > 3 * short[3] and all(found[0] >= 0 and found[1] >= 0 and found[2] >= 0 for found in (short, long)), (short, long)
        assert abs(long[0] - short[0]) < 4 and long[4] == "rgba(255, 255, 255, 0.9)", (short, long)
        assert page.mistakes == []


def test_on_a_narrow_screen_long_names_are_broken_and_read_whole(tmp_path):
    names = ["models=[dummy, hist_gradient_boosting] · unskew=true", "models=[dummy, linear] · unskew=false"]
    axis = {"automargin": True, "categoryarray": names, "categoryorder": "array"}
    figure = go.Figure(go.Bar(y=names, x=[1, 2], orientation="h"), {"height": 300, "yaxis": axis})
    file = write_report(make_run(tmp_path, cells=[md("# a"), code("f", shown(plotly=json.loads(figure.to_json())))]))
    for width, lines in ((420, 3), (1400, 1)):
        with browser_page(width=width) as page:
            page.goto(f"file://{file}")
            page.wait_for_function("document.documentElement.dataset.ready === 'yes'")
            page.evaluate("drawAll()")
            page.wait_for_selector(".canvas .ytick")
            found = page.evaluate("""[...document.querySelectorAll('.canvas .ytick text')].map((text) => {
                const own = text.closest('.canvas').getBoundingClientRect();
                return [text.getBoundingClientRect().left - own.left, Math.max(1, text.querySelectorAll('tspan.line').length), text.textContent]; })""")
            assert len(found) == 2 and all(left >= 0 for left, _, _ in found) and found[0][1] == lines, found


@pytest.mark.parametrize("rows", [1, 3])
def test_titles_of_parts_do_not_run_into_each_other_on_a_phone(tmp_path, rows):
    from plotly.subplots import make_subplots

    from mlbench.core.plots import figure_layout

    first = "<b>a_column_with_quite_a_long_name</b><br>891 different texts, 4.1 words each"
    second = "<b>score of the words, trees</b><br>guesses 0.021 to 0.979"
    spacing = 0.42 / rows
    figure = make_subplots(rows=rows, cols=2, subplot_titles=[first, second] * rows, horizontal_spacing=0.1, vertical_spacing=spacing if rows > 1 else None)
    for row in range(1, rows + 1):
        for col in (1, 2):
            figure.add_trace(go.Bar(x=["one", "two"], y=[1, 2]), row=row, col=col)
    figure = figure_layout(figure, "4 columns of 11 are changed on the way; one for each sort of change", height=150 + 250 * rows, legend=False)
    figure = figure.update_layout(margin_t=104).update_annotations(font_size=12)
    figure.update_xaxes(title={"text": "standard deviations from the mean", "standoff": 6, "font": {"size": 12}})
    file = write_report(make_run(tmp_path, cells=[md("# a"), code("f", shown(plotly=json.loads(figure.to_json())))]))
    heights = {}
    for width in (390, 1400):
        with browser_page(width=width) as page:
            page.goto(f"file://{file}")
            page.wait_for_function("document.documentElement.dataset.ready === 'yes'")
            page.evaluate("drawAll()")
            page.wait_for_selector(".canvas .annotation-text")
            boxes = """(chosen) => [...document.querySelectorAll('.canvas ' + chosen)].map((it) => {
                const box = it.getBoundingClientRect(); return [box.left, box.top, box.right, box.bottom, box.bottom - box.top]; })"""
            found = {name: page.evaluate(boxes, name) for name in (".annotation-text", ".bglayer rect", "[class^=x][class$=title]", ".gtitle")}
            titles, parts = found[".annotation-text"], found[".bglayer rect"]
            assert len(titles) == len(parts) == 2 * rows and page.mistakes == []
            apart = lambda a, b: a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] + 1 or b[3] <= a[1] + 1
            axes = found["[class^=x][class$=title]"]
            others = [*parts, *axes, *found[".gtitle"]]
            assert len(axes) == 2 * rows and all(apart(a, b) for row in (titles, axes) for n, a in enumerate(row) for b in row[:n]), (titles, axes)
            assert all(apart(a, b) for a in axes for b in parts) and all(a[0] >= 0 and a[2] <= width for a in axes), axes
            assert all(apart(a, b) for a in titles for b in others), (titles, others)
            assert all(a[0] >= 0 and a[2] <= width for a in titles)
            heights[width] = [round(part[4]) for part in parts]
            text = page.locator(".canvas .annotation-text").first.text_content()
            assert ("long_name" in text) == (width > 600) and ("…" in text) == (width < 600), text
    assert all(abs(a - b) <= 3 for a, b in zip(*heights.values())), heights


def test_without_figures_no_plotly(tmp_path):
    text = report_html(make_run(tmp_path, cells=[md("# a"), code("1", shown(plain="1"))]))
    assert "plotly.js v" not in text and len(text) < 100_000


def test_a_failed_run_says_where_and_why(tmp_path):
    error = {"stage": "05_evaluation", "kind": "exception", "type": "KeyError", "message": f"'age' {EVIL}", "cell": 3, "line": "x"}
    error["traceback"] = "\x1b[31mTraceback\x1b[0m"
    failing = [md("# Title"), code("x", {"output_type": "error", "ename": "KeyError", "evalue": "'age'", "traceback": ["\x1b[31mline\x1b[0m"]})]
    run = make_run(tmp_path, cells=failing, status="failed", error=error)
    text = report_html(run)
    assert verdict_line(Overview(run))[:2] == ("bad", "The run failed in 05_evaluation.")
    assert "KeyError in cell 3" in text and "\x1b" not in text and EVIL not in text and text.count("Traceback</summary>") == 2


def test_goals(tmp_path):
    wanted = [(True, "good", "The goal is met"), (False, "bad", "1 of 1 goal is missed"), (None, "warn", "could not be decided")]
    for n, (passed, kind, words) in enumerate(wanted):
        found = verdict_line(Overview(make_run(tmp_path / str(n), passed=passed)))
        assert found[0] == kind and words in found[1]


def test_a_stage_run_by_hand_is_shown_from_its_card(tmp_path):
    run = make_run(tmp_path)
    (run.stage_folder("05_evaluation") / "notebook.ipynb").unlink()
    text = report_html(run)
    assert text.count("data-figure=") >= 1 and "leaderboard" in text and EVIL not in text


def test_a_run_that_just_began(tmp_path):
    folder = tmp_path / "runs" / "x"
    folder.mkdir(parents=True)
    stages = {"01_problem": {"status": "waiting", "title": "What?", "parameters": {}}}
    (folder / "run.json").write_text(json.dumps({"id": "x", "project": "demo", "status": "running", "created": "2026-01-01T12:00:00.000Z", "stages": stages}))
    text = report_html(Run.open(folder))
    assert "This stage has not run" in text and "was stopped in" in text


def test_a_password_that_got_into_an_output_is_masked(tmp_path):
    cells = [md("# a"), code("x", {"output_type": "stream", "name": "stdout", "text": "postgresql://me:hunter2@db/shop"})]
    assert "hunter2" not in report_html(make_run(tmp_path, cells=cells))


def test_headings_and_streams():
    stream = {"output_type": "stream", "name": "stdout", "text": "\x1b[1m1%\r9%\x1b[0m"}
    page = notebook_html({"cells": [md("# T\n\n## One & two\n\n## Three"), code("1", stream)]}, "s")
    assert page.headings == [("s-s1", "One & two"), ("s-s2", "Three")] and "<pre class='text'>9%</pre>" in page.body


def test_comparison(tmp_path):
    first = make_run(tmp_path, name="20260101-a", roc=0.9, threshold=0.5)
    second = make_run(tmp_path, name="20260102-b", roc=0.95, threshold=0.4)
    found = compare_runs(first, second)
    assert found.parameters == [("evaluation.threshold", "0.5", "0.4")] and found.stages == [("05_evaluation", "differs in metrics")]
    assert found.metrics == [("evaluation/roc_auc", "0.9 (0.89 to 0.91)", "0.95 (0.94 to 0.96)", "better by 0.05, more than noise")]
    assert "0.5 → 0.4" in repr(found) and "better by 0.05" in found._repr_html_()
    text = write_comparison(first, second).read_text()
    assert text.count("class='canvas'") == 4 and EVIL not in text  # the metric, the times, a figure of each run
    assert compare_runs(first, first).parameters == []


def test_judgement_follows_the_metric():
    low, high = {"value": 1.0, "low": 0.9, "high": 1.1}, {"value": 2.0, "low": 1.9, "high": 2.1}
    assert judge("rmse", low, high).startswith("worse") and judge("r2", low, high).startswith("better")
    assert judge("no_metric", low, high).startswith("larger") and judge("rmse", low, {"value": None}) == "missing in one run"
