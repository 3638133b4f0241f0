"What a table can do to a model, through `mb.fit` and `Model.predict`: an error in words that say what to do, or the sensible thing."

from functools import cache

import numpy as np
import pandas as pd
import pytest

import mlbench as mb
from mlbench.core.errors import DataError, MlbenchError, ProblemError, UsageError
from mlbench.data.schema import infer_schema
from mlbench.data.splits import make_folds
from mlbench.features.plan import make_plan
from mlbench.models.registry import MODELS, WEIGHABLE, candidates
from mlbench.problem.problem import Problem
from mlbench.problem.target import make_target
from mlbench.training.arena import Arena
from mlbench.training.blend import assembled
from mlbench.training.chosen import fit_chosen
from mlbench.training.compare import compared
from mlbench.training.model import Model

N = 90
QUICK = ["linear", "hist_gradient_boosting"]


def rentals(n=N, seed=0):
    "Bicycles that were hired: numbers, categories, dates; `late` follows the station, `hours` the distance."
    rng = np.random.default_rng(seed)
    km, station = rng.gamma(2, 6, n).round(1), rng.choice(["harbour", "park", "castle"], n)
    late = np.where(rng.random(n) < 0.15 + 0.6 * (station == "park"), "yes", "no")
    day = pd.Timestamp("2025-03-01") + pd.to_timedelta(rng.integers(0, 200, n), "D")
    return pd.DataFrame({"km": km, "station": station, "day": day, "weight": rng.normal(75, 12, n).round(), "hours": km / 5 + rng.random(n), "late": late})


def fitted(frame, target="late", models=QUICK, **options):
    return mb.fit(frame, target=target, models=models, **options)


def refused(kind, frame, *words, **options):
    "What mb.fit says; it names every word."
    with pytest.raises(kind) as error:
        fitted(frame, **options)
    for word in words:
        assert word in str(error.value), str(error.value)
    return str(error.value)


def hostile(n=N):
    "One table with nearly everything in it that a learner dislikes."
    rng, frame = np.random.default_rng(1), rentals(n)
    frame["km"] = frame["km"].where(np.arange(n) % 7 != 0, np.inf).where(np.arange(n) % 11 != 0, -np.inf)
    frame["weight"] = frame["weight"].where(np.arange(n) % 3 != 0)
    frame["huge"] = rng.normal(size=n) * 1e30
    frame["tiny"] = rng.normal(size=n) * 1e-200
    frame["mixed"] = pd.Series([1.5, "about two", True, None, pd.Timestamp("2025-01-01"), ("a", 1)] * (n // 6), dtype=object)
    frame["listed"] = pd.Series([[1, 2], {"a": 1}, None] * (n // 3), dtype=object)
    frame["empty"], frame["constant"], frame["nearly"] = np.nan, 1, [0.0] * (n - 1) + [1.0]
    frame["code"] = [f"K{i % 45:03d}" for i in range(n)]
    frame["words"] = ["", "  "] * (n // 2)
    frame["strange [name], {of} <a> \"column\": it's"] = rng.normal(size=n)
    frame["again"] = frame["hours"]
    return frame


def checked(model, rows):
    "Finite answers for every row; probabilities that sum to one."
    output = model.output(rows)
    assert len(output) == len(rows) and np.isfinite(output).all()
    if model.classes_ is not None:
        assert np.allclose(output.sum(axis=1), 1, atol=1e-5) and (output >= 0).all()
    assert len(model.predict(rows)) == len(rows)
    return output


def arena_of(frame, target, task, folds, metrics=None):
    "Rows on given folds, or on so many, with what a model of them is made from."
    problem = Problem.from_dict({"name": "rentals", "task": task, "target": target, "data": "rentals.csv"})
    schema, said = infer_schema(frame), make_target(frame[target], problem)
    cut = make_folds(frame, **problem.fold_settings() | {"folds": folds}) if isinstance(folds, int) else folds
    plan = make_plan(schema, problem, frame)
    return Arena(plan, frame, said.encode(frame[target]), cut, schema=schema, target=said, metrics=metrics or problem.metrics), problem, schema


def all_kinds(task, names, rounds):
    "Candidates by name, those that learn in rounds with few of them."
    return [spec.variant(spec.name, rounds.get(spec.base or spec.name, {})) for spec in candidates(task, names)]


FAMILIES = [spec.name for spec in MODELS if "binary" in spec.tasks and spec.name != "word_bag"]  # it reads texts alone, and the hostile table has none
WEIGHED = [f"{kind}_weighted" for kind in WEIGHABLE if kind not in ("sparse_linear", "tree", "random_forest", "word_bag")]
TARGETS = {"binary": "late", "multiclass": "late", "regression": "hours"}
ALL = [f"{task}-{who}" for task in TARGETS for who in [*FAMILIES, "ensemble", "interpretable"]] + [f"multiclass-{who}" for who in WEIGHED]


def hostile_for(task):
    "The hostile table with one target; of two classes one is in six rows, of several two are in a single row each, so that folds lack them."
    frame = hostile().drop(columns="late" if task == "regression" else "hours")
    if task == "binary":
        frame["late"] = np.where(np.arange(N) % 15 == 7, "yes", "no")
    if task == "multiclass":
        frame["late"] = frame["late"].where(np.arange(N) > 3, pd.Series(["lost", "lost", "stolen", "burnt"]))
    return frame


FEW = {"catboost": {"iterations": 40}, "tabm": {"max_epochs": 4}, "network": {"max_epochs": 4}, "mlp": {"max_epochs": 10}}
FEW |= dict.fromkeys(("lightgbm", "xgboost", "random_forest", "extra_trees"), {"n_estimators": 40})
FEW |= dict.fromkeys(("hist_gradient_boosting", "additive_boosting"), {"max_iter": 40})


@cache
def competed(task):
    "Every family on the same two folds of the hostile table."
    arena, problem, schema = arena_of(hostile_for(task), TARGETS[task], task, 2)
    arena.compete(all_kinds(task, FAMILIES + (WEIGHED if task == "multiclass" else []), FEW))
    return compared(arena), problem, schema


def made(task, who):
    "A model of one family as `mb.fit` makes it, the blend of three, or whatever `mb.fit` finds that a person can read, from the hostile table."
    if who == "interpretable":
        return fitted(hostile_for(task), TARGETS[task], None, task=task, interpretable=True, search_trials=0)
    found, problem, schema = competed(task)
    if who != "ensemble":
        assert who not in found.failures, found.failures[who]
        return fit_chosen(found, schema=schema, problem=problem, name=who)
    blend = assembled(found.arena, dict.fromkeys(["linear", "lightgbm", "extra_trees"], 1 / 3))
    return Model(blend, problem, schema, found.target, found.arena.plan, "ensemble")


@pytest.fixture(scope="module", params=ALL)
def survivor(request):
    "A model of every kind, and the rows that it learned from without their target."
    task, who = request.param.split("-")
    return made(task, who), hostile_for(task).drop(columns=TARGETS[task])


def test_every_family_survives_a_hostile_table(survivor):
    "Classes that are absent from folds too; then rows that are all missing, unseen or endless."
    model, rows = survivor
    classes = {"no", "yes"} | ({"lost", "stolen", "burnt"} if model.target.task == "multiclass" else set())
    assert model.classes_ is None or set(model.classes_) == classes
    checked(model, rows.head(12))
    odd = rows.head(4).assign(km=[np.inf, -np.inf, np.nan, 1e308], station=["moon", None, "", "park"], weight=np.nan, code="K999")
    checked(model, odd.assign(day=[pd.NaT, pd.Timestamp("1900-01-01"), pd.Timestamp("2200-01-01"), pd.Timestamp("2025-05-05")]))
    checked(model, rows.head(3).assign(station=[1, True, ("a", "b")], mixed=[2.5, None, "new"], words="some words at last"))


def test_every_family_refuses_rows_that_do_not_fit(survivor):
    model, rows = survivor
    for change, words in (
        (lambda f: f.drop(columns=["station", "day"]), ["station is missing", "day is missing"]),
        (lambda f: f.assign(weight="heavy", day="soon"), ["weight should hold numbers", "'heavy'", "day should hold dates"]),
        (lambda f: pd.concat([f, f[["station"]]], axis=1), ["several columns are called 'station'"]),
    ):
        with pytest.raises(DataError) as error:
            model.predict(change(rows.head(6)))
        assert all(word in str(error.value) for word in words), str(error.value)


def test_every_family_reads_the_same_rows_in_another_dress(survivor):
    "Reordered, with more columns, with numbers and dates as words, with another index, one by one, and none at all."
    model, rows = survivor
    rows = rows.head(6).assign(weight=[70.0, 71, np.nan, 73, 74, 75])
    expected = model.output(rows)
    dressed = rows.assign(weight=rows["weight"].astype("Int64").astype("string"), day=rows["day"].astype(str), station=rows["station"].astype("category"))
    for other in (rows[rows.columns[::-1]], rows.assign(colour="red", zone=1), dressed, rows.set_axis([3] * 6)):
        assert np.allclose(model.output(other), expected, rtol=1e-5, atol=1e-6)
    assert np.allclose(np.concatenate([model.output(rows.iloc[[i]]) for i in range(2)]), expected[:2], rtol=1e-5, atol=1e-6)
    assert len(model.predict(rows.head(0))) == 0


@pytest.mark.parametrize("family", [*FAMILIES, None], ids=[*FAMILIES, "interpretable"])
def test_every_family_refuses_what_cannot_be_learned(family):
    "Before anything is fitted: a constant target, a class in each row, a class in one row alone, no column left."
    frame, names = rentals(), [family] if family else None
    more = {"models": names, "interpretable": family is None}
    refused(ProblemError, frame.assign(late="yes"), "nothing to tell apart", **more)
    refused(ProblemError, frame.assign(late=4.0), "nothing to tell apart", **more, task="regression")
    refused(ProblemError, frame.assign(late=[f"class {i}" for i in range(N)]), "every row has its own value", **more)
    refused(ProblemError, frame.assign(late=["yes"] + ["no"] * (N - 1)), "'yes' in one row alone", **more)
    refused(MlbenchError, frame[["late"]].assign(a=1, b=np.nan), "No column is left", **more)
    refused(ProblemError, frame, "no column is left", ignore=["km", "station", "day", "weight", "hours"], **more)


def copied(n):
    "Rows in which a column is the target under another name, and the target: for classes, and for values."
    frame = rentals(n)
    late = frame.assign(returned_late=frame["late"].map({"yes": 1, "no": 0}))
    return {"binary": (late, "late"), "regression": (frame.drop(columns="km").assign(minutes=frame["hours"] * 60), "hours")}


SHOWS = {"binary": "roc_auc", "regression": "r2"}


@cache
def shown(task):
    "Every family on the same three folds of rows that hold the answer."
    rows, target = copied(180)[task]
    arena, _, _ = arena_of(rows, target, task, 3, [SHOWS[task]])
    arena.compete(all_kinds(task, FAMILIES, {"catboost": {"iterations": 200}, "tabm": {"max_epochs": 60}}))
    return compared(arena)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("dummy", "patch_linear")])  # the latter is held back for thousands of patterns
def test_every_family_shows_that_a_column_is_the_target(family):
    for task, score in SHOWS.items():
        assert family not in shown(task).failures, shown(task).failures[family]
        assert shown(task).score(family)[score] > 0.5


def test_infinite_cells_are_missing_cells():
    frame = rentals()
    endless, missing = (frame.assign(weight=frame["weight"].where(np.arange(N) % 5 != 0, v)) for v in (np.inf, np.nan))
    one, other = fitted(endless, models=["linear"]), fitted(missing, models=["linear"])
    assert np.allclose(one.output(frame.assign(weight=np.inf)), other.output(frame.assign(weight=np.nan)))


def test_numbers_that_cannot_be_squared_leave_a_model_all_the_same():
    frame = rentals().assign(huge=np.random.default_rng(2).normal(size=N) * 1e200)
    checked(fitted(frame), frame)


@pytest.mark.parametrize(
    "target, options, words",
    [
        (lambda f: "yes", {}, ["late", "yes", "nothing to tell apart"]),
        (lambda f: np.nan, {}, ["late", "no value"]),
        (lambda f: [f"class {i}" for i in range(N)], {}, ["late", "every row has its own value"]),
        (lambda f: [f"class {i}" for i in range(N)], {"task": "multiclass"}, ["90 classes in 90 rows"]),
        (lambda f: ["yes"] + ["no"] * (N - 1), {}, ["'yes' in one row alone of 90 rows"]),
        (lambda f: f["hours"].where(f.index != 3, np.inf), {"task": "regression"}, ["1 of 90 values", "infinite"]),
        (lambda f: 4.0, {"task": "regression"}, ["late", "nothing to tell apart"]),
        (lambda f: ["much", *f["hours"][1:]], {"task": "regression"}, ["1 of 90 values", "much"]),
        (lambda f: f["station"], {"task": "binary"}, ["binary", "3 different values", "task: multiclass"]),
    ],
    ids=["one class", "none", "own class each", "own class each, several", "one row of a class", "infinite", "constant number", "a word", "three for two"],
)
def test_a_target_that_cannot_be_learned(target, options, words):
    frame = rentals()
    refused(ProblemError, frame.assign(late=target(frame)), *words, **options)


def test_a_class_of_two_rows_and_one_that_only_one_fold_can_know():
    frame = rentals().assign(late=["lost", "lost", "stolen"] + ["no"] * 50 + ["yes"] * (N - 53))
    model = fitted(frame, models=["linear", "lightgbm"])
    assert checked(model, frame).shape == (N, 4)
    pair = fitted(rentals().assign(late=["yes"] * 2 + ["no"] * (N - 2)))
    assert checked(pair, frame).shape == (N, 2)


def arena_on(folds, late):
    "The hired bicycles on given folds."
    return arena_of(rentals().assign(late=late), "late", "binary", folds, ["log_loss"])[0]


def test_a_fold_with_one_class_to_learn_from_is_left_out_and_told():
    "As where the past predicts the future, and the first events came late."
    late, rows = np.where((np.arange(N) > 30) & (np.arange(N) % 3 == 0), "yes", "no"), np.arange(N)
    arena = arena_on([(rows[:30], rows[30:50]), (rows[:50], rows[50:70]), (rows[:70], rows[70:])], late)
    arena.compete(candidates("binary", ["linear", "hist_gradient_boosting", "catboost", "linear_weighted"]))
    assert not [e.failure for e in arena.entries.values() if e.failure] and len(arena.folds) == arena.n_ranked == 2
    assert "of one class in fold 1 ('no')" in arena.notes[0] and "2 of 3 folds are left" in arena.notes[0]


def test_events_that_one_group_has_alone_are_refused():
    late, rows = np.where(np.arange(N) < 20, "yes", "no"), np.arange(N)
    with pytest.raises(ProblemError, match="no model can be judged. Gather such rows from more groups"):
        arena_on([(rows[20:], rows[:20]), (rows[:60], rows[60:]), (np.r_[rows[:20], rows[60:]], rows[20:60])], late)


def test_rows_without_a_target_are_left_out():
    frame = rentals()
    some = frame.assign(late=frame["late"].where(frame.index % 3 != 0, None))
    assert fitted(some, models=["linear"]).facts["rows"] == 60


def test_ten_classes_of_one_row_each_are_refused():
    refused(ProblemError, rentals(10).assign(late=list("abcdefghij")), "another class in each of its 10 rows")


@pytest.mark.parametrize("rows, words", [(0, "nothing to tell apart"), (1, "late"), (9, "10 are the least")])
def test_too_few_rows(rows, words):
    refused(MlbenchError, rentals().head(rows), words)


def test_the_target_under_another_name_is_told_and_seen_in_the_scores():
    for rows, target, copy, score in zip(*zip(*copied(N).values()), ("Returned_late", "Minutes"), SHOWS.values()):
        with pytest.warns(UserWarning, match=copy):
            model = fitted(rows, target)
        assert model.metrics[score] > 0.95 and any(copy in note for note in model.facts["notes"]), (model.metrics, model.facts["notes"])


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda f: f[["late"]], ["no column is left"]),
        (lambda f: f[["late"]].assign(a=1, b="x", c=np.nan), ["No column is left", "a: has one value only"]),
        (lambda f: f[["late"]].assign(customer_id=[f"C{i:05d}" for i in range(N)]), ["no column is left"]),
        (lambda f: pd.concat([f, f[["km"]]], axis=1), ["several columns are called 'km'"]),
        (lambda f: f.rename(columns={"km": 7}), ["column names must be text", "astype(str)"]),
        (lambda f: f.rename(columns={"late": "delayed"}), ["'late'", "no column"]),
    ],
    ids=["none", "nothing in them", "identifier", "twice", "a number for a name", "no target"],
)
def test_a_table_without_anything_to_learn_from(change, words):
    refused(MlbenchError, change(rentals()), *words)


def test_all_columns_ignored():
    refused(ProblemError, rentals(), "no column is left", ignore=["km", "station", "day", "weight", "hours"])


def test_what_is_no_table():
    for data in (3, [1, 2], rentals().to_numpy()):
        with pytest.raises(UsageError, match="DataFrame"):
            mb.fit(data, target="late")
    with pytest.raises(UsageError, match="linear"):
        fitted(rentals(), models=["liner"])


def test_dtypes_of_pandas_that_are_less_common():
    frame = rentals()
    plain = fitted(frame, models=["linear"])
    dressed = frame.assign(km=frame["km"].astype("Float64"), weight=frame["weight"].astype("Int64"), station=frame["station"].astype("category"))
    dressed["late"], dressed.index = dressed["late"].astype("category"), [7] * N
    assert np.allclose(fitted(dressed, models=["linear"]).output(dressed), plain.output(frame))


@pytest.fixture(scope="module", params=["classes", "values"])
def model(request):
    return fitted(rentals(), "late" if request.param == "classes" else "hours", ["linear", "lightgbm"])


def asked(n=6):
    return rentals(n, seed=5)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda f: f.drop(columns="km"), ["km is missing"]),
        (lambda f: f[["weight"]], ["km is missing", "station is missing", "day is missing"]),
        (lambda f: f.rename(columns={"km": "Km"}), ["km is missing", "Did you mean 'Km'"]),
        (lambda f: f.assign(km="far"), ["km should hold numbers", "6 of 6", "'far'"]),
        (lambda f: f.assign(km=pd.Timestamp("2025-01-01")), ["km should hold numbers"]),
        (lambda f: f.assign(km=pd.Series([[1]] * 6)), ["km should hold numbers", "[1]"]),
        (lambda f: f.assign(day="soon", weight="heavy"), ["day should hold dates", "weight should hold numbers"]),
        (lambda f: f.assign(day=20250301), ["day should hold dates"]),
        (lambda f: pd.concat([f, f[["km"]]], axis=1), ["several columns are called 'km'"]),
    ],
    ids=["one missing", "most missing", "other spelling", "words", "dates for numbers", "lists", "two wrong", "numbers for dates", "twice"],
)
def test_rows_that_do_not_fit_are_refused_with_all_that_is_wrong(model, change, words):
    with pytest.raises(DataError) as error:
        model.predict(change(asked()))
    for word in words:
        assert word in str(error.value), str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f[f.columns[::-1]],
        lambda f: f.assign(colour="red", zone=1),
        lambda f: f.drop(columns=["late"]),
        lambda f: f.assign(km=f["km"].astype(str), weight=f["weight"].astype("Int64")),
        lambda f: f.assign(day=f["day"].astype(str), station=f["station"].astype("category")),
        lambda f: f.assign(km=f["km"].astype("float64[pyarrow]"), day=f["day"].dt.tz_localize("UTC")),
        lambda f: f.set_axis([3] * len(f)),
    ],
    ids=["reordered", "more columns", "no target", "numbers as words", "dates as words", "arrow and a zone", "index"],
)
def test_rows_that_say_the_same_otherwise_get_the_same_answer(model, change):
    rows = asked() if model.target.name == "late" else asked().drop(columns="late").assign(late="no")
    changed = change(rows)
    if model.target.name == "hours" and "late" not in changed:
        changed = changed.assign(late="no")
    assert np.allclose(model.output(changed), model.output(rows))


def test_unseen_missing_and_endless_values_are_answered(model):
    rows = asked()
    checked(model, rows.assign(station="moon"))
    checked(model, rows.assign(km=np.nan, weight=np.nan, station=None, day=pd.NaT))
    checked(model, rows.assign(km=np.inf, weight=-np.inf))
    checked(model, rows.assign(km=1e308, weight=-1e308))
    checked(model, rows.assign(station=[1, 2.5, True, None, "park", ("a", "b")]))


def test_no_rows_and_no_frame(model):
    assert len(model.predict(asked().head(0))) == 0
    for rows in (asked().to_numpy(), asked().to_dict("records"), None):
        with pytest.raises(DataError, match="DataFrame"):
            model.predict(rows)
