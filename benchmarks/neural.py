"""Texts, pictures and networks: each figure beside its peer and the bar that it has to pass.

    python benchmarks/neural.py                     everything that this machine can do, one after the other (40 minutes on two cores)
    python benchmarks/neural.py sst2 --seconds 300  one of sst2, mnist, cifar, curve, overhead, resume, int8, gpu
    python benchmarks/neural.py cifar --seed 1 --data ../shared/data

sst2, mnist and cifar fit a model with `mlbench.fit` within the seconds that are given and judge it by the rows of the data's own test part, which nothing
else has seen. curve shows the accuracy of one network against time, beside a plain loop of torch over the same network. overhead sets the training loop
beside a bare loop of torch, resume kills a fit at ten steps, int8 shrinks an exported network, and gpu measures a large one where there is a graphics
card. Exit code 1 when a bar is missed; what cannot be measured here says why and misses nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import options

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NAMES = ("sst2", "mnist", "cifar", "curve", "overhead", "resume", "int8", "gpu")
SECONDS = {"sst2": 300.0, "mnist": 180.0, "cifar": 600.0, "curve": 120.0}
BARS = {"sst2": 0.80, "mnist": 0.985, "cifar": 0.55}


@dataclass(frozen=True)
class Figure:
    "One figure beside what it is compared with."

    what: str
    ours: float | None  # None: not measured
    peer: float | None = None
    peer_name: str = ""
    bar: float | None = None  # at least so much
    note: str = ""

    @property
    def missed(self) -> bool:
        "Whether it was measured and is below its bar."
        return self.ours is not None and self.bar is not None and self.ours < self.bar

    def __str__(self) -> str:
        if self.ours is None:
            return f"{self.what}: not measured, {self.note}"
        peer = f"   {self.peer_name} {self.peer:.4g}" if self.peer is not None else ""
        bar = f"   bar {self.bar:g} {'MISSED' if self.missed else 'passed'}" if self.bar is not None else ""
        return f"{self.what}: {self.ours:.4g}{peer}{bar}{'   ' + self.note if self.note else ''}"


def need(given: argparse.Namespace, name: str) -> Path:
    "A file of the shared data."
    path = given.data / name
    if not path.exists():
        raise FileNotFoundError(f"{name} is not in {given.data}; name the folder with --data")
    return path


def fitted(train: Any, target: str, given: argparse.Namespace, seconds: float) -> tuple[Any, float]:
    "A model of `mlbench.fit`, and the seconds that it took."
    import mlbench as mb

    start = time.perf_counter()
    model = mb.fit(train, target, metric="accuracy", time_limit=seconds, seed=given.seed, models=given.models or None, verbose=given.verbose)
    return model, time.perf_counter() - start


def told(model: Any, seconds: float) -> str:
    "What the comparison says of each candidate on its folds, and the time."
    found = model.comparison
    parts = [f"{name} {found.score(name)['accuracy']:.4g}" for name in found.specs if name not in found.failures]
    parts += [f"{name} ({why})" for name, why in found.failures.items()]
    return f"{seconds:.0f} s; on the folds: {', '.join(parts)}; chosen {model.spec_name}"


def accuracy(model: Any, test: Any, target: str) -> float:
    "Share of the test rows that are right."
    return float((model.predict(test.drop(columns=target)) == test[target].to_numpy()).mean())


def sst2(given: argparse.Namespace) -> list[Figure]:
    "Sentences that praise or complain, beside TF-IDF and logistic regression."
    import pandas as pd
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline

    train, test = (pd.read_csv(need(given, f"sst2_{part}.csv.gz")) for part in ("train", "test"))
    peer = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), LogisticRegressionCV(l1_ratios=(0,), use_legacy_attributes=False))
    peer.fit(train["sentence"], train["label"])
    score = float(peer.score(test["sentence"], test["label"]))
    model, seconds = fitted(train, "label", given, given.seconds or SECONDS["sst2"])
    ours = accuracy(model, test, "label")
    bar = max(BARS["sst2"], score)
    return [Figure("SST-2 accuracy", ours, score, "TF-IDF of pairs of words", bar, told(model, seconds))]


def pictures(given: argparse.Namespace, file: str, folder: Path) -> tuple[Any, Any, Any]:
    "Training and test rows with a column of paths, and the arrays."
    import numpy as np
    import pandas as pd
    from PIL import Image

    held = dict(np.load(need(given, file)))
    tables = []
    for part in ("train", "test"):
        place = folder / part
        place.mkdir()
        for n, pixels in enumerate(held[f"x_{part}"]):
            Image.fromarray(pixels).save(place / f"{n}.png")
        count = len(held[f"x_{part}"])
        tables.append(pd.DataFrame({"file": [str(place / f"{n}.png") for n in range(count)], "label": [f"class {y}" for y in held[f"y_{part}"]]}))
    return tables[0], tables[1], held


def mnist(given: argparse.Namespace) -> list[Figure]:
    "Eight thousand written digits, beside support vectors on their pixels."
    from sklearn.svm import SVC

    with tempfile.TemporaryDirectory() as scratch:
        train, test, held = pictures(given, "mnist_10k.npz", Path(scratch))
        flat = lambda part: held[f"x_{part}"].reshape(len(held[f"x_{part}"]), -1) / 255.0
        score = float(SVC(C=10, gamma=0.02).fit(flat("train"), held["y_train"]).score(flat("test"), held["y_test"]))
        model, seconds = fitted(train, "label", given, given.seconds or SECONDS["mnist"])
        return [Figure("MNIST accuracy", accuracy(model, test, "label"), score, "support vectors", BARS["mnist"], told(model, seconds))]


def cifar(given: argparse.Namespace) -> list[Figure]:
    "Four thousand small photographs, beside a bare loop of torch over a small network for the same time."
    with tempfile.TemporaryDirectory() as scratch:
        train, test, held = pictures(given, "cifar10_5000.npz", Path(scratch))
        seconds = given.seconds or SECONDS["cifar"]
        score = bare_network(held, seconds / 4, given.seed)
        model, took = fitted(train, "label", given, seconds)
        ours, said = accuracy(model, test, "label"), told(model, took)
        return [Figure("CIFAR-10 accuracy (4,000 rows)", ours, score, f"bare loop of {seconds / 4:.0f} s", BARS["cifar"], said)]


def bare_network(held: Any, seconds: float, seed: int) -> float:
    "Test accuracy of three blocks of convolutions after so many seconds of Adam and mirrored pictures, all cores: what one writes in an evening."
    import torch
    from torch import nn

    torch.manual_seed(seed)
    block = lambda a, b: [
        nn.Conv2d(a, b, 3, padding=1),
        nn.BatchNorm2d(b),
        nn.ReLU(),
        nn.Conv2d(b, b, 3, padding=1),
        nn.BatchNorm2d(b),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    network = nn.Sequential(*block(3, 32), *block(32, 64), *block(64, 128), nn.Flatten(), nn.Dropout(0.3), nn.Linear(2048, 10))
    x, y = (torch.from_numpy(held["x_train"]).permute(0, 3, 1, 2) / 127.5 - 1), torch.from_numpy(held["y_train"]).long()
    optimizer, start = torch.optim.Adam(network.parameters(), 1e-3), time.perf_counter()
    while time.perf_counter() - start < seconds:
        for rows in torch.randperm(len(x)).split(64):
            batch = x[rows].flip(3) if torch.rand(()) < 0.5 else x[rows]
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(batch), y[rows]).backward()
            optimizer.step()
            if time.perf_counter() - start > seconds:
                break
    network.eval()
    with torch.inference_mode():
        shown = torch.from_numpy(held["x_test"]).permute(0, 3, 1, 2) / 127.5 - 1
        return float((network(shown).argmax(1).numpy() == held["y_test"]).mean())


def curve(given: argparse.Namespace) -> list[Figure]:
    "Accuracy against time of one network, beside a plain loop of torch over the same network."
    import numpy as np
    from common.curve import curves

    held = dict(np.load(need(given, "cifar10_5000.npz")))
    return [Figure(*row) for row in curves(held, given.seconds or SECONDS["curve"], given.seed)]


def gpu(given: argparse.Namespace) -> list[Figure]:
    "A large network on a graphics card."
    import torch

    if not torch.cuda.is_available():
        why = f"torch {torch.__version__} finds no graphics card"
        return [
            Figure("ResNet of 25 M parameters on a graphics card", None, note=why),
            Figure("encoder of 100 M parameters on a graphics card", None, note=why),
        ]
    from common.card import measured

    return [Figure(*row) for row in measured(given.seed)]


def overhead(given: argparse.Namespace) -> list[Figure]:
    "Steps in a second of the training loop, beside a bare loop of the same steps, and beside itself when nothing has to be loaded."
    from common.loops import loading, overheads

    return [Figure(*row) for row in (*overheads(given.seed), *loading(given.seed))]


def resume(given: argparse.Namespace) -> list[Figure]:
    "Fits that were killed at random steps and went on, beside one that was not."
    from common.loops import resumed

    return [Figure(*row) for row in resumed(given.seed)]


def int8(given: argparse.Namespace) -> list[Figure]:
    "An exported network in eight bits, in sixteen, and with fewer weights, beside itself."
    from common.shrinking import shrunken

    need(given, "sst2_train.csv.gz")
    return [Figure(*row) for row in shrunken(given.seed, given.data)]


def parser() -> argparse.ArgumentParser:
    "What may be given on the command line."
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter, epilog=__doc__)
    found.add_argument("figures", nargs="*", choices=[*NAMES, []], default=[], metavar="FIGURE", help=f"some of {', '.join(NAMES)}; none takes all")
    found.add_argument("--seconds", type=options.seconds, help="for each of sst2, mnist, cifar and curve; else 300, 180, 600 and 120")
    found.add_argument("--seed", type=options.whole("a seed", 0, 0, options.LARGEST_SEED), default=0, help="of every random draw")
    found.add_argument("--data", type=Path, default=DATA, help="folder of the shared data")
    found.add_argument("--models", type=lambda text: [n.strip() for n in text.split(",") if n.strip()], help="candidates between commas; else the portfolio")
    found.add_argument("--verbose", action="store_true", help="say on the way what is being done")
    return found


MEASURES: dict[str, Callable[[argparse.Namespace], list[Figure]]] = {
    "sst2": sst2,
    "mnist": mnist,
    "cifar": cifar,
    "curve": curve,
    "overhead": overhead,
    "resume": resume,
    "int8": int8,
    "gpu": gpu,
}


def main(words: list[str] | None = None) -> int:
    "Print each figure as soon as it is known."
    given, missed = parser().parse_args(words), False
    for name in given.figures or NAMES:
        try:
            figures = MEASURES[name](given)
        except FileNotFoundError as error:
            figures = [Figure(name, None, note=str(error))]
        for figure in figures:
            print(figure, flush=True)
            missed |= figure.missed
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
