"""A Transformer for texts in smaller files, each beside the file as it is: how much smaller, how much faster on one core, and what is left of the accuracy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from mlbench.deployment.onnx import pipeline_to_onnx
from mlbench.deployment.rows import Scorer
from mlbench.deployment.shrinking import metric_interval, smaller_file, without_zeros
from mlbench.deployment.steps import feeds
from mlbench.features.records import Records, parts_of
from mlbench.features.tokens import Tokens
from mlbench.models.deep import DeepClassifier
from mlbench.models.pruning import pruned

BARS = {"int8": (3.0, 1.5), "fp16": (1.8, None), "pruned": (2.0, None), "narrow": (1.5, 1.3)}  # way -> times smaller, times as fast


def _seconds(scorers: dict[str, Scorer], given: dict[str, np.ndarray], rounds: int) -> dict[str, float]:
    "Median CPU seconds of a row for each file; they take turns, so that all suffer the same."
    taken: dict[str, list[float]] = {name: [] for name in scorers}
    for n in range(rounds + 3):
        one = {k: v[n % len(v)][None] for k, v in given.items()}
        for name, scorer in scorers.items():
            start = time.process_time()
            scorer(one)
            taken[name].append(time.process_time() - start)
    return {name: float(np.median(times[3:])) for name, times in taken.items()}


def _files(features: Records, network: DeepClassifier, train: pd.DataFrame, X: np.ndarray, y: np.ndarray, epochs: int) -> dict[str, bytes]:
    "The file as it is, and all others."
    kinds = {"sentence": "text"}
    written = lambda estimator: pipeline_to_onnx(Pipeline([("features", features), ("estimator", estimator)]), kinds, 2)
    files, some = {"as it is": written(network)}, feeds(train.head(96), kinds)
    files |= {way: smaller_file(files["as it is"], way, some) for way in ("int8", "fp16")}
    files["pruned"] = without_zeros(written(pruned(network, X, y, "zeros", epochs=epochs)))
    return files | {"narrow": written(pruned(network, X, y, "narrow", epochs=epochs))}


def shrunken(
    seed: int,
    data: Path,  # folder of the shared data
    sentences: int = 2500,  # that are learned from
    width: int = 256,
    depth: int = 4,
    epochs: int = 3,
    rounds: int = 150,  # rows that are timed
) -> Iterator[tuple[Any, ...]]:  # what, ours, peer, name of the peer, bar, note
    "Sizes, speeds and accuracies on sentences that were not learned from."
    train, test = (pd.read_csv(data / f"sst2_{part}.csv.gz").head(sentences).astype({"sentence": "str"}) for part in ("train", "test"))
    features, y = Records([("tokens_0", Tokens(), ["sentence"])]).fit(train), train["label"].to_numpy()
    X = features.transform(train)
    network = DeepClassifier("transformer", width=width, depth=depth, max_epochs=epochs, parts=parts_of(features), device="cpu", random_state=seed).fit(X, y)
    files, given = _files(features, network, train, X, y, epochs), feeds(test, {"sentence": "text"})
    scorers = {name: Scorer(file) for name, file in files.items()}
    seconds, truth = _seconds(scorers, given, rounds), np.searchsorted(network.classes_, test["label"])
    found = {name: metric_interval("accuracy", truth, scorer(given)) for name, scorer in scorers.items()}
    value, low, high = found["as it is"]
    for way, (smaller, faster) in BARS.items():
        size, speed = (values["as it is"] / values[way] for values in ({n: len(f) for n, f in files.items()}, seconds))
        yield f"{way}: times smaller", size, None, "", smaller, f"{len(files[way]) / 1e6:.2f} MB in place of {len(files['as it is']) / 1e6:.2f}"
        yield f"{way}: times as fast on one core", speed, None, "", faster, f"{1000 * seconds[way]:.2f} ms of CPU time for a row"
        note = f"lower end of the 95 % interval of the original ({low:.4g} to {high:.4g}) on {len(test)} sentences"
        yield f"{way}: accuracy", found[way][0], value, "as it is", low, note
