"Two processes under torchrun train one network: the replicas are equal, and so is the training of one process, up to rounding."

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mlbench.core.errors import UsageError
from mlbench.core.settings import child_environment
from mlbench.models.batches import RecordBatches
from mlbench.models.happenings import Happening
from mlbench.models.loop import Trainer
from mlbench.models.loopstate import LoopSettings
from mlbench.models.losses import CrossEntropy
from mlbench.models.spread import Spread, together
from mlbench.models.states import Checkpoint, read_state, read_weights

ROOT = Path(__file__).resolve().parents[1]
rng = np.random.default_rng(0)
X = rng.normal(size=(90, 4)).astype(np.float32)
y = np.digitize(X[:, 0] * X[:, 1], [-0.3, 0.3])


class Net(nn.Module):
    "Two layers, with a normalisation of each row, or of the batch."

    def __init__(self, norm):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 12), norm(12), nn.GELU(), nn.Linear(12, 3))
        draw = torch.Generator().manual_seed(1)
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.kaiming_uniform_(weight, generator=draw)
        for layer in (self.layers[0], self.layers[3]):
            nn.init.zeros_(layer.bias)

    def forward(self, parts):
        return self.layers(parts["table"])


def trainer_of(norm, rows=X, happenings=(), spread=None, **choices):
    data, held = RecordBatches(rows[:70], y[:70], 10, seed=2), RecordBatches(rows[70:], y[70:], 10)
    settings = LoopSettings(**{"epochs": 4, "learning_rate": 0.02, "average": 0.8, "accumulate": 2, "device": "cpu"} | choices)
    return Trainer(Net(norm), CrossEntropy(0.1), data, settings, happenings, held, spread)


CHILD = """
import json
import sys
sys.path.insert(0, {here!r})
from test_loop_spread import *
from mlbench.models.states import write_weights

folder = Path(sys.argv[1])
torch.set_num_threads(1)


def told(name, trainer, state, rank):
    write_weights(folder / f"{{name}}{{rank}}.safetensors", trainer.tensors)
    found = {{"plan": state.plan, "step": state.step, "losses": [h["train_loss"] for h in state.history]}}
    (folder / f"{{name}}{{rank}}.json").write_text(json.dumps(found))


with together("cpu") as spread:
    for name in ("plain", "batch", "time", "keep", "again"):
        trainer = trainer_of(nn.BatchNorm1d if name == "batch" else nn.LayerNorm, spread=spread, **({{"epochs": 10_000}} if name == "time" else {{}}))
        keep = Checkpoint(folder / f"state of {{name}}", every=0) if name in ("keep", "again") else None
        told(name, trainer, trainer.fit(0.5 if name == "time" else None, keep), spread.rank)
    try:
        trainer_of(nn.LayerNorm, wild_rows(), spread=spread).fit()
    except Exception as error:
        (folder / f"said{{spread.rank}}").write_text(str(error))
"""


class Killed(BaseException):
    "Goes through everything, as a signal would."


class Kill(Happening):
    "Ends a training after seven steps."

    def step_end(self, trainer, state):
        if state.step == 7:
            raise Killed


def wild_rows():
    wild = X.copy()
    wild[33, 1] = np.nan
    return wild


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "What two processes wrote that torchrun started: five trainings and an error. The last training goes on with a state of one process."
    folder = tmp_path_factory.mktemp("spread")
    with pytest.raises(Killed):
        trainer_of(nn.LayerNorm, happenings=[Kill()]).fit(keep=Checkpoint(folder / "state of again", every=0))
    script = folder / "train.py"
    script.write_text(CHILD.format(here=str(ROOT / "tests")))
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(folder)]
    done = subprocess.run(words, cwd=ROOT, env=child_environment({"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def replicas(folder, name):
    "The weights of both processes, after it was seen that they are equal, and what both said."
    first, second = (read_weights(folder / f"{name}{rank}.safetensors") for rank in (0, 1))
    told = [json.loads((folder / f"{name}{rank}.json").read_text()) for rank in (0, 1)]
    assert first.keys() == second.keys() and all(torch.equal(t, second[key]) for key, t in first.items()) and told[0] == told[1]
    return first, told[0]


def test_two_processes_come_to_the_weights_of_one_and_their_replicas_are_equal(folder):
    weights, told = replicas(folder, "plain")
    alone = trainer_of(nn.LayerNorm)
    state = alone.fit()
    assert all(torch.allclose(t, weights[name], atol=1e-5) for name, t in alone.tensors.items()) and told["step"] == state.step
    assert np.allclose(told["losses"], [h["train_loss"] for h in state.history], atol=1e-5)


def test_running_statistics_are_those_of_the_first_process(folder):
    assert "layers.1.running_mean" in replicas(folder, "batch")[0]


def test_the_processes_agree_on_a_plan_within_the_time(folder):
    _, told = replicas(folder, "time")
    assert 1 <= told["step"] < 40_000


def test_all_processes_name_the_row_that_is_no_number(folder):
    said = [(folder / f"said{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1] and "(row 33)" in said[0]


def test_the_first_process_keeps_the_state_and_both_go_on(folder):
    plain, (kept, _), (again, _) = replicas(folder, "plain")[0], replicas(folder, "keep"), replicas(folder, "again")
    assert all(torch.equal(t, kept[name]) and torch.allclose(t, again[name], atol=1e-5) for name, t in plain.items())
    assert read_state(folder / "state of keep")[1]["step"] == 16 == read_state(folder / "state of again")[1]["step"]


def test_shares_hold_every_row_once():
    for rows in (4, 7, 30):
        for world in (1, 2, 4):
            shares = [Spread(rank, world).share(slice(5, 5 + rows)) for rank in range(world)]
            assert [n for s in shares for n in range(s.start, s.stop)] == list(range(5, 5 + rows))
            assert max(s.stop - s.start for s in shares) - min(s.stop - s.start for s in shares) <= 1
    with pytest.raises(UsageError, match="Start the script by torchrun"), together():
        pass


@pytest.mark.parametrize(
    "told, words",
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', expected a whole number"),
        ({"RANK": "5"}, "RANK=5 and WORLD_SIZE=2, expected a rank from 0 to below"),
        ({}, "The 2 processes do not know where to meet .*MASTER_ADDR.*torchrun --nproc-per-node 2"),
    ],
)
def test_what_torchrun_should_have_told_is_named(told, words, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"} | told).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=words), together("cpu"):
        pass
