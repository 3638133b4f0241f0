"README.md is nbs/index.ipynb as Markdown: its prose, its code in fences, hidden cells left out."

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHELL = re.compile(r"^(%%(?:bash|sh))\n")


def _block(cell: dict) -> str | None:
    "One cell as Markdown; None for a hidden one."
    source = "".join(cell["source"]).strip()
    if cell["cell_type"] == "markdown":
        return source
    if re.match(r"#\|\s*hide\b", source):
        return None
    source = re.sub(r"^#\|.*\n", "", source, flags=re.M)
    shell = SHELL.match(source)
    return f"```sh\n{source[shell.end():]}\n```" if shell else f"```python\n{source}\n```"


def readme(notebook: Path = ROOT / "nbs" / "index.ipynb") -> str:
    "The text of README.md."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    blocks = [b for b in map(_block, cells) if b]
    return "\n\n".join(blocks).replace("](../docs/", "](docs/").rstrip() + "\n"


if __name__ == "__main__":
    target = ROOT / "README.md"
    if not target.exists() or target.read_text(encoding="utf-8") != readme():
        target.write_text(readme(), encoding="utf-8")
        print("README.md is written", file=sys.stderr)
