"""The documentation site: `python tools/build_site.py` writes _docs/html (`--kept` takes outputs made by older modules).

1. every notebook of nbs/ is executed (what is unchanged since the last time comes from _docs/cache),
2. `nbdev.serve.proc_nbs` makes pages of them: exported code becomes signature and parameters,
3. the pages are arranged for Sphinx: reference, guides, gallery (the chain's own executed notebooks, figures live),
4. Sphinx builds them, a warning being an error, and every link within the site is followed.
"""

from __future__ import annotations

import ast
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "_docs"
WORK, SOURCE, HTML, CACHE = OUT / "work", OUT / "source", OUT / "html", OUT / "cache"
GROUPS = {
    "core": "Core",
    "data": "Data",
    "problem": "Problem",
    "eda": "Looking at data",
    "features": "Features",
    "models": "Models",
    "training": "Training",
    "evaluation": "Evaluation",
    "deployment": "Deployment",
    "monitoring": "Monitoring",
    "chain": "Chain",
    "widgets": "Widgets",
    "cli": "Command line",
    "lab": "JupyterLab",
}


def say(text: str) -> None:
    print(text, flush=True)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, book: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(book, ensure_ascii=False), encoding="utf-8")


# 1. Executing


def library_hash() -> str:
    "Changes with any module, so that an output is never older than the code that made it."
    digest = hashlib.sha256()
    for path in sorted((ROOT / "mlbench").rglob("*.py")) + sorted((ROOT / "templates").glob("*.ipynb")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def execute(path: Path, salt: str) -> str:
    "Execute one notebook in place, or take its outputs from the cache; gives what went wrong."
    key = hashlib.sha256(salt.encode() + path.read_bytes()).hexdigest()[:24]
    kept, lately = CACHE / f"{key}.ipynb", CACHE / f"{hashlib.sha256(path.read_bytes()).hexdigest()[:24]}.ipynb"
    if "--kept" in sys.argv and lately.exists():
        kept = lately
    if not kept.exists():
        done = subprocess.run(
            [sys.executable, __file__, "--execute", str(path), str(kept)], cwd=path.parent, capture_output=True, text=True, env=environment()
        )
        if done.returncode:
            return f"{path.name} does not run:\n{done.stderr[-3000:]}"
        shutil.copy(kept, lately)
    shutil.copy(kept, path)
    return ""


def environment() -> dict[str, str]:
    "Quiet, and without the terminal's colours."
    quiet = {"IN_TEST": "1", "CI": "true", "NO_COLOR": "1", "PLOTLY_RENDERER": "plotly_mimetype", "OMP_WAIT_POLICY": "PASSIVE"}
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "docs")])}


def execute_here(path: Path, kept: Path) -> None:
    "What the child process does: the cells run as nbdev_test runs them, and their outputs are kept."
    from execnb.nbio import read_nb, write_nb
    from execnb.shell import CaptureShell

    def left_out(cell: Any) -> bool:
        return cell.cell_type != "code" or "nbdev_export(" in cell.source or bool(re.search(r"^#\|\s*(eval:\s*false|slow)\s*$", cell.source, re.M))

    book, shell = read_nb(path), CaptureShell(path)
    if path.parent.name == "guides":  # their tables are read as sentences: no cell is cut short
        shell.run_cell("__import__('pandas').set_option('display.max_colwidth', 200)")
    shell.run_all(book, exc_stop=True, preproc=left_out)
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_nb(book, kept.with_suffix(".tmp"))
    kept.with_suffix(".tmp").replace(kept)


def execute_all() -> None:
    "Copy nbs/ and execute it, two notebooks at a time; all that do not run are told together."
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(ROOT / "nbs", WORK / "nbs", ignore=shutil.ignore_patterns(".*", "_proc"))
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    (WORK / "settings.ini").write_text(settings.rstrip() + "\nrenderer = reference.Reference\nskip_procs = add_links\n", encoding="utf-8")
    (WORK / "mlbench").symlink_to(ROOT / "mlbench")
    salt, paths = library_hash(), sorted((WORK / "nbs").rglob("*.ipynb"))
    wrong = []
    with ThreadPoolExecutor(2) as pool:
        for n, problem in enumerate(pool.map(lambda p: execute(p, salt), paths), 1):
            wrong += [problem] if problem else []
            if n % 10 == 0 or n == len(paths):
                say(f"  {n} of {len(paths)} notebooks executed")
    if wrong:
        raise SystemExit("\n\n".join(wrong))
    for path in paths:
        keep_outputs(path)


def keep_outputs(path: Path) -> None:
    "Tell nbdev not to execute again what has its output; it needs the exported cells alone."
    book = read(path)
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not re.match(r"#\|\s*export|show_doc\(", source) and "default_exp" not in source:
            cell["source"] = f"#| eval: false\n{source}"
    write(path, book)


# 2. nbdev


def process() -> Path:
    "Let nbdev make pages; gives their folder."
    code = "from nbdev.serve import proc_nbs; proc_nbs(path='nbs', force=True, n_workers=2)"
    guarded = f"if __name__ == '__main__':\n    {code}\n"
    (WORK / "process.py").write_text(guarded)
    done = subprocess.run([sys.executable, "process.py"], cwd=WORK, capture_output=True, text=True, env=environment())
    if done.returncode:
        raise SystemExit(f"nbdev cannot make the pages:\n{(done.stdout + done.stderr)[-3000:]}")
    return WORK / "_proc"


# 3. Arranging


def symbols() -> dict[str, list[str]]:
    "Public name -> the modules that define it."
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "mlbench").rglob("*.py")):
        if path.name.startswith("_"):
            continue
        module = ".".join(path.relative_to(ROOT / "mlbench").with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(module)
    return found


def label(module: str, name: str) -> str:
    "The anchor of a name; classes and functions may differ in a capital alone."
    kind = "class" if name[:1].isupper() else "def"
    return f"api-{module.replace('.', '-')}-{kind}-{name}".lower().replace("_", "-")


def linked(text: str, module: str, known: dict[str, list[str]], there: set[str]) -> str:
    "Names in backticks become links to where they are documented, once in each cell."
    seen: set[str] = set()

    def link(match: re.Match[str]) -> str:
        name = match[1].removesuffix("()")
        homes = known.get(name, [])
        home = module if module in homes else homes[0] if len(homes) == 1 else ""
        target = label(home, name)
        if not home or target not in there or name in seen:
            return match[0]
        seen.add(name)
        return f"[{match[0]}](#{target})"

    parts = re.split(r"(^```.*?^```\s*$|^#[^\n]*$|\[[^\]]*\]\([^)]*\))", text, flags=re.M | re.S)
    return "".join(part if n % 2 else re.sub(r"(?<!`)`([A-Za-z_][\w.]*(?:\(\))?)`(?!`)", link, part) for n, part in enumerate(parts))


def figure(output: dict[str, Any]) -> str:
    "A plotly figure as a holder that figures.js draws into."
    data = output["data"]["application/vnd.plotly.v1+json"]
    content = json.dumps({"data": data["data"], "layout": data["layout"]}).replace("</", "<\\/")
    height = int(data["layout"].get("height") or 380)
    return f'<div class="plotly-figure" style="height:{height}px"><script type="application/json">{content}</script></div>'


def plain_output(output: dict[str, Any]) -> dict[str, Any] | None:
    "An output as the site can show it; None leaves it out."
    if output["output_type"] in ("stream", "error"):
        return output
    data = output.get("data", {})
    if "application/vnd.plotly.v1+json" in data:
        data = {"text/html": figure(output)}
    data = {k: v for k, v in data.items() if not k.startswith("application/")}
    if set(output.get("data", {})) & {"application/vnd.jupyter.widget-view+json"} and "text/html" not in data:
        return None
    return {**output, "data": data, "metadata": {}} if data else None


def directives(source: str) -> tuple[set[str], str]:
    "The `#|` lines of a cell, and the rest."
    lines = source.splitlines()
    marks = {line[2:].strip() for line in lines if line.startswith("#|")}
    return marks, "\n".join(line for line in lines if not line.startswith("#|")).strip()


def arranged(cell: dict[str, Any], module: str) -> dict[str, Any] | None:
    "One cell for Sphinx; None leaves it out."
    source = "".join(cell["source"])
    if cell["cell_type"] == "raw" or source.startswith("<!-- WARNING"):
        return None
    if cell["cell_type"] == "markdown":
        return {"cell_type": "markdown", "metadata": {}, "source": source}
    marks, source = directives(source)
    if source.startswith("show_doc("):
        outputs = cell.get("outputs") or []
        text = "".join("".join(o["data"].get("text/markdown", "")) for o in outputs if "data" in o)
        name = re.search(r"^#+ `([^`]+)`", text)
        anchor = f"({label(module, name[1])})=\n" if name else ""
        return {"cell_type": "markdown", "metadata": {}, "source": anchor + text} if text else None
    outputs = [o for o in map(plain_output, cell.get("outputs") or []) if o]
    if not source and not outputs:
        return None
    tags = ["remove-input"] if "echo: false" in marks else ["hide-input"] if {"code-fold: true", "code-fold: show"} & marks else []
    return {"cell_type": "code", "metadata": {"tags": tags}, "source": source, "outputs": outputs, "execution_count": None}


def opening(path: Path) -> tuple[str, str]:
    "Title, and the first cell as it was written: nbdev keeps of it the title alone."
    source = "".join(read(WORK / "nbs" / path.relative_to(WORK / "_proc"))["cells"][0]["source"])
    title = re.match(r"#\s+(.+)", source)
    return (title[1].strip() if title else path.stem), re.sub(r"^> (.+)$", r"*\1*", source, count=1, flags=re.M)


METADATA = {
    "kernelspec": {"name": "python3", "display_name": "python3", "language": "python"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}


def numbered(cells: list[dict[str, Any]]) -> dict[str, Any]:
    "A notebook of these cells."
    for n, cell in enumerate(cells):
        cell["id"] = f"cell-{n}"
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def page(path: Path, module: str) -> tuple[str, dict[str, Any]]:
    "Title and page of one processed notebook."
    title, head = opening(path)
    cells = [c for c in (arranged(cell, module) for cell in read(path)["cells"]) if c]
    if module:
        head += f"\n\nModule `mlbench.{module}`"
    return title, numbered([{"cell_type": "markdown", "metadata": {}, "source": head.strip()}, *cells])


def anchors(book: dict[str, Any]) -> Iterator[str]:
    for cell in book["cells"]:
        yield from re.findall(r"^\((api-[\w-]+)\)=$", cell["source"], re.M)


def relink(text: str, pages: dict[str, str], here: str) -> str:
    "Links to notebooks follow them to where they stand on the site."

    def moved(match: re.Match[str]) -> str:
        name = Path(match[2]).stem
        target = pages.get(name)
        return f"[{match[1]}]({os.path.relpath(target, Path(here).parent)}{match[3] or ''})" if target else match[0]

    return re.sub(r"\[([^\]]*)\]\((?!https?:)([^)#\s]+\.ipynb)(#[^)]*)?\)", moved, text)


def arrange(processed: Path) -> None:
    "Write the source tree of Sphinx: reference and guides."
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    books: dict[str, tuple[str, str, dict[str, Any]]] = {}
    pages: dict[str, str] = {}
    for path in sorted(processed.rglob("*.ipynb")):
        guide = path.parent != processed
        module = "" if guide or path.stem == "index" else re.sub(r"^\d+_", "", path.stem)
        where = "index.ipynb" if path.stem == "index" else f"guides/{path.stem}.ipynb" if guide else f"reference/{module}.ipynb"
        title, book = page(path, module)
        books[where], pages[path.stem] = (title, module, book), where
    known = symbols()
    there = {a for _, _, book in books.values() for a in anchors(book)}
    for where, (_, module, book) in books.items():
        for cell in book["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = relink(linked(cell["source"], module, known, there), pages, where)
        write(SOURCE / where, book)
    reference = [(where, module) for where, (_, module, _) in books.items() if where.startswith("reference/")]
    write_reference_index(reference)
    guides = [where for where in books if where.startswith("guides/")]
    write_index(SOURCE / "guides" / "index.md", "Guides", "From the first run to a served model, a page at a time.", [Path(g).name for g in guides])


def toctree(names: list[str], depth: int = 1) -> str:
    "A table of contents in MyST."
    return f"```{{toctree}}\n:maxdepth: {depth}\n\n" + "\n".join(n.removesuffix(".ipynb").removesuffix(".md") for n in names) + "\n```\n"


def write_index(path: Path, title: str, about: str, names: list[str], depth: int = 1) -> None:
    "A page that lists others."
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# {title}\n\n{about}\n\n{toctree(names, depth)}", encoding="utf-8")


def write_reference_index(pages: list[tuple[str, str]]) -> None:
    "The modules by package, in the order in which they build on each other."
    groups = []
    for group, title in GROUPS.items():
        names = [Path(where).name for where, module in pages if module.split(".")[0] == group]
        if names:
            about = ast.get_docstring(ast.parse((ROOT / "mlbench" / group / "__init__.py").read_text())) if len(names) > 1 else ""
            write_index(SOURCE / "reference" / f"package-{group}.md", title, about or "", names)
            groups.append(f"package-{group}.md")
    about = "Made from the notebooks that define the library: signature and parameters of each function, the reasons, and examples with their output."
    write_index(SOURCE / "reference" / "index.md", "Reference", about, groups, depth=2)


# The gallery


def gallery() -> None:
    "Run the chain on a bundled data set, and make a page of each executed notebook."
    project = OUT / "demo"
    done = subprocess.run([sys.executable, "-m", "mlbench", "demo", str(project)], cwd=OUT, capture_output=True, text=True, env=environment())
    if done.returncode:
        raise SystemExit(f"the chain of the gallery failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    run = OUT / done.stdout.strip().splitlines()[-1]
    names = []
    for path in sorted(run.glob("stages/*/notebook.ipynb")):
        book = read(path)
        cells = [c for c in (arranged(cell, "") for cell in book["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])) if c]
        names.append(f"{path.parent.name}.ipynb")
        write(SOURCE / "gallery" / names[-1], numbered(cells))
    about = "The notebooks of the chain as a run leaves them: the bundled breast cancer data, every figure live. `mlbench demo` makes the same on your machine."
    write_index(SOURCE / "gallery" / "index.md", "Gallery", about, names)


# 4. Building


def front_page() -> None:
    "The table of contents behind the front page, the changelog, plotly.js."
    from plotly.offline import get_plotlyjs

    book = read(SOURCE / "index.ipynb")
    names = ["guides/index", "gallery/index", "reference/index", "changelog"]
    hidden = toctree(names).replace(":maxdepth: 1", ":maxdepth: 1\n:hidden:")
    for cell in book["cells"]:
        cell["source"] = cell["source"].replace("](../docs/images/", "](images/")
    book["cells"].append({"cell_type": "markdown", "metadata": {}, "source": hidden, "id": "toctree"})
    write(SOURCE / "index.ipynb", book)
    shutil.copy(ROOT / "CHANGELOG.md", SOURCE / "changelog.md")
    for name in ("conf.py", "_static", "images"):
        source = ROOT / "docs" / name
        if source.is_dir():
            shutil.copytree(source, SOURCE / name)
        elif source.exists():
            text = source.read_text(encoding="utf-8").replace("Path(__file__).resolve().parents[1]", f"Path({str(ROOT)!r})")
            (SOURCE / name).write_text(text, encoding="utf-8")
    (SOURCE / "_static" / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")


def build() -> None:
    "Sphinx, a warning being an error."
    shutil.rmtree(HTML, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-j", "2", str(SOURCE), str(HTML)]
    if subprocess.run(command, cwd=OUT, env=environment()).returncode:
        raise SystemExit("Sphinx warns; see above")


class Links(HTMLParser):
    "What a page points to, and what can be pointed to in it."

    def __init__(self, text: str):
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {k: v or "" for k, v in attrs}
        self.ids |= {given[k] for k in ("id", "name") if k in given}
        self.targets += [html.unescape(given[k]) for k in ("href", "src") if given.get(k)]


def dead_links(folder: Path = HTML) -> list[str]:
    "Links within the site that lead nowhere."
    pages = {p.resolve(): Links(p.read_text(encoding="utf-8")) for p in folder.rglob("*.html") if "_static" not in p.parts}
    dead = []
    for path, found in pages.items():
        for target in found.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or target.startswith("#") and len(target) == 1:
                continue
            goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not goal.exists():
                dead.append(f"{path.relative_to(folder.resolve())}: {target} is not there")
            elif parts.fragment and goal in pages and unquote(parts.fragment) not in pages[goal].ids:
                dead.append(f"{path.relative_to(folder.resolve())}: {target} has no such place")
    return sorted(set(dead))


def main() -> int:
    "All of it."
    OUT.mkdir(exist_ok=True)
    say("Executing the notebooks of the library")
    execute_all()
    say("Making pages of them")
    arrange(process())
    say("Running the chain for the gallery")
    gallery()
    say("Building")
    front_page()
    build()
    dead = dead_links()
    for line in dead[:40]:
        say(f"  {line}")
    say(f"{len(dead)} dead links" if dead else f"The site is in {HTML.relative_to(ROOT)}/index.html")
    return int(bool(dead))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--execute"]:
        execute_here(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main())
