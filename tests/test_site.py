"What makes the documentation site and README.md, without building them."

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "docs")]

pytest.importorskip("fastcore", reason="the site is made with developers' packages: pip install 'mlbench[dev]'")
import build_site
import readme
import reference


def test_a_function_shows_signature_and_parameters():
    from mlbench.core.secrets import mask_url

    text = reference.Reference(mask_url)._repr_markdown_()
    assert text.startswith("### `mask_url`") and "def mask_url(text: str) -> str" in text
    assert "| `text` | `str` |  | any text, with or without addresses in it |" in text and "| *returns* |" in text


def test_types_for_checkers_alone_and_long_signatures_are_shown_as_written():
    from mlbench.core.plots import figure_layout
    from mlbench.data.sources import read_table

    assert "figure: go.Figure" in reference.Reference(figure_layout)._repr_markdown_()
    text = reference.Reference(read_table)._repr_markdown_()
    assert "\n    *,\n" in text and "`separator`" in text and " at 0x" not in text


def test_a_default_that_is_a_class_or_a_function_is_its_name():
    def take(kind: type = dict, make=json.dumps, path: type = Path) -> None:
        "Take."

    text = reference.Reference(take)._repr_markdown_()
    assert "= dict" in text and "=json.dumps" in text and "= pathlib" in text and "<class" not in text and "<function" not in text


def test_all_notebooks_that_do_not_run_are_told_together(tmp_path, monkeypatch):
    for folder in ("nbs", "mlbench", "templates"):
        (tmp_path / folder).mkdir()
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = a\n")
    for name, source in [("a", "1 / 0"), ("b", "1 + 1"), ("c", "no_such_name")]:
        cell = {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "execution_count": None, "id": name}
        (tmp_path / "nbs" / f"{name}.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    for name, path in [("ROOT", tmp_path), ("WORK", tmp_path / "work"), ("CACHE", tmp_path / "cache")]:
        monkeypatch.setattr(build_site, name, path)
    with pytest.raises(SystemExit) as end:
        build_site.execute_all()
    told = str(end.value)
    assert "a.ipynb does not run" in told and "ZeroDivisionError" in told and "c.ipynb does not run" in told and "b.ipynb" not in told


def test_a_class_is_a_class():
    from mlbench.chain.plan import Plan

    assert "class Plan(" in reference.Reference(Plan)._repr_markdown_()


def test_names_in_prose_become_links_but_not_in_code_headings_or_links():
    known, there = {"mask": ["core.secrets"], "run": ["a", "b"]}, {build_site.label("core.secrets", "mask")}
    text = "# `mask`\n\nUse `mask` and `run`, then `mask()` again, [`mask`](x).\n\n```\n`mask`\n```\n"
    found = build_site.linked(text, "core.files", known, there)
    assert found.count("#api-core-secrets-def-mask") == 1 and found.startswith("# `mask`\n") and "[`mask`](x)" in found and "`run`" in found


def test_a_class_and_a_function_of_one_name_have_two_places():
    assert build_site.label("problem.metrics", "Metric") != build_site.label("problem.metrics", "metric")


def test_links_to_notebooks_follow_them():
    pages = {"98_cli.start": "reference/cli.start.ipynb", "1_problem": "guides/1_problem.ipynb"}
    assert build_site.relink("[x](98_cli.start.ipynb)", pages, "guides/a.ipynb") == "[x](../reference/cli.start.ipynb)"
    assert build_site.relink("[x](1_problem.ipynb#top) [y](https://a.b/c.ipynb)", pages, "guides/a.ipynb") == "[x](1_problem.ipynb#top) [y](https://a.b/c.ipynb)"


def test_a_figure_is_kept_live_and_a_widget_is_left_out():
    figure = {"output_type": "display_data", "data": {"application/vnd.plotly.v1+json": {"data": [{"y": ["</script>"]}], "layout": {"height": 300}}}}
    shown = build_site.plain_output(figure)["data"]["text/html"]
    assert "height:300px" in shown and shown.count("</script>") == 1
    widget = {"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Box()"}}
    assert build_site.plain_output(widget) is None


def test_dead_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<h1 id="top">A</h1><a href="b.html#here">1</a><a href="b.html#gone">2</a><a href="c.html">3</a><a href="https://x.org/y">4</a>')
    (tmp_path / "b.html").write_text('<p id="here"></p><a href="a.html#top"></a>')
    assert build_site.dead_links(tmp_path) == ["a.html: b.html#gone has no such place", "a.html: c.html is not there"]


def test_the_readme_is_the_index_without_hidden_cells(tmp_path):
    cells = [("markdown", "# T\n\n![p](../docs/images/x.png)"), ("code", "#| hide\nx = 1"), ("code", "#| eval: false\nprint(2)")]
    cells = [{"cell_type": kind, "source": text, "metadata": {}} for kind, text in cells]
    (tmp_path / "index.ipynb").write_text(json.dumps({"cells": cells}))
    assert readme.readme(tmp_path / "index.ipynb") == "# T\n\n![p](docs/images/x.png)\n\n```python\nprint(2)\n```\n"


def test_the_readme_in_the_checkout_is_up_to_date():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == readme.readme() and "make demo" in text and "make test" in text
    assert (ROOT / "docs" / "images" / "report.png").stat().st_size < 300_000
