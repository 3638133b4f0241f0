"""What the engine costs: the same calls as a stage, in one plain script, and under the plain `papermill` command line, in one run of this file.

    python benchmarks/engine_overhead.py [--repeats 5] [--quick]

| figure | bar |
| --- | --- |
| a stage that imports pandas, scikit-learn and torch, less its own calls, forked | 0.6 s |
| the same from the pool of kernels that wait | 0.15 s |
| the whole demo chain over the same calls in one script | 1.25 |
| six stages, all unchanged, with the start of the process | 1.0 s |
| importing engine and runner | 0.3 CPU s |
| a notebook of 200 cells | 1.5 s |

The idle memory of the fork server is printed. `--quick` leaves out the chain. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import options

IMPORTS = "import pandas as pd\nimport sklearn.linear_model\nimport torch"
CALLS = [
    "frame = pd.DataFrame({'x': range(100)})\nframe['y'] = frame.x * 2.0 + 1",
    "fitted = sklearn.linear_model.LinearRegression().fit(frame[['x']], frame.y)\nfitted.coef_",
    "float(torch.tensor(frame.y.to_numpy()).sum())",
]
MISSED: list[str] = []


def told(name: str, value: float, bar: float | None = None, unit: str = "s", note: str = "") -> None:
    "Print a figure, and remember it when it misses its bar."
    if bar is not None and value > bar:
        MISSED.append(name)
    limit = "" if bar is None else f"  (bar {bar:g}{', MISSED' if value > bar else ''})"
    print(f"{name:<62}{value:8.3f} {unit}{limit}{'  ' + note if note else ''}", flush=True)


def notebook(cells: list[str]) -> dict[str, Any]:
    "A notebook of code cells."
    made = [{"cell_type": "code", "id": f"c{n}", "metadata": {}, "outputs": [], "execution_count": None, "source": s} for n, s in enumerate(cells)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def wall(command: list[str], **options: Any) -> float:
    "Seconds of a command that must end well."
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, **options)
    took = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return took


def script_seconds(folder: Path) -> tuple[float, float]:
    "The calls in a plain script: seconds of the whole process, and of the calls after the imports."
    file = folder / "plain.py"
    file.write_text(f"import time\n{IMPORTS}\nstart = time.perf_counter()\n" + "\n".join(CALLS) + "\nprint(time.perf_counter() - start)\n")
    start = time.perf_counter()
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=True)
    return time.perf_counter() - start, float(done.stdout.split()[-1])


STAGE = """
import json, sys, time
from pathlib import Path
from mlbench.chain.engine import run_notebook
from mlbench.chain.job import reap_kernels
from mlbench.core.settings import child_environment
path, fresh, times = Path(sys.argv[1]), sys.argv[2] == "fresh", int(sys.argv[3])
for turn in range(times):
    target, how = path.with_suffix(f".{turn}.ipynb"), []
    target.write_bytes(path.read_bytes())
    hear = lambda event: how.append(event["how"]) if event["type"] == "kernel_started" else None
    start = time.perf_counter()
    run_notebook(target, hear, cwd=path.parent, env=child_environment(), fresh=fresh)
    print(json.dumps([how[0], time.perf_counter() - start]), flush=True)
    time.sleep(float(sys.argv[4]))
reap_kernels()
"""


def stage_seconds(folder: Path, cells: list[str], times: int, pool: int | None, fresh: bool = False, pause: float = 2.0) -> list[tuple[str, float]]:
    "How each of some executions got its kernel, and its seconds."
    path = folder / "stage.ipynb"
    path.write_text(json.dumps(notebook(cells)))
    own = {"MLBENCH_SERVER_POOL": str(pool), "MLBENCH_SERVER_FOLDER": str(folder / f"pool-{pool}"), "MLBENCH_SERVER_IDLE": "10"}
    env = os.environ | ({} if pool is None else own)
    command = [sys.executable, "-c", STAGE, str(path), "fresh" if fresh else "fork", str(times), str(pause)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def best(found: list[tuple[str, float]], how: str) -> float:
    "The least seconds of the executions that got their kernel this way."
    times = [seconds for kind, seconds in found if kind == how]
    if not times:
        sys.exit(f"no execution got its kernel by {how!r}: {found}")
    return min(times)


def stages(folder: Path, repeats: int) -> None:
    "One stage: script, papermill, fresh, forked, from the pool."
    whole, calls = min(script_seconds(folder) for _ in range(max(2, repeats - 2)))
    told("a script with the imports and calls of the stage", whole)
    told("its calls alone", calls)
    path = folder / "papermill.ipynb"
    path.write_text(json.dumps(notebook([IMPORTS, *CALLS])))
    command = [sys.executable, "-m", "papermill", str(path), str(folder / "out.ipynb"), "--no-progress-bar", "-k", "python3"]
    told("stage under plain papermill, command line, less its calls", min(wall(command) for _ in range(2)) - calls)
    cells = [IMPORTS, *CALLS]
    told("stage in a fresh kernel of the engine, less its calls", best(stage_seconds(folder, cells, 3, None, fresh=True, pause=0.2), "fresh") - calls)
    told("stage in a forked kernel, less its calls", best(stage_seconds(folder, cells, repeats, 0), "fork") - calls, 0.6)
    told("stage in a kernel of the pool, less its calls", best(stage_seconds(folder, cells, repeats + 1, 1), "pool") - calls, 0.15)


def many_cells(folder: Path) -> None:
    "200 cells: under plain papermill and here."
    cells = [f"x{n} = {n}\nprint(x{n})" for n in range(200)]
    path = folder / "many.ipynb"
    path.write_text(json.dumps(notebook(cells)))
    told("200 cells under plain papermill, command line", wall([sys.executable, "-m", "papermill", str(path), str(folder / "out.ipynb"), "--no-progress-bar"]))
    for how, pool in (("fork", 0), ("pool", 1)):
        told(f"200 cells, {how}", best(stage_seconds(folder, cells, 3, pool), how), 1.5)
    told("200 cells, fresh kernel, its start included", best(stage_seconds(folder, cells, 2, None, fresh=True, pause=0.2), "fresh"))


def importing(repeats: int) -> None:
    "CPU seconds of importing what runs a chain."
    code = "import time\nt = time.process_time()\nimport mlbench.chain.engine, mlbench.chain.runner\nprint(time.process_time() - t)"
    seconds = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(repeats)]
    told("importing engine and runner (CPU)", min(seconds), 0.3)


PLAIN = """
import json, os, sys
from pathlib import Path
os.environ["MLBENCH_INTERACTIVE"] = "0"
for path in sorted(Path(".").glob("[0-9][0-9]_*.ipynb")):
    names = {"__name__": "__main__"}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
"""


def mlbench(*words: str, cwd: Path) -> tuple[float, str]:
    "Seconds of a command, and its last line."
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "mlbench", *words], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.perf_counter() - start, done.stdout.strip().splitlines()[-1].strip()


def chain(folder: Path, rounds: int) -> None:
    "The demo: the cells of the six notebooks in one script, the chain, the chain in fresh kernels, the chain unchanged."
    mlbench("new", "clinic", "--example", "breast_cancer", cwd=folder)
    (folder / "plain.py").write_text(PLAIN)
    scripts, runs, whole = [], [], []
    for turn in range(rounds):
        for name in ("a", "b"):
            shutil.copytree(folder / "clinic", folder / f"{name}{turn}")
        scripts.append(wall([sys.executable, str(folder / "plain.py")], cwd=folder / f"a{turn}"))
        took, last = mlbench("run", f"b{turn}", cwd=folder)
        whole.append(took)
        runs.append(json.loads((folder / last / "run.json").read_text())["seconds"])
    told("the cells of the demo in one plain script", min(scripts))
    told("the chain of the demo", min(runs), note="run.json: from the run's start to the end of its last stage")
    told("the chain over the script", min(runs) / min(scripts), 1.25, unit=" ")
    told("mlbench run of it, with process start, report and W&B", min(whole), note=f"{min(whole) / min(scripts):.2f} of the script")
    shutil.copytree(folder / "clinic", folder / "fresh")
    took, last = mlbench("run", "fresh", "--fresh", cwd=folder)
    told("the chain in fresh kernels", json.loads((folder / last / "run.json").read_text())["seconds"])
    told("six unchanged stages, with process start", min(mlbench("run", "b0", cwd=folder)[0] for _ in range(5)), 1.0)


def server_memory(folder: Path) -> None:
    "What the fork server of the last stages holds while it waits."
    code = "import json; from mlbench.chain.forkserver import server_facts; print(json.dumps(server_facts()))"
    env = os.environ | {"MLBENCH_SERVER_FOLDER": str(folder / "pool-1")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    for fact in json.loads(done.stdout):
        told("fork server, idle: its own memory and its share of what it shares", float(fact["memory_mb"]), unit="MB", note=f"{fact['prepared']} kernel ready")


def main() -> int:
    "Print every figure."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=options.whole("a number of repeats", 1, 5), default=5, help="of each stage; the quickest counts")
    parser.add_argument("--rounds", type=options.whole("a number of rounds", 1, 2), default=2, help="of the chain and the script, in turn")
    parser.add_argument("--quick", action="store_true", help="leave out the chain")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        importing(given.repeats)
        stages(Path(scratch), given.repeats)
        server_memory(Path(scratch))
        many_cells(Path(scratch))
        if not given.quick:
            chain(Path(scratch), given.rounds)
    print(f"missed: {', '.join(MISSED)}" if MISSED else "every bar is met")
    return int(bool(MISSED))


if __name__ == "__main__":
    sys.exit(main())
