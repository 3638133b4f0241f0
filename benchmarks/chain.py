"""How long the chain takes on two cores, set-up apart: `mlbench demo` from nothing, again unchanged, and after a change to evaluation.

    python benchmarks/chain.py

The bars: the first run under 180 s; the unchanged one starts no kernel and takes at most 3% of the first; a parameter of
05_evaluation runs stages 5 and 6 alone. Exit code 1 when one is missed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIRST, AGAIN = 180.0, 0.03


def mlbench(*words: str, cwd: Path) -> tuple[float, Path]:
    "Seconds of a command, and the run that its last line names."
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "mlbench", *words], cwd=cwd, capture_output=True, text=True)
    took = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return took, cwd / done.stdout.strip().splitlines()[-1].strip()


def kernels(run: Path, since: float) -> list[str]:
    "Stages whose kernels were started after a time."
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [e["stage"] for e in events if e["type"] == "kernel_started" and e["time"] >= since]


def parameter(project: Path) -> str:
    "A parameter of evaluation with a value that it does not have: one more than its default."
    from mlbench.chain import Project

    parameters = Project.open(project).stages["05_evaluation"].parameters
    for name, p in parameters.items():
        if p.kind.name == "int" and name != "seed":
            return f"evaluation.{name}={p.default - 1 if p.default == p.maximum else p.default + 1}"
    raise SystemExit("05_evaluation has no parameter of type int to change")


def main() -> int:
    "Print one line per step."
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        first, run = mlbench("demo", "demo", cwd=folder)
        stages = json.loads((run / "run.json").read_text())["stages"]
        parts = ", ".join(f"{name} {entry['seconds']:.1f}" for name, entry in stages.items())
        failed += first > FIRST
        print(f"first run: {first:.1f} s (bar {FIRST:.0f}); {parts}")

        since = time.time()
        again, same = mlbench("demo", "demo", cwd=folder)
        started = kernels(same, since)
        failed += bool(started) or again > AGAIN * first
        print(f"unchanged: {again:.2f} s, {again / first:.1%} of the first (bar {AGAIN:.0%}), {len(started)} kernels started")

        since = time.time()
        change = parameter(folder / "demo")
        took, changed = mlbench("run", "demo", "-p", change, cwd=folder)
        started = kernels(changed, since)
        failed += started != ["05_evaluation", "06_deployment"]
        print(f"-p {change}: {took:.1f} s, ran {' and '.join(started)}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
