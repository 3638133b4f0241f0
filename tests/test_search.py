"A search for settings: it finds them, it can be killed, it keeps its limits, and it refuses what makes no sense."

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mlbench.core.errors import ArtifactError, MlbenchError, ProblemError, UsageError
from mlbench.core.resuming import content_key
from mlbench.models.registry import ModelSpec, model_spec
from mlbench.models.spaces import SPACES, Dimension, own_space, space
from mlbench.training.search import Search, known_scores, search
from mlbench.training.searchplots import search_history, search_importance, search_parallel, search_sentence, search_slices


class PaperArena:
    "Fits nothing: the score follows from the settings, the fold and a little noise."

    target, metrics, greater_is_better = SimpleNamespace(task="binary"), ["score"], True
    rows, y, seed, plan, folds = pd.DataFrame({"x": [0.0]}), np.zeros(1), 0, SimpleNamespace(to_dict=dict), ()
    n_folds, n_ranked, workers = 5, 0, 1

    def __init__(self, pause: float = 0.0, limit: float = math.inf):
        self.entries, self.dropped, self.fits, self.pause, self.end = {}, [], 0, pause, time.monotonic() + limit
        self.most = 1000  # candidates that memory has room for

    def truth(self, spec: ModelSpec) -> float:
        given = {"learning_rate": 0.1, "num_leaves": 31, "C": 1.0, "subsample": 0.8} | dict(spec.params)
        if (spec.base or spec.name) in ("linear", "mlp"):
            return 0.7 - 0.01 * abs(math.log10(given["C"]))
        away = 0.05 * math.log(given["learning_rate"] / 0.02) ** 2 + 0.05 * math.log(given["num_leaves"] / 120) ** 2
        return 0.9 - away - 0.3 * (given["subsample"] - 0.95) ** 2

    def run(self, spec: ModelSpec, seconds: float | None = None) -> Iterator[float]:
        entry = self.entries.setdefault(spec.name, SimpleNamespace(scores={}, failure="", fit_seconds=0.0))
        for fold in range(self.n_folds):
            if self.time_left() < self.pause:
                return
            time.sleep(self.pause)
            self.fits += 1
            draw = np.random.default_rng([fold, *content_key(params=dict(spec.params)).encode()[:8]])
            entry.scores[fold] = {"score": self.truth(spec) + 0.05 * fold + 0.002 * draw.normal()}
            yield entry.scores[fold]["score"]

    def drop(self, name: str) -> None:
        self.dropped.append(name)
        self.entries.pop(name, None)

    def time_left(self) -> float:
        return self.end - time.monotonic()

    def full(self) -> bool:
        return len(self.entries) >= self.most


THREE = {"lightgbm": {"learning_rate": [0.01, 0.3, "log"], "num_leaves": [4, 256, "log"], "subsample": [0.5, 1.0]}}


def told(found: Search) -> list[tuple]:
    "All of a search that must come out again."
    return [(t.number, t.name, t.params, t.state, t.scores, t.turn) for t in found.records]


def test_finds_better_settings_than_chance():
    "Over five seeds, the settings that the sampler finds are nearer to the best than random ones."
    lost = {
        name: [
            0.9
            - PaperArena().truth(
                model_spec("lightgbm").variant("x", search(PaperArena(), ["lightgbm"], trials=30, sampler=name, seed=s, spaces=THREE).best.params)
            )
            for s in range(5)
        ]
        for name in ("tpe", "random")
    }
    assert np.mean(lost["tpe"]) < 0.5 * np.mean(lost["random"]) and max(lost["tpe"]) < 0.05
    usual = 0.9 - PaperArena().truth(model_spec("lightgbm"))
    assert max(lost["tpe"]) < usual / 2


KILLED = """
    import os, signal, sys
    from test_search import THREE, PaperArena
    from mlbench.training import search as module

    after, where = int(sys.argv[2]), sys.argv[3]
    class Deadly(PaperArena):
        def run(self, spec, seconds=None):
            for score in super().run(spec, seconds):
                if where == "fold" and self.fits >= after:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield score
    usual = module._tell
    def tell(study, asked, trial):
        usual(study, asked, trial)
        if where == "end" and trial.number == after:
            os.kill(os.getpid(), signal.SIGKILL)
    module._tell = tell
    module.search(Deadly(), ["lightgbm", "linear"], trials=14, seed=3, storage=sys.argv[1], spaces=THREE)
"""


def test_killed_search_goes_on_to_the_same_end(tmp_path):
    "Killed within a fold, then right after a trial was written: the end is that of an undisturbed search."
    whole = PaperArena()
    expected = search(whole, ["lightgbm", "linear"], trials=14, seed=3, spaces=THREE)
    path, environment = tmp_path / "search.sqlite", {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    for after, where in ((13, "fold"), (9, "end")):
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(path), str(after), where], env=environment, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    arena = PaperArena()
    found = search(arena, ["lightgbm", "linear"], trials=14, seed=3, storage=path, spaces=THREE)
    assert told(found) == told(expected) and len(found.trials) == 14
    assert set(arena.entries) == set(whole.entries) and not found.notes


def test_longer_search_begins_with_the_shorter_one(tmp_path):
    path = tmp_path / "search.sqlite"
    short = search(PaperArena(), ["lightgbm", "linear"], trials=5, storage=path)
    assert told(search(PaperArena(), ["lightgbm", "linear"], trials=9, storage=path))[:5] == told(short)
    assert told(search(PaperArena(), ["lightgbm", "linear"], trials=9)) == told(search(PaperArena(), ["lightgbm", "linear"], trials=9, storage=path))


def test_searches_of_different_rows_seeds_or_spaces_do_not_meet_in_one_file(tmp_path):
    path, other = tmp_path / "search.sqlite", PaperArena()
    first = search(PaperArena(), ["lightgbm"], trials=3, storage=path)
    other.rows = pd.DataFrame({"x": [1.0]})
    for made in (search(other, ["lightgbm"], trials=3, storage=path), search(PaperArena(), ["lightgbm"], trials=3, seed=9, storage=path)):
        assert len(made.trials) == 3
    assert told(search(PaperArena(), ["lightgbm"], trials=3, storage=path)) == told(first)


def test_trials_that_are_behind_are_stopped_and_dropped():
    arena = PaperArena()
    found = search(arena, ["lightgbm"], trials=20, spaces=THREE)
    stopped = [t for t in found.records if t.state == "stopped"]
    assert len(stopped) >= 5 and {t.name for t in stopped} == set(arena.dropped) and not set(arena.dropped) & set(arena.entries)
    assert all(len(t.scores) < 5 for t in stopped) and arena.fits == sum(len(t.scores) for t in found.records) < 80
    truth = {t.name: arena.truth(model_spec("lightgbm").variant("x", t.params)) for t in stopped}
    assert max(truth.values()) < found.best.score - 0.1  # 0.1 is the folds' own mean: none of them would have won
    assert all(math.isfinite(v) for v in found.trials["score"])


def test_what_the_arena_has_run_is_not_run_again():
    arena = PaperArena()
    list(arena.run(model_spec("lightgbm")))
    found = search(arena, ["lightgbm"], trials=4)
    assert found.records[0].number == 0 and [t.name for t in found.records[1:]] == [f"lightgbm_t{n}" for n in (1, 2, 3, 4)]
    fresh = search(PaperArena(), ["lightgbm"], trials=4)
    assert fresh.records[0].name == "lightgbm" and fresh.records[0].params == {}


def test_readable_kinds_are_searched_where_a_person_has_to_follow():
    found = search(PaperArena(), ["linear"], trials=3, readable=True)
    assert {t.kind for t in found.records} == {"linear"} and len(found.trials) == 3


def test_grid_covers_the_grid():
    given = {"lightgbm": {"learning_rate": [0.01, 0.1, "log"], "num_leaves": {"choices": [16, 64]}, "extra_trees": [True, False]}}
    found = search(PaperArena(), ["lightgbm"], sampler="grid", trials=None, spaces=given)
    tried = {tuple(t.params.values()) for t in found.records[1:]}
    assert tried == {(r, n, e) for r in (0.01, 0.03162, 0.1) for n in (16, 64) for e in (True, False)} and len(found.records) == 13
    assert "all settings were tried" in found.notes[0]


def test_small_spaces_end_by_themselves():
    found = search(PaperArena(), ["lightgbm"], trials=50, spaces={"lightgbm": {"num_leaves": [30, 33], "subsample": 0.9}})
    assert len(found.trials) == 5 and sorted(t.params["num_leaves"] for t in found.records[1:]) == [30, 31, 32, 33]
    assert len(search(PaperArena(), ["lightgbm"], trials=9, spaces={"lightgbm": {"subsample": 0.9}}).trials) == 2


def test_kinds_that_are_behind_rest():
    found = search(PaperArena(), ["linear", "mlp", "lightgbm", "hist_gradient_boosting"], trials=30)
    counts = found.trials["kind"].value_counts()
    assert counts["lightgbm"] == counts.max() > 2 * counts["linear"] and counts.min() == 3 and len(found.trials) == 30


@pytest.mark.parametrize("seconds, limit", [(1.0, math.inf), (None, 1.0)])
def test_time_limit_is_held(seconds, limit):
    "No trial is begun that would not end in time, whether the limit is the search's or the arena's."
    search(PaperArena(), ["lightgbm"], trials=1)  # what loads once has been loaded
    start = time.monotonic()
    arena = PaperArena(pause=0.03, limit=limit)
    found = search(arena, ["lightgbm"], trials=None if seconds else 500, seconds=seconds)
    assert 0.4 < time.monotonic() - start < 1.15 and "the time was used up" in found.notes[-1]
    assert found.count("finished") >= 1 and len(arena.entries) == found.count("finished")


def test_time_before_a_kill_counts(tmp_path):
    path = tmp_path / "search.sqlite"
    search(PaperArena(pause=0.02), ["lightgbm"], trials=4, storage=path)
    arena = PaperArena(pause=0.02)
    found = search(arena, ["lightgbm"], trials=40, seconds=0.2, storage=path)
    assert len(found.trials) == 4 and "used up" in " ".join(found.notes)


def test_model_that_fails_is_put_down_and_the_search_goes_on():
    class Fragile(PaperArena):
        def run(self, spec, seconds=None):
            if spec.params.get("learning_rate", 1) < 0.05:
                raise MemoryError("too many leaves")
            yield from super().run(spec, seconds)

    found = search(Fragile(), ["lightgbm"], trials=12, spaces=THREE)
    failed = found.trials[found.trials["state"] == "failed"]
    assert 2 <= len(failed) < 12 and set(failed["note"]) == {"MemoryError: too many leaves"} and len(found.trials) == 12
    assert found.best is not None and f"{len(failed)} failed" in search_sentence(found).text


def test_scores_that_are_no_numbers_fail_the_trial():
    class Blind(PaperArena):
        def truth(self, spec):
            return math.nan if spec.base else 0.5

    found = search(Blind(), ["lightgbm"], trials=3)
    assert [t.state for t in found.records] == ["finished", "failed", "failed"] and "no number" in found.records[1].why
    assert all(f(found).layout.title.text for f in (search_history, search_importance, search_parallel, search_slices))


def test_stopping_by_hand_keeps_the_trials():
    class Impatient(PaperArena):
        def run(self, spec, seconds=None):
            if spec.name.endswith("_t4"):
                raise KeyboardInterrupt
            yield from super().run(spec, seconds)

    arena = Impatient()
    found = search(arena, ["lightgbm"], trials=9)
    assert len(found.trials) == 3 and "Ctrl-C" in found.notes[-1] and set(arena.entries) <= {"lightgbm", "lightgbm_t2", "lightgbm_t3"}


def test_memory_limit_ends_the_search():
    arena = PaperArena()
    arena.most = 2
    found = search(arena, ["lightgbm"], trials=20, spaces=THREE)
    assert found.count("finished") == 2 and "memory limit" in found.notes[-1]


def test_kinds_that_are_too_slow_for_the_rows_are_refused():
    arena = PaperArena()
    arena.rows = pd.DataFrame({"x": np.zeros(10_000)})
    with pytest.raises(UsageError, match="svm is tried on 5,000 rows at most, and there are 10,000"):
        search(arena, ["svm"], trials=2)


def test_files_that_are_no_search_are_told(tmp_path):
    for name, content, words in (
        ("notes.sqlite", b"not a database at all" * 100, "begins anew"),
        ("cut.sqlite", b"SQLite format 3\0" + b"\0" * 5000, "Remove it|holds no search"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=words):
            search(PaperArena(), ["lightgbm"], trials=1, storage=tmp_path / name)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"lightgbm": {"learning_rate": [0.3, 0.01]}}, "the smaller first"),
        ({"lightgbm": {"learning_rate": [0, 0.3, "log"]}}, "limits above 0"),
        ({"lightgbm": {"learning_rate": [0.1, 0.3, "logarithmic"]}}, "only word that may stand there is 'log'"),
        ({"lightgbm": {"learning_rat": [0.1, 0.3]}}, "Did you mean 'learning_rate'"),
        ({"lightgbm": {"num_leaves": []}}, "an empty list"),
        ({"lightgbm": {"num_leaves": {"low": 3}}}, "write \\[low, high\\]"),
        ({"lightgbm": {"num_leaves": [8, math.inf]}}, "found 8 and inf"),
        ({"lightgbm": [1, 2]}, "a mapping was expected"),
        ({"lightgmb": {}}, "Did you mean 'lightgbm'"),
        ({"dummy": {}}, "no settings worth searching"),
    ],
)
def test_bad_spaces_are_refused_with_what_to_write(given, words):
    with pytest.raises(ProblemError, match=words):
        own_space(given, "binary")


def test_all_mistakes_of_a_space_are_told_at_once():
    with pytest.raises(ProblemError) as caught:
        own_space({"lightgbm": {"a": 1, "num_leaves": [5, 2]}, "nothing": {}}, "binary")
    assert len(caught.value.mistakes) == 3
    with pytest.raises(UsageError, match="a mapping was expected"):
        own_space(["lightgbm"], "binary")


@pytest.mark.parametrize(
    "given, words",
    [
        ({"kinds": []}, "no kind"),
        ({"trials": 2.5}, "0 for no search"),
        ({"seconds": 0}, "above 0"),
        ({"sampler": "bayes"}, "no sampler"),
        ({"kinds": ["dummy"]}, "no settings"),
        ({"kinds": ["lightgbm", "lightgbm"]}, "named twice"),
        ({"kinds": ["lightgmb"]}, "Did you mean 'lightgbm'"),
        ({"kinds": ["linear", "lightgbm"], "readable": True}, "nobody can follow how lightgbm decides"),
        ({"kinds": [model_spec("svm")], "readable": True, "trials": 0}, "nobody can follow how svm decides"),
    ],
)
def test_wrong_calls_are_refused(given, words):
    with pytest.raises(MlbenchError, match=words):
        search(PaperArena(), given.pop("kinds", ["lightgbm"]), **given)


@pytest.mark.parametrize("kind", sorted(SPACES))
def test_spaces_fit_the_estimators(kind):
    "Every dimension is a parameter of the estimator, for every task, and both ends are taken."
    spec = model_spec(kind)
    for task in spec.tasks:
        for pick in (0, -1):
            params = {d.name: d.choices[pick] if d.choices else (d.low, d.high)[pick] for d in space(kind, task)}
            made = spec.variant(f"{kind}_t1", params).build(task, None if task == "regression" else 3).get_params()
            assert all(made[name] == value for name, value in params.items())


def test_real_arena(tmp_path):
    "On a real table: candidates stay in the arena, and a second arena with the same file comes to the same."
    from mlbench.data.schema import infer_schema
    from mlbench.features.plan import make_plan
    from mlbench.models.registry import candidates
    from mlbench.problem.problem import Problem
    from mlbench.problem.target import Target
    from mlbench.training.arena import Arena

    random = np.random.default_rng(0)
    table = pd.DataFrame({"heat": random.normal(size=300), "load": random.normal(size=300), "site": random.choice(["a", "b", "c"], 300)})
    table["fails"] = np.where(table["heat"] * table["load"] + random.normal(scale=0.3, size=300) > 0, "yes", "no")
    problem = Problem.from_dict({"name": "m", "task": "binary", "target": "fails", "positive": "yes", "data": "m.csv"})
    schema, target = infer_schema(table), Target("fails", "binary", ["no", "yes"], "yes")
    order = random.permutation(300) % 3
    folds = [(np.flatnonzero(order != k), np.flatnonzero(order == k)) for k in range(3)]

    def searched(trials: int) -> tuple[Arena, Search]:
        arena = Arena(make_plan(schema, problem), table, target.encode(table["fails"]), folds, schema=schema, target=target, metrics=["log_loss"])
        arena.compete(candidates("binary", ["dummy", "linear"]))
        return arena, search(arena, ["linear", "lightgbm"], trials=trials, storage=tmp_path / "search.sqlite")

    searched(4)
    arena, found = searched(7)
    assert [t.kind for t in found.records][:2] == ["linear", "linear"] and found.records[0].number == 0 and found.best.kind == "lightgbm"
    assert {"dummy", "linear"} | {t.name for t in found.records if t.state == "finished"} == set(arena.entries)
    assert all(known_scores(arena, t.name) == pytest.approx(t.scores, abs=1e-12) for t in found.records if t.state == "finished")
    assert np.isfinite(arena.oof(found.best.name)).all() and not found.notes


def test_optuna_loads_when_used_and_keeps_quiet():
    "Importing the module loads no Optuna; a search writes nothing to the terminal and leaves Optuna's settings alone."
    code = """
        import sys
        import mlbench.training.search, mlbench.training.searchplots, mlbench.models.spaces
        assert "optuna" not in sys.modules and "lightgbm" not in sys.modules
        import optuna
        from test_search import PaperArena
        before = optuna.logging.get_verbosity()
        mlbench.training.search.search(PaperArena(), ["lightgbm"], trials=8)
        assert optuna.logging.get_verbosity() == before
    """
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "optuna" not in (done.stdout + done.stderr).lower(), done.stdout + done.stderr


def test_dimensions_know_their_type():
    assert Dimension("a", 1, 5).whole and not Dimension("a", 1.0, 5.0).whole and not Dimension("a", choices=(1, 2)).whole
