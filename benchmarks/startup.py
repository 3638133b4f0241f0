"""How quickly mlbench is there: `import mlbench` beside `import pandas`, and `mlbench --help` beside loading pandas and scikit-learn.

    python benchmarks/startup.py

Each program is started several times in turn with the one it is compared with, and the best time of each counts. Exit code 1 when a ratio is over 0.35.
"""

from __future__ import annotations

import subprocess
import sys
import time

BAR = 0.35
REPEATS = 7
PAIRS = [
    ("import mlbench", [sys.executable, "-c", "import mlbench"], "import pandas", [sys.executable, "-c", "import pandas"]),
    ("mlbench --help", [sys.executable, "-m", "mlbench", "--help"], "import pandas, sklearn", [sys.executable, "-c", "import pandas, sklearn"]),
]


def seconds(command: list[str]) -> float:
    "Wall time of one start."
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def empty() -> float:
    "What the interpreter alone takes; told, not subtracted."
    return min(seconds([sys.executable, "-c", "pass"]) for _ in range(REPEATS))


def main() -> int:
    "Print one line per pair."
    print(f"python alone: {empty():.3f} s")
    worst = 0.0
    for name, ours, other, theirs in PAIRS:
        seconds(ours), seconds(theirs)
        times = [(seconds(ours), seconds(theirs)) for _ in range(REPEATS)]
        a, b = (min(column) for column in zip(*times))
        worst = max(worst, a / b)
        print(f"{name}: {a:.3f} s   {other}: {b:.3f} s   ratio {a / b:.2f} (bar {BAR})")
    return int(worst > BAR)


if __name__ == "__main__":
    sys.exit(main())
