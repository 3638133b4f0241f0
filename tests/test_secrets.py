"Secrets: a canary goes through every door that a notebook has, and is in no file and on no screen afterwards."

from __future__ import annotations

import base64
import html
import json
import os
import signal
import subprocess
import sys
import urllib.parse
import zipfile
from pathlib import Path

import pytest
from chain_project import write_notebook
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.chain import Project, Stage, run_chain
from mlbench.chain.parameters import sweep_values
from mlbench.chain.plan import plan_chain
from mlbench.core import secrets
from mlbench.core.errors import ParameterError

CANARY = "kanarie-7f3a&\"é/+ 'z<1"
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nEFAASCBKcwggSjAgEAAo\n-----END KEY-----"
PARAMETERS = (
    "token: Optional[str] = None  # of the shop [secret]\n"
    "key: str = ''  # its private key [secret]\n"
    "other: Optional[str] = None  # not given [secret]\n"
    "fail: bool = False  # break off in the middle\n"
)
LEAKS = [
    "import os, subprocess, sys\n"
    "started = subprocess.run([sys.executable, '-c', 'import os; print(sorted(os.environ.items()))'], capture_output=True, text=True).stdout\n"
    "assert 'kan' + 'arie' not in started and not any('kan' + 'arie' in v for v in os.environ.values()) and 'SHOP_TOKEN' not in os.environ",
    "stage = Stage.open('01_problem', globals(), writes=['facts', 'train', 'notes', 'model', 'shown'])\nstage",
    "assert token == open(os.path.expanduser('~/token')).read() and key.count('\\n') == 3 and other is None\n"
    "assert not any('kan' + 'arie' in v for v in os.environ.values()) and 'MLBENCH_SECRETS' not in os.environ\n"
    "print('kan' + 'arie' in subprocess.run([sys.executable, '-c', 'import os; print(sorted(os.environ.items()))'], capture_output=True, text=True).stdout)",
    "import base64, html, json, logging, urllib.parse, warnings\n"
    "print(token, repr([token]), json.dumps(token), urllib.parse.quote(token), urllib.parse.quote_plus(token), html.escape(token))\n"
    "print('Basic', base64.b64encode(b'ana:' + token.encode()).decode(), base64.urlsafe_b64encode(token.encode()).decode())\n"
    "print(key); print('\\n'.join('    ' + line for line in key.splitlines()), file=sys.stderr)\n"
    "logging.warning('login with %s', token); warnings.warn(token)\n"
    "os.write(2, ('process says ' + token + '\\n').encode())",
    "from IPython.display import HTML, JSON, SVG, Markdown, display\n"
    "display(HTML(f'<b title=\"{html.escape(token)}\">{token}</b>'), Markdown(token), JSON({token: [token]}))\n"
    "svg = f'<svg><text>{html.escape(token)}</text></svg>'\n"
    "display({'text/plain': token, 'image/svg+xml': svg, 'application/json': {'a': token}}, raw=True, metadata={'note': token})\n"
    "token",
    "import pandas as pd\nimport plotly.graph_objects as go\n\n"
    "frame = pd.DataFrame({'n': [1, 2], 'url': [f'https://shop/?k={token}', 'b'], token: ['x', 'y']})\n"
    "figure = stage.figure(go.Figure(go.Bar(x=[token], y=[1]), layout_title=f'of {token}'), 'figure', caption=token)\nfigure",
    "stage.table(frame, 'table', caption=token)\nstage.finding('leak', f'found {token}', evidence={'where': [token]}, proposal=token)\n"
    "stage.metric(f'score {token}', 0.5)\nframe",
    "from mlbench.core.progress import report\n\nreport(f'working with {token}', 1, 2)",
    "if fail:\n    raise ValueError(f'the shop refused {token} and {key}')",
    "stage.save('facts', {'token': token, 'rows': 2, token: 1, 'task': 'binary'})\nstage.save('train', frame)\nstage.save('notes.md', f'# Notes\\n{token}')\n"
    "stage.save('shown', figure)\nwith stage.folder('model') as folder:\n    (folder / 'config.json').write_text(json.dumps({'token': token, 'n': 12345}))",
    "stage.close()",
]


@pytest.fixture(autouse=True)
def _forget():
    "A secret of one test is none of the next."
    yield
    secrets.forget_secrets()


@pytest.fixture
def shop(tmp_path):
    "A project whose only stage leaks wherever it can; its secrets come from a variable and from a file."
    folder, home = tmp_path / "shop", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    write_notebook(folder / "01_problem.ipynb", PARAMETERS, LEAKS)
    (home / "token").write_text(CANARY)
    (folder / "key.pem").write_text(KEY + "\n")
    (folder / "data.csv").write_text("x,label\n1,yes\n2,no\n")
    (folder / "problem.yaml").write_text("name: shop\ntask: binary\ndata: {source: data.csv}\ntarget: label\n")
    (folder / "params.yaml").write_text("problem:\n  token: env:SHOP_TOKEN\n  key: file:key.pem\n")
    return folder


def forms(value: str) -> list[bytes]:
    "The spellings that are looked for; written without the library's own list."
    raw = value.encode()
    found = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1], html.escape(value)}
    found |= {urllib.parse.quote(value), urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value)}
    found |= {base64.b64encode(raw).decode().rstrip("="), base64.urlsafe_b64encode(raw).decode().rstrip("=")}
    return [f.encode() for f in found] + [base64.b64encode(b"ana:" + raw)[6:-4]]


LOOKED_FOR = [f for part in (CANARY, *KEY.splitlines()[1:3]) for f in forms(part)] + [b"kanarie"]


def contents(path: Path):
    "The bytes of a file, of the members of an archive, of the columns of a table."
    yield path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        yield str(pq.read_table(path).to_pydict()).encode()


def leaks(*folders: Path, apart: tuple[str, ...] = ()) -> list[str]:
    "Files below some folders that hold the canary."
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file() and p.name not in apart]
    assert files
    return [f"{p}: {f!r}" for p in files for content in contents(p) for f in LOOKED_FOR if f in content]


def environment(home: Path, **more: str) -> dict[str, str]:
    "What a shell gives the command."
    (home / "tmp").mkdir(exist_ok=True)
    return os.environ | {"HOME": str(home), "TMPDIR": str(home / "tmp"), "SHOP_TOKEN": CANARY, "NO_COLOR": "1"} | more


def mlbench(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    "A command in a process of its own."
    return subprocess.run([sys.executable, "-m", "mlbench", *words], capture_output=True, text=True, cwd=home, env=environment(home, **more), timeout=180)


def said_nothing(done: subprocess.CompletedProcess[str]) -> None:
    "Nothing that was printed holds the canary."
    printed = (done.stdout + done.stderr).encode()
    assert not [f for f in LOOKED_FOR if f in printed], printed.decode()


@pytest.mark.slow
def test_a_run_that_passes_keeps_its_secrets(shop, tmp_path):
    home = tmp_path / "home"
    done = mlbench(home, "run", str(shop))
    assert done.returncode == 0, done.stderr
    said_nothing(done)
    assert leaks(shop, home, apart=("token", "key.pem")) == []
    run = Project.open(shop).runs / done.stdout.strip().splitlines()[-1].split("/")[-1]
    stage = run / "stages" / "01_problem"
    stored = json.loads((stage / "parameters.json").read_text())["parameters"]
    assert stored["token"] == {"value": {"$secret": True}, "origin": "params.yaml"} and stored["other"]["value"] == {"$secret": False}
    notebook = (stage / "notebook.ipynb").read_text()
    assert "# token: secret, not shown" in notebook and notebook.count("***") > 20 and "False" in notebook
    found = [f["what"] for f in json.loads((stage / "card.json").read_text())["findings"]]
    assert sum("held the value of a secret" in what for what in found) >= 5
    assert json.loads((stage / "artifacts" / "facts.json").read_text())["token"] == "***"
    assert json.loads((stage / "artifacts" / "model" / "config.json").read_text()) == {"token": "***", "n": 12345}
    assert any(run.glob("wandb/**/*.wandb")) and "***" in (run / "report.html").read_text()
    for words in (["why", "problem", "--project", str(shop)], ["params", "--project", str(shop)], ["show", "last", "--project", str(shop)]):
        looked = mlbench(home, *words)
        assert looked.returncode == 0, looked.stderr
        said_nothing(looked)


@pytest.mark.slow
@pytest.mark.parametrize("hold", [False, True])
def test_a_run_that_fails_keeps_its_secrets(shop, tmp_path, hold):
    home = tmp_path / "home"
    words = ["run", str(shop), "-p", "problem.fail=true", "-p", f"problem.token={CANARY}", *(["--on-error=hold"] if hold else [])]
    done = mlbench(home, *words, WANDB_MODE="disabled")
    try:
        assert done.returncode == 1 and "the shop refused ***" in done.stderr, done.stderr
        said_nothing(done)
        assert leaks(shop, home, apart=("token", "key.pem")) == []
        run = max((p for p in (shop / "runs").iterdir() if (p / "run.json").exists()), key=lambda p: p.name)
        record = json.loads((run / "run.json").read_text())
        assert "***" in record["error"]["message"] and "***" in record["error"]["traceback"] and record["plan"]["parameters"]["problem.token"] == "***"
        log = run / "stages" / "01_problem" / "kernel.log"
        assert hold or "process says ***" in log.read_text()
        said_nothing(mlbench(home, "show", "last", "--project", str(shop)))
    finally:
        for event in (shop / "runs").glob("*/events.jsonl"):
            for line in event.read_text().splitlines():
                held = json.loads(line)
                if held["type"] == "kernel_held":
                    os.killpg(held["pid"], signal.SIGKILL)


# --- where a secret may come from ----------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path, monkeypatch):
    "Two stages that say how long their secret is; nothing is set."
    folder = tmp_path / "small"
    folder.mkdir()
    for name, reads, writes in (("01_problem", [], ["facts"]), ("02_look", ["facts"], ["seen"])):
        opened = f"stage = Stage.open('{name}', globals(), reads={reads}, writes={writes})"
        cell = "token: str = ''  # of the shop [secret]\nrows: int = 3  # kept"
        write_notebook(folder / f"{name}.ipynb", cell, [opened, f"stage.save('{writes[0]}', {{'letters': len(token)}})\nstage.close()"])
    (folder / "problem.yaml").write_text("name: small\ntask: binary\ndata: {source: data.csv}\ntarget: label\n")
    (folder / "data.csv").write_text("x,label\n1,yes\n2,no\n")
    monkeypatch.setattr("mlbench.chain.cache.mlbench_source", lambda: "held fixed")
    for name in ("SHOP_TOKEN", "MLBENCH_SECRET_PROBLEM_TOKEN", "MLBENCH_SECRET_LOOK_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return folder


def token_of(folder: Path, stage: int = 0, **more):
    "The choice of a stage's secret."
    return plan_chain(Project.open(folder), **more).stages[stage].choices["token"]


def test_the_strongest_source_wins(small, monkeypatch):
    assert not token_of(small).value
    (small / "params.yaml").write_text("problem: {token: 'file:../kept'}\n")
    (small.parent / "kept").write_text("from-the-file\r\n")
    assert token_of(small).value.reveal() == "from-the-file" and token_of(small).origin == "params.yaml"
    monkeypatch.setenv("MLBENCH_SECRET_PROBLEM_TOKEN", "from-its-variable")
    assert token_of(small).value.reveal() == "from-its-variable" and token_of(small).origin == "environment"
    monkeypatch.setenv("SHOP_TOKEN", "from-another-one")
    assert token_of(small, parameters={"problem.token": "env:SHOP_TOKEN"}).value.reveal() == "from-another-one"
    assert token_of(small, parameters={"problem.token": "as it is"}).value.reveal() == "as it is"
    assert not token_of(small, parameters={"problem.token": "none"}).value


@pytest.mark.parametrize(
    ("yaml", "given", "words"),
    [
        ("problem: {token: kanarie-plain}", {}, "Write env:NAME or file:PATH, or set the variable MLBENCH_SECRET_PROBLEM_TOKEN"),
        ("problem: {token: [kanarie-plain]}", {}, "expected a text, env:NAME or file:PATH"),
        ("problem: {token: 'env:NOT_THERE'}", {}, "the environment has no variable NOT_THERE"),
        ("problem: {token: 'file:not/there'}", {}, "cannot be read"),
        ("", {"problem.token": "env:NOT_THERE"}, "the environment has no variable NOT_THERE"),
        ("", {"problem.token": "abc"}, "shorter than 4 characters"),
        ("", {"problem.tokn": "kanarie-plain"}, "Did you mean 'token'?"),
        ("", {"token": "kanarie-plain"}, "names no stage"),
    ],
)
def test_what_is_refused_names_no_value(small, yaml, given, words):
    (small / "params.yaml").write_text(yaml)
    with pytest.raises(ParameterError) as caught:
        run_chain(small, parameters=given)
    assert words in str(caught.value) and "kanarie" not in str(caught.value) and not (small / "runs").exists()


def test_a_secret_is_needed_only_where_it_is_used(small):
    (small / "params.yaml").write_text("look: {token: 'env:NOT_THERE'}\n")
    assert plan_chain(Project.open(small), to="problem") and plan_chain(Project.open(small), secrets=False)
    with pytest.raises(ParameterError, match="NOT_THERE"):
        plan_chain(Project.open(small))
    (small / "params.yaml").write_text("problem: {token: 'env:NOT_THERE'}\n")
    assert plan_chain(Project.open(small), from_="look").stages[0].choices["token"].value.problem


@pytest.mark.slow
def test_another_value_makes_nothing_outdated_but_none_does(small):
    first = run_chain(small, parameters={"problem.token": "kanarie-first"}, to="problem")
    assert first.load("facts") == {"letters": 13} and run_chain(small, parameters={"problem.token": "another"}, to="problem") == first
    second = run_chain(small, to="problem")
    assert second != first and second.load("facts") == {"letters": 0}
    assert "$secret" in (first.stage_folder("01_problem") / "manifest.json").read_text() and leaks(small) == []


def test_by_hand_a_cell_sees_the_value_and_the_stage_does_not_show_it(small, monkeypatch):
    monkeypatch.setenv("MLBENCH_PROJECT", str(small))
    monkeypatch.setenv("MLBENCH_INTERACTIVE", "1")
    (small / "params.yaml").write_text("problem:\n  token: env:SHOP_TOKEN\n")
    cells: dict = {"token": ""}
    with pytest.warns(UserWarning, match="no variable SHOP_TOKEN"):
        Stage.open("01_problem", cells, writes=["facts"])
    monkeypatch.setenv("SHOP_TOKEN", CANARY)
    stage = Stage.open("01_problem", cells, writes=["facts"])
    assert cells["token"] == CANARY and "kanarie" not in repr(stage) + repr(stage.choices) + repr(stage.parameters)
    cells["token"] = ""  # the tagged cell is run again
    assert Stage.open("01_problem", cells, writes=["facts"]) and cells["token"] == CANARY
    cells["token"] = "set by hand"
    stage = Stage.open("01_problem", cells, writes=["facts"])
    assert stage.choices["token"].origin == "notebook" and stage.choices["token"].value.reveal() == "set by hand"


def test_the_form_keeps_a_secret_for_the_session_alone(small, monkeypatch):
    from mlbench.widgets import stage_form

    monkeypatch.setenv("MLBENCH_PROJECT", str(small))
    monkeypatch.setenv("MLBENCH_INTERACTIVE", "1")
    (small / "params.yaml").write_text("problem:\n  rows: 2  # two\n")
    cells: dict = {}
    stage = Stage.open("01_problem", cells, writes=["facts"])
    form = stage_form(stage)
    field, note = next(row.children[1:] for row in form.children[1:-1] if "token" in row.children[0].value)
    field.set_state({"value": CANARY})
    assert cells["token"] == CANARY and field.value == "" and "MLBENCH_SECRET_PROBLEM_TOKEN" in note.value
    assert "token" not in (small / "params.yaml").read_text() and "kanarie" not in str([w.get_state() for w in form.children[-1:]]) + repr(stage)
    field.set_state({"value": "abc"})
    assert "role='alert'" in note.value and field.value == "" and cells["token"] == CANARY
    monkeypatch.setenv("SHOP_TOKEN", "from-the-shell")
    field.set_state({"value": "env:SHOP_TOKEN"})
    assert cells["token"] == "from-the-shell" and 'token: "env:SHOP_TOKEN"' in (small / "params.yaml").read_text()
    with pytest.raises(ParameterError, match="not written into params.yaml"):
        stage.project.set_parameter("problem", "token", CANARY)
    monkeypatch.setenv("MLBENCH_INTERACTIVE", "0")
    assert "***" in stage_form(Stage.open("01_problem", cells, writes=["facts"]))._repr_html_()


@pytest.mark.slow
def test_a_kernel_by_hand_hides_the_secret_in_what_it_sends(small, monkeypatch):
    from jupyter_client.manager import start_new_kernel

    (small / "params.yaml").write_text("problem:\n  token: env:SHOP_TOKEN\n")
    monkeypatch.setenv("SHOP_TOKEN", CANARY)
    monkeypatch.setenv("MLBENCH_PROJECT", str(small))
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(small))
    said: list[str] = []
    try:
        code = "from mlbench.chain import Stage\nstage = Stage.open('01_problem', globals(), writes=['facts'])"
        assert client.execute_interactive(code, timeout=120, output_hook=lambda m: said.append(repr(m["content"])))["content"]["status"] == "ok", said
        for code in ("print(token); token", "from IPython.display import HTML, display\ndisplay(HTML(token), {'a': token})", "raise ValueError(token)"):
            reply = client.execute_interactive(code, timeout=60, output_hook=lambda m: said.append(repr(m["content"])))
            said.append(repr(reply["content"]))
        assert client.execute_interactive("assert len(token) == " + str(len(CANARY)), timeout=60)["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert "kanarie" not in "".join(said) and "".join(said).count("***") >= 6


def test_a_sweep_tries_no_secrets(small):
    token = Project.open(small).stages["01_problem"].parameters["token"]
    with pytest.raises(ParameterError, match="is secret") as caught:
        sweep_values(token, "kanarie-a,kanarie-b")
    assert "kanarie" not in str(caught.value)


# --- the mask ------------------------------------------------------------------------------------------------------------------

VALUES = st.text(st.characters(exclude_categories=("Cs", "Zl", "Zp", "Cc")), min_size=6, max_size=40).filter(lambda v: len(set(v)) > 3 and v.strip() == v)


@settings(max_examples=150, deadline=None)
@given(VALUES, st.binary(max_size=7))
def test_no_spelling_of_a_secret_survives(value, before):
    secrets.forget_secrets()
    secrets.register_secret(value)
    for form in forms(value):
        assert value not in secrets.mask(f"before {form.decode()} after") and not secrets.holds_secret(secrets.mask(form.decode()))
    header = base64.b64encode(before + value.encode() + b"xyz").decode()
    left = secrets.mask(header).replace("***", "")
    assert len(value.encode()) < 8 or len(left) < len(header) - len(value)
    nested = {value: [value, {"n": 1.5, "t": (f"x{value}", None, True)}], "plain": "text"}
    masked = secrets.mask_value(nested)
    assert value not in str(masked) and masked["plain"] == "text" and secrets.mask_value(masked) == masked
    assert json.loads(secrets.mask_json(json.dumps(nested)))["plain"] == "text"


def test_numbers_in_json_are_left_alone():
    secrets.register_secret("2345")
    assert json.loads(secrets.mask_json('{"a": 0.12345, "b": [12345], "c": "id 2345"}')) == {"a": 0.12345, "b": [12345], "c": "id ***"}


def test_a_crash_file_and_a_traceback_have_no_secret(tmp_path, monkeypatch, capsys):
    from mlbench.cli.output import show_error

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    secrets.register_secret(CANARY)
    try:
        raise RuntimeError(f"login with {CANARY}")
    except RuntimeError as error:
        show_error(error)
        show_error(error, debug=True)
    assert leaks(tmp_path) == [] and "kanarie" not in "".join(capsys.readouterr()) and list(tmp_path.iterdir())
