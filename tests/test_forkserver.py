"Kernels from the fork server: the same as ordinary ones, only sooner; and nothing is left of them."

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

import mlbench
from mlbench.chain import forkserver, provisioner
from mlbench.chain.forkserver import ENTRY, library_hash, runtime_folder, server_facts, server_key, stop_servers, warm_up
from mlbench.core.settings import runner_alive, runner_mark

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
SPEC = {
    "argv": [sys.executable, *ENTRY, "-f", "{connection_file}"],
    "display_name": "Python 3 (mlbench)",
    "language": "python",
    "metadata": {"kernel_provisioner": {"provisioner_name": "mlbench-fork", "config": {}}},
}


def wait_until(what: Callable[[], Any], seconds: float = 200) -> Any:
    "Wait until something is true."
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    "Servers, connection files and kernelspecs of these tests, away from those of the user."
    folder = Path(tempfile.mkdtemp(prefix="mlbt", dir="/tmp"))
    patch = pytest.MonkeyPatch()
    patch.setenv("MLBENCH_SERVER_FOLDER", f"{folder}/r")
    patch.setenv("MLBENCH_SERVER_IDLE", "60")
    patch.setenv("JUPYTER_PATH", f"{folder}/jupyter")
    patch.setenv("JUPYTER_RUNTIME_DIR", f"{folder}/runtime")
    spec = folder / "jupyter" / "kernels" / "mlbench-fork"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps(SPEC))
    yield folder
    stop_servers(force=True)
    patch.undo()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def ordinary(home: Path) -> Iterator[None]:
    "A test that leaves a server in a bad state must not spoil the next."
    yield
    wait_until(lambda: not any(facts["children"] for facts in server_facts()))


def heard(client: Any) -> bool:
    "Whether a request is answered on both channels."
    asked = client.kernel_info()
    with contextlib.suppress(queue.Empty):
        while client.get_shell_msg(timeout=5)["parent_header"].get("msg_id") != asked:
            pass
        while (said := client.get_iopub_msg(timeout=0.3))["parent_header"].get("msg_id") != asked or said["content"].get("execution_state") != "idle":
            pass
        return True
    return False


def listen(client: Any) -> None:
    "Wait until a client hears its kernel: what is said before it has subscribed, it misses."
    wait_until(lambda: heard(client))


class Kernel:
    "A kernel started by Jupyter's own manager."

    def __init__(self, how: str = "pool", cwd: Path | None = None, env: dict[str, str] | None = None, **config: Any):
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import KernelManager

        self.folder = Path(tempfile.mkdtemp(prefix="mlb-", dir="/tmp"))
        self.manager = KernelManager(connection_file=str(self.folder / "k.json"), transport="ipc", ip=str(self.folder / "k"))
        metadata = {"kernel_provisioner": {"provisioner_name": "mlbench-fork", "config": {"fresh": how == "fresh", "timeout": 120.0} | config}}
        self.manager._kernel_spec = KernelSpec(argv=SPEC["argv"] + (["--no-secure"] if how == "fork" else []), language="python", metadata=metadata)
        self.log = open(self.folder / "log", "wb")  # noqa: SIM115
        start = time.perf_counter()
        self.manager.start_kernel(cwd=str(cwd or self.folder), env=os.environ | (env or {}), stdout=self.log, stderr=self.log)
        self.process, self.how, self.refused = self.manager.provisioner.process, self.manager.provisioner.how, self.manager.provisioner.refused
        self.pid = self.manager.provisioner.pid
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        listen(self.client)
        self.seconds = time.perf_counter() - start

    def run(self, source: str, seconds: float = 120) -> Any:
        "Run a cell; what it printed as JSON, or its text."
        said: list[str] = []
        reply = self.client.execute_interactive(
            source, timeout=seconds, output_hook=lambda m: said.append(m["content"].get("text", "") if m["content"].get("name") == "stdout" else "")
        )
        assert reply["content"]["status"] == "ok", reply["content"]
        text = "".join(said).strip()
        return json.loads(text) if text else None

    def stop(self) -> None:
        "End it as a program would that has what it wanted."
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def kernel(how: str = "pool", **options: Any) -> Iterator[Kernel]:
    "A kernel of a kind: prepared ahead, forked for us, or ordinary."
    if how != "fresh":
        warm_up(os.environ | options.get("env", {}))
    if how == "pool":
        wait_until(lambda: any(f["prepared"] for f in server_facts()))
    made = Kernel(how, **options)
    try:
        yield made
    finally:
        made.stop()


def server_of(key: str | None = None) -> dict[str, Any]:
    "The facts of a server, as soon as it is ready."
    key = key or server_key()
    return wait_until(lambda: next((f for f in server_facts() if f["key"] == key and f["state"] == "ready"), None))


NUMBERS = """
import json, multiprocessing, subprocess, sys, warnings
import joblib, numpy as np, torch
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from torch.utils.data import DataLoader, TensorDataset

def square(x):
    return float(np.square(x))

rng = np.random.default_rng(0)
x = rng.normal(size=(400, 8)); y = (x[:, 0] + x[:, 1] ** 2 > 0.5).astype(int)
out = {"matmul": float((x @ x.T).sum()), "svd": float(np.linalg.svd(x)[1].sum())}
out["forest"] = float(RandomForestClassifier(20, n_jobs=2, random_state=0).fit(x, y).predict_proba(x)[:, 1].sum())
out["boosting"] = float(HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(x, y).predict_proba(x)[:, 1].sum())
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
optimizer = torch.optim.Adam(net.parameters())
data = TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32))
for a, b in DataLoader(data, batch_size=100, num_workers=2):
    loss = torch.nn.functional.binary_cross_entropy_with_logits(net(a)[:, 0], b)
    optimizer.zero_grad(); loss.backward(); optimizer.step()
out["network"] = loss.item()
out["loky"] = joblib.Parallel(n_jobs=2)(joblib.delayed(square)(i) for i in range(4))
with multiprocessing.get_context("fork").Pool(2) as pool:
    out["multiprocessing"] = pool.map(square, range(4))
out["subprocess"] = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True).stdout.strip()
print(json.dumps(out))
"""


@pytest.mark.slow
def test_the_same_numbers_however_a_kernel_was_started() -> None:
    "Everything that has been seen to hang or differ after a fork."
    found = {}
    for how in ("pool", "fork", "fresh"):
        with kernel(how) as k:
            assert (k.how, k.refused) == (how, None)
            found[how] = k.run(NUMBERS)
    assert found["pool"] == found["fork"] == found["fresh"]


SURROUNDINGS = """
import json, os, sys, signal, multiprocessing
shell = get_ipython()
names = {k: repr(v) for k, v in shell.user_ns.items() if k in ("_dh", "__session__", "__name__", "__builtin__")}
limits = __import__("resource").getrlimit(7)
print(json.dumps({"environ": dict(os.environ), "cwd": os.getcwd(), "path": sys.path, "argv": sys.argv[:2], "orig": sys.orig_argv[:3], "names": names,
    "start": shell.starting_dir, "limits": limits, "leader": os.getpgid(0) == os.getpid() == os.getsid(0), "stdin": sys.stdin.read(),
    "sigint": str(signal.getsignal(signal.SIGINT)), "main": sys.modules["__main__"] is shell.user_module, "tmp": __import__("tempfile").gettempdir(),
    "parent": shell.kernel.parent.parent_handle, "user": sorted(k for k in shell.user_ns if not k.startswith("_")), "backend": os.environ.get("MPLBACKEND")}))
"""


@pytest.mark.slow
def test_surroundings_are_those_of_an_ordinary_kernel(tmp_path: Path) -> None:
    "Environment, folder, path, arguments, names, limits, signals."
    env = {"NEW_VARIABLE": "ä b", "TMPDIR": str(tmp_path), "JPY_SESSION_NAME": "a/b.ipynb"}
    found = {}
    for how in ("pool", "fork", "fresh"):
        with kernel(how, cwd=tmp_path, env=env) as k:
            assert k.how == how, k.refused
            found[how] = k.run(SURROUNDINGS)
    assert found["pool"]["cwd"] == str(tmp_path) and found["pool"]["environ"]["NEW_VARIABLE"] == "ä b"
    for name in found["fresh"]:
        assert found["pool"][name] == found["fresh"][name] == found["fork"][name], name


@pytest.mark.slow
def test_no_two_kernels_share_random_states() -> None:
    "Python's, numpy's and torch's are drawn anew, as in an ordinary kernel."
    draw = "import json, random, numpy, torch\nprint(json.dumps([random.random(), numpy.random.rand(), torch.initial_seed(), float(torch.rand(1))]))"
    drawn = []
    for how in ("pool", "pool", "fork", "fork", "fresh"):
        with kernel(how) as k:
            drawn.append(k.run(draw))
    for place in range(4):
        assert len({d[place] for d in drawn}) == 5


@pytest.mark.parametrize("how", ["pool", "fork"])
def test_interrupt_and_exit_codes(how: str) -> None:
    "A cell is interrupted, and what a process ended with is told."
    with kernel(how) as k:
        asked = k.client.execute("print('go', flush=True)\nimport time\ntime.sleep(100)")
        while k.client.get_iopub_msg(timeout=30)["msg_type"] != "stream":
            pass
        k.manager.interrupt_kernel()
        while (reply := k.client.get_shell_msg(timeout=30))["parent_header"]["msg_id"] != asked:
            pass
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        k.client.execute("import os; os._exit(7)")
        assert k.process.wait(30) == 7
    with kernel(how) as k:
        assert k.process.poll() is None
        os.kill(k.pid, signal.SIGKILL)
        assert k.process.wait(30) == -signal.SIGKILL


def test_what_the_process_says_outside_its_cells_goes_to_the_log() -> None:
    "It is written to the files that the manager was given."
    for how in ("pool", "fork"):
        with kernel(how) as k:
            k.run("get_ipython().kernel.log.error('a line of the kernel itself')")
            k.client.execute("import os\nos.kill(os.getpid(), 11)")
            assert k.process.wait(30) == -signal.SIGSEGV
            assert "a line of the kernel itself" in (k.folder / "log").read_text()


def test_another_setting_is_another_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    "Threads, installed versions, mlbench's source, limits."
    usual = server_key({"OMP_NUM_THREADS": "2"})
    assert server_key({"OMP_NUM_THREADS": "2", "WHATEVER": "1"}) == usual
    for change in ({"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""}, {"OMP_NUM_THREADS": "2", "PYTHONPATH": "/x"}):
        assert server_key(change) != usual
    site = tmp_path / "site-packages"
    (site / "thing-1.0.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(site))
    first = server_key({})
    (site / "thing-1.0.dist-info").rename(site / "thing-1.1.dist-info")
    second = server_key({})
    monkeypatch.setattr(forkserver, "library_hash", lambda: "changed")
    assert len({first, second, server_key({})}) == 3


def test_a_server_with_other_threads_serves_other_kernels() -> None:
    "Two thread settings at once: two servers, each with its own."

    def threads(number: str) -> dict[str, str]:
        return {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number}

    with kernel("fork", env=threads("1")) as one, kernel("fork", env=threads("2")) as two:
        assert one.how == two.how == "fork"
        asked = "import json, torch\nprint(json.dumps(torch.get_num_threads()))"
        assert (one.run(asked), two.run(asked)) == (1, 2)
        assert len(server_facts()) >= 2


def test_a_file_that_stands_in_for_a_package_is_respected(tmp_path: Path) -> None:
    "A project's own plotly.py is imported by an ordinary kernel; a forked one would have the package."
    (tmp_path / "plotly.py").write_text("mine = 1")
    with kernel("fork", cwd=tmp_path) as k:
        assert k.how == "fresh" and "plotly.py" in k.refused
        assert k.run("import plotly, json; print(json.dumps(plotly.mine))") == 1


def test_a_server_that_hangs_leads_to_an_ordinary_start() -> None:
    "It is not waited for longer than asked."
    warm_up()
    pid = server_of()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        made = Kernel("fork", timeout=0.5)
        assert made.how == "fresh" and "did not answer within 0.5 s" in made.refused
        made.stop()
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: server_of()["children"] == 0)  # the order that came too late found nobody who wanted it


def test_a_server_that_cannot_start_leads_to_an_ordinary_start(tmp_path: Path) -> None:
    "The reason names the log."
    (tmp_path / "sitecustomize.py").write_text("import sys\nif 'mlbench.chain.forkserver' in sys.orig_argv: raise SystemExit('broken')")
    made = Kernel("fork", env={"PYTHONPATH": str(tmp_path)})
    assert made.how == "fresh" and "did not start; its log is" in made.refused
    made.stop()
    shutil.rmtree(runtime_folder() / made.refused.split("/")[-2])


def test_a_server_that_got_more_threads_does_not_fork(tmp_path: Path) -> None:
    "Somebody's package starts threads after the imports: the server notices."
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, threading, time\n"
        "def later():\n"
        "    while not os.path.exists(os.path.dirname(__file__) + '/go'): time.sleep(0.02)\n"
        "    for _ in range(8): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
        "    open(os.path.dirname(__file__) + '/gone', 'w').close()\n"
        "    time.sleep(1000)\n"
        "if 'mlbench.chain.forkserver' in sys.orig_argv: os.register_at_fork(after_in_child=lambda: threading.Thread(target=later, daemon=True).start())\n"
    )
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(mlbench.__file__).parents[1])])}
    warm_up(os.environ | env)
    server_of(server_key(os.environ | env))
    (tmp_path / "go").touch()
    wait_until(lambda: (tmp_path / "gone").exists())
    made = Kernel("fork", env=env)
    assert made.how == "fresh" and "threads, and had" in made.refused
    made.stop()


def test_other_systems_and_those_who_do_not_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    "The reason is told."
    made = Kernel("fork", env={"MLBENCH_FORK_SERVER": "0"})
    assert made.how == "fresh" and made.refused == "switched off by MLBENCH_FORK_SERVER=0"
    made.stop()
    monkeypatch.setattr(provisioner, "why_not", partial(forkserver.why_not, system="Darwin"))
    made = Kernel("fork")
    assert made.how == "fresh" and "Linux only" in made.refused
    made.stop()


def test_kernels_outlive_their_server_and_are_still_watched() -> None:
    "The server is killed: its kernels go on, and new ones come from a new server."
    with kernel("pool") as k:
        assert k.how == "pool"
        os.kill(server_of()["pid"], signal.SIGKILL)
        wait_until(lambda: not server_facts())
        assert k.process.poll() is None
        assert k.run("import json; print(json.dumps(1 + 1))") == 2
        with kernel("fork") as other:
            assert other.how == "fork", other.refused
        assert k.run("print(json.dumps(2 + 2))") == 4  # its sockets were not swept away
        os.kill(k.pid, signal.SIGKILL)
        assert k.process.wait(30) == -signal.SIGKILL


RUNNER = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_forkserver import Kernel
k = Kernel(sys.argv[2])
if sys.argv[3] != "0":
    (k.folder / "hold.json").write_text(json.dumps({"until": time.time() + float(sys.argv[3]), "memory_mb": 1e6}))
pid = k.run("import subprocess, sys, json; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)']); print(json.dumps(p.pid))")
print(json.dumps([k.how, k.pid, pid, str(k.folder)]), flush=True)
time.sleep(1000)
"""


def runner(how: str, hold: float = 0) -> tuple[subprocess.Popen[str], list[str], Path]:
    "A process that has started a kernel, which has started a process; their marks, and the kernel's folder."
    made = subprocess.Popen([sys.executable, "-c", RUNNER, str(Path(__file__).parent), how, str(hold)], stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None
    found, kernel_pid, grandchild, folder = json.loads(made.stdout.readline())
    assert found == how
    return made, [runner_mark(kernel_pid), runner_mark(grandchild)], Path(folder)


@pytest.mark.parametrize("how", ["pool", "fork", "fresh"])
@pytest.mark.parametrize("server_too", [False, True])
def test_a_runner_that_is_killed_leaves_nothing(how: str, server_too: bool) -> None:
    "No kernel, no grandchild, whether or not there is a server to see to it."
    warm_up()
    wait_until(lambda: server_of()["prepared"])
    made, marks, folder = runner(how)
    assert all(map(runner_alive, marks))
    if server_too:
        for facts in server_facts():
            os.kill(facts["pid"], signal.SIGKILL)
        assert runner_alive(marks[0])
    made.kill()
    made.communicate()
    wait_until(lambda: not any(map(runner_alive, marks)))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("how", ["pool", "fork"])
def test_a_held_kernel_outlives_its_runner_until_its_time_has_come(how: str) -> None:
    "The server spares it, and its own watcher ends it."
    warm_up()
    wait_until(lambda: server_of()["prepared"])
    made, marks, folder = runner(how, hold=600)
    made.kill()
    made.communicate()
    wait_until(lambda: server_facts()[0]["children"] == 1)
    time.sleep(1)  # the time in which it would have been ended
    assert all(map(runner_alive, marks))
    (folder / "hold.json").write_text(json.dumps({"until": time.time() - 1}))
    wait_until(lambda: not any(map(runner_alive, marks)))
    wait_until(lambda: server_facts()[0]["children"] == 0)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_many_kernels_one_server_and_its_threads_stay() -> None:
    "Four at a time; the server never computes, so that it has the threads that its imports left."
    warm_up()
    before = server_of()

    def one(number: int) -> int:
        made = Kernel("pool")
        assert made.how in ("pool", "fork"), made.refused
        found = int(made.run(f"import json, numpy as np\nprint(json.dumps(int((np.ones((200, 200)) @ np.ones((200, 200)))[0, 0]) + {number}))"))
        made.stop()
        return found

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(12))) == [200 + n for n in range(12)]
    after = server_of()
    assert after["pid"] == before["pid"] and after["given"] == before["given"] + 12
    assert after["threads"][0] <= after["threads"][1] == before["threads"][1]


NOTEBOOK = """
import sys
import papermill
folder = sys.argv[1]
for number in sys.argv[2:]:
    papermill.execute_notebook(f"{folder}/in.ipynb", f"{folder}/out-{number}.ipynb", {"number": int(number)}, kernel_name="mlbench-fork", progress_bar=False)
"""


@pytest.mark.slow
def test_papermill_as_it_is_runs_24_notebooks_with_four_workers(tmp_path: Path) -> None:
    "It only names the kernelspec."
    import nbformat

    cells = [nbformat.v4.new_code_cell("number = 0", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell("import sys\nimport pandas as pd\nprint(pd.Series([number, 1]).sum(), 'torch' in sys.modules)")]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "mlbench-fork", "display_name": "m", "language": "python"}}),
        tmp_path / "in.ipynb",
    )
    warm_up()
    given = server_of()["given"]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", NOTEBOOK, str(tmp_path), *map(str, range(w, 24, 4))], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for w in range(4)
    ]
    for worker in workers:
        _, said = worker.communicate(timeout=300)
        assert worker.returncode == 0, said
    for number in range(24):
        out = nbformat.read(tmp_path / f"out-{number}.ipynb", as_version=4).cells[-1].outputs[0]
        assert out.text.strip() == f"{number + 1} True"
    assert server_of()["given"] == given + 24
    assert [p.name for p in runtime_folder().glob("*/k*") if not Path(f"/proc/{p.name[1:].split('-')[0]}").exists()] == []


@pytest.mark.slow
def test_jupyter_server_as_it_is_starts_restarts_and_ends_such_a_kernel(home: Path, tmp_path: Path) -> None:
    "What JupyterLab does, over its REST interface."
    import httpx
    from jupyter_client.blocking import BlockingKernelClient

    warm_up()
    wait_until(lambda: server_of()["prepared"])
    given = server_of()["given"]
    words = ["-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.token=t", f"--ServerApp.root_dir={tmp_path}", "--ServerApp.port=0"]
    with open(tmp_path / "log", "wb") as log:
        jupyter = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log, cwd=tmp_path)
    try:
        facts = json.loads(wait_until(lambda: next(home.joinpath("runtime").glob(f"jpserver-{jupyter.pid}.json"), None)).read_text())
        with httpx.Client(base_url=facts["url"] + "api", params={"token": "t"}, timeout=60) as web:
            wait_until(lambda: _up(web))
            made = web.post("kernels", json={"name": "mlbench-fork"}).json()
            assert server_of()["given"] == given + 1
            file = home / "runtime" / f"kernel-{made['id']}.json"
            client = BlockingKernelClient(connection_file=str(file))
            client.load_connection_file()
            client.start_channels()
            assert _ask(client, "import sys; print('torch' in sys.modules)") == "True"
            _ask(client, "x = 1")
            assert web.post(f"kernels/{made['id']}/restart").status_code == 200
            assert server_of()["given"] == given + 2
            assert _ask(client, "print('x' in dir(), 'torch' in sys.modules if 'sys' in dir() else 'new')") == "False new"
            assert web.post(f"kernels/{made['id']}/interrupt").status_code == 204
            client.stop_channels()
            assert web.delete(f"kernels/{made['id']}").status_code == 204
            wait_until(lambda: server_of()["children"] == 0)
    finally:
        jupyter.terminate()
        jupyter.wait(30)


def _up(web: Any) -> bool:
    "Whether the web server answers."
    import httpx

    try:
        return bool(web.get("kernels").status_code == 200)
    except httpx.HTTPError:
        return False


def _ask(client: Any, source: str) -> str:
    "Run a line and give what it printed."
    listen(client)
    said: list[str] = []
    client.execute_interactive(source, timeout=60, output_hook=lambda m: said.append(m["content"].get("text", "")))
    return "".join(said).strip()


def servers(key: str) -> set[int]:
    "Processes that are servers of a key; what they forked shows the same command and is not counted."
    found, folder = {}, os.environ["MLBENCH_SERVER_FOLDER"]  # elsewhere there may be one of the same key
    for process in psutil.process_iter(["cmdline", "ppid", "environ"]):
        ours = (process.info["environ"] or {}).get("MLBENCH_SERVER_FOLDER") == folder
        if ours and process.info["cmdline"] and process.info["cmdline"][-2:] == ["mlbench.chain.forkserver", key]:
            found[process.pid] = process.info["ppid"]
    return {pid for pid, parent in found.items() if parent not in found}


def test_many_who_need_a_server_start_one() -> None:
    "Eight processes at the same moment."
    stop_servers(force=True)
    words = [sys.executable, "-c", "from mlbench.chain.forkserver import warm_up; warm_up(); warm_up()"]
    for made in [subprocess.Popen(words) for _ in range(8)]:
        assert made.wait(60) == 0
    wait_until(lambda: len(servers(server_key())) == 1, 40)  # less than a second server would stay
    assert len(wait_until(server_facts)) == 1


def test_a_server_that_nobody_uses_ends_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    "Its folder, its lock, its prepared kernel: all gone."
    stop_servers(force=True)
    monkeypatch.setenv("MLBENCH_SERVER_IDLE", "0.5")
    with kernel("fork") as k:
        assert k.how == "fork"
    folder = Path(os.environ["MLBENCH_SERVER_FOLDER"])
    wait_until(lambda: not folder.exists())
    wait_until(lambda: not servers(server_key()))


def test_times_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    "From the request to the kernel's answer, with everything imported."
    times: dict[str, list[float]] = {"pool": [], "fork": []}
    for how in ("pool", "fork") * 4:
        with kernel(how) as k:
            assert k.how == how, k.refused
            times[how].append(k.seconds)
    facts = server_of()
    with capsys.disabled():
        best = {how: f"{min(found):.3f} s" for how, found in times.items()}
        print(f"\nfork server: {best}, {facts['memory_mb']:.0f} MB idle, threads {facts['threads']}")
    assert min(times["pool"]) < 0.5 and min(times["fork"]) < 1.5  # 0.03 and 0.14 on a quiet machine


def test_stopping_spares_kernels_at_work() -> None:
    "Unless it is forced."
    with kernel("pool") as k:
        assert stop_servers() == [] and k.process.poll() is None
        assert len(stop_servers(force=True)) == 1
        wait_until(lambda: k.process.poll() is not None)
    assert library_hash() == library_hash()
