"Parameters: what is read from a cell, what is accepted, and that values survive every way of writing them."

from __future__ import annotations

import ast
import datetime as dt
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.chain.parameters import (
    Choice,
    Kind,
    Parameter,
    annotation_kind,
    check_value,
    decode,
    encode,
    injected_source,
    parameters_yaml,
    python_literal,
    read_parameters,
    resolve,
    yaml_literal,
)
from mlbench.core.errors import ParameterError, UsageError
from mlbench.core.files import parse_yaml_value

TEXTS = st.text(max_size=12)
YAML_TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
PATHS = st.from_regex(r"[a-zA-Z0-9_. -]{1,8}(/[a-zA-Z0-9_-]{1,8}){0,2}", fullmatch=True).map(Path)
DATES = st.dates(min_value=dt.date(1000, 1, 1))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), DATES, PATHS)
HASHABLE = st.one_of(st.booleans(), st.integers(), DATES, st.text(max_size=4))


def nested(texts):
    "Values of parameters: scalars, and lists and dicts of them."
    grow = lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.one_of(texts, HASHABLE), inner, max_size=4)
    return st.recursive(st.one_of(SCALARS, texts), grow, max_leaves=8)


def same(a, b) -> bool:
    "Equal, type by type; NaN equals NaN."
    if type(a) is not type(b) and not (isinstance(a, Path) and isinstance(b, Path)):
        return False
    if isinstance(a, float):
        return a == b and math.copysign(1, a) == math.copysign(1, b) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(k, m) and same(v, w) for (k, v), (m, w) in zip(a.items(), b.items(), strict=True))
    return a == b


@settings(max_examples=150, deadline=None)
@given(nested(TEXTS))
def test_a_value_survives_the_typed_file(value):
    assert same(decode(json.loads(json.dumps(encode(value)))), value)


@settings(max_examples=150, deadline=None)
@given(nested(TEXTS))
def test_a_value_survives_the_injected_cell(value):
    seen: dict = {}
    exec(injected_source({"value": Choice(value, "command line")}), seen)
    assert same(seen["value"], value)
    ast.parse(python_literal(value))


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.booleans(), st.integers(-(10**12), 10**12), st.floats(), YAML_TEXTS, DATES))
def test_a_value_survives_params_yaml(value):
    kind = next(Kind(n) for n, t in (("bool", bool), ("int", int), ("float", float), ("date", dt.date), ("str", str)) if isinstance(value, t))
    for declared, wrap in ((kind, lambda v: v), (Kind("list", (kind,)), lambda v: [v, v]), (Kind("optional", (kind,)), lambda v: v)):
        if declared.name == "optional" and isinstance(value, str) and value.lower() in ("none", "null"):
            continue
        read = parse_yaml_value(f"key: {yaml_literal(wrap(value))}")["key"]
        assert same(check_value(declared, read), wrap(value))


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=8), st.booleans()))
def test_checking_twice_changes_nothing(value):
    for kind in ("int", "float", "str", "bool", "Path", "date"):
        try:
            once = check_value(Kind(kind), value)
        except ValueError:
            continue
        assert same(check_value(Kind(kind), once), once)


@pytest.mark.parametrize(
    ("annotation", "given", "expected"),
    [
        ("float", "1e-3", 0.001),
        ("int", "1e3", 1000),
        ("int", "1_000", 1000),
        ("str", "007", "007"),
        ("str", "no", "no"),
        ("str", "'quoted'", "quoted"),
        ("bool", "no", None),
        ("bool", "true", True),
        ("date", "2024-01-31", dt.date(2024, 1, 31)),
        ("Path", "a b/c", Path("a b/c")),
        ("list[str]", "[no, a b]", ["no", "a b"]),
        ("list[int]", "3", None),
        ("dict[str, float]", "{a: 1}", {"a": 1.0}),
        ("Optional[str]", "null", None),
        ("Optional[int]", "none", None),
        ('Literal["1", "2"]', "1", "1"),
        ("Literal[1, 2]", "2", 2),
    ],
)
def test_the_command_line(annotation, given, expected):
    kind = annotation_kind(ast.parse(annotation, mode="eval").body)
    parameter = Parameter("p", kind, None)
    if expected is None and not annotation.startswith("Optional"):
        with pytest.raises(ParameterError):
            parameter.parse(given)
    else:
        assert same(parameter.parse(given), expected)


def test_what_a_cell_may_hold():
    cell = (
        '"""What can be set."""\n'
        "from typing import Literal\n"
        "a: int = 1; b: int = 2  # two on a line\n"
        "c: list[str] = [  # no help here\n    'x',\n]  # names [not a range]\n"
        "d: typing.Optional[pathlib.Path] = None  # a file\n"
        "e: float = -1  # limit [-2..]\n"
        "f: 'float | None' = 0.5\n"
        'g: str = """two\nlines"""  # text\n'
    )
    read = read_parameters(cell)
    assert list(read) == list("abcdefg")
    assert read["a"].help == read["b"].help == "two on a line" and read["c"].help == "names [not a range]"
    assert read["d"].kind == Kind("optional", (Kind("Path"),)) and read["e"].minimum == -2 and read["e"].maximum is None
    assert isinstance(read["e"].default, float) and read["f"].default == 0.5 and read["g"].default == "two\nlines"


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("a: int = 'x'", "expected a whole number"),
        ("a: np.ndarray = 1", "np.ndarray is not a parameter type"),
        ("a: int = len([1])", "is not a plain value"),
        ("a: int", "is not a declaration"),
        ("a = None", "has no type"),
        ("for x in y: pass", "is not a declaration"),
        ("a: int = 5  # share [0..1]", "between 0 and 1"),
        ("a: int = ", "not Python"),
        ("a: list[int, str] = []", "is not a parameter type"),
    ],
)
def test_what_a_cell_may_not_hold(cell, words):
    with pytest.raises(ParameterError, match=words.replace("[", r"\[")):
        read_parameters(cell)


def test_ranges_hold_for_every_number_in_a_list():
    shares = read_parameters("shares: list[float] = [0.1]  # [0..1]")["shares"]
    assert shares.check([0, 1]) == [0.0, 1.0]
    with pytest.raises(ParameterError, match="between 0 and 1"):
        shares.check([0.5, 1.5])
    with pytest.raises(ParameterError, match="between 0 and 1"):
        read_parameters("share: float = 0.1  # [0..1]")["share"].check(math.nan)


def test_the_strongest_source_wins_and_is_named():
    declared = read_parameters("a: int = 1\nb: int = 1\nc: int = 1")
    result = resolve(declared, [("params.yaml", {"a": 2, "b": 2}), ("command line", {"b": "3"})])
    assert [(c.value, c.origin) for c in result.choices.values()] == [(2, "params.yaml"), (3, "command line"), (1, "default")]


def test_a_params_yaml_without_hashes_is_valid():
    declared = read_parameters("a: Optional[str] = None  # a column\nb: dict[str, float] = {'x: y': 1.5}\nc: date = date(2024, 1, 1)\nd: Path = Path('a b')")
    text = parameters_yaml({"look": declared})
    lines = [line.replace("  # ", "  ", 1) if ": " in line and line.strip("# ").split(":")[0] in declared else line for line in text.splitlines()]
    section = parse_yaml_value("\n".join(lines))["look"]
    assert {k: declared[k].check(v) for k, v in section.items()} == {k: p.default for k, p in declared.items()}


def test_errors_have_the_exit_code_of_wrong_use():
    assert ParameterError("x").exit_code == 2 and isinstance(ParameterError("x"), UsageError)
