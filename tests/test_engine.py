"The engine: nothing lost, nothing bloated, every bad end told as it was, kernels held, and what it costs."

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest
from chain_project import IMPORTS, write_notebook
from lab_browser import browser_page, chromium_path, free_port, wait_until

from mlbench.chain import Project
from mlbench.chain.engine import Client, run_notebook
from mlbench.chain.execution import Execution, NoRoom, NotebookFailed, mend_notebook, read_notebook_file
from mlbench.chain.forkserver import Refused
from mlbench.chain.hold import Hold, held_kernel
from mlbench.chain.job import Job, reap_kernels
from mlbench.chain.manager import KernelManager, reap
from mlbench.chain.plan import RunOptions
from mlbench.chain.run import list_runs
from mlbench.core.secrets import register_secret
from mlbench.core.settings import child_environment

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def temp_folder(tmp_path, monkeypatch):
    "A folder for temporary files with a short path; after each test nothing is left in it."
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    reap()
    wait_until(lambda: not list(folder.glob("mlb-*")))
    shutil.rmtree(folder, ignore_errors=True)


def book(*sources: str):
    "A notebook of code cells."
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])


def written(path: Path, *sources: str) -> Path:
    "A notebook of code cells in a file."
    path.write_text(nbformat.writes(book(*sources)))
    return path


def statuses(nb) -> list[str]:
    "What the cells say of themselves."
    return [c["metadata"]["papermill"]["status"] for c in nb["cells"]]


def alive(pid: int) -> bool:
    "Whether a process runs."
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def python(code: str, **options) -> subprocess.CompletedProcess:
    "A fresh process."
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=child_environment(), **options)


# --- what it costs -------------------------------------------------------------------------------------------------------


def test_importing_the_engine_and_the_runner_loads_nothing_heavy():
    "Its seconds are measured in benchmarks/engine_overhead.py."
    heavy = {"papermill", "nbclient", "nbformat", "jsonschema", "pandas", "numpy", "torch", "pydantic", "requests", "pyarrow"}
    code = f"import sys, mlbench.chain.engine, mlbench.chain.runner; print(sorted({heavy!r} & set(sys.modules)))"
    assert python(code).stdout.strip() == "[]"


@pytest.mark.parametrize("fresh", [True, False])
def test_each_of_200_cells_is_run(tmp_path, fresh):
    path = written(tmp_path / "many.ipynb", *(f"x{n} = {n}\nprint({n})" for n in range(200)))
    run_notebook(path, cwd=tmp_path, fresh=fresh)
    nb = read_notebook_file(path)
    assert statuses(nb) == ["completed"] * 200
    assert ["".join(c["outputs"][0]["text"]) for c in nb["cells"]] == [f"{n}\n" for n in range(200)]


# --- nothing lost, nothing bloated ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_line_is_lost_ten_times_of_ten():
    source = "for n in range(20_000):\n    print(n, flush=True)"
    nb = book(*[source] * 10)
    Client(Execution(nb)).run()
    for cell in nb.cells:
        assert len(cell.outputs) == 1
        assert cell.outputs[0]["text"] == "".join(f"{n}\n" for n in range(20_000))


def test_output_of_threads_and_of_other_streams_is_kept():
    thread = "import threading, time\ndef late():\n    time.sleep(0.3)\n    print('late')\nt = threading.Thread(target=late)\nt.start()\nprint('first')"
    nb = book(thread, "t.join()", "import sys\nprint('out')\nprint('err', file=sys.stderr)\nimport os\nos.system('echo of a child')", "time.sleep(0.2)")
    environment = {k: v for k, v in child_environment().items() if k != "PYTEST_CURRENT_TEST"}  # with it ipykernel leaves child processes alone
    Client(Execution(nb)).run(env=environment)
    text = "".join(o.get("text", "") for c in nb.cells for o in c.outputs)
    assert sorted(text.split("\n")[:-1]) == sorted(["first", "late", "out", "err", "of a child"])
    assert {o["name"] for o in nb.cells[2].outputs if "name" in o} == {"stdout", "stderr"}


def test_the_state_of_widgets_is_not_stored(tmp_path):
    figure = "import plotly.graph_objects as go\nfigure = go.FigureWidget(go.Bar(y=[1, 2]))\nsecond = go.FigureWidget(go.Bar(y=[1, 2]))\n"
    path = written(
        tmp_path / "w.ipynb", figure + "import ipywidgets\nout = ipywidgets.Output()\nwith out:\n    print('inside')\nout", "figure.data[0].y = [3, 4]"
    )
    run_notebook(path)
    nb = nbformat.read(path, 4)
    nbformat.validate(nb)
    assert path.stat().st_size < 20_000 and "widgets" not in nb.metadata
    assert "inside" in path.read_text()  # nobody is there to show it in a widget, so it is shown in the cell


def test_everything_that_is_saved_is_masked(tmp_path):
    register_secret("canary-7f3a-needle")
    figure = "import plotly.graph_objects as go\ngo.Figure(go.Bar(y=[1]), {'title': {'text': f'for {secret}'}})"
    sources = ["secret = 'canary-7f3a' + '-needle'", "print(secret)", figure, "secret", "import os\nos.write(2, (secret + '\\n').encode())"]
    path = written(
        tmp_path / "s.ipynb", *sources, "from IPython.display import display\ndisplay({'text/html': f'<b>{secret}</b>'}, raw=True)", "raise KeyError(secret)"
    )

    class Record:
        seen = []

        def event(self, type, **values):
            self.seen.append({"type": type} | values)

    job = Job(Record(), "01", RunOptions(fresh=True))
    job.run(path, tmp_path, dict(os.environ), lambda: False)
    assert job.error.kind == "exception" and (tmp_path / "kernel.log").exists()
    texts = [str(job.error), job.error.traceback, json.dumps(job.error.facts()), str(Record.seen), *(p.read_text() for p in tmp_path.iterdir())]
    assert not [text for text in texts if "canary-7f3a-needle" in text]
    assert path.read_text().count("***") >= 5


# --- every bad end -------------------------------------------------------------------------------------------------------

ENDS = {
    "raise ValueError('no rows')": ("exception", "ValueError", "no rows"),
    "import sys\nsys.exit(0)": ("exit", "SystemExit", "sys.exit(0)"),
    "import sys\nsys.exit('enough')": ("exit", "SystemExit", "sys.exit('enough')"),
    "exit()": ("exit", "SystemExit", "sys.exit(0)"),
    "import os\nos._exit(3)": ("kernel died", "KernelDied", "code 3"),
    "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)": ("kernel died", "KernelDied", "SIGTERM"),
    "import ctypes\nctypes.string_at(0)": ("kernel died", "KernelDied", "SIGSEGV"),
    "import numpy as np\nnp.ones(10**16)": ("out of memory", "MemoryError", "Unable to allocate"),
    "raise OSError(28, 'No space left on device', 'a.parquet')": ("disk full", "OSError", "a.parquet"),
    "import time\nwhile True: time.sleep(0.1)": ("cell timeout", "TimeoutError", "--cell-timeout"),
}


@pytest.mark.parametrize("source", ENDS)
def test_every_bad_end_is_told_as_it_was(tmp_path, source):
    kind, name, words = ENDS[source]
    path, events = written(tmp_path / "n.ipynb", "1", "# why\n" + source, "2"), []
    with pytest.raises(NotebookFailed) as caught:
        run_notebook(path, events.append, cell_timeout=3)
    facts = caught.value.facts()
    assert (facts["kind"], facts["type"], facts["cell"], facts["line"]) == (kind, name, 2, source.split("\n")[0]), facts
    assert words in facts["message"]
    assert (facts["exit_code"] is not None) == (kind == "kernel died")
    saved = nbformat.read(path, 4)
    assert statuses(saved) == ["completed", "failed", "pending"]
    assert saved.metadata.papermill.exception is True and saved.cells[2].metadata.papermill.exception is None
    assert not alive(events[0]["pid"]) and not Path(events[0]["folder"]).exists()


def test_a_stage_has_a_limit_over_all_its_cells(tmp_path):
    path = written(tmp_path / "n.ipynb", "import time\ntime.sleep(1)", "time.sleep(60)", "1")
    with pytest.raises(NotebookFailed) as caught:
        run_notebook(path, stage_timeout=5)
    assert caught.value.kind == "stage timeout" and "5 s" in caught.value.message and caught.value.number == 2
    assert "KeyboardInterrupt" in caught.value.traceback


def sleeping(monkeypatch):
    "Kernels that start and never answer."
    spec = KernelManager.kernel_spec.fget

    def slow(self):
        made = spec(self)
        made.argv = [sys.executable, "-c", "import time; time.sleep(300)"]
        return made

    monkeypatch.setattr(KernelManager, "kernel_spec", property(slow))


@pytest.mark.parametrize("fresh", [True, False])
def test_a_kernel_that_is_long_in_coming_counts_for_the_stage(tmp_path, monkeypatch, fresh):
    sleeping(monkeypatch)
    path, events = written(tmp_path / "n.ipynb", "1"), []
    with pytest.raises(NotebookFailed) as caught:
        run_notebook(path, events.append, stage_timeout=1.5, fresh=fresh, hold=Hold())
    assert caught.value.kind == "stage timeout" and "1.5 s" in caught.value.message and "had not started yet" in caught.value.message
    assert caught.value.number is None and [e["type"] for e in events] == ["kernel_started"]  # and no second kernel
    assert not alive(events[0]["pid"]) and not Path(events[0]["folder"]).exists()
    assert statuses(read_notebook_file(path)) == ["pending"]


def test_a_fork_server_is_not_waited_for_longer_than_the_stage_may_take(tmp_path, monkeypatch):
    asked = []

    def busy(order, files, seconds):
        asked.append(seconds)
        raise Refused("busy")

    monkeypatch.setattr("mlbench.chain.provisioner.fork_kernel", busy)
    path = written(tmp_path / "n.ipynb", "1")
    for limit in (17.0, 3600.0, None):
        run_notebook(path, stage_timeout=limit, fresh=False)
    assert 0 < asked[0] <= 17.0 and asked[1:] == [30.0, 30.0]


def test_a_cell_that_ignores_the_interruption_is_ended_all_the_same(tmp_path):
    path, events = written(tmp_path / "n.ipynb", "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)"), []
    start = time.monotonic()
    with pytest.raises(NotebookFailed) as caught:
        run_notebook(path, events.append, cell_timeout=1, hold=Hold())
    assert caught.value.kind == "cell timeout" and time.monotonic() - start < 20
    assert not alive(events[0]["pid"]) and "kernel_held" not in [e["type"] for e in events]  # it does not listen, so it is not held


def test_processes_of_a_failed_cell_end_with_it(tmp_path):
    path = written(tmp_path / "n.ipynb", f"import subprocess\nopen('{tmp_path}/pid', 'w').write(str(subprocess.Popen(['sleep', '300']).pid))", "1 / 0")
    with pytest.raises(NotebookFailed):
        run_notebook(path)
    wait_until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_a_cell_that_takes_too_much_memory_is_named(tmp_path):
    class Record:
        def event(self, type, **values):
            pass

    path = written(tmp_path / "n.ipynb", "1", "import time\nlarge = bytearray(400_000_000)\ntime.sleep(60)")
    job = Job(Record(), "01", RunOptions(fresh=True), memory_mb=300.0)
    job.run(path, tmp_path, dict(os.environ), lambda: False)
    assert job.error.facts()["kind"] == "out of memory" and job.error.number == 2 and job.error.exit_code == -signal.SIGKILL
    assert "allows 0.3 GB" in job.error.message and job.peak_memory_mb > 300


FORKS = """
import os, signal, time
large = bytearray(os.urandom(1000)) * 200_000
children = []
for _ in range(4):
    children.append(os.fork())
    if children[-1] == 0:
        time.sleep(60)
        os._exit(0)
time.sleep(1)
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


def test_memory_of_processes_that_a_cell_started_counts(tmp_path):
    class Record:
        def event(self, type, **values):
            pass

    large = f"{sys.executable} -c 'large = bytearray(400_000_000); import time; time.sleep(60)'"
    path = written(tmp_path / "n.ipynb", f"import os, time\nos.system({large + ' &'!r})\ntime.sleep(60)")  # its parent, a shell, is gone
    job = Job(Record(), "01", RunOptions(fresh=True), memory_mb=420.0)
    job.run(path, tmp_path, dict(os.environ), lambda: False)
    assert job.error.kind == "out of memory" and "it and the process that it started used 0.4" in job.error.message and job.peak_memory_mb > 420
    wait_until(lambda: not [p for p in Path("/proc").glob("[0-9]*") if "bytearray(400_000_000)" in command_of(p)])
    shared = Job(Record(), "01", RunOptions(fresh=True), memory_mb=600.0)  # five times 200 MB are resident, and 200 MB are there
    shared.run(written(tmp_path / "n.ipynb", FORKS), tmp_path, dict(os.environ), lambda: False)
    assert shared.error is None


def command_of(process: Path) -> str:
    "The command line of a process, empty when it has gone."
    try:
        return (process / "cmdline").read_text().replace("\0", " ") if process.name != str(os.getpid()) else ""
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_memory_of_processes_counts_for_a_kernel_that_is_held(tmp_path):
    (tmp_path / "hold.json").write_text(json.dumps({"until": time.time() + 600, "memory_mb": 300.0}))
    child = "import sys; large = bytearray(300_000_000); print(flush=True); sys.stdin.read()"
    code = f"""
import os, subprocess, sys
from pathlib import Path
from mlbench.chain.kernel import may_live
print(may_live(Path({str(tmp_path)!r})))
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(may_live(Path({str(tmp_path)!r})))
child.communicate()
"""
    assert python(code, start_new_session=True).stdout.split() == ["True", "False"]


def test_a_full_disk_while_saving_is_named(tmp_path):
    code = f"""
import resource, sys
from pathlib import Path
from mlbench.chain.engine import run_notebook
from mlbench.chain.manager import reap
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    run_notebook(Path({str(tmp_path / "n.ipynb")!r}))
except Exception as error:
    print(error.kind, error.message, sep="|")
"""
    written(tmp_path / "n.ipynb", "print('x' * 50_000)", "2")
    before = (tmp_path / "n.ipynb").stat().st_size
    done = python(code)
    assert done.stdout.startswith("disk full|") and "n.ipynb" in done.stdout, done.stdout + done.stderr
    assert before < (tmp_path / "n.ipynb").stat().st_size < 30_000 and not list(tmp_path.glob(".n.ipynb.*"))
    json.loads((tmp_path / "n.ipynb").read_text())


def test_a_full_disk_of_the_events_is_named(tmp_path):
    def listener(event):
        if event["type"] == "cell_ended":
            raise OSError(28, "No space left on device", "events.jsonl")

    path = written(tmp_path / "n.ipynb", "1", "2")
    with pytest.raises(NoRoom, match=r"events.jsonl could not be written") as caught:
        run_notebook(path, listener)
    assert caught.value.kind == "disk full" and caught.value.number == 1
    assert nbformat.read(path, 4).metadata.papermill.exception is True


def test_what_a_killed_runner_left_is_put_right(tmp_path):
    path = written(tmp_path / "n.ipynb", "print('one')", "import time\nprint('two', flush=True)\ntime.sleep(60)", "3")
    code = "import sys\nfrom pathlib import Path\nfrom mlbench.chain.engine import run_notebook\n"
    code += "run_notebook(Path(sys.argv[1]), lambda e: print(e['type'], e.get('cell'), e.get('pid'), flush=True))"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, env=child_environment())
    lines = []
    while not lines or not lines[-1].startswith("cell_started 2"):
        lines.append(process.stdout.readline())
    process.kill()
    process.wait()
    pid = int(next(line for line in lines if line.startswith("kernel_started")).split()[2])
    wait_until(lambda: not alive(pid))  # its watcher saw that nobody is there any more
    assert mend_notebook(path) in (True, False)
    saved = nbformat.read(path, 4)
    assert saved.metadata.papermill.exception is True and not {"running", "completed"} & set(statuses(saved)[1:])


# --- kernels -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [True, False])
def test_kernels_share_nothing(tmp_path, fresh):
    events = []
    mark = "import os, sys\nsys.modules['mark'] = mark = 1\nos.environ['MARK'] = '1'\nos.chdir('/')"
    for source in (mark, "import os, sys\nassert 'mark' not in sys.modules and 'mark' not in globals() and 'MARK' not in os.environ and os.getcwd() != '/'"):
        run_notebook(written(tmp_path / "n.ipynb", source), events.append, cwd=tmp_path, fresh=fresh)
    started = [e for e in events if e["type"] == "kernel_started"]
    assert len({e["pid"] for e in started}) == len({e["folder"] for e in started}) == 2
    reap()
    assert not any(Path(e["folder"]).exists() for e in started)


@pytest.mark.parametrize("fresh", [True, False])
def test_what_is_registered_for_the_end_runs(tmp_path, fresh):
    run_notebook(written(tmp_path / "n.ipynb", f"import atexit, pathlib\natexit.register(pathlib.Path('{tmp_path}/bye').touch)"), fresh=fresh)
    reap_kernels()
    assert (tmp_path / "bye").exists()


def test_a_kernel_that_does_not_come_up_is_replaced_once(tmp_path, monkeypatch):
    spec = KernelManager.kernel_spec.fget

    def broken(self):
        made = spec(self)
        if not self.fresh:
            made.argv = [sys.executable, "-c", "raise SystemExit(5)"]
        return made

    monkeypatch.setattr(KernelManager, "kernel_spec", property(broken))
    monkeypatch.setattr(
        "mlbench.chain.manager._provisioner",
        lambda self: __import__("jupyter_client").provisioning.LocalProvisioner(kernel_id="a", kernel_spec=self.kernel_spec, parent=self),
    )
    events = []
    run_notebook(written(tmp_path / "n.ipynb", "1"), events.append, fresh=False)
    assert [e["type"] for e in events] == ["kernel_started", "kernel_fallback", "kernel_started", "cell_started", "cell_ended"]
    assert "code 5" in events[1]["why"]


def test_many_at_once(tmp_path):
    code = "import sys\nfrom pathlib import Path\nfrom mlbench.chain.engine import run_notebook\nfrom mlbench.chain.manager import reap\n"
    code += "for path in sys.argv[1:]:\n    run_notebook(Path(path))\nreap()\n"
    paths = [written(tmp_path / f"{n}.ipynb", f"print({n})", f"assert {n} == {n}") for n in range(24)]
    workers = [subprocess.Popen([sys.executable, "-c", code, *map(str, paths[n::4])], env=child_environment()) for n in range(4)]
    assert [w.wait(120) for w in workers] == [0] * 4
    assert [read_notebook_file(p)["cells"][0]["outputs"][0]["text"] for p in paths] == [[f"{n}\n"] for n in range(24)]


# --- papermill -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_papermill_finds_the_engine(tmp_path):
    nb = book("rows = 1", "print(rows * 2)")
    nb.cells[0].metadata["tags"] = ["parameters"]
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (tmp_path / "in.ipynb").write_text(nbformat.writes(nb))
    command = [sys.executable, "-m", "papermill", "--engine", "mlbench", "in.ipynb", "out.ipynb", "-p", "rows", "21"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=child_environment())
    assert done.returncode == 0, done.stderr
    out = nbformat.read(tmp_path / "out.ipynb", 4)
    assert out.cells[-1].outputs[0].text == "42\n" and statuses(out) == ["completed"] * 3
    (tmp_path / "in.ipynb").write_text(nbformat.writes(book("1", "1 / 0", "2")).replace("{}", json.dumps(dict(nb.metadata)), 0))
    bad = book("1", "1 / 0", "2")
    bad.metadata = nb.metadata
    (tmp_path / "in.ipynb").write_text(nbformat.writes(bad))
    done = subprocess.run(command[:-3], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=child_environment())
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    out = nbformat.read(tmp_path / "out.ipynb", 4)
    assert [s for c, s in zip(out.cells, (c.metadata.get("papermill", {}).get("status") for c in out.cells), strict=True) if c.cell_type == "code"] == [
        "completed",
        "failed",
        "pending",
    ]


# --- kernels that are held -----------------------------------------------------------------------------------------------

PROBLEM = "name: tumours\nquestion: Which?\ntask: binary\ndata: {source: 'example:breast_cancer'}\ntarget: diagnosis\nmetric: roc_auc\n"


def failing_project(folder: Path) -> Project:
    "A project of one stage that fails with a variable in its kernel."
    folder.mkdir(parents=True)
    (folder / "problem.yaml").write_text(PROBLEM)
    (folder / "params.yaml").write_text("")
    sources = ["stage = Stage.open('01_look', globals())", "found = {'answer': 6 * 7}\nprint(found)", "found['question']", "stage.close()"]
    write_notebook(folder / "01_look.ipynb", "rows: int = 3  # rows [1..9]", sources, imports=IMPORTS)
    return Project.open(folder)


def mlbench(*words: str, **options) -> subprocess.Popen:
    "The command line in a process of its own."
    command = [sys.executable, "-c", "from mlbench.cli import main; main()", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=child_environment(without=("MLBENCH_INTERACTIVE",)), **options
    )


def held_run(folder: Path, *words: str):
    "A run whose first stage failed and whose kernel is held."
    project = failing_project(folder)
    process = mlbench("run", str(project.path), "--on-error=hold", *words)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 1, said
    run = list_runs(project)[0]
    held = held_kernel(run)
    assert held is not None and alive(held.pid), said
    return run, held, said


@pytest.mark.parametrize("words", [[], ["--fresh"]])
def test_a_failed_kernel_is_held_and_ended(tmp_path, words):
    run, held, said = held_run(tmp_path / "a project", *words)
    assert "mlbench open" in said and held.stage == "01_look" and held.until > time.time() + 3000
    event = next(e for e in run.events if e["type"] == "kernel_held")
    assert event["memory_mb"] >= 4096 and event["stage"] == "01_look" and event["pid"] == held.pid
    ended = mlbench("open", run.id, "--project", str(run.project), "--end")
    assert "was ended" in ended.communicate(timeout=60)[0]
    wait_until(lambda: not alive(held.pid))
    assert held_kernel(run) is None
    wait_until(lambda: not held.connection_file.exists() or not shutil.rmtree(held.connection_file.parent))


@pytest.mark.parametrize(("name", "value"), [("until", 0.0), ("memory_mb", 1.0)])
def test_a_held_kernel_ends_by_its_time_and_by_its_memory(tmp_path, name, value):
    run, held, _ = held_run(tmp_path / "p")
    file = held.connection_file.parent / "hold.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    wait_until(lambda: not alive(held.pid))
    wait_until(lambda: not held.connection_file.exists())
    assert held_kernel(run) is None


def test_a_run_without_a_held_kernel_says_so(tmp_path, monkeypatch):
    from mlbench import lab

    project = failing_project(tmp_path / "p")
    process = mlbench("run", str(project.path))
    process.communicate(timeout=120)
    assert process.returncode == 1
    run, opened, said = list_runs(project)[0], [], []
    assert held_kernel(run) is None
    monkeypatch.setattr(lab, "start_lab", lambda *words: opened.append(words) or 0)
    assert lab.lab_on_run(run, browser=False, tell=said.append) == 0
    assert "No kernel of run" in said[0] and "--on-error=hold" in said[0]
    assert opened[0][0] == project.path and opened[0][1] == f"runs/{run.id}/stages/01_look/notebook.ipynb"


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("words", [[], ["--fresh"]])
def test_the_failed_kernel_in_jupyterlab(tmp_path, words):
    chromium_path()
    run, held, _ = held_run(tmp_path / "p", *words)
    process = mlbench("open", run.id, "--project", str(run.project), "--no-browser", "--port", str(free_port()))
    try:
        lines = []
        while not lines or "http://" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)
        address = re.search(r"http://\S+", lines[-1])[0]
        assert "kept until" in "".join(lines)
        with browser_page() as page:
            page.goto(address + "&reset")
            page.wait_for_function("() => /\\| Idle/.test(document.querySelector('#jp-main-statusbar')?.innerText || '')", timeout=60_000)
            cell = page.locator(".jp-CodeCell").last
            cell.locator(".cm-content").click()
            page.keyboard.press("Control+End")
            page.keyboard.press("Escape")
            page.keyboard.press("b")
            page.keyboard.press("Enter")
            page.keyboard.type("print('kept', found['answer'])")
            page.keyboard.press("Control+Enter")
            page.get_by_text("kept 42").wait_for(timeout=30_000)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert alive(held.pid) and held_kernel(run) is not None  # JupyterLab is gone, the kernel is not
    held.end()
    wait_until(lambda: not alive(held.pid))
    shutil.rmtree(held.connection_file.parent, ignore_errors=True)
