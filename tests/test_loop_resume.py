"A training that is killed at any step comes to the very same weights; a state that does not fit is refused."

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mlbench.core.resuming import Checkpoints, InnerPiece, inner_piece, resumable
from mlbench.models.batches import RecordBatches
from mlbench.models.happenings import Happening
from mlbench.models.loop import Trainer
from mlbench.models.loopstate import LoopSettings
from mlbench.models.losses import CrossEntropy
from mlbench.models.schedules import OPTIMIZERS, SCHEDULES
from mlbench.models.states import Checkpoint, CheckpointError

HERE = Path(__file__)


class Killed(BaseException):
    "Goes through everything, as a signal would."


class Drop(nn.Module):
    "Dropout that draws from a generator that is lent."

    def __init__(self, share):
        super().__init__()
        self.share, self.generator = share, None

    def forward(self, values):
        return values * (torch.rand(values.shape, generator=self.generator) >= self.share) if self.training else values


class Net(nn.Module):
    "A convolution with a batch normalisation, dropout, and a head."

    def __init__(self, width=6, own_dropout=0.0):
        super().__init__()
        self.before = nn.Sequential(nn.Conv1d(1, width, 3, padding=1), nn.BatchNorm1d(width), nn.GELU(), Drop(0.2), nn.Dropout(own_dropout))
        self.head = nn.Linear(width * 8, 3)
        draw = torch.Generator().manual_seed(0)
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.kaiming_uniform_(weight, generator=draw)
        for layer in (self.before[0], self.head):
            nn.init.zeros_(layer.bias)

    def forward(self, parts):
        return self.head(self.before(parts["table"].unsqueeze(1)).flatten(1))


def noise(parts, target, generator, training):
    "A stand-in for augmentation: noise, and every second time another order of the columns."
    table = parts["table"] + 0.2 * torch.randn(parts["table"].shape, generator=generator)
    return {"table": table.flip(1) if torch.rand((), generator=generator) < 0.5 else table}, target


rng = np.random.default_rng(0)
X = rng.normal(size=(130, 8)).astype(np.float32)
y = np.digitize(X[:, 0] + X[:, 1] * X[:, 2], [-0.5, 0.5])


class Kill(Happening):
    "Ends a training after so many steps."

    def __init__(self, step, how=None):
        self.step, self.how = step, how

    def step_end(self, trainer, state):
        if state.step == self.step:
            if self.how == "signal":
                import os

                os.kill(os.getpid(), signal.SIGKILL)
            raise Killed


class NowAndThen(Checkpoint):
    "Keeps the state at some steps, chosen by chance."

    def __init__(self, place, steps):
        super().__init__(place)
        self.steps, self.asked = set(steps), 0

    def due(self):
        self.asked += 1
        return self.asked in self.steps


FULL = {"average": 0.9, "accumulate": 2, "epochs": 6, "learning_rate": 0.02}


def trainer_of(happenings=(), network=None, held_out=True, **choices):
    data = RecordBatches(X[:100], y[:100], 12, seed=3, augment=noise)
    held = RecordBatches(X[100:], y[100:], 12) if held_out else None
    return Trainer(network or Net(), CrossEntropy(0.1), data, LoopSettings(**FULL | choices), happenings, held)


def same(one, other):
    assert one.tensors.keys() == other.tensors.keys()
    return all(torch.equal(t, other.tensors[name]) for name, t in one.tensors.items())


def place_of(kind, folder):
    return folder / "state" if kind == "folder" else InnerPiece(Checkpoints(folder), "key")


@pytest.fixture(autouse=True)
def one_thread_each():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("threads", "place"), [(1, "folder"), (1, "piece"), (2, "piece")])
def test_killed_at_ten_random_steps(tmp_path, threads, place):
    torch.set_num_threads(threads)
    whole = trainer_of()
    whole.fit()
    steps = whole.state.total_steps
    assert steps == 30
    draw = np.random.default_rng(threads)
    kills = sorted(draw.choice(np.arange(1, steps), 10, replace=False).tolist())
    for kill in kills:
        with pytest.raises(Killed):
            trainer_of([Kill(kill)]).fit(keep=NowAndThen(place_of(place, tmp_path), draw.integers(1, 6, 3).tolist()))
    last = trainer_of()
    state = last.fit(keep=Checkpoint(place_of(place, tmp_path)))
    assert same(whole, last) and state.history == whole.state.history
    assert (state.best_step, state.best_loss, state.step) == (whole.state.best_step, whole.state.best_loss, 30)
    assert all(torch.equal(t, whole.state.average[name]) for name, t in state.average.items())


@pytest.mark.parametrize("step", [1, 4, 5, 6, 29, 30])
def test_killed_right_after_a_state_was_kept_at_the_border_of_an_epoch(tmp_path, step):
    whole, more = trainer_of(), Checkpoint(tmp_path, every=0)
    whole.fit()
    if step < 30:
        with pytest.raises(Killed):
            trainer_of([Kill(step + 1)]).fit(keep=more)
        assert more.load()[1]["step"] == step
    else:
        trainer_of().fit(keep=more)
    last = trainer_of()
    last.fit(keep=Checkpoint(tmp_path))
    assert same(whole, last) and last.state.history == whole.state.history


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimiser_goes_on(tmp_path, name):
    whole = trainer_of(optimizer=name, epochs=3)
    whole.fit()
    for kill in (1, 7, 12):
        with pytest.raises(Killed):
            trainer_of([Kill(kill)], optimizer=name, epochs=3).fit(keep=Checkpoint(tmp_path, every=0))
    last = trainer_of(optimizer=name, epochs=3)
    last.fit(keep=Checkpoint(tmp_path))
    assert same(whole, last) and not same(last, trainer_of())


KINDS = [{"schedule": s} for s in sorted(SCHEDULES)] + [{"patience": 1, "epochs": 40, "learning_rate": 0.2}, {"average": 0.0}]


@pytest.mark.parametrize("choices", KINDS, ids=str)
def test_every_schedule_and_patience_go_on(tmp_path, choices):
    whole = trainer_of(**choices)
    whole.fit()
    with pytest.raises(Killed):
        trainer_of([Kill(whole.state.step - 3)], **choices).fit(keep=Checkpoint(tmp_path, every=0))
    last = trainer_of(**choices)
    last.fit(keep=Checkpoint(tmp_path))
    assert same(whole, last) and last.state.over == whole.state.over and last.state.step == whole.state.step


def test_dropout_of_torch_goes_on_too(tmp_path):
    make = lambda *happenings: trainer_of(happenings, Net(own_dropout=0.3))
    whole = make()
    whole.fit()
    with pytest.raises(Killed):
        make(Kill(11)).fit(keep=Checkpoint(tmp_path, every=0))
    torch.rand(5)
    last = make()
    last.fit(keep=Checkpoint(tmp_path))
    assert same(whole, last)


def test_a_step_in_more_pieces_goes_on_in_as_many(tmp_path):
    class Small(Net):
        "Has no room for more than four rows."

        def forward(self, parts):
            if self.training and len(parts["table"]) > 4:
                raise MemoryError
            return super().forward(parts)

    with pytest.raises(Killed):
        trainer_of([Kill(9)], Small()).fit(keep=Checkpoint(tmp_path, every=0))
    last, whole = trainer_of(network=Small()), trainer_of(network=Small())
    last.fit(keep=Checkpoint(tmp_path))
    whole.fit()
    assert same(whole, last) and last.state.accumulate == 8 and last.state.notes == whole.state.notes


def test_a_limit_of_time_keeps_its_plan_and_counts_what_was_spent(tmp_path):
    class Stop(Happening):
        def step_end(self, trainer, state):
            if state.step == 3:
                raise Killed

    with pytest.raises(Killed):
        trainer_of([Stop()], epochs=1000).fit(seconds=60.0, keep=Checkpoint(tmp_path, every=0))
    kept = Checkpoint(tmp_path).load()[1]
    assert kept["step"] == 2 and 0 < kept["spent"] < 60 and kept["plan"][0][1] > 10
    trainer = trainer_of(epochs=1000)
    state = trainer.fit(seconds=1e-6, keep=Checkpoint(tmp_path))
    assert state.step == 3 and state.over == "the time is over" and list(state.plan[0]) == kept["plan"][0]


def test_the_arena_lends_a_place_and_clears_it(tmp_path):
    places, whole = Checkpoints(tmp_path / "work", every=0), trainer_of()
    whole.fit()

    def piece(*happenings):
        with resumable(places, "outer"):
            trainer = trainer_of(happenings)
            trainer.fit(keep=Checkpoint(inner_piece(lambda: {"X": X})))
        return trainer

    with pytest.raises(Killed):
        piece(Kill(13))
    assert len(list((tmp_path / "work").iterdir())) == 1
    assert same(whole, piece()) and not list((tmp_path / "work").iterdir()) and places.restored_seconds > 0
    outside = trainer_of()
    outside.fit(keep=Checkpoint(inner_piece(lambda: {"X": X})))
    assert same(whole, outside)


def test_a_state_of_another_number_of_threads_is_left_out_of_a_piece(tmp_path):
    with pytest.raises(Killed):
        trainer_of([Kill(9)]).fit(keep=Checkpoint(InnerPiece(Checkpoints(tmp_path, every=0), "k")))
    torch.set_num_threads(2)
    assert Checkpoint(InnerPiece(Checkpoints(tmp_path), "k")).load() is None
    torch.set_num_threads(1)
    assert Checkpoint(InnerPiece(Checkpoints(tmp_path), "k")).load()[1]["step"] == 8


def test_a_damaged_piece_is_left_out_and_a_damaged_folder_is_an_error(tmp_path):
    for place in (InnerPiece(Checkpoints(tmp_path / "piece", every=0), "k"), tmp_path / "folder"):
        with pytest.raises(Killed):
            trainer_of([Kill(5)]).fit(keep=Checkpoint(place, every=0))
    [piece] = (tmp_path / "piece").iterdir()
    piece.write_bytes(piece.read_bytes()[:-9])
    assert Checkpoint(InnerPiece(Checkpoints(tmp_path / "piece"), "k")).load() is None
    for file in (tmp_path / "folder").iterdir():
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match="is no whole checkpoint.*Remove the folder to begin anew"):
            trainer_of().fit(keep=Checkpoint(tmp_path / "folder"))
        file.write_bytes(whole)
    trainer_of().fit(keep=Checkpoint(tmp_path / "folder"))


def test_a_state_of_another_network_or_of_other_settings_is_refused(tmp_path):
    with pytest.raises(Killed):
        trainer_of([Kill(5)]).fit(keep=Checkpoint(tmp_path, every=0))
    with pytest.raises(CheckpointError, match=r"are of another network: before.0.weight has the shape \(6, 1, 3\), expected \(9, 1, 3\)"):
        trainer_of(network=Net(width=9)).fit(keep=Checkpoint(tmp_path))
    with pytest.raises(CheckpointError, match="made with learning_rate=0.02, here 0.1; seed=0, here 5. Give the settings"):
        trainer_of(learning_rate=0.1, seed=5).fit(keep=Checkpoint(tmp_path))
    allowed = trainer_of(patience=9)
    allowed.fit(keep=Checkpoint(tmp_path))
    assert allowed.state.step == 30


def test_writing_is_never_half_done(tmp_path, monkeypatch):
    "Killed while the state is written: after the weights, and just before the facts get their name."
    import mlbench.models.states as module

    whole, real = trainer_of(), module.write_weights
    whole.fit()
    written = []

    def dies(path, *rest):
        written.append(path)
        if len(written) == 14:
            raise Killed
        return real(path, *rest)

    monkeypatch.setattr(module, "write_weights", dies)
    with pytest.raises(Killed):
        trainer_of().fit(keep=Checkpoint(tmp_path, every=0))
    monkeypatch.undo()
    assert Checkpoint(tmp_path).load()[1]["step"] == 6
    last = trainer_of()
    last.fit(keep=Checkpoint(tmp_path, every=0))
    assert same(whole, last) and len(list(tmp_path.iterdir())) == 3


CHILD = """
import sys
sys.path.insert(0, {here!r})
import torch
torch.set_num_threads(1)
from test_loop_resume import Kill, trainer_of
from mlbench.models.states import Checkpoint, write_weights

kill = int(sys.argv[1])
trainer = trainer_of([Kill(kill, "signal")] if kill else [])
trainer.fit(keep=Checkpoint(sys.argv[2], every=0) if sys.argv[2] else None)
write_weights(sys.argv[3], trainer.tensors)
"""


def test_processes_that_are_killed_come_to_the_weights_of_one_that_was_not(tmp_path):
    from mlbench.models.states import read_weights

    run = lambda *words: subprocess.run([sys.executable, "-c", CHILD.format(here=str(HERE.parent)), *words], cwd=HERE.parents[1]).returncode
    assert run("0", "", str(tmp_path / "whole.safetensors")) == 0
    for kill in ("8", "21"):
        assert run(kill, str(tmp_path / "state"), str(tmp_path / "never.safetensors")) == -signal.SIGKILL
    assert run("0", str(tmp_path / "state"), str(tmp_path / "last.safetensors")) == 0
    whole, last = (read_weights(tmp_path / f"{name}.safetensors") for name in ("whole", "last"))
    assert all(torch.equal(t, last[name]) for name, t in whole.items()) and not (tmp_path / "never.safetensors").exists()
