"""How a function or class looks in the reference: signature, what it does, a table of its parameters.

nbdev asks for it by the setting `renderer`. Types are shown as they are written, so nothing that is imported for type
checkers alone has to be there.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from fastcore.docments import docments


def _text(value: Any) -> str:
    "A cell of a Markdown table."
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|").strip()


def _written(annotation: Any) -> str:
    "A type as it stands in the source."
    if annotation is inspect.Parameter.empty or annotation is None:
        return ""
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _signature(symbol: Any, name: str) -> str:
    "The signature on one line, or one parameter a line where that is too long."
    try:
        signature = inspect.signature(symbol)
    except (ValueError, TypeError):
        return name
    parts, star = [], False
    for p in signature.parameters.values():
        if p.name in ("self", "cls") and not parts:
            continue
        if p.kind is p.KEYWORD_ONLY and not star:
            parts.append("*")
        star = star or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        mark = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        kind = f": {_written(p.annotation)}" if _written(p.annotation) else ""
        default = "" if p.default is p.empty else f"{' = ' if kind else '='}{_default(p.default)}"
        parts.append(f"{mark}{p.name}{kind}{default}")
    back = _written(signature.return_annotation)
    end = f" -> {back}" if back and not inspect.isclass(symbol) else ""
    short = f"{name}({', '.join(parts)}){end}"
    return short if len(short) <= 88 else f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){end}"


def _default(value: Any) -> str:
    "A default that is the same on every machine: no address in memory, no path; classes and functions by their names."
    if isinstance(value, type) or inspect.isroutine(value):
        return value.__qualname__ if value.__module__ == "builtins" else f"{value.__module__}.{value.__qualname__}"
    text = repr(value)
    return re.sub(r" at 0x[0-9a-f]+", "", text) if len(text) <= 60 else "..."


def _rows(symbol: Any) -> list[tuple[str, str, str, str]]:
    "Name, type, default and meaning of each parameter, the result last."
    try:
        found = docments(symbol, full=True)
    except Exception:  # fastcore cannot read every callable; the signature says the rest
        return []
    rows = []
    for name, entry in found.items():
        if name in ("self", "cls") or not isinstance(entry, dict):
            continue
        kind, meaning = _written(entry["anno"]), entry["docment"] or ""
        empty = entry["default"] is inspect.Parameter.empty or name == "return"
        default = "" if empty else f"`{_default(entry['default'])}`"
        if name != "return" or meaning:
            label = "*returns*" if name == "return" else f"`{name}`"
            rows.append((label, f"`{kind}`" if kind else "", default, meaning))
    return rows


class Reference:
    "What `show_doc` gives."

    def __init__(self, symbol: Any, name: str | None = None, title_level: int = 3):
        self.symbol, self.level = symbol, title_level
        self.name = name or getattr(symbol, "__qualname__", str(symbol))

    def _repr_markdown_(self) -> str:
        kind = "class" if inspect.isclass(self.symbol) else "def" if callable(self.symbol) else ""
        parts = [f"{'#' * self.level} `{self.name}`", f"```python\n{kind} {_signature(self.symbol, self.name)}\n```"]
        about = inspect.getdoc(self.symbol) if (self.symbol.__doc__ or "").strip() else ""
        if about and not about.startswith(f"{self.name}("):
            parts.append(about)
        rows = _rows(self.symbol)
        if any(meaning for *_, meaning in rows):
            table = ["| parameter | type | default | meaning |", "| --- | --- | --- | --- |"]
            parts.append("\n".join(table + [f"| {' | '.join(map(_text, row))} |" for row in rows]))
        return "\n\n".join(parts)

    def __repr__(self) -> str:
        return self.name
