"""A notebook as plain text and back, for editing it with any editor.

    python tools/notebook.py read nbs/01_core.files.ipynb > files.txt
    python tools/notebook.py write nbs/01_core.files.ipynb files.txt     # cells that did not change keep their ids
    python tools/notebook.py export nbs/01_core.files.ipynb ...          # write its module, this notebook alone
    python tools/notebook.py test nbs/01_core.files.ipynb ...            # run it as a test

In the text a line `# %%` begins a code cell, `# %% [markdown]` prose, `# %% tags=["parameters"]` a tagged cell.
"""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = re.compile(r"^# %%(?: \[(?P<kind>markdown|raw)\])?(?: tags=(?P<tags>\[.*\]))?\s*$")
METADATA = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}


def read(path: Path) -> str:
    "The cells of a notebook as text."
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        kind, tags = cell["cell_type"], cell["metadata"].get("tags")
        head = "# %%" + ("" if kind == "code" else f" [{kind}]") + (f" tags={json.dumps(tags)}" if tags else "")
        parts.append(f"{head}\n{''.join(cell['source'])}\n")
    return "\n".join(parts)


def parse(text: str) -> list[dict]:
    "Cells, without ids."
    cells: list[dict] = []
    for line in text.split("\n"):
        head = HEAD.match(line)
        if head:
            tags = {"tags": json.loads(head["tags"])} if head["tags"] else {}
            cells.append({"cell_type": head["kind"] or "code", "metadata": tags, "lines": []})
        elif cells:
            cells[-1]["lines"].append(line)
        elif line.strip():
            sys.exit("the text must begin with a line `# %%`")
    for cell in cells:
        source = "\n".join(cell.pop("lines")).strip("\n")
        source = source.replace("import nbdev; nbdev.nbdev_export()", "import nbdev\n\nnbdev.nbdev_export()")
        cell["source"] = source.splitlines(keepends=True)
        if cell["cell_type"] == "code":
            cell |= {"execution_count": None, "outputs": []}
    return cells


def write(path: Path, text: str) -> None:
    "Make the notebook of a text; cells that are the same as before keep their ids, and so do those that stand in the place of one."
    book = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    old, new = book.get("cells", []), parse(text)
    keys = [[c["cell_type"] + "".join(c["source"]) for c in cells] for cells in (old, new)]
    for tag, a, b, c, d in difflib.SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        if tag == "equal" or (tag == "replace" and b - a == d - c):
            for i, j in zip(range(a, b), range(c, d), strict=True):
                new[j]["id"] = old[i].get("id")
    taken: set[str] = set()
    for cell in new:
        if not cell.get("id") or cell["id"] in taken:
            cell["id"] = uuid.uuid4().hex[:8]
        taken.add(cell["id"])
    order = ("cell_type", "execution_count", "id", "metadata", "outputs", "source")
    book["cells"] = [{k: c[k] for k in order if k in c} for c in new]
    path.write_text(json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def export(paths: list[Path]) -> None:
    "Write the modules of some notebooks, one process at a time."
    from filelock import FileLock
    from nbdev.export import nb_export

    with FileLock(str(ROOT / ".git" / "export.lock")):
        for path in paths:
            nb_export(str(path), lib_path=str(ROOT / "mlbench"))


def main() -> int:
    "Run one of the four actions."
    action, *words = sys.argv[1:] or ["help"]
    if action == "read" and len(words) == 1:
        print(read(Path(words[0])), end="")
    elif action == "write" and len(words) == 2:
        write(Path(words[0]), Path(words[1]).read_text(encoding="utf-8"))
    elif action == "export" and words:
        export([Path(w).resolve() for w in words])
    elif action == "test" and words:
        tester = [str(Path(sys.executable).parent / "nbdev_test"), "--n_workers", "0", "--do_print", "--path"]
        return max(subprocess.run([*tester, word], cwd=ROOT).returncode for word in words)
    else:
        sys.exit(__doc__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
