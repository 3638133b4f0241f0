"""What the modelling engine costs beside the models that it fits.

    python benchmarks/engine.py                                  all three parts (about ten minutes)
    python benchmarks/engine.py --parts fit,predict --seconds 20 --rows 2000
    python benchmarks/engine.py --parts growth --growth 10000,100000

fit: wall time of `mb.fit` with a limit, over the time that its models' own fits took, divided by two for the two that run side by side.
Bar: 10% on top. What is inside of it is told: features, predictions of held-out rows, the rest (kinds of columns, folds, ensemble); the CPU
time of each too, which says the same on a machine that has other work. Then where the two workers lose time: how long both fitted, only one
did (and what the other did meanwhile), or nobody (before the first fit, between fits, after the last). Half a worker's time is lost while
one fits, all of it while nobody does: "lost" is the wall time less that of the fits, what the overhead is made of.

predict: rows per second of `model.predict_proba`, and of its members' own predictions on features that are made already; the same for one row
and for a hundred; and the seconds to write the model and to open it.

growth: time and peak memory of a fit from ten thousand to a million rows of a generated table of numbers, categories, dates and text, each
in a process of its own: with the limit (bar: at most 10% over it), and of one LightGBM on all folds without a limit. A fit is told to stay
within three quarters of the memory that is free, and a size that would need more than that, judged by the one before it, is left out.

Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from common import options

CORES = 2
OVERHEAD = 0.10
LATE = 1.10
PARTS = ("fit", "predict", "growth")
FEWEST = 100  # rows
MISSED: list[str] = []
Span = tuple[str, int, float, float]  # what, thread, start, end


def told(name: str, value: float, unit: str, bar: float | None = None, note: str = "") -> None:
    "Print a figure, and remember it when it misses its bar."
    if bar is not None and value > bar:
        MISSED.append(name)
    limit = "" if bar is None else f"  (bar {bar:g}{', MISSED' if value > bar else ''})"
    print(f"{name:<58}{value:12,.4g} {unit}{limit}{'  ' + note if note else ''}", flush=True)


def mixed_table(rows: int, seed: int = 0) -> pd.DataFrame:
    "Numbers, categories of few and of many values, dates, short texts and missing cells; a binary target that depends on most of them."
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({f"measure_{i}": rng.normal(size=rows).round(4) for i in range(8)})
    frame["amount"] = rng.lognormal(3, 1, rows).round(2)
    frame["branch"] = rng.choice(["north", "south", "east", "west"], rows)
    frame["town"] = np.char.add("town ", rng.zipf(1.4, rows).clip(max=2000).astype(str))
    frame["opened"] = pd.Timestamp("2015-01-01") + pd.to_timedelta(rng.integers(0, 3000, rows), "D")
    words = np.array(["late", "early", "broken", "friendly", "cheap", "slow", "quick", "dirty", "clean", "kind"])
    picked = words[rng.integers(0, len(words), (rows, 6))]
    frame["note"] = [" ".join(line) for line in picked]
    late, south = (picked == "late").sum(axis=1), (frame["branch"] == "south").to_numpy()
    score = frame["measure_0"] * frame["measure_1"] + np.log(frame["amount"]) - 3 + late - south + rng.normal(size=rows)
    frame["left"] = np.where(score > np.quantile(score, 0.7), "yes", "no")
    frame.loc[rng.random(rows) < 0.1, "measure_2"] = np.nan
    frame.loc[rng.random(rows) < 0.05, "town"] = None
    return frame


# --- fit ------------------------------------------------------------------------------------------------------------------------------


@contextmanager
def clocked(places: dict[str, tuple[Any, str]]) -> Iterator[tuple[dict[str, float], list[Span]]]:
    "Add up the seconds that some functions take, over all threads, while this is open, and note when each call began and ended."
    spent: dict[str, float] = defaultdict(float)
    spans: list[Span] = []
    lock, before = threading.Lock(), {}

    def timed(label: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            start, own = time.perf_counter(), time.thread_time()
            try:
                return work(*given, **named)
            finally:
                end = time.perf_counter()
                with lock:
                    spans.append((label, threading.get_ident(), start, end))
                    spent[label] += end - start
                    spent[f"{label}: cpu"] += time.thread_time() - own
                    spent[f"{label}: calls"] += 1

        return call

    for label, (owner, name) in places.items():
        before[label] = getattr(owner, name)
        setattr(owner, name, timed(label, before[label]))
    try:
        yield spent, spans
    finally:
        for label, (owner, name) in places.items():
            setattr(owner, name, before[label])


ORDER = ("fits", "predictions", "making", "features")  # of calls within one another the first of these counts
DOES = {"predictions": "predicts", "making": "makes features", "features": "waits for features", "nothing": "has nothing to do"}


def moments(spans: list[Span], begin: float, end: float) -> dict[tuple[str, ...], float]:
    "Seconds of a stretch of time by what the threads did at once: a word for each that was at work."
    edges = [(min(max(t, begin), end), turn, what, thread) for what, thread, *ends in spans for t, turn in zip(ends, (1, -1))]
    told: dict[tuple[str, ...], float] = defaultdict(float)
    open_calls: dict[tuple[int, str], int] = defaultdict(int)
    last = begin
    for at, turn, what, thread in sorted([*edges, (end, 0, "", 0)]):
        doing = {t: min((w for (of, w), n in open_calls.items() if of == t and n), key=ORDER.index) for (t, _), n in open_calls.items() if n}
        told[tuple(sorted(doing.values(), key=ORDER.index))] += at - last
        open_calls[thread, what] += turn
        last = at
    return {state: seconds for state, seconds in told.items() if seconds > 0}


def split_by(told: dict[tuple[str, ...], float], fits: int) -> dict[str, float]:
    "Seconds with so many fits at once, by what others did meanwhile."
    found: dict[str, float] = defaultdict(float)
    for state, seconds in told.items():
        if min(state.count("fits"), CORES) == fits:
            found[next((w for w in state if w != "fits"), "nothing")] += seconds
    return found


def lost(spans: list[Span], begin: float, end: float) -> None:
    "Tell how long both workers fitted, one of them did, and nobody did."
    fits = [(start, stop) for what, _, start, stop in spans if what == "fits"]
    first, last = (min(start for start, _ in fits), max(stop for _, stop in fits)) if fits else (end, end)
    whole = moments(spans, begin, end)
    both, one = (sum(split_by(whole, n).values()) for n in (CORES, 1))
    told("both workers fit", both, "s", note=f"{both / (end - begin):.0%} of the time")
    told("only one fits", one, "s", note="the other " + ", ".join(f"{DOES[k]} {v:.2f}" for k, v in sorted(split_by(whole, 1).items())) if one else "")
    places = {"before the first fit": (begin, first), "between fits": (first, last), "after the last": (last, end)}
    none = {name: split_by(moments(spans, *ends), 0) for name, ends in places.items()}
    nobody = sum(sum(found.values()) for found in none.values())
    told("nobody fits", nobody, "s", note=", ".join(f"{name} {sum(f.values()):.2f} (features {f['making']:.2f})" for name, f in none.items()))
    told("lost to this, over two cores", nobody + one / CORES, "s", note="the wall time less the fits' own")


def fitting(rows: int, seconds: float) -> Any:
    "A fit within the limit, and where its time went; gives the model."
    import mlbench as mb
    from mlbench.training import arena

    frame = mixed_table(rows)
    mb.fit(frame.head(300), target="left", time_limit=2)  # libraries are loaded before the clock starts
    places = {"fits": (arena, "fit_rounds"), "predictions": (arena, "output_of"), "features": (arena.Fold, "features"), "making": (arena.SharedFits, "made")}
    with clocked(places) as (spent, spans):
        start, own = time.perf_counter(), time.process_time()
        model = mb.fit(frame, target="left", time_limit=seconds, n_jobs=CORES)
        end, cpu = time.perf_counter(), time.process_time() - own
    wall, fits = end - start, spent["fits"] / CORES
    print(f"## fit: {rows:,} rows, limit {seconds:g} s, {int(spent['fits: calls'])} fits; model {model.spec_name}")
    told("wall time of mb.fit", wall, "s", LATE * seconds)
    told("own time of all its fits, over two cores", fits, "s")
    told("making features, over two cores (waiting for it included)", spent["features"] / CORES, "s")
    told("predicting held-out rows, over two cores", spent["predictions"] / CORES, "s")
    told("CPU time of mb.fit", cpu, "s", note=", ".join(f"{k} {spent[f'{k}: cpu']:.2f}" for k in places if k != "making"))
    lost(spans, start, end)
    told("overhead: wall time over that of the fits, less one", wall / fits - 1 if fits else float("inf"), "", OVERHEAD)
    return model


# --- predict --------------------------------------------------------------------------------------------------------------------------


def fitted_parts(model: Any) -> tuple[list[tuple[Any, Callable[[Any], Any]]], list[Any]]:
    "Of a blend or a single model: estimators with the transformer that each wants, and all transformers."
    made = model.pipeline
    if not hasattr(made, "members_"):
        return [(made.named_steps["estimator"], made.named_steps["features"].transform)], [made.named_steps["features"]]
    pairs = [(estimator, made.features_[fold][m["style"]].transform) for m in made.members_ for fold, estimator in zip(m["folds"], m["estimators"])]
    used = {(fold, m["style"]) for m in made.members_ for fold in m["folds"]}
    return pairs, [made.features_[fold][style] for fold, style in sorted(used)]


def quickest(work: Callable[[], Any], times: int = 3) -> float:
    "Seconds of the quickest of some calls."
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def all_features(model: Any, frame: pd.DataFrame) -> None:
    "Make the features of all folds, as the model does."
    from mlbench.features.sharing import SharedRows

    if not hasattr(model.pipeline, "members_"):
        model.pipeline.named_steps["features"].transform(frame)
        return
    rows = SharedRows(frame)
    for fold, made in enumerate(model.pipeline.features_):
        for style in sorted({m["style"] for m in model.pipeline.members_ if fold in m["folds"]}):
            rows.through(made[style])
        rows.next_fold()


def predicting(model: Any, rows: int) -> None:
    "Rows per second of the model and of its parts."
    from mlbench.training.fitting import limited_threads, output_of

    frame = mixed_table(rows, seed=1).drop(columns="left")
    pairs, transformers = fitted_parts(model)
    conformed = model.conform(frame)
    with limited_threads(0, conformed.size):
        features = quickest(lambda: all_features(model, conformed))
        members = 0.0
        for estimator, change in pairs:
            seen = change(conformed)
            members += quickest(lambda e=estimator, x=seen: output_of(e, x, 2))
    whole = quickest(lambda: model.predict_proba(frame))
    print(f"## predict: {rows:,} rows, {len(pairs)} estimators, {len(transformers)} transformers")
    told("rows per second of the model", rows / whole, "rows/s")
    told("rows per second of its members' own predictions", rows / members, "rows/s", note=f"the model has {members / whole:.0%} of it")
    told("features of all folds and styles", features, "s")
    told("members", members, "s")
    told("all of the prediction", whole, "s", note=f"{whole - features - members:+.3f} s beside both")


def storing(model: Any) -> None:
    "Seconds to write a model and to open it, and the size of its file."
    from mlbench.training.store import estimator_bytes, read_estimator

    data = estimator_bytes(model.pipeline)
    told("size of the file", len(data) / 1e6, "MB")
    told("writing it", quickest(lambda: estimator_bytes(model.pipeline), 2), "s")
    told("opening it", quickest(lambda: read_estimator(data), 2), "s")


# --- growth ---------------------------------------------------------------------------------------------------------------------------


ROOM = 0.75  # share of the free memory that a fit may take


def free_memory() -> float:
    "MB that no process uses."
    import psutil

    return float(psutil.virtual_memory().available) / 2**20


def one_size(rows: int, seconds: float, alone: bool) -> dict[str, float]:
    "In this process: one fit, its time, and the most memory."
    import mlbench as mb

    room = ROOM * free_memory() * 2**20 / 1e9
    start = time.perf_counter()
    frame = mixed_table(rows)
    mb.fit(frame.head(300), target="left", time_limit=2)
    made, before = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    given = {"models": ["lightgbm"]} if alone else {"time_limit": seconds}
    model = mb.fit(frame, target="left", memory_gb=room, **given)
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table = float(frame.memory_usage(deep=True).sum()) / 2**20
    name = next(iter(model.metrics), "")
    return {"rows": rows, "seconds": took, "making": made, "before": before, "peak": peak, "table": table, name: float(model.metrics.get(name, np.nan))}


def _wanted(before: dict[str, float], rows: int) -> float:
    "MB that a fit will take, if it grows as the rows do."
    return before["before"] + (before["peak"] - before["before"]) * rows / before["rows"]


def growth(sizes: list[int], seconds: float) -> None:
    "Fits of growing size, each in a process of its own."
    for alone, title in ((False, f"all candidates within {seconds:g} s"), (True, "one LightGBM on all folds, no limit")):
        print(f"## growth: {title}")
        found: list[dict[str, float]] = []
        for rows in sorted(sizes):
            wanted = _wanted(found[-1], rows) if found else 0.0
            if wanted > ROOM * free_memory():
                print(f"{rows:,} rows are left out: they would want about {wanted:,.0f} MB, and {free_memory():,.0f} MB are free")
                continue
            command = [sys.executable, __file__, "--one", json.dumps([rows, seconds, alone])]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
            found.append(json.loads(done.stdout.strip().splitlines()[-1]))
            f = found[-1]
            note = f"peak {f['peak']:,.0f} MB ({f['before']:,.0f} before it), table {f['table']:,.0f} MB"
            told(f"{rows:,} rows", f["seconds"], "s", None if alone else LATE * seconds, note)
        if len(found) > 1:
            times = found[-1]["rows"] / found[0]["rows"]
            longer, more = found[-1]["seconds"] / found[0]["seconds"], found[-1]["peak"] / found[0]["peak"]
            print(f"{times:g} times the rows: {longer:.3g} times the time, {more:.3g} times the memory")


# --- the command ----------------------------------------------------------------------------------------------------------------------


def main() -> int:
    "Print every figure."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows = options.whole("the rows of a table", FEWEST, 10_000)
    growth_of = options.wholes("the sizes of tables in rows", FEWEST, "10000,100000")
    parser.add_argument("--parts", default=list(PARTS), type=options.names("part", PARTS), help="some of fit, predict, growth")
    parser.add_argument("--seconds", type=options.seconds, default=60.0, help="limit of a fit")
    parser.add_argument("--rows", type=rows, default=10_000, help="of the table of fit and predict")
    parser.add_argument("--growth", type=growth_of, default=[10_000, 100_000, 1_000_000], help="sizes of the part growth")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one_size(*json.loads(given.one))))
        return 0
    parts = given.parts
    if "fit" in parts or "predict" in parts:
        model = fitting(given.rows, given.seconds)
        if "predict" in parts:
            for rows in sorted({1, 100, given.rows}):
                predicting(model, rows)
            storing(model)
    if "growth" in parts:
        growth(given.growth, given.seconds)
    print(f"missed: {', '.join(MISSED)}" if MISSED else "every bar is met")
    return int(bool(MISSED))


if __name__ == "__main__":
    sys.exit(main())
