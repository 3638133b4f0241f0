"""How `quality.py` turns predictions into scores, ranks and sentences. Plain numpy, nothing of mlbench.

Every score that ranks is a loss: smaller is better. Rows keep their own losses, so that two systems are compared row by row; on several
splits of a table the systems are compared split by split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

HEADLINE = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}
SECOND = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "mae"}
HIGHER = ("roc_auc", "accuracy")  # the second metrics of which more is better
FLOOR = 1e-6  # a probability below it counts as it: nobody loses a table by one row that was called impossible
WORST = -1.0  # the least normalised score, so that one disaster does not decide a mean
NOTHING = 1e-3  # of the constant's loss: who gains less has learnt nothing
SURE = 0.95  # of the bootstrap's differences, and of an interval over splits


@dataclass
class Outcome:
    "One system on one split of a table, or its mean over several."

    system: str
    score: float  # headline loss; inf when it failed
    second: float = float("nan")
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0))  # loss of each test row
    fit: float = float("nan")  # seconds
    predict: float = float("nan")  # seconds
    memory: float = float("nan")  # MB, most of the process tree at once
    note: str = ""  # why it failed, or what it said

    @property
    def failed(self) -> bool:
        "Whether there is no prediction to score."
        return not np.isfinite(self.score)


def shares(p: np.ndarray) -> np.ndarray:
    "Probabilities that sum to 1 and are never below the floor."
    clipped = np.clip(np.nan_to_num(np.asarray(p, dtype=float), nan=0.0), FLOOR, 1.0)
    return clipped / clipped.sum(axis=1, keepdims=True)


def row_losses(task: str, y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    "Of each row: minus the logarithm of the true class's probability (y: codes), or the squared error."
    if task == "regression":
        return (np.asarray(y, dtype=float) - np.asarray(predicted, dtype=float)) ** 2
    return -np.log(shares(predicted)[np.arange(len(y)), np.asarray(y, dtype=int)])


def of_rows(task: str, rows: np.ndarray) -> float:
    "The headline loss from the losses of the rows: their mean, for a regression the root of it."
    mean = float(rows.mean())
    return mean**0.5 if task == "regression" else mean


def area(y: np.ndarray, p: np.ndarray) -> float:
    "ROC AUC of scores, ties counted half."
    from scipy.stats import rankdata

    hits = np.asarray(y) == 1
    n, m = int(hits.sum()), int((~hits).sum())
    return float((rankdata(p)[hits].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def second_score(task: str, y: np.ndarray, predicted: np.ndarray) -> float:
    "The metric that is printed beside the headline."
    if task == "binary":
        return area(y, predicted[:, 1])
    if task == "multiclass":
        return float((np.asarray(predicted).argmax(axis=1) == y).mean())
    return float(np.abs(np.asarray(y, dtype=float) - predicted).mean())


def constant(task: str, train: np.ndarray, rows: int, classes: int = 0) -> np.ndarray:
    "What the constant predictor says of some rows: the shares of the training classes, or the mean."
    if task == "regression":
        return np.full(rows, float(np.mean(train)))
    counts = np.bincount(np.asarray(train, dtype=int), minlength=classes)
    return np.tile(counts / counts.sum(), (rows, 1))


def normalised(score: float, least: float, best: float) -> float:
    "0 for the loss of the constant predictor, 1 for the best system's; 0 for a failure and for all where nobody clearly beats the constant."
    if not np.isfinite(score) or least - best < NOTHING * abs(least):
        return 0.0
    return max((least - score) / (least - best), WORST)


def ranks(scores: dict[str, float]) -> dict[str, float]:
    "1 for the smallest loss; equals share the mean of their ranks; failures share the last ones."
    from scipy.stats import rankdata

    return dict(zip(scores, (float(r) for r in rankdata(np.array([s if np.isfinite(s) else np.inf for s in scores.values()])))))


def shortfall(score: float, other: float, least: float) -> float:
    "By how much a loss is worse than another's, as a share of the other's gap to the constant predictor; below 0 where it is better."
    if not np.isfinite(other):
        return -np.inf if np.isfinite(score) else 0.0
    gap = least - other
    if gap <= 0:  # the other is no better than the constant predictor: being worse than that counts in full
        return float(np.sign(score - other)) if np.isfinite(score) else np.inf
    return (score - other) / gap


def difference(task: str, a: np.ndarray, b: np.ndarray, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    "The middle 95% of the loss of a minus that of b, rows drawn with replacement (Efron, 1979), the same rows for both."
    rng, n = np.random.default_rng(seed), len(a)
    found = np.empty(draws)
    for start in range(0, draws, 200):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=min(200, draws - start)) / n
        means = weights @ np.stack([a, b], axis=1)
        ends = np.sqrt(means) if task == "regression" else means
        found[start : start + len(ends)] = ends[:, 0] - ends[:, 1]
    low, high = np.quantile(found, [(1 - SURE) / 2, (1 + SURE) / 2])
    return float(low), float(high)


def corrected_error(values: np.ndarray, ratio: float) -> float:
    "Standard error of a mean over splits whose training rows overlap (Nadeau and Bengio, 2003); ratio: test rows over training rows."
    n = len(values)
    return float(np.sqrt((1 / n + ratio) * np.var(values, ddof=1))) if n > 1 else float("nan")


@dataclass
class Fits:
    "What some systems gave on the splits of one table."

    task: str
    constant: dict[int, tuple[float, float]]  # both losses of the constant predictor, by number of the split
    ratio: float  # test rows over training rows
    of: dict[str, dict[int, Outcome]]  # by system and number of the split

    @property
    def shared(self) -> list[int]:
        "Splits that every system has."
        return sorted(set.intersection(*(set(found) for found in self.of.values()))) if self.of else []

    def least(self) -> tuple[float, float]:
        "Both losses of the constant predictor, means over the shared splits."
        return tuple(float(v) for v in np.mean([self.constant[s] for s in self.shared], axis=0))  # type: ignore[return-value]

    def scores(self, system: str, splits: Iterable[int]) -> np.ndarray:
        "Loss on some splits; where it failed that of the constant predictor, as if it had said that."
        return np.array([self.constant[s][0] if self.of[system][s].failed else self.of[system][s].score for s in splits])


def mean_outcome(fits: Fits, system: str) -> Outcome:
    "A system over the shared splits: means, and the most memory. It failed when it did so on all of them."
    splits = fits.shared
    mine = [fits.of[system][s] for s in splits]
    done = [o for o in mine if not o.failed]
    if len(mine) == 1 or not done:
        return mine[0]
    seconds = [fits.constant[s][1] if o.failed else o.second for s, o in zip(splits, mine)]
    fit, predict = (float(np.mean([getattr(o, name) for o in done])) for name in ("fit", "predict"))
    score, memory = float(fits.scores(system, splits).mean()), float(np.max([o.memory for o in mine]))
    return Outcome(system, score, float(np.mean(seconds)), np.zeros(0), fit, predict, memory, counted_words(o.note for o in mine))


def counted_words(said: Iterable[str]) -> str:
    "What was said, most often first, with how often when not everybody said the same."
    found = Counter(said)
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{words} ({n})" for words, n in found.most_common() if words)


def within_noise(fits: Fits, system: str, best: str) -> bool:
    "Whether a system cannot be told from the best one: by the bootstrap of the test rows on one split, by the corrected t interval on several."
    splits = fits.shared
    if all(fits.of[system][s].failed for s in splits):
        return False
    if system == best:
        return True
    if len(splits) == 1:
        return difference(fits.task, fits.of[system][splits[0]].rows, fits.of[best][splits[0]].rows)[0] <= 0
    from scipy.stats import t

    gaps = fits.scores(system, splits) - fits.scores(best, splits)
    half = float(t.ppf((1 + SURE) / 2, len(gaps) - 1)) * corrected_error(gaps, fits.ratio)
    return float(gaps.mean()) - half <= 0


def behind(fits: Fits, system: str, other: str = "catboost") -> dict[str, Any]:
    "Mean shortfall behind another system over all splits that both have, its standard error, and on how many splits it rests."
    both = sorted(set(fits.of[system]) & set(fits.of.get(other, {})))
    if not both:
        return {"shortfall": float("nan"), "error": float("nan"), "splits": 0}
    if len(both) == 1:
        found = [shortfall(fits.of[system][s].score, fits.of[other][s].score, fits.constant[s][0]) for s in both]
    else:
        pairs = zip(fits.scores(system, both), fits.scores(other, both), both)
        found = [shortfall(mine, theirs, fits.constant[s][0]) for mine, theirs, s in pairs]
    return {"shortfall": float(np.mean(found)), "error": corrected_error(np.array(found), fits.ratio), "splits": len(both)}


def of_table(fits: Fits) -> list[dict[str, Any]]:
    "A line per system, best first: its means, rank, normalised score, whether it is within noise of the best, how far behind CatBoost."
    if not fits.shared:
        return []
    found, least = {system: mean_outcome(fits, system) for system in fits.of}, fits.least()[0]
    best = min(found.values(), key=lambda o: o.score)
    places = ranks({system: o.score for system, o in found.items()})
    lines = []
    for o in sorted(found.values(), key=lambda o: o.score):
        line = {"system": o.system, "mean": o, "rank": places[o.system], "normalised": normalised(o.score, least, best.score)}
        lines.append(line | {"near": within_noise(fits, o.system, best.system)} | behind(fits, o.system))
    return lines


def summary(tables: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    "Over the tables that every system has: means of rank and normalised score, how often near the best, the worst shortfall behind CatBoost."
    systems = list(dict.fromkeys(line["system"] for lines in tables.values() for line in lines))
    shared = {name: lines for name, lines in tables.items() if {line["system"] for line in lines} == set(systems)}
    made = []
    for system in systems:
        mine = {name: next(line for line in lines if line["system"] == system) for name, lines in shared.items()}
        if not mine:
            continue
        short = {name: line["shortfall"] for name, line in mine.items() if not np.isnan(line["shortfall"])}
        worst = max(short, key=lambda n: short[n]) if short else ""
        made.append({
            "system": system, "tables": len(mine),
            "rank": float(np.mean([line["rank"] for line in mine.values()])),
            "normalised": float(np.mean([line["normalised"] for line in mine.values()])),
            "near": sum(line["near"] for line in mine.values()),
            "first": sum(line["rank"] == 1 for line in mine.values()),
            "shortfall": short.get(worst, float("nan")), "worst": worst,
        } | {key: mine[worst][key] if worst else float("nan") for key in ("error", "splits")})  # fmt: skip
    return sorted(made, key=lambda line: line["rank"])
