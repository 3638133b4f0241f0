"""How good the predictions are at equal time: mlbench beside AutoGluon, FLAML, mljar-supervised and default CatBoost, LightGBM and XGBoost.

    python benchmarks/quality.py                                        all tables, all systems, 60 s and 2 cores each (over an hour)
    python benchmarks/quality.py --tables titanic,wine --systems mlbench,catboost --seconds 10
    python benchmarks/quality.py --out results.json --resume            goes on where it was interrupted
    python benchmarks/quality.py --out results.json --resume --again mlbench
    python benchmarks/quality.py --out results.json --report            only prints what is there

The tables are those of ../shared/data (`benchmarks/peers/tables.py`), a quarter of the rows is held out. One fit at a time, each in a
process of its own, each system in its own environment, which is made under --cache. Every system is told the task, the metric, the
time and the cores. A fit that runs three times as long as it may is ended and has failed.

Headline: log loss for classes, RMSE for values; beside it ROC AUC, accuracy or MAE. Normalised: 0 is the constant predictor (training
shares or mean), 1 the best system of the table. "*": the paired bootstrap of the test rows (95%) does not tell it from the best one.

The bars of mlbench: best mean rank, best mean normalised score, on no table behind default CatBoost by more than 1% of CatBoost's gap
to the constant predictor. Exit code 1 when all systems were run and one bar is missed.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from peers import scoring
from peers.tables import TABLES, Table, data_folder, frame_of, split

PEERS = Path(__file__).resolve().parent / "peers"
SYSTEMS = ("mlbench", "autogluon", "flaml", "mljar", "catboost", "lightgbm", "xgboost")
CORES = 2
KILL = 3.0  # times the limit
AROUND = 120.0  # seconds more for starting, reading and predicting
BEHIND = 0.01
OVER = 1.1  # times the limit: from there on a fit is said to be over it
LIMITED = SYSTEMS[:4]  # the others have no limit to be told


# --- environments ---------------------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    "Where environments are kept when nothing is said."
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlbench-benchmarks"


def python_of(system: str, cache: Path) -> Path:
    "The interpreter of a system's environment, which is made when it is not there or its requirements have changed."
    if system == "mlbench":
        return Path(sys.executable)
    wanted, folder = PEERS / f"{system}.txt", cache / system
    key, made, python = hashlib.sha256(wanted.read_bytes()).hexdigest(), folder / "made-from.txt", folder / "bin" / "python"
    if made.exists() and made.read_text() == key:
        return python
    print(f"making the environment of {system} in {folder}", flush=True)
    if not python.exists():
        subprocess.run([getattr(sys, "_base_executable", sys.executable), "-m", "venv", str(folder)], check=True)
    for line in [[p] for p in wanted.read_text().split() if p.startswith("torch==")] + [["-r", str(wanted)]]:  # torch first: the build without CUDA
        done = subprocess.run([str(python), "-m", "pip", "install", "--quiet", *line], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the environment of {system} cannot be made:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    made.write_text(key)
    return python


# --- one fit --------------------------------------------------------------------------------------------------------------------------


def adopt_orphans() -> None:
    "Processes whose parent ends become children of this one, so that their memory is counted and they can be ended (Linux)."
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)


def family() -> list[psutil.Process]:
    "All processes that this one has started, directly or not."
    return psutil.Process().children(recursive=True)


def resident() -> float:
    "Memory of all of them in MB; what they share is counted for each."
    total = 0
    for process in family():
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total / 2**20


def end_family() -> None:
    "End what a worker has left."
    for process in family():
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(family(), timeout=10)


def start_worker(python: Path, folder: Path) -> subprocess.Popen[bytes]:
    "The worker on two cores, in a folder of its own; what it prints goes to a file."
    cores = sorted(os.sched_getaffinity(0))[:CORES] if hasattr(os, "sched_getaffinity") else []
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS") and not k.startswith(("MLBENCH_", "PYTHON"))}
    said = (folder / "said.txt").open("wb")
    command = [str(python), str(PEERS / "worker.py"), str(folder)]
    start = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    return subprocess.Popen(command, cwd=folder, env=env, stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, preexec_fn=start)


def watched(worker: subprocess.Popen[bytes], folder: Path, seconds: float) -> tuple[float, str]:
    "Wait for a worker: the most memory of it and its children at once in MB, and why it was ended, if it was."
    begin, fit_began, peak, why = time.monotonic(), 0.0, 0.0, ""
    while worker.poll() is None:
        peak = max(peak, resident())
        now, phase = time.monotonic(), (folder / "phase").read_text() if (folder / "phase").exists() else ""
        fit_began = fit_began or (now if phase else 0.0)
        if phase == "fit" and now - fit_began > KILL * seconds:
            why = f"ended after {KILL:g} times the limit"
        elif now - begin > KILL * seconds + AROUND:
            why = f"ended in '{phase or 'start'}' after {now - begin:.0f} s"
        if why:
            break
        time.sleep(0.1)
    return peak, why


def last_words(folder: Path) -> str:
    "The last line that a worker printed, cut."
    lines = (folder / "said.txt").read_text(errors="replace").strip().splitlines()
    return (lines[-1] if lines else "no word").strip()[:200]


def one_fit(python: Path, job: dict[str, Any], train: pd.DataFrame, test: pd.DataFrame) -> tuple[dict[str, Any], np.ndarray | None]:
    "Fit and predict in a process of its own: what is known of it, and the predictions."
    folder = Path(tempfile.mkdtemp(prefix="quality-"))
    try:
        train.to_parquet(folder / "train.parquet")
        test.drop(columns=job["target"]).to_parquet(folder / "test.parquet")
        (folder / "job.json").write_text(json.dumps(job))
        begin = time.monotonic()
        worker = start_worker(python, folder)
        peak, why = watched(worker, folder, job["seconds"])
        took = time.monotonic() - begin
        end_family()
        worker.wait()
        known: dict[str, Any] = {"memory": round(peak, 1), "process": round(took, 2), "when": time.strftime("%Y-%m-%d %H:%M")}
        if why or not (folder / "done.json").exists():
            return known | {"failed": why or f"{signal_name(worker.returncode)}: {last_words(folder)}"}, None
        return known | json.loads((folder / "done.json").read_text()), np.load(folder / "predictions.npy")
    finally:
        end_family()
        shutil.rmtree(folder, ignore_errors=True)


def signal_name(code: int) -> str:
    "How a process ended, in a word."
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


# --- results --------------------------------------------------------------------------------------------------------------------------


class Results:
    "What is known so far: a JSON file, and beside it a folder of predictions."

    def __init__(self, path: Path, settings: dict[str, Any], keep: bool) -> None:
        self.path, self.rows = path, path.with_name(path.stem + "-predictions")
        self.known: dict[str, Any] = {"settings": settings, "tables": {}, "results": {}}
        if keep and path.exists():
            self.known = json.loads(path.read_text())
        self.rows.mkdir(parents=True, exist_ok=True)

    def save(self) -> None:
        "Write all, whole or not at all."
        temporary = self.path.with_name(self.path.name + ".part")
        temporary.write_text(json.dumps(self.known, indent=1))
        temporary.replace(self.path)

    def add_table(self, table: Table, train: pd.DataFrame, test: pd.DataFrame, classes: list[str]) -> None:
        "Keep what scoring needs of a table."
        y, known = coded(train[table.target], classes), coded(test[table.target], classes)
        least = scoring.constant(table.task, y, len(test), len(classes))
        np.save(self.rows / f"{table.name}.truth.npy", known)
        self.known["tables"][table.name] = {
            "task": table.task, "target": table.target, "train": len(train), "test": len(test), "columns": train.shape[1] - 1, "classes": classes,
            "constant": scoring.of_rows(table.task, scoring.row_losses(table.task, known, least)),
            "constant_second": scoring.second_score(table.task, known, least),
        }  # fmt: skip

    def add(self, table: str, system: str, found: dict[str, Any], predictions: np.ndarray | None) -> None:
        "Keep one fit, with its scores."
        if predictions is not None:
            np.save(self.rows / f"{table}.{system}.npy", predictions.astype(np.float64 if predictions.ndim == 1 else np.float32))
            outcome = self.outcome(table, system, found)
            found = found | {"score": outcome.score, "second": outcome.second}
        self.known["results"].setdefault(table, {})[system] = found
        self.save()

    def outcome(self, table: str, system: str, found: dict[str, Any]) -> scoring.Outcome:
        "A fit as scoring wants it."
        about = self.known["tables"][table]
        if "failed" in found:
            return scoring.Outcome(system, math.inf, memory=found["memory"], note="FAILED: " + found["failed"])
        y, predicted = np.load(self.rows / f"{table}.truth.npy"), np.load(self.rows / f"{table}.{system}.npy")
        rows, second = scoring.row_losses(about["task"], y, predicted), scoring.second_score(about["task"], y, predicted)
        values = (found["fit"], found["predict"], found["memory"], found["note"])
        return scoring.Outcome(system, scoring.of_rows(about["task"], rows), second, rows, *values)

    def outcomes(self, table: str, systems: list[str]) -> list[scoring.Outcome]:
        "The fits of a table, of the systems asked for."
        found = self.known["results"].get(table, {})
        return [self.outcome(table, s, found[s]) for s in systems if s in found]


def coded(y: pd.Series, classes: list[str]) -> np.ndarray:
    "Codes of classes, or values."
    return np.array([classes.index(str(v)) for v in y]) if classes else y.to_numpy(dtype=float)


# --- printing -------------------------------------------------------------------------------------------------------------------------


def over_limit(o: scoring.Outcome, limit: float) -> bool:
    "Whether a fit that was told a limit took more than a tenth longer."
    return o.system in LIMITED and o.fit > OVER * limit


def table_text(table: str, about: dict[str, Any], found: list[scoring.Outcome], lines: list[dict[str, Any]], limit: float) -> str:
    "One table of the report, best system first."
    task, of = about["task"], {o.system: o for o in found}
    first, second = scoring.HEADLINE[task], scoring.SECOND[task]
    classes = f", {len(about['classes'])} classes" if about["classes"] else ""
    what = f"{task} of {about['target']}{classes}; {about['train']:,} + {about['test']:,} rows, {about['columns']} columns"
    head = f"{'':<12}{first:>12}{second:>11}{'normalised':>12}{'rank':>6}{'behind CB':>11}{'fit s':>8}{'predict s':>11}{'MB':>7}"
    out = [f"## {table}: {what}", head, f"{'(constant)':<12}{about['constant']:>12.5g}{about['constant_second']:>11.4g}{0:>12.3f}"]
    for line in lines:
        o = of[line["system"]]
        over = "  over the limit" if over_limit(o, limit) else ""
        score = f"{o.score:.5g}{'*' if line['near'] else ' '}" if not o.failed else "- "
        behind = "" if math.isnan(line["shortfall"]) or o.failed else f"{line['shortfall']:.1%}"
        figures = f"{score:>13}{o.second:>10.4g}{line['normalised']:>12.3f}{line['rank']:>6.3g}{behind:>11}{o.fit:>8.1f}{o.predict:>11.2f}{o.memory:>7.0f}"
        out.append(f"{o.system:<12}{figures}  {o.note}{over}".rstrip())
    return "\n".join(out)


def summary_text(made: list[dict[str, Any]], found: dict[str, list[scoring.Outcome]], tables: dict[str, Any], limit: float) -> str:
    "The systems over all tables that each of them has."
    if not made:
        return "no table has results of every system"
    head = f"{'':<12}{'mean rank':>10}{'2nd metric':>12}{'normalised':>12}{'first':>7}{'near best':>11}{'over':>6}{'failed':>8}{'MB':>7}"
    head += "   furthest behind CatBoost"
    out = [f"## all: {made[0]['tables']} tables (mean rank by the headline, and by the metric printed second)", head]
    seconds = second_ranks(found, tables)
    for line in made:
        mine = [o for outcomes in found.values() for o in outcomes if o.system == line["system"]]
        over, failed = sum(over_limit(o, limit) for o in mine), sum(o.failed for o in mine)
        behind = "" if math.isnan(line["shortfall"]) else f"{line['shortfall']:.1%} ({line['worst']})"
        counts = f"{line['first']:>7}{line['near']:>11}{over:>6}{failed:>8}{max(o.memory for o in mine):>7.0f}"
        out.append(f"{line['system']:<12}{line['rank']:>10.2f}{seconds[line['system']]:>12.2f}{line['normalised']:>12.3f}{counts}   {behind}")
    return "\n".join(out)


def second_ranks(found: dict[str, list[scoring.Outcome]], tables: dict[str, Any]) -> dict[str, float]:
    "Mean ranks by the second metric."
    places: dict[str, list[float]] = {}
    for name, outcomes in found.items():
        sign = -1 if scoring.SECOND[tables[name]["task"]] in scoring.HIGHER else 1
        for system, rank in scoring.ranks({o.system: sign * o.second if np.isfinite(o.second) else math.inf for o in outcomes}).items():
            places.setdefault(system, []).append(rank)
    return {system: float(np.mean(values)) for system, values in places.items()}


def bars(made: list[dict[str, Any]]) -> list[str]:
    "What mlbench misses; nothing when it was not run with all others."
    of = {line["system"]: line for line in made}
    if set(of) != set(SYSTEMS):
        return []
    own, others = of["mlbench"], [line for line in made if line["system"] != "mlbench"]
    missed = []
    if own["rank"] > min(line["rank"] for line in others):
        missed.append(f"mean rank {own['rank']:.2f} is not the best")
    if own["normalised"] < max(line["normalised"] for line in others):
        missed.append(f"mean normalised score {own['normalised']:.3f} is not the best")
    if own["shortfall"] > BEHIND:
        missed.append(f"on {own['worst']} it is behind default CatBoost by {own['shortfall']:.1%} of the gap to the constant predictor")
    return missed


def report(results: Results, systems: list[str], tables: list[str]) -> list[str]:
    "Print all that is known; the bars that are missed."
    known, limit = results.known, results.known["settings"]["seconds"]
    there = [t for t in tables if known["results"].get(t)]
    found = {t: results.outcomes(t, systems) for t in there}
    lines = {t: scoring.of_table(known["tables"][t]["task"], o, known["tables"][t]["constant"]) for t, o in found.items() if o}
    for t, ranked in lines.items():
        print(table_text(t, known["tables"][t], found[t], ranked, limit) + "\n")
    made = scoring.summary(lines)
    whole = {t: o for t, o in found.items() if len(o) == len(made)}
    print(summary_text(made, whole, known["tables"], limit))
    print("\nversions: " + ", ".join(f"{name} {v}" for name, v in sorted(all_versions(known).items())))
    missed = bars(made)
    print("\n".join(f"MISSED: {m}" for m in missed) if missed else "every bar is met" if {m["system"] for m in made} == set(SYSTEMS) else "")
    return missed


def all_versions(known: dict[str, Any]) -> dict[str, str]:
    "What the systems were, the last run of each."
    return {f"{s}/{n}" if n != s else n: v for found in known["results"].values() for s, f in found.items() for n, v in f.get("versions", {}).items()}


# --- the command ----------------------------------------------------------------------------------------------------------------------


def chosen(given: str | None, known: list[str], what: str) -> list[str]:
    "Names from an option, in the order of the list."
    if not given:
        return known
    names = [n.strip() for n in given.split(",") if n.strip()]
    unknown = [n for n in names if n not in known]
    if unknown:
        raise SystemExit(f"no {what} {', '.join(unknown)}: there are {', '.join(known)}.")
    return [n for n in known if n in names]


def arguments() -> argparse.Namespace:
    "What the command line says."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="limit of each fit (default 60)")
    parser.add_argument("--tables", help=f"some of {', '.join(TABLES)}")
    parser.add_argument("--systems", help=f"some of {', '.join(SYSTEMS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the rows and of the systems")
    parser.add_argument("--data", help="folder of the data (default ../shared/data beside the checkout)")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where the environments are kept")
    parser.add_argument("--out", type=Path, help="results as JSON; predictions lie in a folder beside it")
    parser.add_argument("--resume", action="store_true", help="keep what --out holds and do the rest")
    parser.add_argument("--again", help="systems to run again although --out holds them")
    parser.add_argument("--report", action="store_true", help="run nothing, print what --out holds")
    return parser.parse_args()


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    "What results must share to stand in one table."
    return {"seconds": given.seconds, "seed": given.seed, "cores": CORES}


def run(results: Results, given: argparse.Namespace, tables: list[str], systems: list[str], again: list[str]) -> None:
    "All fits that are not there yet, one after another."
    adopt_orphans()
    folder, pythons = data_folder(given.data), {s: python_of(s, given.cache) for s in systems}
    for name in tables:
        todo = [s for s in systems if s in again or s not in results.known["results"].get(name, {})]
        if not todo:
            continue
        table = TABLES[name]
        train, test = split(table, frame_of(table, folder), given.seed)
        classes = [] if table.task == "regression" else [str(c) for c in sorted(train[table.target].unique())]
        results.add_table(table, train, test, classes)
        for system in todo:
            job = {"system": system, "task": table.task, "target": table.target, "classes": classes} | settings_of(given)
            found, predictions = one_fit(pythons[system], job, train, test)
            results.add(name, system, found, predictions)
            kept = results.known["results"][name][system]
            told = f"failed: {kept['failed']}" if "failed" in kept else f"{kept['score']:.5g}, fit {kept['fit']:.1f} s, predict {kept['predict']:.2f} s"
            print(f"{time.strftime('%H:%M:%S')} {name} {system}: {told}, {kept['memory']:.0f} MB", flush=True)


def main() -> int:
    "Run what is asked for and print all."
    given = arguments()
    tables, systems = chosen(given.tables, list(TABLES), "table"), chosen(given.systems, list(SYSTEMS), "system")
    settings = settings_of(given)
    if (given.report or given.resume) and not given.out:
        raise SystemExit("--report and --resume need --out FILE, the results to read.")
    if given.report and not given.out.exists():
        raise SystemExit(f"{given.out} is not there: run without --report first.")
    with tempfile.TemporaryDirectory() as scratch:
        results = Results(given.out or Path(scratch) / "quality.json", settings, given.report or given.resume)
        if not given.report:
            if results.known["settings"] != settings:
                raise SystemExit(f"{given.out} was made with {results.known['settings']}, now asked for is {settings}: name another file with --out.")
            run(results, given, tables, systems, chosen(given.again, list(SYSTEMS), "system") if given.again else [])
            print()
        return int(bool(report(results, systems, tables)))


if __name__ == "__main__":
    sys.exit(main())
