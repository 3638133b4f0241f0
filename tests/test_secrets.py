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

from mlbench.chain import Project
from mlbench.core import secrets

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
