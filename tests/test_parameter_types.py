"Every type of parameter, however nested, and every odd value of it: the same in the cell, the file, the command line, a sweep, the form and a kernel."

from __future__ import annotations

import ast
import datetime as dt
import json
import math
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chain_project import make_project, write_notebook
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlbench.chain import Project, run_chain
from mlbench.chain.kinds import Kind, annotation_kind, check_value
from mlbench.chain.parameters import Choice, Parameter, injected_source, read_parameters, resolve, sweep_values
from mlbench.chain.plan import plan_chain
from mlbench.chain.values import decode, encode, python_literal, read_literal, yaml_literal
from mlbench.cli.app import typed_parameters
from mlbench.core.errors import ParameterError
from mlbench.core.files import read_yaml

ODD_TEXTS = [
    "no", "yes", "on", "null", "none", "None", "~", "true", "1e-3", "007", "1_000", "1:30", "0o17", "2024-01-31", "env:X", "it's", '"quoted"', "'x'",
    "a,b", "[x]", "{a:1}", "#x", "-", "?", "!ls", "&a", "*a", "|", ">", "%time", "@x", "`x`", ".nan", ".inf", "nan", "inf", "<<", "=", "$HOME", "{{x}}",
    "help?", "?help", "\\", "\\n", "C:\\temp", "a#b", "[1..2]", "é", "ü", "🙂", "é", "\ufeff", "\x00", "\x1b[31m", "<b>&amp;", "", " ", " a ", "a\nb",
    "\t", "\r\n", "a: b", "a #b", "- a", "x" * 300, '"', "'", '"a', "none ", "\n\n", "[a, 'b", "a\\", "\u2028", "\x85", "á",
]  # fmt: skip
WHOLE = st.integers() | st.integers(-(10**300), 10**300) | st.sampled_from([0, -1, 2**53 + 1, 2**64, -(2**63)])
FLOATS = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 1e-3, 1e22, 0.1 + 0.2, 1e16])
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
PATHS = st.sampled_from(["a b/c", "/", "é/ü.csv", "-x", "~/a", ".", "a#b", "C:\\a", "x: y", "none", '"q"', " a"]).map(Path) | TEXTS.map(Path)
DATES = st.dates(min_value=dt.date(1000, 1, 1))
PLAIN = {"bool": st.booleans(), "int": WHOLE, "float": FLOATS, "str": TEXTS, "Path": PATHS, "date": DATES}
KEYS = PLAIN | {"float": st.floats(allow_nan=False)}
BARE_KEYS = [v for name, v in KEYS.items() if name != "Path"]
CHOICES = st.lists(st.one_of(st.sampled_from(["a", "none", "1", "true", "x y"]), st.integers(0, 3), st.booleans(), st.none()), min_size=1, max_size=4)


def distinct(values):
    "Each once; True and 1 are two."
    return tuple({(type(v), v): v for v in values}.values())


def kinds():
    "Types, nested up to three deep."
    plain = st.sampled_from(sorted(PLAIN)).map(Kind)
    choice = CHOICES.map(distinct).map(lambda c: Kind("choice", choices=c))
    leaf = plain | choice | st.sampled_from([Kind("list"), Kind("dict")])

    def grow(inner):
        optional = inner.filter(lambda k: k.name != "optional").map(lambda k: Kind("optional", (k,)))
        return optional | inner.map(lambda k: Kind("list", (k,))) | st.tuples(plain, inner).map(lambda pair: Kind("dict", pair))

    return st.recursive(leaf, grow, max_leaves=3)


def untyped():
    "What a bare list or dict may hold: no paths, which YAML cannot tell from texts."
    leaf = st.one_of(st.none(), *(v for name, v in PLAIN.items() if name != "Path"))
    return st.recursive(leaf, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.one_of(*BARE_KEYS), v, max_size=3), max_leaves=5)


def values_of(kind: Kind):
    "Values of a type."
    if kind.name in PLAIN:
        return PLAIN[kind.name]
    if kind.name == "choice":
        return st.sampled_from(kind.choices)
    if kind.name == "optional":
        return st.none() | values_of(kind.inner[0])
    if kind.name == "list":
        return st.lists(values_of(kind.inner[0]) if kind.inner else untyped(), max_size=4)
    if not kind.inner:
        return st.dictionaries(st.one_of(*BARE_KEYS), untyped(), max_size=3)
    return st.dictionaries(KEYS[kind.inner[0].name], values_of(kind.inner[1]), max_size=3)


TYPED = kinds().flatmap(lambda kind: values_of(kind).map(lambda value: (kind, value)))


def annotation(kind: Kind) -> str:
    "A type as somebody writes it in the cell."
    if kind.name == "choice":
        return f"Literal[{', '.join(map(repr, kind.choices))}]"
    inner = ", ".join(map(annotation, kind.inner))
    return {"optional": "Optional"}.get(kind.name, kind.name) + (f"[{inner}]" if inner else "")


def same(a, b) -> bool:
    "Equal, type by type; NaN equals NaN, and -0.0 is not 0.0."
    if type(a) is not type(b) and not (isinstance(a, Path) and isinstance(b, Path)):
        return False
    if isinstance(a, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(k, m) and same(a[k], b[m]) for k, m in zip(a, b, strict=True))
    return a == b


MANY = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@MANY
@given(kinds())
def test_a_type_is_read_from_its_annotation(kind):
    assert annotation_kind(ast.parse(annotation(kind), mode="eval").body) == kind


@MANY
@given(TYPED)
def test_checking_a_value_of_the_type_changes_nothing(typed):
    kind, value = typed
    assert same(check_value(kind, value, exact=True), value)


@MANY
@given(TYPED)
def test_cell_to_value(typed):
    kind, value = typed
    read = read_parameters(f"p: {annotation(kind)} = {python_literal(value)}  # help # [more]")["p"]
    assert read.kind == kind and same(read.default, value) and read.help == "help # [more]"


@MANY
@given(TYPED)
def test_value_to_typed_file_to_value(typed):
    assert same(decode(json.loads(json.dumps(encode(typed[1])))), typed[1])


@MANY
@given(TYPED)
def test_value_to_injected_cell_to_value(typed):
    seen: dict = {}
    exec(injected_source({"value": Choice(typed[1], "command line")}), seen)
    assert same(seen["value"], typed[1])


@MANY
@given(typed=TYPED)
def test_value_to_params_yaml_to_value(typed, tmp_path):
    kind, value = typed
    (tmp_path / "params.yaml").write_text(f"look:\n  p: {yaml_literal(value)}\n", encoding="utf-8")
    found = resolve({"p": Parameter("p", kind, None)}, [("params.yaml", read_yaml(tmp_path / "params.yaml")["look"])], "look")
    assert not found.mistakes and same(found.values["p"], value)


@MANY
@given(TYPED)
def test_value_to_command_line_to_value(typed):
    kind, value = typed
    words = shlex.split(f"-p {shlex.quote(f'look.p={yaml_literal(value)}')}")
    found = resolve({"p": Parameter("p", kind, None)}, [("command line", {"p": typed_parameters(words[1:])["look.p"]})], "look")
    assert not found.mistakes and same(found.values["p"], value)


@MANY
@given(TEXTS)
@example("none")
def test_a_text_needs_no_quotes_on_the_command_line(text):
    parameter = Parameter("p", Kind("str"), "")
    if not text.startswith(("'", '"')):
        assert parameter.parse(text) == text


@MANY
@given(kinds().flatmap(lambda k: st.tuples(st.just(k), st.lists(values_of(k), min_size=1, max_size=3))))
@example((Kind("optional", (Kind("str"),)), ["null", None, "none"]))
def test_values_to_sweep_to_values(typed):
    kind, values = typed
    text = ", ".join(map(yaml_literal, values))
    if text == "all":
        return
    found = sweep_values(Parameter("p", kind, None), f"[{text}]")
    unique = list({python_literal(v): v for v in values}.values())
    assert len(found) == len(unique) and all(map(same, found, unique))


@settings(MANY, max_examples=60)
@given(TYPED)
def test_value_to_form_to_value(typed):
    from mlbench.widgets.form import make_field

    kind, value = typed
    assert same(make_field(Parameter("p", kind, value), value).read(), value)


@settings(MANY, max_examples=40)
@given(st.lists(TYPED, min_size=1, max_size=4))
def test_a_project_writes_and_reads_what_was_chosen(typed):
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        folder = make_project(Path(scratch) / "a project", stages=())
        cell = "\n".join(f"p{n}: {annotation(k)} = {python_literal(v)}" for n, (k, v) in enumerate(typed))
        write_notebook(folder / "01_look.ipynb", cell, ["stage = Stage.open('01_look', globals())"])
        (folder / "params.yaml").write_text("# mine\nlook:\n  # p0: none of these\nother:\n  a: 1  # kept\n".replace("other:\n  a: 1  # kept\n", ""))
        project = Project.open(folder)
        for _ in range(2):
            for n, (_, value) in enumerate(typed):
                assert same(project.set_parameter("look", f"p{n}", value), value)
        choices = plan_chain(project).stages[0].choices
        assert all(same(choices[f"p{n}"].value, value) for n, (_, value) in enumerate(typed)) and "# mine" in (folder / "params.yaml").read_text()


@pytest.mark.parametrize("kind", ["str", "Path", "Optional[str]", "list[str]", "dict[str, int]", "dict[Path, int]"])
def test_half_a_surrogate_pair_is_refused_at_once(kind):
    half = "a\udcff"
    value = {"list[str]": ["b", half]}.get(kind, {half: 1} if kind.startswith("dict") else half)
    with pytest.raises(ParameterError, match="half of a surrogate pair"):
        Parameter("p", annotation_kind(ast.parse(kind, mode="eval").body), None).check(value)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("int", "1:30", "a whole number"),
        ("int", "1e400", "a whole number"),
        ("int", "9" * 5000, "a whole number"),
        ("float", "1,5", "a number"),
        ("float", "1e-3x", "a number"),
        ("bool", "on", "true or false"),
        ("date", "2024-13-01", "a date such as"),
        ("list[int]", "[1, 2.5, 3]", "a whole number for item 2"),
        ("dict[str, list[int]]", "{a: [1], b: [2, x]}", "a whole number for item 2 of 'b'"),
        ("dict[int, str]", "{a: b}", "a whole number for the key 'a'"),
        ("list[Literal[1, 2]]", "[1, 3]", "one of 1, 2 for item 2"),
        ("Optional[list[float]]", "[1, none]", "a number for item 2"),
        ("dict", "{[1]: 2}", "plain values"),
        ("list", "[2024-01-01 10:00:00]", "a time of day is a text"),
        ("dict[Path, int]", "{a: 1, a/: 2}", "each key once"),
    ],
)
def test_what_is_ill_typed_says_where(kind, text, words):
    with pytest.raises(ParameterError) as caught:
        Parameter("p", annotation_kind(ast.parse(kind, mode="eval").body), None).parse(text)
    assert words in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "007", 7),
        ("str", "007", "007"),
        ("str", "1:30", "1:30"),
        ("float", "1e-3", 0.001),
        ("float", ".5", 0.5),
        ("float", "-inf", -math.inf),
        ("list[str]", "[no, yes, on]", ["no", "yes", "on"]),
        ("list[float]", "[1e-3, 1]", [0.001, 1.0]),
        ("dict[int, str]", "{1: a}", {1: "a"}),
        ("Path", "my data/a b.csv", Path("my data/a b.csv")),
        ("Optional[date]", "none", None),
        ('Literal[1, "1", None]', "1", 1),
        ('Literal[1, "1", None]', '"1"', "1"),
        ('Optional[Literal["none", "a"]]', "none", "none"),
        ("Optional[str]", '"none"', "none"),
        ('list[Literal["a", 1]]', "[a, 1]", ["a", 1]),
    ],
)
def test_what_people_type(kind, text, value):
    assert same(Parameter("p", annotation_kind(ast.parse(kind, mode="eval").body), None).parse(text), value)


def test_values_of_numpy_are_taken():
    import numpy as np

    assert same(check_value(Kind("int"), np.int64(3)), 3) and same(check_value(Kind("bool"), np.bool_(True)), True)
    assert same(check_value(Kind("list", (Kind("float"),)), np.array([1.0, 2.0])), [1.0, 2.0])


def test_a_yaml_value_knows_its_quotes():
    assert type(read_literal("none")) is str and check_value(Kind("optional", (Kind("str"),)), read_literal('"none"')) == "none"


# --- a real kernel -------------------------------------------------------------------------------------------------------------


def drawn(count: int):
    "Types with values, the same ones in each run of the tests."
    found: list = []

    @settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(TYPED)
    def draw(typed):
        found.append(typed)

    draw()
    odd = [(Kind("str"), t) for t in ODD_TEXTS] + [(Kind("optional", (Kind("str"),)), t) for t in ("none", "", "null")]
    odd += [(Kind("float"), f) for f in (math.nan, math.inf, -0.0, 5e-324, 1e22)] + [(Kind("Path"), Path(p)) for p in ("a b/é", "none", " x")]
    return odd + found


@pytest.mark.slow
def test_values_reach_a_real_kernel(tmp_path):
    typed = drawn(200)
    folder = make_project(tmp_path / "a {project}", stages=())
    (folder / "params.yaml").write_text("")
    cell = "\n".join(f"p{n}: {annotation(k)} = {python_literal(v)}" for n, (k, v) in enumerate(typed))
    names = f"[f'p{{n}}' for n in range({len(typed)})]"
    sources = [
        f"laid = {{name: globals()[name] for name in {names}}}",
        "stage = Stage.open('01_look', globals(), writes=['seen', 'laid'])",
        "import json\n\nfrom mlbench.chain.values import encode\n\n"
        f"stage.save('seen.txt', json.dumps({{name: encode(globals()[name]) for name in {names}}}))\n"
        "stage.save('laid.txt', json.dumps({n: encode(v) for n, v in laid.items()}))\nstage.close()",
    ]
    imports = "from datetime import date\nfrom pathlib import Path\n\nfrom mlbench.chain import Stage"
    write_notebook(folder / "01_look.ipynb", cell, sources, imports=imports)
    run = run_chain(folder, parameters={f"look.p{n}": yaml_literal(v) for n, (_, v) in enumerate(typed)})
    for part in ("seen", "laid"):
        got = json.loads((run.stage_folder("01_look") / "artifacts" / f"{part}.txt").read_text())
        wrong = [(n, k, v, decode(got[f"p{n}"])) for n, (k, v) in enumerate(typed) if not same(decode(got[f"p{n}"]), v)]
        assert not wrong, wrong[:5]


# --- refused at once -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    return make_project(tmp_path / "small")


@pytest.mark.parametrize(
    "given", [{"evaluation.treshold": "0.4"}, {"evaluation.threshold": "high"}, {"evaluation.threshold": "1.5"}, {"nowhere.x": "1"}, {"x": "1"}]
)
def test_a_mistake_starts_no_kernel_and_no_run(small, given, monkeypatch):
    import mlbench.chain.job
    import mlbench.chain.runner

    def started(*words, **more):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(mlbench.chain.job.Job, "run", started)
    monkeypatch.setattr(mlbench.chain.runner, "create_run", started)
    before = time.process_time()
    with pytest.raises(ParameterError):
        run_chain(small, parameters=given)
    assert time.process_time() - before < 0.5 and not (small / "runs").exists()


def test_a_mistake_is_told_by_the_command_within_half_a_second_of_work(small):
    command = [sys.executable, "-m", "mlbench", "run", str(small), "-p", "evaluation.treshold=0.4"]
    spent = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run(command, capture_output=True, text=True)
        after = os.times()
        spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert done.returncode == 2 and "Did you mean 'threshold'?" in done.stderr and not (small / "runs").exists()
    assert min(spent) < 0.5, spent


def test_every_mistake_of_every_stage_at_once(small):
    (small / "params.yaml").write_text("training:\n  factr: 3\n  seed: one\nevaluation:\n  view: pie\n")
    with pytest.raises(ParameterError) as caught:
        run_chain(small, parameters={"problem.rows": "99", "evaluation.threshold": "x"})
    assert len(str(caught.value).splitlines()) == 5


def test_a_name_that_no_shell_could_write_is_refused_clearly(small):
    done = subprocess.run([os.fsencode(sys.executable), b"-m", b"mlbench", b"run", os.fsencode(small), b"-p", b"problem.note=\xff"], capture_output=True)
    assert done.returncode == 2 and b"half of a surrogate pair" in done.stderr
