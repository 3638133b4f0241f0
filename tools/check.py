"""The checks of the house: each prints one line, and what is wrong below it. Nothing in the checkout is changed.

    python tools/check.py            all of them
    python tools/check.py floors     those whose name holds a word
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import house
from house import ROOT
from readme import readme

BIN = Path(sys.executable).parent


def _tool(*words: str | Path, cwd: Path = ROOT) -> list[str]:
    "Run a program; its output when it fails."
    done = subprocess.run([str(w) for w in words], cwd=cwd, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    return (done.stdout + done.stderr).strip().splitlines() if done.returncode else []


def _copy(folder: Path) -> Path:
    "A copy of what nbdev reads and writes."
    for name in ("nbs", "templates", "mlbench"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "_proc"))
    for name in ("settings.ini", "setup.py"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def _differences(folder: Path, pattern: str) -> list[str]:
    "Files of the copy that are not as in the checkout, and the other way round."
    names = {p.relative_to(base).as_posix() for base in (ROOT, folder) for p in base.glob(pattern) if "__pycache__" not in p.parts}
    both = [n for n in sorted(names) if not any(part.startswith((".", "_proc")) for part in Path(n).parts)]
    return [n for n in both if not ((ROOT / n).exists() and (folder / n).exists() and filecmp.cmp(ROOT / n, folder / n, shallow=False))]


def clean() -> list[str]:
    "nbdev_clean leaves the notebooks as they are"
    with tempfile.TemporaryDirectory() as scratch:
        folder = _copy(Path(scratch))
        for name in ("nbs", "templates"):
            wrong = _tool(BIN / "nbdev_clean", "--fname", name, cwd=folder)
            if wrong:
                return wrong
        changed = _differences(folder, "nbs/**/*.ipynb") + _differences(folder, "templates/*.ipynb")
    return [f"{n} is not clean (make export)" for n in changed]


def export() -> list[str]:
    "nbdev_export leaves mlbench/ as it is"
    with tempfile.TemporaryDirectory() as scratch:
        folder = _copy(Path(scratch))
        wrong = _tool(BIN / "nbdev_export", cwd=folder)
        if wrong:
            return wrong
        changed = [n for n in _differences(folder, "mlbench/**/*.py") if not n.endswith("_modidx.py")]
    return [f"{n} is not what its notebook exports (make export)" for n in changed]


def notebooks() -> list[str]:
    "no conflict, ids present and unique, no outputs stored"
    return [line for path in house.notebooks() for line in house.notebook_mistakes(path)]


def modules() -> list[str]:
    "one notebook per module, no module without one"
    return house.module_mistakes()


def tags() -> list[str]:
    "one parameters cell per template, every line understood"
    return house.template_mistakes()


def floors() -> list[str]:
    "nothing imports from above; heavy libraries load when used"
    return house.floor_mistakes() + house.environment_mistakes()


def pages() -> list[str]:
    "library notebooks can be read: prose, examples, short cells"
    return house.page_mistakes()


def lint() -> list[str]:
    "ruff"
    return _tool(BIN / "ruff", "check", "--quiet", "--output-format", "concise", ".")


def types() -> list[str]:
    "mypy on mlbench"
    return _tool(sys.executable, "-m", "mypy", "--no-color-output", "--no-error-summary")


def readme_text() -> list[str]:
    "README.md is what nbs/index.ipynb gives"
    same = (ROOT / "README.md").read_text(encoding="utf-8") == readme()
    return [] if same else ["README.md differs from nbs/index.ipynb (make readme)"]


CHECKS: list[Callable[[], list[str]]] = [notebooks, clean, export, modules, tags, floors, pages, lint, types, readme_text]


def main(words: list[str]) -> int:
    "Run the checks that are asked for; 1 when one finds something."
    failed = 0
    for check in CHECKS:
        if words and not any(w in check.__name__ for w in words):
            continue
        start = time.perf_counter()
        wrong = check()
        failed += bool(wrong)
        print(f"{'FAIL' if wrong else 'ok  '}  {check.__name__:<12} {check.__doc__} ({time.perf_counter() - start:.1f} s)", flush=True)
        for line in wrong[:40]:
            print(f"        {line}")
        if len(wrong) > 40:
            print(f"        and {len(wrong) - 40} more")
    print(f"{failed} of the checks found something" if failed else "All checks pass")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
