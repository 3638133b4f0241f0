"""How good the predictions are at equal time: mlbench beside AutoGluon, FLAML, mljar-supervised and default CatBoost, LightGBM and XGBoost.

    python benchmarks/quality.py                                        all tables, all systems, 60 s and 2 cores each (over an hour)
    python benchmarks/quality.py --tables titanic,wine --systems mlbench,catboost --seconds 10
    python benchmarks/quality.py --tables titanic,ames --splits 5       means over five splits, for tables of few rows
    python benchmarks/quality.py --out results.json --resume            goes on where it was interrupted
    python benchmarks/quality.py --out results.json --resume --splits 5 adds splits 1 to 4 to the one that is there
    python benchmarks/quality.py --out results.json --resume --again mlbench
    python benchmarks/quality.py --out results.json --report            only prints what is there

The tables are those of ../shared/data (`benchmarks/peers/tables.py`), a quarter of the rows is held out. One fit at a time, each in a
process of its own, each system in its own environment, which is made under --cache. Every system is told the task, the metric, the
time and the cores. A fit that runs three times as long as it may is ended and has failed.

Headline: log loss for classes, RMSE for values; beside it ROC AUC, accuracy or MAE. Normalised: 0 is the constant predictor (training
shares or mean), 1 the best system of the table. "*": the paired bootstrap of the test rows (95%) does not tell it from the best one.

Splits: on a few hundred test rows one split says little. --splits N fits every system on N of them, split after split; number k is
drawn with --seed + k, which the systems are given too, so the first is the one of a run without --splits. Scores are then means over the
splits that all systems of a table have, and ranks and normalised scores come from these means; a fit that failed on one of them counts as
the constant predictor. "*" is then the corrected t interval over splits (95%; Nadeau and Bengio, 2003). Behind CatBoost is the mean over
the splits that both have, with its standard error (corrected likewise) and their number in brackets.

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
from common import options
from peers import scoring
from peers.tables import TABLES, Table, data_folder, frame_of, missing_files, split

PEERS = Path(__file__).resolve().parent / "peers"
SYSTEMS = ("mlbench", "autogluon", "flaml", "mljar", "catboost", "lightgbm", "xgboost")
CORES = 2
KILL = 3.0  # times the limit
AROUND = 120.0  # seconds more for starting, reading and predicting
BEHIND = 0.01
OVER = 1.1  # times the limit: from there on a fit is said to be over it
INTERRUPTED = 130  # the exit code of a program that Ctrl-C has ended
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
    steps = [] if python.exists() else [[getattr(sys, "_base_executable", sys.executable), "-m", "venv", str(folder)]]
    first = [[p] for p in wanted.read_text().split() if p.startswith("torch==")]  # the build without CUDA
    for step in [*steps, *([str(python), "-m", "pip", "install", "--quiet", *line] for line in [*first, ["-r", str(wanted)]])]:
        done = subprocess.run(step, capture_output=True, text=True)
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


def cell(table: str, number: int) -> str:
    "The name of one split of a table, in the results and in the names of files; the first one has the table's own."
    return f"{table}@{number}" if number else table


class Results:
    "What is known so far: a JSON file, and beside it a folder of predictions. Both name splits as `cell` does."

    def __init__(self, path: Path, settings: dict[str, Any], keep: bool) -> None:
        self.path, self.rows = path, path.with_name(path.stem + "-predictions")
        self.known: dict[str, Any] = {"settings": settings, "tables": {}, "results": {}}
        if keep and path.exists():
            self.known = read_results(path)
        self.rows.mkdir(parents=True, exist_ok=True)

    def save(self) -> None:
        "Write all, whole or not at all."
        temporary = self.path.with_name(self.path.name + ".part")
        temporary.write_text(json.dumps(self.known, indent=1))
        temporary.replace(self.path)

    def add_table(self, name: str, table: Table, train: pd.DataFrame, test: pd.DataFrame, classes: list[str]) -> None:
        "Keep what scoring needs of a table's split; ends the program where fits are kept that were judged on other rows."
        y, known = coded(train[table.target], classes), coded(test[table.target], classes)
        if self.known["results"].get(name) and not np.array_equal(self.array(name, "truth"), known):
            raise SystemExit(f"{self.path} holds fits that were judged on other rows of {name} than the data give now: name another file with --out.")
        least = scoring.constant(table.task, y, len(test), len(classes))
        np.save(self.rows / f"{name}.truth.npy", known)
        self.known["tables"][name] = {
            "task": table.task, "target": table.target, "train": len(train), "test": len(test), "columns": train.shape[1] - 1, "classes": classes,
            "constant": scoring.of_rows(table.task, scoring.row_losses(table.task, known, least)),
            "constant_second": scoring.second_score(table.task, known, least),
        }  # fmt: skip

    def array(self, name: str, what: str) -> np.ndarray:
        "True values or predictions of one split."
        path = self.rows / f"{name}.{what}.npy"
        if not path.exists():
            raise SystemExit(f"{path} is not there: {self.path.name} and the folder {self.rows.name} belong together.")
        return np.load(path)

    def add(self, name: str, system: str, found: dict[str, Any], predictions: np.ndarray | None) -> None:
        "Keep one fit, with its scores."
        if predictions is not None:
            np.save(self.rows / f"{name}.{system}.npy", predictions.astype(np.float64 if predictions.ndim == 1 else np.float32))
            outcome = self.outcome(name, system, found)
            found = found | {"score": outcome.score, "second": outcome.second}
        self.known["results"].setdefault(name, {})[system] = found
        self.save()

    def mark(self, names: list[str], systems: list[str]) -> None:
        "Fits that are to be made again; each keeps its mark until it has been, so that this too goes on where it was interrupted."
        for found in (self.known["results"].get(name, {}) for name in names):
            for system in set(systems) & set(found):
                found[system]["again"] = True
        self.save()

    def wanted(self, name: str, systems: list[str]) -> list[str]:
        "Systems that are not fitted yet on a split, or are to be fitted again."
        found = self.known["results"].get(name, {})
        return [s for s in systems if s not in found or found[s].get("again")]

    def outcome(self, name: str, system: str, found: dict[str, Any]) -> scoring.Outcome:
        "A fit as scoring wants it."
        about = self.known["tables"][name]
        if "failed" in found:
            return scoring.Outcome(system, math.inf, memory=found["memory"], note="FAILED: " + found["failed"])
        y, predicted = self.array(name, "truth"), self.array(name, system)
        rows, second = scoring.row_losses(about["task"], y, predicted), scoring.second_score(about["task"], y, predicted)
        values = (found["fit"], found["predict"], found["memory"], found["note"])
        return scoring.Outcome(system, scoring.of_rows(about["task"], rows), second, rows, *values)

    def fits(self, table: str, systems: list[str], splits: int | None = None) -> scoring.Fits:
        "The fits of a table, of the systems asked for, on the first so many splits; None takes all."
        numbers = [int(number or 0) for found in self.known["results"] for name, _, number in [found.partition("@")] if name == table]
        kept: dict[str, dict[int, scoring.Outcome]] = {}
        for number in sorted(n for n in numbers if splits is None or n < splits):
            found = self.known["results"][cell(table, number)]
            for system in (s for s in systems if s in found):
                kept.setdefault(system, {})[number] = self.outcome(cell(table, number), system, found[system])
        about = {n: self.known["tables"][cell(table, n)] for n in sorted({n for of in kept.values() for n in of})}
        first: dict[str, Any] = next(iter(about.values()), {"task": "", "train": 1, "test": 0})
        constant = {n: (a["constant"], a["constant_second"]) for n, a in about.items()}
        return scoring.Fits(first["task"], constant, first["test"] / first["train"], {s: kept[s] for s in systems if s in kept})


def read_results(path: Path) -> dict[str, Any]:
    "What an earlier run has written; ends the program where a file is something else."
    try:
        known = json.loads(path.read_text())
        whole = {"settings", "tables", "results"} <= set(known) and set(known["results"]) <= set(known["tables"])
    except (ValueError, TypeError):  # no text, no JSON, or no object
        whole = False
    if not whole:
        raise SystemExit(f"{path} holds no results of this benchmark: name a file that an earlier run has written with --out, or a new one.")
    return known


def coded(y: pd.Series, classes: list[str]) -> np.ndarray:
    "Codes of classes, or values."
    return np.array([classes.index(str(v)) for v in y]) if classes else y.to_numpy(dtype=float)


# --- printing -------------------------------------------------------------------------------------------------------------------------


def over_limit(o: scoring.Outcome, limit: float) -> bool:
    "Whether a fit that was told a limit took more than a tenth longer."
    return o.system in LIMITED and o.fit > OVER * limit


def splits_words(numbers: list[int]) -> str:
    "How many splits figures rest on; nothing for the first one alone, which is the usual case."
    if numbers in ([], [0]):
        return ""
    several = "split" if len(numbers) == 1 else "means of the splits"
    return f"; {several} {', '.join(map(str, numbers))}"


def share(line: dict[str, Any]) -> str:
    "How far behind, with its standard error and the number of splits where there are several."
    if math.isnan(line["shortfall"]):
        return ""
    error = "" if math.isnan(line["error"]) or not line["error"] else f" ± {line['error']:.1%} ({line['splits']})"
    return f"{line['shortfall']:.1%}{error}"


def table_text(table: str, about: dict[str, Any], fits: scoring.Fits, lines: list[dict[str, Any]], limit: float) -> str:
    "One table of the report, best system first."
    first, second = scoring.HEADLINE[fits.task], scoring.SECOND[fits.task]
    classes = f", {len(about['classes'])} classes" if about["classes"] else ""
    what = f"{fits.task} of {about['target']}{classes}; {about['train']:,} + {about['test']:,} rows, {about['columns']} columns"
    behind = {line["system"]: "" if line["mean"].failed else share(line) for line in lines}
    width, least = max(11, *(len(b) + 2 for b in behind.values())), fits.least()
    head = f"{'':<12}{first:>12}{second:>11}{'normalised':>12}{'rank':>6}{'behind CB':>{width}}{'fit s':>8}{'predict s':>11}{'MB':>7}"
    out = [f"## {table}: {what}{splits_words(fits.shared)}", head, f"{'(constant)':<12}{least[0]:>12.5g}{least[1]:>11.4g}{0:>12.3f}"]
    for line in lines:
        o, late = line["mean"], sum(over_limit(fits.of[line["system"]][s], limit) for s in fits.shared)
        over = "" if not late else "  over the limit" if len(fits.shared) == 1 else f"  over the limit on {late} of {len(fits.shared)}"
        score = f"{o.score:.5g}{'*' if line['near'] else ' '}" if not o.failed else "- "
        figures = f"{score:>13}{o.second:>10.4g}{line['normalised']:>12.3f}{line['rank']:>6.3g}{behind[o.system]:>{width}}"
        out.append(f"{o.system:<12}{figures}{o.fit:>8.1f}{o.predict:>11.2f}{o.memory:>7.0f}  {o.note}{over}".rstrip())
    return "\n".join(out)


def basis(found: dict[str, scoring.Fits]) -> str:
    "How many splits of which tables the means rest on; nothing where it is the first one of each."
    if all(fits.shared == [0] for fits in found.values()):
        return ""
    of: dict[int, list[str]] = {}
    for name, fits in found.items():
        of.setdefault(len(fits.shared), []).append(name)
    return "\nsplits: " + "; ".join(f"{n} of {', '.join(names)}" for n, names in sorted(of.items(), reverse=True))


def summary_text(lines: dict[str, list[dict[str, Any]]], found: dict[str, scoring.Fits], limit: float) -> str:
    "The systems over all tables that each of them has."
    made = scoring.summary(lines)
    whole = {t: fits for t, fits in found.items() if t in lines and len(lines[t]) == len(made)}
    if not whole:
        return "no table has results of every system on the same split"
    head = f"{'':<12}{'mean rank':>10}{'2nd metric':>12}{'normalised':>12}{'first':>7}{'near best':>11}{'over':>6}{'failed':>8}{'MB':>7}"
    head += "   furthest behind CatBoost"
    out = [f"## all: {len(whole)} tables (mean rank by the headline, and by the metric printed second){basis(whole)}", head]
    seconds = second_ranks({t: lines[t] for t in whole}, whole)
    for line in made:
        mine = [fits.of[line["system"]][s] for fits in whole.values() for s in fits.shared]
        over, failed = sum(over_limit(o, limit) for o in mine), sum(o.failed for o in mine)
        behind = f"{share(line)} on {line['worst']}" if line["worst"] else ""
        counts = f"{line['first']:>7}{line['near']:>11}{over:>6}{failed:>8}{max(o.memory for o in mine):>7.0f}"
        out.append(f"{line['system']:<12}{line['rank']:>10.2f}{seconds[line['system']]:>12.2f}{line['normalised']:>12.3f}{counts}   {behind}".rstrip())
    return "\n".join(out)


def second_ranks(lines: dict[str, list[dict[str, Any]]], found: dict[str, scoring.Fits]) -> dict[str, float]:
    "Mean ranks by the second metric."
    places: dict[str, list[float]] = {}
    for name, ranked in lines.items():
        sign = -1 if scoring.SECOND[found[name].task] in scoring.HIGHER else 1
        values = {line["system"]: line["mean"].second for line in ranked}
        for system, rank in scoring.ranks({s: sign * v if np.isfinite(v) else math.inf for s, v in values.items()}).items():
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
        missed.append(f"on {own['worst']} it is behind default CatBoost by {share(own)} of the gap to the constant predictor")
    return missed


def report(results: Results, systems: list[str], tables: list[str], splits: int | None = None) -> list[str]:
    "Print all that is known; the bars that are missed."
    known, limit = results.known, results.known["settings"]["seconds"]
    found = {t: fits for t in tables if (fits := results.fits(t, systems, splits)).of}
    lines = {t: scoring.of_table(fits) for t, fits in found.items()}
    for t, ranked in lines.items():
        about = known["tables"][cell(t, min(found[t].constant))]
        print((table_text(t, about, found[t], ranked, limit) if ranked else f"## {t}: no split has results of every system") + "\n")
    lines = {t: ranked for t, ranked in lines.items() if ranked}
    print(summary_text(lines, found, limit))
    print("\nversions: " + ", ".join(f"{name} {v}" for name, v in sorted(all_versions(known).items())))
    old = [f"{s} on {name}" for name, of in known["results"].items() for s, f in of.items() if f.get("again")]
    print(*([f"to be run again, and told as they were until then: {', '.join(old)}"] if old else []), sep="\n", end="\n" if old else "")
    made = scoring.summary(lines)
    missed = bars(made)
    print("\n".join(f"MISSED: {m}" for m in missed) if missed else "every bar is met" if {m["system"] for m in made} == set(SYSTEMS) else "")
    return missed


def all_versions(known: dict[str, Any]) -> dict[str, str]:
    "What the systems were; several where they changed between runs."
    kept: dict[str, list[str]] = {}
    for system, name, v in ((s, n, v) for found in known["results"].values() for s, f in found.items() for n, v in f.get("versions", {}).items()):
        seen = kept.setdefault(f"{system}/{name}" if name != system else name, [])
        seen += [] if v in seen else [v]
    return {name: " and ".join(versions) for name, versions in kept.items()}


# --- the command ----------------------------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    "What the command line says; ends the program where it makes no sense."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    splits, seeds = options.whole("the number of splits", 1, 5, 1000), options.whole("a seed", 0, 7, options.LARGEST_SEED - 1000)
    tables, systems = options.names("table", list(TABLES)), options.names("system", SYSTEMS)
    parser.add_argument("--seconds", type=options.seconds, default=60.0, help="limit of each fit (default 60)")
    parser.add_argument("--tables", type=tables, default=list(TABLES), help=f"some of {', '.join(TABLES)}")
    parser.add_argument("--systems", type=systems, default=list(SYSTEMS), help=f"some of {', '.join(SYSTEMS)}")
    parser.add_argument("--splits", type=splits, help="how often each table is split anew (default 1; with --report all that --out holds)")
    parser.add_argument("--seed", type=seeds, default=0, help="of the rows and of the systems")
    parser.add_argument("--data", help="folder of the data (default ../shared/data beside the checkout)")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where the environments are kept")
    parser.add_argument("--out", type=Path, help="results as JSON, a new file unless --resume or --report is given; predictions lie in a folder beside it")
    parser.add_argument("--resume", action="store_true", help="keep what --out holds and do the rest")
    parser.add_argument("--again", type=systems, default=[], help="with --resume: systems to run again although --out holds them")
    parser.add_argument("--report", action="store_true", help="run nothing, print what --out holds")
    given = parser.parse_args()
    mistake = mistaken(given)
    if mistake:
        parser.error(mistake)
    return given


def mistaken(given: argparse.Namespace) -> str:
    "What is wrong with options taken together; nothing when all is well."
    if (given.report or given.resume) and not given.out:
        return "--report and --resume need --out FILE, the results to read."
    if given.report and not given.out.exists():
        return f"{given.out} is not there: run without --report first."
    if given.again and (given.report or not given.resume):
        return "--again needs --resume, and no --report: without results to go on from, every system is run anyway."
    left_out = [s for s in given.again if s not in given.systems]
    if left_out:
        return f"--again {','.join(left_out)} is not among --systems {','.join(given.systems)}."
    if given.out and (given.out.is_dir() or not given.out.name):
        return f"--out {given.out} is a folder: give a file in it, such as {given.out / 'results.json'}."
    if given.out and given.out.exists() and not (given.report or given.resume):
        return f"{given.out} is there already: add --resume to go on from it, --report to print it, or name another file."
    outer = [p for path in (given.out.parent if given.out else None, given.cache) if path for p in (path, *path.parents) if p.exists() and not p.is_dir()]
    return f"{outer[0]} is a file, and a folder has to be made there: give --out and --cache another place." if outer else ""


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    "What results must share to stand in one table."
    return {"seconds": given.seconds, "seed": given.seed, "cores": CORES}


def run(results: Results, given: argparse.Namespace) -> None:
    "All fits that are not there yet, one after another; all tables of a split before the next one."
    adopt_orphans()
    folder, splits = data_folder(given.data), range(given.splits or 1)
    names = [(cell(name, number), name, number) for number in splits for name in given.tables]
    if given.again:
        results.mark([name for name, _, _ in names], given.again)
    todo = [(*of, wanted) for of in names if (wanted := results.wanted(of[0], given.systems))]
    missing = sorted({f"{folder / file} ({name})" for _, name, _, _ in todo for file in missing_files(TABLES[name], folder)})
    if missing:
        raise SystemExit(f"not there: {', '.join(missing)}. Name the folder of the data with --data, or other tables with --tables.")
    pythons = {s: python_of(s, given.cache) for s in given.systems if any(s in wanted for *_, wanted in todo)}
    for where, name, number, wanted in todo:
        table, settings = TABLES[name], settings_of(given)
        train, test = split(table, frame_of(table, folder), given.seed + number)
        classes = [] if table.task == "regression" else [str(c) for c in sorted(train[table.target].unique())]
        results.add_table(where, table, train, test, classes)
        for system in wanted:
            job = {"system": system, "task": table.task, "target": table.target, "classes": classes} | settings | {"seed": given.seed + number}
            found, predictions = one_fit(pythons[system], job, train, test)
            results.add(where, system, found, predictions)
            kept = results.known["results"][where][system]
            told = f"failed: {kept['failed']}" if "failed" in kept else f"{kept['score']:.5g}, fit {kept['fit']:.1f} s, predict {kept['predict']:.2f} s"
            print(f"{time.strftime('%H:%M:%S')} {where} {system}: {told}, {kept['memory']:.0f} MB", flush=True)


def main() -> int:
    "Run what is asked for and print all."
    given = arguments()
    settings = settings_of(given)
    with tempfile.TemporaryDirectory() as scratch:
        results = Results(given.out or Path(scratch) / "quality.json", settings, given.report or given.resume)
        if not given.report:
            if results.known["settings"] != settings:
                raise SystemExit(f"{given.out} was made with {results.known['settings']}, now asked for is {settings}: name another file with --out.")
            try:
                run(results, given)
            except KeyboardInterrupt:
                print(f"\ninterrupted; {f'{given.out} holds what was done, and --resume goes on from it' if given.out else 'nothing is kept without --out'}")
                return INTERRUPTED
            print()
        return int(bool(report(results, given.systems, given.tables, given.splits)))


if __name__ == "__main__":
    sys.exit(main())
