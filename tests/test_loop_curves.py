"What a training shows while it goes on: in the notebook, in the terminal, in W&B and TensorBoard, the same numbers everywhere."

from __future__ import annotations

import json
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mlbench.core.curves import MOST, Curve, LiveCurves, curves_figure, curves_sentence
from mlbench.core.files import read_lines
from mlbench.core.progress import set_sink, shown_progress, told_as
from mlbench.models.batches import RecordBatches
from mlbench.models.happenings import Logged, TensorBoard, heard_by
from mlbench.models.loop import Trainer
from mlbench.models.loopstate import LoopSettings
from mlbench.models.losses import CrossEntropy, Focal, Huber, Squared, distance, right

rng = np.random.default_rng(0)
X = rng.normal(size=(96, 3))
y = (X[:, 0] > 0).astype(int)


class Line(nn.Module):
    "A linear network."

    def __init__(self, outputs=2):
        super().__init__()
        self.line = nn.Linear(3, outputs)
        nn.init.zeros_(self.line.weight)
        nn.init.zeros_(self.line.bias)

    def forward(self, parts):
        return self.line(parts["table"])


def trained(happenings=(), loss=None, target=y, outputs=2, **choices):
    settings = LoopSettings(**{"epochs": 3, "learning_rate": 0.05} | choices)
    held = RecordBatches(X[64:], target[64:], 16)
    trainer = Trainer(Line(outputs), loss or CrossEntropy(), RecordBatches(X[:64], target[:64], 16), settings, happenings, held)
    trainer.fit()
    return trainer


# what is measured


@pytest.mark.parametrize("loss", [CrossEntropy(0.1), Focal()])
def test_the_share_of_held_out_rows_that_are_right_is_in_the_history(loss):
    trainer = trained(loss=loss, epochs=1)
    said = trainer.outputs(trainer.held_out).argmax(axis=1)
    assert trainer.state.history[0]["validation_accuracy"] == pytest.approx((said == y[64:]).mean())
    assert trainer.evaluate(trainer.held_out)["loss"] == trainer.state.history[0]["validation_loss"]


@pytest.mark.parametrize("loss", [Squared(), Huber()])
def test_the_mean_error_of_held_out_values_is_in_the_history(loss):
    trainer = trained(loss=loss, target=X[:, 1] * 2, outputs=1, epochs=1)
    said = trainer.outputs(trainer.held_out)[:, 0]
    assert trainer.state.history[0]["validation_absolute_error"] == pytest.approx(np.abs(said - 2 * X[64:, 1]).mean(), rel=1e-5)


def test_measures_take_shares_of_classes_and_several_values():
    assert right(torch.tensor([[0.1, 0.9], [2.0, 1.0]]), torch.tensor([[0.4, 0.6], [0.0, 1.0]])).tolist() == [1, 0]
    assert distance(torch.zeros(2, 2), torch.tensor([[1.0, 3.0], [-2.0, 0.0]])).tolist() == [2, 1]


def test_a_loss_without_measures_has_the_loss_alone():
    trainer = trained(loss=lambda output, target: nn.functional.cross_entropy(output, target), epochs=1)
    assert set(trainer.state.history[0]) == {"epoch", "step", "train_loss", "rate", "validation_loss"}


# in a terminal


def test_a_terminal_shows_a_line_with_the_course_of_the_loss(monkeypatch):
    class Terminal:
        def __init__(self):
            self.text = ""

        def isatty(self):
            return True

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with shown_progress(), told_as("mine"):
        trained(epochs=4)
    assert "mine: step 16 of 16" in terminal.text and "course █" in terminal.text and terminal.text.endswith("\x1b[2K")


# in a notebook


def shell_of(count=1):
    from types import SimpleNamespace

    return SimpleNamespace(kernel=True, execution_count=count, events=SimpleNamespace(register=lambda *what: None))


def entries(*losses):
    return [{"epoch": n, "train_loss": loss, "validation_loss": loss} for n, loss in enumerate(losses, 1)]


def drawn_by(live, monkeypatch):
    "What `display` is given, in order; an update is told as such."
    import IPython.display

    seen = []

    class Handle:
        def update(self, bundle, raw):
            seen.append(("update", bundle))

    monkeypatch.setattr(IPython.display, "display", lambda bundle, raw, display_id: (seen.append(("display", bundle)), Handle())[1])
    return seen


def test_one_figure_for_a_cell_and_another_for_the_next(monkeypatch):
    live = LiveCurves(every=0.0)
    seen, one, other = drawn_by(live, monkeypatch), Curve("network, fold 1"), Curve("network, fold 2")
    live.take(shell := shell_of(), one, entries(0.9))
    live.take(shell, other, entries(0.8, 0.7))
    live.end()
    shell.execution_count = 2
    live.take(shell, one, entries(0.9, 0.6))
    live.end()
    assert [kind for kind, _ in seen][0] == "display" and [kind for kind, _ in seen].count("display") == 2
    assert seen[-1][1]["text/plain"].startswith("network, fold 1, epoch 2") and "fold 2" not in seen[-1][1]["text/plain"]
    before = [bundle for _, bundle in seen if "fold 2" in bundle["text/plain"]]
    assert len(before[-1]["application/vnd.plotly.v1+json"]["data"]) == 4


def test_epochs_that_come_fast_are_drawn_together_and_the_last_one_always(monkeypatch):
    live = LiveCurves(every=60.0)
    seen, curve, shell = drawn_by(live, monkeypatch), Curve("network"), shell_of()
    for n in range(1, 200):
        live.take(shell, curve, entries(*(1 / k for k in range(1, n + 1))))
    live.end()
    assert [kind for kind, _ in seen] == ["display", "update"]
    assert seen[-1][1]["application/vnd.plotly.v1+json"]["data"][0]["x"] is not None and "epoch 199" in seen[-1][1]["text/plain"]
    assert live.drawer.timer is None


def test_threads_draw_into_one_figure(monkeypatch):
    live = LiveCurves(every=60.0)
    seen, shell = drawn_by(live, monkeypatch), shell_of()
    work = lambda name: [live.take(shell, curve, entries(*([0.5] * n))) for curve in [Curve(name)] for n in range(1, 30)]
    threads = [threading.Thread(target=work, args=(f"network, fold {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    live.end()
    assert seen[0][0] == "display" and all(kind == "update" for kind, _ in seen[1:])
    assert [line.endswith("validation loss 0.5") for line in seen[-1][1]["text/plain"].splitlines()] == [True] * 4


def test_a_search_keeps_the_newest_trainings(monkeypatch):
    drawn_by(live := LiveCurves(every=60.0), monkeypatch)
    shell = shell_of()
    for n in range(MOST + 5):
        live.take(shell, Curve(f"trial {n}"), entries(0.5))
    assert len(live.curves) == MOST and next(iter(live.named())) == "trial 5"
    live.end()


def test_a_training_that_began_again_is_drawn_from_its_beginning_and_bad_losses_do_no_harm():
    bad = [{"epoch": 1, "train_loss": float("nan"), "validation_loss": float("inf")}, {"epoch": 2, "train_loss": 0.5, "validation_loss": float("nan")}]
    figure = curves_figure({"network": bad})
    assert json.loads(figure.to_json())["data"] and "∞" in curves_sentence({"network": bad})


BOOK = """
import numpy as np
from mlbench.core import curves
from mlbench.core.progress import shown_progress
from mlbench.models.deep import DeepClassifier
curves._live.every = curves._live.drawer.every = 0.0
X = np.random.default_rng(0).normal(size=(60, 3))
y = (X[:, 0] > 0).astype(int)
network = DeepClassifier("curves", width=8, max_epochs=4, random_state=0, device="cpu")
# %%
network.fit(X, y);
# %%
with shown_progress(False):
    network.fit(X, y)
"""


def test_an_executed_notebook_keeps_the_last_figure_of_a_fit(tmp_path, monkeypatch):
    import os

    import nbformat
    from nbclient import NotebookClient

    kinds = []

    class Watching(NotebookClient):
        def process_message(self, message, cell, cell_index):
            kinds.append((cell_index, message["msg_type"]))
            return super().process_message(message, cell, cell_index)

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip()) for source in BOOK.split("# %%")])
    paths = os.pathsep.join(p for p in sys.path if p)
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLBENCH_")} | {"MLBENCH_INTERACTIVE": "1", "PYTHONPATH": paths}
    Watching(book, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}, timeout=600).execute(env=env)
    [figure] = [o for o in book.cells[1].outputs if "application/vnd.plotly.v1+json" in o.get("data", {})]
    assert "neural network, epoch 4" in figure["data"]["text/plain"] and "validation accuracy" in figure["data"]["text/plain"]
    assert kinds.count((1, "display_data")) == 1 and kinds.count((1, "update_display_data")) >= 1
    drawn = figure["data"]["application/vnd.plotly.v1+json"]
    assert [axis["title"]["text"] for name, axis in sorted(drawn["layout"].items()) if name.startswith("yaxis")][0] == "loss"
    assert len(drawn["data"]) == 4 and book.cells[2].outputs == []


# in files of others


def test_every_training_inside_is_heard_by_one_of_its_own():
    class Tracker:
        def __init__(self):
            self.lines = []

        def log(self, figures):
            self.lines.append(figures)

    tracker = Tracker()
    with heard_by(lambda name: Logged(tracker, name)), told_as("network, fold 1"):
        first = trained()
        trained(epochs=1)
    trained(epochs=1)
    assert len(tracker.lines) == 4 and [line for line in tracker.lines if "network, fold 1 (2)/epoch" in line] == tracker.lines[3:]
    for line, entry in zip(tracker.lines, first.state.history, strict=False):
        assert line == {f"network, fold 1/{name}": value for name, value in entry.items() if name != "step"}


def test_what_is_made_for_a_training_must_be_a_happening():
    from mlbench.core.errors import UsageError

    with heard_by(lambda name: print), pytest.raises(UsageError, match="is no happening"):
        trained()


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the package tensorboard, of the extra `track`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with heard_by(lambda name: TensorBoard(tmp_path / name)):
        history = trained().state.history
    read = EventAccumulator(str(tmp_path / "neural network"))
    read.Reload()
    names = {"train_loss", "validation_loss", "validation_accuracy", "rate"}
    assert set(read.Tags()["scalars"]) == names
    for name in names:
        points = read.Scalars(name)
        assert [p.step for p in points] == [entry["step"] for entry in history]
        assert [p.value for p in points] == pytest.approx([entry[name] for entry in history], rel=1e-6)


SCRIPT = """
import json, sys
import numpy as np, wandb
sys.path.insert(0, sys.argv[2])
from test_loop_curves import trained
from mlbench.models.happenings import Logged
run = wandb.init(project="curves", mode="offline", dir=sys.argv[1], settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True))
history = trained([Logged(run)]).state.history
run.finish()
print("HISTORY", json.dumps(history))
"""


def inspected(folder):
    "The history that W&B's own reader finds."
    file = next(folder.rglob("offline-run-*/*.wandb"))
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout.splitlines()
    items = [r["history"]["item"] for r in map(json.loads, lines) if r["type"] == "history"]
    return [{name: value for name, value in item.items() if not name.startswith("_")} for item in items]


def test_a_run_of_wandb_has_the_numbers_of_the_history(tmp_path, checkout):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), str(checkout / "tests")], capture_output=True, text=True, check=True, timeout=600)
    history = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("HISTORY")).removeprefix("HISTORY "))
    found = inspected(tmp_path)
    assert len(found) == 3 and found == [{name: value for name, value in entry.items() if name != "step"} for entry in history]


def test_networks_of_a_comparison_are_told_by_fold_drawn_each_and_tracked(tmp_path):
    "From the folds of an arena to the copy of the run in W&B: every epoch of every network, the same numbers."
    from test_report import make_run
    from test_training import Case

    from mlbench.chain.tracking import track_run
    from mlbench.training.plots import learning_figures

    run = make_run(tmp_path / "demo")
    frame = pd.DataFrame(X, columns=list("abc")).assign(kind=np.where(y, "yes", "no"))
    set_sink(run.folder, "04_training")
    try:
        found = Case(frame, "kind", "binary").compare(["mlp", "network"])
    finally:
        set_sink(None)
    assert not found.failures
    assert {line["what"] for line in read_lines(run.folder / "events.jsonl") if "step" in line["what"] or "epoch" in line["what"]} <= {
        f"{name}, fold {n}: {what}" for name, what in (("mlp", "epoch"), ("network", "step")) for n in (1, 2, 3)
    }
    figures = learning_figures(found)
    assert set(figures) == {"learning_mlp", "learning_network"} and len(figures["learning_network"].data) == 4 * 4
    assert track_run(run, seconds=600) is None
    tracked = inspected(run.folder)
    for row in found.history.to_dict("records"):
        begins = f"training/{row['model']}/fold{row['fold']}/"
        [line] = [item for item in tracked if item.get(f"{begins}step") == row["epoch"] and f"{begins}train_loss" in item]
        assert line[f"{begins}validation_loss"] == row["validation_loss"]
        if row["model"] == "network":
            assert line[f"{begins}validation_accuracy"] == row["validation_accuracy"] and line[f"{begins}rate"] == row["rate"]


def test_nothing_is_drawn_where_nobody_watches(monkeypatch):
    from mlbench.core import curves

    monkeypatch.setattr(curves._live, "take", lambda *given: pytest.fail("nobody watches"))
    trained()


def test_the_loop_is_had_from_training_and_reads_on_two_screens():
    import inspect

    import mlbench.training as training
    from mlbench.models import loop

    for name in ("Trainer", "LoopSettings", "RecordBatches", "Happening"):
        assert getattr(training, name) is getattr(loop, name)
    steps = ("_piece", "_gradients", "_change", "_try_step", "_begin_epoch", "_end_epoch", "_run", "_fit")
    assert sum(len(inspect.getsource(getattr(loop, name)).splitlines()) for name in steps) <= 2 * 90
