"The training loop beside a bare loop of torch, and a fit that is killed at ten steps."

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mlbench.models.batches import RecordBatches
from mlbench.models.happenings import Happening
from mlbench.models.loop import Trainer
from mlbench.models.loopstate import LoopSettings
from mlbench.models.losses import CrossEntropy
from mlbench.models.schedules import weight_groups
from mlbench.models.states import Checkpoint


class Table(nn.Module):
    "A small multilayer perceptron."

    def __init__(self, seed: int):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(20, 96), nn.ReLU(), nn.Linear(96, 48), nn.ReLU(), nn.Linear(48, 2))

    def forward(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.layers(parts["table"])


class Block(nn.Module):
    "Two convolutions with a way around them."

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return F.relu(values + self.norms[1](self.second(F.relu(self.norms[0](self.first(values))))))


class Pictures(nn.Module):
    "A small residual network (He et al. 2016)."

    def __init__(self, seed: int, width: int = 16):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
            self.blocks, self.head = nn.Sequential(Block(width), Block(width), Block(width)), nn.Linear(width, 10)

    def forward(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.head(self.blocks(self.stem(parts["pixels"])).mean(dim=(2, 3)))


def _rows(seed: int, kind: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    "Rows for one of the two networks."
    draw = torch.Generator().manual_seed(seed)
    if kind == "MLP":
        X = torch.randn(6400, 20, generator=draw)
        return {"table": X}, (X[:, 0] * X[:, 1] > 0).long()
    return {"pixels": torch.rand(640, 3, 32, 32, generator=draw)}, torch.randint(10, (640,), generator=draw)


def bare(network: nn.Module, parts: dict[str, torch.Tensor], target: torch.Tensor, size: int, steps: int, clip: float) -> Callable[[], None]:
    "The loop that everybody writes, with the optimiser that ours has."
    groups = [{k: v for k, v in g.items() if k != "share"} for g in weight_groups(network, 0.05)]
    optimizer, weights = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.99), fused=True), list(network.parameters())
    [(name, X)] = parts.items()

    def run() -> None:
        network.train()
        done = 0
        while done < steps:
            order = torch.randperm(len(target))
            for start in range(0, len(target), size):
                rows = order[start : start + size]
                optimizer.zero_grad()
                loss = F.cross_entropy(network({name: X[rows]}), target[rows])
                loss.backward()
                if clip:
                    nn.utils.clip_grad_norm_(weights, clip)
                optimizer.step()
                done += 1

    return run


def ours(network: nn.Module, parts: dict[str, torch.Tensor], target: torch.Tensor, size: int, steps: int, clip: float) -> Callable[[], Any]:
    "The same steps with the loop of mlbench."
    trainer = Trainer(network, CrossEntropy(), RecordBatches(parts, target, size), LoopSettings(steps=steps, clip=clip, device="cpu"))
    return trainer.fit


def blocks(kind: str, clip: float, seed: int, rounds: int) -> Iterator[tuple[float, float]]:
    "Steps in a second of both loops, in turns."
    parts, target = _rows(seed, kind)
    network, size, steps = (Table, 64, 400) if kind == "MLP" else (Pictures, 64, 10)
    for n in range(rounds + 2):
        taken = {}
        for name, made in ((("bare", bare), ("ours", ours)) if n % 2 else (("ours", ours), ("bare", bare))):
            run = made(network(seed), parts, target, size, steps, clip)
            start = time.thread_time()
            run()
            taken[name] = steps / (time.thread_time() - start)
        if n > 1:
            yield taken["ours"], taken["bare"]


def shares(found: np.ndarray) -> tuple[float, str]:
    "The first column's speed as a share of the second's, and how far that can be trusted: single pairs differ by a tenth on a machine that others use."
    ratios = found[:, 0] / found[:, 1]
    low, share, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    pace = " and ".join(f"{value:.0f}" for value in np.median(found, axis=0))
    unsure = 1.25 * (high - low) / 1.35 / np.sqrt(len(ratios))
    return float(share), f"{pace} steps/s of CPU time, median of {len(ratios)} pairs, +- {unsure:.3f}, quartiles {low:.3f} to {high:.3f}"


def overheads(seed: int = 0, rounds: int = 60) -> Iterator[tuple[Any, ...]]:
    "Speed of the loop as a share of the bare loop's, for two networks, with and without clipped gradients."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for kind in ("MLP", "ResNet"):
            for clip in (0.0, 1.0):
                found = np.array(list(blocks(kind, clip, seed, rounds)))
                share, note = shares(found)
                yield f"overhead: {kind}{', gradients clipped' if clip else ''}, speed as a share of a bare loop's", share, 1.0, "bare loop", 0.97, note
    finally:
        torch.set_num_threads(before)


class Seen(Pictures):
    "The same network, on pictures as they lie in memory: bytes, channels last."

    def forward(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        return super().forward({"pixels": parts["pixels"].permute(0, 3, 1, 2).float() / 255})


class Ready(RecordBatches):
    "Batches that lie ready once they were made: loading costs nothing."

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.kept: dict[int, Any] = {}

    def batch(self, where: slice, number: int, training: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        if where.start not in self.kept:
            self.kept[where.start] = super().batch(where, number, training)
        return self.kept[where.start]


def loading(seed: int = 0, rounds: int = 20) -> Iterator[tuple[Any, ...]]:
    "Speed of the loop on more pictures than a processor's cache holds, as a share of its speed when all batches lie ready."
    draw, before = np.random.default_rng(seed), torch.get_num_threads()
    pixels, target = draw.integers(0, 256, (4096, 32, 32, 3), dtype=np.uint8), draw.integers(0, 10, 4096)
    made = {name: kind({"pixels": pixels}, target, 64, seed) for name, kind in (("looked up", RecordBatches), ("ready", Ready))}
    torch.set_num_threads(1)
    try:
        paces = {name: [] for name in made}
        for n in range(rounds + 2):
            for name in (list(made), list(made)[::-1])[n % 2]:
                trainer = Trainer(Seen(seed), CrossEntropy(), made[name], LoopSettings(steps=64, device="cpu"))
                start = time.thread_time()
                trainer.fit()
                paces[name].append(64 / (time.thread_time() - start))
        share, note = shares(np.column_stack([paces["looked up"][2:], paces["ready"][2:]]))
        yield "loading: ResNet on 12 MB of pictures, speed as a share of batches that lie ready", share, 1.0, "batches ready", 0.97, note
    finally:
        torch.set_num_threads(before)


class _Killed(BaseException):
    "Goes through everything, as a signal would."


class _Kill(Happening):
    "Ends a training after so many steps."

    def __init__(self, step: int):
        self.step = step

    def step_end(self, trainer: Any, state: Any) -> None:
        if state.step == self.step:
            raise _Killed


def resumed(seed: int = 0, kills: int = 10) -> Iterator[tuple[Any, ...]]:
    "A residual network with averaged weights, whose training is killed at ten steps: how many of its numbers are the very same."
    parts, target = _rows(seed, "ResNet")
    parts, target = {name: part[:160] for name, part in parts.items()}, target[:160]
    settings = LoopSettings(epochs=8, average=0.9, accumulate=2, seed=seed, device="cpu")

    def trainer(*happenings: Happening) -> Trainer:
        held_out = RecordBatches({name: part[:40] for name, part in parts.items()}, target[:40], 16)
        return Trainer(Pictures(seed, 8), CrossEntropy(0.1), RecordBatches(parts, target, 8, seed), settings, happenings, held_out)

    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            whole = trainer()
            whole.fit()
            steps = sorted(np.random.default_rng(seed).choice(np.arange(2, whole.state.total_steps), kills, replace=False).tolist())
            with tempfile.TemporaryDirectory() as folder:
                for step in steps:
                    try:
                        trainer(_Kill(step)).fit(keep=Checkpoint(folder, every=0))
                    except _Killed:
                        continue
                last = trainer()
                last.fit(keep=Checkpoint(folder, every=0))
            same = [torch.equal(t, last.tensors[name]) for name, t in whole.tensors.items()]
            note = f"killed after steps {', '.join(map(str, steps))} of {whole.state.total_steps}"
            what = f"resume: share of tensors that are bit by bit those of a training that was never killed, {threads} thread(s)"
            yield what, float(np.mean(same)), None, "", 1.0, note
        finally:
            torch.set_num_threads(before)
