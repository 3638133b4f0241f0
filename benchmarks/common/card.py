"""A residual network of the size of ResNet-50 and an encoder of a hundred million weights on a graphics card.

Samples per second of the training loop beside a bare loop of the same steps, the share of the card's peak that they reach in bf16, and how many times as fast
bf16 is as 32 bits throughout. What is needed of the card is found out first: the batch by its memory, the peak by its name and by a product of matrices.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mlbench.models.batches import RecordBatches
from mlbench.models.happenings import Happening
from mlbench.models.loop import Trainer, largest_batch
from mlbench.models.loopstate import LoopSettings
from mlbench.models.losses import CrossEntropy
from mlbench.models.schedules import weight_groups

Rows = tuple[dict[str, torch.Tensor], torch.Tensor]
SHEETS = {  # TFLOP/s in bf16 without sparsity, by the makers' data sheets; the first name that is part of the card's counts
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 125.0,
    "A10": 125.0,
    "RTX 4090": 165.0,
}


@dataclass(frozen=True)
class Sizes:
    "How large everything is, and how long it is measured."

    image: int = 224  # pixels of a side
    width: int = 64  # channels of the first stage
    blocks: tuple[int, ...] = (3, 4, 6, 3)  # of each stage
    images: int = 256  # rows of a batch at most
    length: int = 512  # tokens of a text
    embedding: int = 768  # numbers that stand for a token; 64 for each head
    depth: int = 12  # layers
    vocabulary: int = 20_000
    texts: int = 64  # rows of a batch at most
    classes: int = 1000
    warm: int = 10  # steps before the clock starts
    steps: int = 30  # steps that are timed
    rounds: int = 3  # times that each loop is measured, in turns
    square: int = 8192  # rows and columns of the matrices that are multiplied


TINY = Sizes(32, 4, (1, 1), 8, 12, 64, 1, 50, 8, 5, 1, 2, 1, 64)  # to try all of this where there is no card


class Bottleneck(nn.Module):
    "Three convolutions with a way around them; the second one makes the picture smaller."

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = 4 * width
        narrow = [nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        look = [nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.through = nn.Sequential(*narrow, *look, nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        same = stride == 1 and inputs == outputs
        self.around = nn.Identity() if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return F.relu(self.through(values) + self.around(values))


class Residual(nn.Module):
    "A residual network (He et al. 2016); with the usual sizes it is ResNet-50, 25.6 million weights."

    def __init__(self, sizes: Sizes):
        super().__init__()
        stem = [nn.Conv2d(3, sizes.width, 7, 2, 3, bias=False), nn.BatchNorm2d(sizes.width), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
        stages, inputs = [], sizes.width
        for stage, blocks in enumerate(sizes.blocks):
            width = sizes.width << stage
            for n in range(blocks):
                stages.append(Bottleneck(inputs, width, 2 if stage and not n else 1))
                inputs = 4 * width
        self.stages, self.head = nn.Sequential(*stem, *stages), nn.Linear(inputs, sizes.classes)
        self.to(memory_format=torch.channels_last)  # as tensor cores want them

    def forward(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        pixels = parts["pixels"].permute(0, 3, 1, 2).float() / 127.5 - 1  # (rows, 3, side, side), stored pixel by pixel
        return self.head(self.stages(pixels).mean(dim=(2, 3)))


class Encoder(nn.Module):
    "A Transformer encoder (Vaswani et al. 2017, normalised first) over words; 101 million weights with the usual sizes."

    def __init__(self, sizes: Sizes):
        super().__init__()
        width = sizes.embedding
        self.words, self.places = nn.Embedding(sizes.vocabulary, width), nn.Parameter(0.02 * torch.randn(sizes.length, width))
        layer = nn.TransformerEncoderLayer(width, width // 64, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, sizes.depth, enable_nested_tensor=False), nn.Linear(width, sizes.classes)

    def forward(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.head(self.layers(self.words(parts["tokens"]) + self.places).mean(dim=1))


@dataclass(frozen=True)
class Case:
    "A network, and how rows for it are made."

    kind: Callable[[Sizes], nn.Module]
    rows: Callable[[int, torch.device, torch.Generator], Rows]
    most: int  # rows of a batch
    sizes: Sizes
    seed: int

    def network(self) -> nn.Module:
        "The network with its first weights, always the same ones."
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.kind(self.sizes)

    def data(self, rows: int, device: torch.device) -> Rows:
        "So many rows that lie with the device."
        return self.rows(rows, device, torch.Generator(device).manual_seed(self.seed))


def cases(seed: int, sizes: Sizes) -> list[Case]:
    "Pictures, then texts."

    def pictures(rows: int, device: torch.device, draw: torch.Generator) -> Rows:
        shape = (rows, sizes.image, sizes.image, 3)
        pixels = torch.randint(256, shape, dtype=torch.uint8, device=device, generator=draw)
        return {"pixels": pixels}, torch.randint(sizes.classes, (rows,), device=device, generator=draw)

    def texts(rows: int, device: torch.device, draw: torch.Generator) -> Rows:
        tokens = torch.randint(sizes.vocabulary, (rows, sizes.length), device=device, generator=draw)
        return {"tokens": tokens}, torch.randint(sizes.classes, (rows,), device=device, generator=draw)

    return [Case(Residual, pictures, sizes.images, sizes, seed), Case(Encoder, texts, sizes.texts, sizes, seed)]


def wait(device: torch.device) -> None:
    "Wait until the device has done all that it was told."
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget(device: torch.device) -> None:
    "Give memory back that nothing holds any more."
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Clock(Happening):
    "Times the steps after the first ones."

    def __init__(self, device: torch.device, warm: int, steps: int):
        self.device, self.warm, self.last, self.first, self.seconds = device, warm, warm + steps, 0.0, 0.0
        self.began = time.perf_counter()

    def step_end(self, trainer: Any, state: Any) -> None:
        if state.step in (self.warm, self.last):
            wait(self.device)
            now = time.perf_counter()
            if state.step == self.warm:
                self.first = now - self.began
            else:
                self.seconds = now - self.began
            self.began = now


def ours(case: Case, size: int, device: torch.device, precision: str, compiled: bool = False) -> tuple[float, float]:
    "Samples per second of the training loop, and the seconds until its clock started."
    steps = case.sizes.warm + case.sizes.steps  # all in one epoch, so that nothing is judged or ordered while the clock runs
    how = {"schedule": "constant", "warm_up": 0.0, "learning_rate": 1e-4, "precision": precision, "compile": compiled, "seed": case.seed}
    clock = Clock(device, case.sizes.warm, case.sizes.steps)
    batches = RecordBatches(*case.data(size * steps, device), size, case.seed, None, device)
    trainer = Trainer(case.network(), CrossEntropy(), batches, LoopSettings(steps=steps, device=str(device), **how), [clock])
    state = trainer.fit()
    if state.accumulate > 1 or state.rate < 1:
        raise RuntimeError(f"this was not the training that was to be measured: {'; '.join(state.notes)}")
    return size * case.sizes.steps / clock.seconds, clock.first


def bare(case: Case, size: int, device: torch.device, precision: str) -> float:
    "Samples per second of the loop that everybody writes, with the optimiser that ours has."
    sizes, network = case.sizes, case.network().to(device).train()
    steps, cast = sizes.warm + sizes.steps, precision == "bf16"
    parts, target = case.data(size * steps, device)
    groups = [{k: v for k, v in g.items() if k != "share"} for g in weight_groups(network, 0.05)]
    optimizer, weights = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.99), fused=True), list(network.parameters())
    order, began = torch.randperm(len(target), device=device), 0.0
    for step in range(steps):
        if step == sizes.warm:
            wait(device)
            began = time.perf_counter()
        rows = order[step * size : (step + 1) * size]
        with torch.autocast(device.type, torch.bfloat16, enabled=cast):
            output = network({name: part[rows] for name, part in parts.items()})
        optimizer.zero_grad()
        F.cross_entropy(output.float(), target[rows]).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    wait(device)
    return size * sizes.steps / (time.perf_counter() - began)


def fitting(case: Case, device: torch.device) -> int:
    "Rows of a batch: as many as are asked for, or half of what fits into memory in 32 bits, which leaves room for the rows themselves."

    def trainer_of(size: int) -> Trainer:
        forget(device)
        batches = RecordBatches(*case.data(case.most, device), size, case.seed, None, device)
        return Trainer(case.network(), CrossEntropy(), batches, LoopSettings(precision="fp32", device=str(device)))

    found = largest_batch(trainer_of, case.most)
    forget(device)
    return found if found >= case.most else max(found // 2, 1)


def work_of_row(network: nn.Module, parts: dict[str, torch.Tensor]) -> float:
    "Operations of a step for one of these rows, forward and backward; a product and a sum are two."
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # attention in products that are counted one by one
        network(parts).sum().backward()
    return counter.get_total_flops() / len(next(iter(parts.values())))


def reached(device: torch.device, square: int) -> float:
    "TFLOP/s of the best of ten products of random matrices in bf16."
    draw = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(square, square, device=device, generator=draw).to(torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(13):
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * square**3 / min(seconds[3:]) / 1e12


def peak_of(device: torch.device, square: int) -> tuple[float, str]:
    "TFLOP/s in bf16 that shares are taken of, and in words where they come from."
    by_hand = reached(device, square)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "this processor"
    sheet = next((peak for part, peak in SHEETS.items() if part in name), None)
    measured = f"{by_hand:.3g} TFLOP/s, which a product of matrices reaches on {name}"
    return (sheet, f"{sheet:.0f} TFLOP/s by the data sheet of {name}; a product of matrices reaches {by_hand:.3g}") if sheet else (by_hand, measured)


@contextlib.contextmanager
def card_settings() -> Iterator[None]:
    "Products of 32 bits in 32 bits throughout, convolutions included, and the quickest kernel for each convolution."
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark = False, False, True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark = before


def turns(case: Case, size: int, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    "Samples per second in bf16 of our loop and of the bare one, (rounds,) each, measured in turns."
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    for n in range(case.sizes.rounds):
        for which in ("ours", "bare") if n % 2 == 0 else ("bare", "ours"):
            found[which].append(ours(case, size, device, "bf16")[0] if which == "ours" else bare(case, size, device, "bf16"))
            forget(device)
    return np.array(found["ours"]), np.array(found["bare"])


def compiled_row(what: str, case: Case, size: int, device: torch.device, plain: float) -> tuple[Any, ...]:
    "Whether it pays to have the network compiled: the gain, and the seconds that it costs before."
    try:
        speed, first = ours(case, size, device, "bf16", compiled=True)
    except Exception as error:  # it needs a compiler, which not every machine has: told in the figure
        said = str(error).strip() or type(error).__name__
        return f"{what}: compiled, as a multiple of its speed", None, None, "", None, f"it could not be compiled: {said.splitlines()[0][:200]}"
    return f"{what}: compiled, as a multiple of its speed", speed / plain, None, "", None, f"the first {case.sizes.warm} steps took {first:.1f} s"


def measured(seed: int = 0, device: str = "cuda", sizes: Sizes = Sizes()) -> Iterator[tuple[Any, ...]]:
    "Figures of both networks, each as soon as it is known."
    where = torch.zeros(0, device=device).device  # with its number
    with card_settings():
        peak, words = peak_of(where, sizes.square)
        for case in cases(seed, sizes):
            weights = sum(weight.numel() for weight in case.network().parameters())
            what = f"gpu: {case.kind.__name__.lower()} of {weights / 1e6:.1f} M weights"
            size, work = fitting(case, where), work_of_row(case.network().to(where), case.data(2, where)[0])
            forget(where)
            mine, theirs = turns(case, size, where)
            low, share, high = np.quantile(mine / theirs, [0.0, 0.5, 1.0])
            fast, plain = float(np.median(mine)), float(np.median(theirs))
            yield f"{what}, samples per second in bf16", fast, plain, "bare loop", None, f"batches of {size}, {work / 1e9:.3g} GFLOP for a row"
            yield f"{what}, speed as a share of a bare loop's", float(share), 1.0, "bare loop", 0.97, f"{len(mine)} pairs from {low:.3f} to {high:.3f}"
            yield f"{what}, share of the peak in bf16", fast * work / peak / 1e12, plain * work / peak / 1e12, "bare loop", None, words
            forget(where)
            whole, _ = ours(case, size, where, "fp32")
            yield f"{what}, bf16 as a multiple of fp32", fast / whole, None, "", 2.0, f"{whole:.4g} samples per second in 32 bits throughout"
            forget(where)
            yield compiled_row(what, case, size, where, fast)
            forget(where)
