"""What the notebooks and modules of mlbench must look like; `tools/check.py` and `tests/test_house.py` ask here.

Every function gives the list of what is wrong, each line naming the file; an empty list is a pass.
"""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STAGES = ["eda", "features", "training", "evaluation", "deployment", "monitoring"]
BELOW = {
    "core": set(),
    "data": {"core"},
    "problem": {"core", "data"},
    "models": {"core", "data", "problem"},
    "chain": {"core", "problem"},
}
BELOW |= {name: {"core", "data", "problem", "models", *STAGES[:n]} for n, name in enumerate(STAGES)}
BELOW["widgets"] = {"core", "data", "problem", "models", "chain", *STAGES}
BELOW["cli"] = BELOW["lab"] = BELOW["widgets"] | {"widgets", "lab"}
HEAVY = {"torch", "shap", "lightgbm", "wandb", "mlflow", "onnx", "onnxruntime"}
NETWORKS = (  # modules whose classes are torch's: they load torch, and no module beside them loads them
    "layers convnets sequences bags fusion batches loopstate looptime looprecord loopfaults looptrials loop schedules losses states happenings spread "
    "augment autoencoder generators pretraining distilling transfer lora tagging taggers pruning opening"
)
DEVELOPERS = {"nbdev", "execnb", "fastcore", "ghapi", "fastgit", "pytest"}


def notebooks(*folders: str, root: Path = ROOT) -> Iterator[Path]:
    "The notebooks of some folders, checkpoints left out."
    for folder in folders or ("nbs", "templates"):
        yield from (p for p in sorted((root / folder).rglob("*.ipynb")) if not any(part.startswith((".", "_")) for part in p.relative_to(root).parts))


def _name(path: Path, root: Path = ROOT) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _code(book: dict[str, Any]) -> list[str]:
    return ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == "code"]


def _exported(source: str) -> bool:
    return re.match(r"#\|\s*export\b", source) is not None


def notebook_mistakes(path: Path) -> list[str]:
    "Markers of a conflict, cells without ids or with the same one, stored outputs, an unknown kernel."
    text = path.read_text(encoding="utf-8")
    if re.search(r'^\s*"?(<{7}|>{7}) ', text, re.M):
        return [f"{_name(path)}: markers of a merge conflict"]
    try:
        book = json.loads(text)
    except ValueError as error:
        return [f"{_name(path)}: not JSON ({error})"]
    wrong = []
    ids = [c.get("id") for c in book["cells"]]
    if None in ids:
        wrong.append(f"{_name(path)}: cells without an id (make export adds them)")
    if len(set(ids)) < len(ids):
        wrong.append(f"{_name(path)}: the same cell id twice")
    if any(c.get("outputs") or c.get("execution_count") for c in book["cells"]):
        wrong.append(f"{_name(path)}: outputs are stored (make export cleans them)")
    kernel = book["metadata"].get("kernelspec", {}).get("name", "python3")
    return wrong + ([f"{_name(path)}: kernel {kernel!r}, expected python3"] if kernel != "python3" else [])


def exported_modules(root: Path = ROOT) -> dict[str, list[Path]]:
    "Module -> the notebooks that say `default_exp` for it."
    found: dict[str, list[Path]] = defaultdict(list)
    for path in notebooks("nbs", root=root):
        for source in _code(json.loads(path.read_text(encoding="utf-8"))):
            for match in re.finditer(r"^#\|\s*default_exp\s+(\S+)", source, re.M):
                found[match[1]].append(path)
    return found


def module_mistakes(root: Path = ROOT) -> list[str]:
    "Two notebooks for one module, a notebook without its module, a module without a notebook, a name that does not fit."
    exported, wrong = exported_modules(root), []
    for module, books in exported.items():
        if len(books) > 1:
            wrong.append(f"{module} is exported by {' and '.join(_name(b, root) for b in books)}; the last one wins silently")
        if not (root / "mlbench" / Path(*module.split("."))).with_suffix(".py").exists():
            wrong.append(f"{_name(books[0], root)}: mlbench has no module {module} (make export)")
        if not re.fullmatch(rf"\d\d_{re.escape(module)}", books[0].stem):
            wrong.append(f"{_name(books[0], root)} exports {module}; the two names must be the same after the number")
    for path in sorted((root / "mlbench").rglob("*.py")):
        module = ".".join(path.relative_to(root / "mlbench").with_suffix("").parts)
        if module not in exported and path.name not in ("__init__.py", "__main__.py", "_modidx.py"):
            wrong.append(f"{_name(path, root)} has no notebook")
    return wrong


def template_mistakes(root: Path = ROOT) -> list[str]:
    "Exactly one cell tagged `parameters`, each of its lines understood."
    from mlbench.chain.parameters import read_parameters
    from mlbench.core.errors import ParameterError

    wrong = []
    for path in notebooks("templates", root=root):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        tagged = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
        if len(tagged) != 1:
            wrong.append(f"{_name(path, root)}: {len(tagged)} cells tagged parameters, expected one")
            continue
        try:
            read_parameters(tagged[0], _name(path, root))
        except ParameterError as error:
            wrong.append(str(error))
    return wrong


def _imports(tree: ast.AST, package: list[str]) -> Iterator[tuple[str, bool]]:
    "Full name of everything imported, and whether that happens when the module loads."
    inside = {child for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) for child in ast.walk(node)}
    checking = {c for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test) for c in ast.walk(n)}
    for node in ast.walk(tree):
        at_load = node not in inside and node not in checking
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield stem, at_load
            if stem == "mlbench":
                yield from ((f"mlbench.{alias.name}", at_load) for alias in node.names)


def floor_mistakes(root: Path = ROOT) -> list[str]:
    "Imports from a higher floor, heavy libraries loaded with a module, developers' packages at run time."
    wrong, networks = [], {f"mlbench.models.{name}" for name in NETWORKS.split()}
    for path in sorted((root / "mlbench").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        floor = parts[1] if len(parts) > 2 or parts[1] in BELOW else ""
        network = ".".join(parts) in networks
        for name, at_load in _imports(ast.parse(path.read_text(encoding="utf-8")), list(parts[:-1])):
            top, *rest = name.split(".")
            if top == "mlbench" and rest and floor in BELOW and rest[0] in BELOW and rest[0] != floor and rest[0] not in BELOW[floor]:
                wrong.append(f"{_name(path, root)} imports {name}, which is not below {floor}")
            if (top in HEAVY and not (network and top == "torch") or name in networks and not network) and at_load:
                wrong.append(f"{_name(path, root)} imports {name} when it loads; import it in the function that needs it")
            if top in DEVELOPERS:
                wrong.append(f"{_name(path, root)} imports {name}, which only developers have")
    return wrong


def environment_mistakes(root: Path = ROOT) -> list[str]:
    "Environment variables that are read outside `core`; setting them for a process is allowed."
    wrong = []
    for path in sorted((root / "mlbench").rglob("*.py")):
        if path.relative_to(root).parts[1] == "core":
            continue
        text = path.read_text(encoding="utf-8")
        for n, line in enumerate(text.splitlines(), 1):
            if re.search(r"\bos\.(environ|getenv)\b", line.split("#")[0]) and ".setdefault(" not in line:
                wrong.append(f"{_name(path, root)}, line {n} reads the environment; ask mlbench.core.settings")
    return wrong


def page_mistakes(root: Path = ROOT) -> list[str]:
    "Library notebooks that are more a .py file than a page to read."
    wrong = []
    for path in notebooks("nbs", root=root):
        book = json.loads(path.read_text(encoding="utf-8"))
        code = _code(book)
        wrong += [f"{_name(path, root)}: an exported cell of {s.count(chr(10)) + 1} lines; split it" for s in code if _exported(s) and s.count("\n") > 60]
        words = sum(len("".join(c["source"]).split()) for c in book["cells"] if c["cell_type"] == "markdown")
        exported = sum(s.count("\n") + 1 for s in code if _exported(s))
        asserts = sum(len(re.findall(r"^\s*(assert|test_\w+\(|with expect_fail|with pytest.raises)", s, re.M)) for s in code)
        if exported > 60 and (words < exported * 1.2 or asserts * 100 < exported * 6):
            wrong.append(f"{_name(path, root)}: {exported} exported lines, {words} words of prose, {asserts} assertions; tell and show more")
    return wrong
