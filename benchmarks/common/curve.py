"Accuracy against time: the training of an estimator beside a plain loop of torch over the same network."

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from mlbench.data.parts import as_record
from mlbench.models.batches import RecordBatches
from mlbench.models.deep import DeepClassifier, open_network
from mlbench.models.happenings import Happening, heard_by
from mlbench.models.layers import set_generators

Curve = list[tuple[float, float]]  # seconds of training, accuracy on the test rows
ROWS = 10  # of the table


class Watch(Happening):
    "Accuracy on other rows after each epoch, and the time without that."

    def __init__(self, rows: Any, y: np.ndarray):
        self.rows, self.y, self.curve, self.aside = rows, y, Curve(), 0.0

    def fit_begin(self, trainer: Any, state: Any) -> None:
        "The clock starts."
        self.began = time.perf_counter()

    def epoch_end(self, trainer: Any, state: Any) -> None:
        "Look at the rows; what that takes is not counted."
        start = time.perf_counter()
        right = float((trainer.outputs(self.rows).argmax(1) == self.y).mean())
        self.curve.append((start - self.began - self.aside, right))
        self.aside += time.perf_counter() - start


def ours(held: dict[str, np.ndarray], seconds: float, seed: int) -> tuple[Curve, nn.Module, float]:
    "The estimator within so many seconds, its network, and the accuracy of the weights that it kept."
    rows, _ = as_record(held["x_test"])
    watch = Watch(RecordBatches(rows, held["y_test"].astype(np.int64), 250), held["y_test"])
    with heard_by(lambda name: watch):
        model = DeepClassifier("small_cnn", max_epochs=60, random_state=seed).fit(held["x_train"], held["y_train"], seconds=seconds)
    return watch.curve, open_network(model.model_.tobytes()), float((model.predict(held["x_test"]) == held["y_test"]).mean())


def plain(network: nn.Module, name: str, held: dict[str, np.ndarray], seconds: float, seed: int) -> Curve:
    "Adam at 1e-3 and mirrored pictures on one core: what one writes in an evening."
    torch.manual_seed(seed)
    for layer in network.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    x, y = torch.from_numpy(held["x_train"]), torch.from_numpy(held["y_train"]).long()
    shown = torch.from_numpy(held["x_test"])
    network.requires_grad_(True)
    step = 0
    optimizer, curve, began, aside = torch.optim.Adam(network.parameters(), 1e-3), Curve(), time.perf_counter(), 0.0
    while time.perf_counter() - began - aside < seconds:
        network.train()
        for rows in torch.randperm(len(x)).split(64):
            set_generators(network, seed, step := step + 1)  # dropout draws from it
            batch = x[rows].flip(2) if torch.rand(()) < 0.5 else x[rows]
            optimizer.zero_grad()
            nn.functional.cross_entropy(network({name: batch}), y[rows]).backward()
            optimizer.step()
        start = time.perf_counter()
        network.eval()
        with torch.inference_mode():
            said = torch.cat([network({name: some}).argmax(1) for some in shown.split(250)]).numpy()
        curve.append((start - began - aside, float((said == held["y_test"]).mean())))
        aside += time.perf_counter() - start
    return curve


def at(curve: Curve, seconds: float) -> str:
    "The accuracy that a curve has come to."
    known = [right for moment, right in curve if moment <= seconds]
    return f"{known[-1]:.3f}" if known else "-"


def curves(held: dict[str, np.ndarray], seconds: float, seed: int) -> Iterator[tuple[Any, ...]]:
    "Both loops for the same time on one core each, as a table; the last accuracies as a figure."
    mine, network, kept = ours(held, seconds, seed)
    name = as_record(held["x_train"][:1])[1][0].name
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        other = plain(network, name, held, seconds, seed)
    finally:
        torch.set_num_threads(before)
    print("seconds  mlbench  plain loop")
    for moment in np.linspace(seconds / ROWS, seconds, ROWS):
        print(f"{moment:7.0f}  {at(mine, moment):>7}  {at(other, moment):>10}")
    yield "CIFAR-10 accuracy of one network", kept, other[-1][1], "plain loop", None, f"{len(mine)} epochs beside {len(other)} in {seconds:.0f} s"
