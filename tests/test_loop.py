"The training loop: order of events, one step in pieces, plans and rates, memory, faults, chance, files of weights."

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from mlbench.core.errors import DataError, MissingExtra, UsageError
from mlbench.core.files import read_lines
from mlbench.core.progress import set_sink
from mlbench.models import happenings as moments
from mlbench.models.batches import RecordBatches, as_tensors, step_seed, step_slice, steps_of_epoch
from mlbench.models.happenings import Curves, EarlyStopping, Happening, TensorBoard, rehearsed
from mlbench.models.loop import DivergedError, Trainer, find_rate, largest_batch, suggested_rate
from mlbench.models.loopstate import LoopSettings, State, check_settings, compiled, tensors_of
from mlbench.models.losses import Contrastive, CrossEntropy, Focal, Huber, Quantile, Squared, balanced_weights, make_loss
from mlbench.models.rounds import ended_by
from mlbench.models.schedules import OPTIMIZERS, SCHEDULES, make_optimizer, plateau_factor, rate_factors, simulate, weight_groups
from mlbench.models.states import Checkpoint, CheckpointError, copy_into, read_state, read_weights, write_state, write_weights


class Drop(nn.Module):
    "Dropout that draws from a generator that is lent."

    def __init__(self, share):
        super().__init__()
        self.share, self.generator = share, None

    def forward(self, values):
        if not self.training:
            return values
        kept = torch.rand(values.shape, generator=self.generator) >= self.share
        return values * kept / (1 - self.share)


class Net(nn.Module):
    "Three layers; first weights from a seed."

    def __init__(self, inputs=3, outputs=2, norm=nn.BatchNorm1d, drop=0.0, seed=0, own_dropout=0.0):
        super().__init__()
        between = [norm(8)] if norm else []
        between += [Drop(drop)] if drop else []
        between += [nn.Dropout(own_dropout)] if own_dropout else []
        self.layers = nn.Sequential(nn.Linear(inputs, 8), *between, nn.ReLU(), nn.Linear(8, outputs))
        draw = torch.Generator().manual_seed(seed)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, generator=draw)
                nn.init.zeros_(layer.bias)

    def forward(self, parts):
        return self.layers(parts["table"])


rng = np.random.default_rng(0)
X = rng.normal(size=(160, 3))
y = (X[:, 0] * X[:, 1] > 0).astype(int)


def batches(rows=96, size=16, seed=0, augment=None):
    return RecordBatches(X[:rows], y[:rows], size, seed, augment)


def held():
    return RecordBatches(X[96:], y[96:], 16)


def trained(network=None, data=None, happenings=(), held_out=None, kept=None, seconds=None, loss=None, **choices):
    settings = LoopSettings(**{"epochs": 3, "learning_rate": 0.02} | choices)
    trainer = Trainer(network or Net(), loss or CrossEntropy(), data or batches(), settings, happenings, held_out)
    trainer.fit(seconds, kept)
    return trainer


def same(one, other):
    return all(torch.equal(t, other.tensors[name]) for name, t in one.tensors.items())


class Listens(Happening):
    def __init__(self):
        self.heard = []


for _event in moments.EVENTS:
    if _event != "step_failed":
        setattr(Listens, _event, lambda self, trainer, state, event=_event: self.heard.append(event))


@pytest.fixture(autouse=True, scope="module")
def one_thread_each():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# events


def test_events_come_in_their_order():
    listens = Listens()
    trained(happenings=[listens], held_out=held(), epochs=2, data=batches(32), accumulate=1)
    step = ["batch_begin", "loss_ready", "gradients_ready", "step_end"]
    epoch = ["epoch_begin", *step, *step, "epoch_end"]
    assert listens.heard == ["fit_begin", *epoch, *epoch, "fit_end"]


def test_pieces_of_a_step_have_events_of_their_own():
    listens = Listens()
    trained(happenings=[listens], epochs=1, data=batches(32), accumulate=2)
    piece = ["batch_begin", "loss_ready"]
    assert listens.heard == ["fit_begin", "epoch_begin", *piece, *piece, "gradients_ready", "step_end", "epoch_end", "fit_end"]


def test_steps_that_only_measure_the_pace_are_not_told():
    listens = Listens()
    trainer = trained(happenings=[listens], seconds=1e-3, epochs=50)
    assert listens.heard.count("step_end") == trainer.state.step


def test_a_happening_can_change_batches_and_losses():
    class Blank(Happening):
        def batch_begin(self, trainer, state):
            state.parts = {"table": torch.zeros_like(state.parts["table"])}

    class Nothing(Happening):
        def loss_ready(self, trainer, state):
            state.loss = state.loss * 0

    blank = trained(Net(norm=None), happenings=[Blank()], weight_decay=0.0)
    assert torch.equal(blank.network.layers[0].weight, Net(norm=None).layers[0].weight)
    first, still = Net(norm=None), trained(Net(norm=None), happenings=[Nothing()], weight_decay=0.0)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), still.network.parameters(), strict=True))
    assert not torch.equal(blank.network.layers[-1].bias, still.network.layers[-1].bias)


def test_a_happening_can_end_a_training():
    class Enough(Happening):
        def step_end(self, trainer, state):
            state.over = "enough" if state.step == 8 else ""

    trainer = trained(happenings=[Enough()], held_out=held())
    assert trainer.state.step == 8 and [h["step"] for h in trainer.state.history] == [6, 8]
    assert trainer.replay()["keep"] in (6, 8)


def test_a_misspelt_event_and_a_strange_object_are_told():
    class Wrong(Happening):
        def step_ended(self, trainer, state): ...

    with pytest.raises(UsageError, match="'step_ended', and there is no such event. Did you mean 'step_end'"):
        trained(happenings=[Wrong()])
    with pytest.raises(UsageError, match="is no happening"):
        trained(happenings=["early stopping"])


@pytest.mark.parametrize(("losses", "epochs"), [([3, 2, 1, 1, 1, 1], 5), ([3, float("nan"), 2, 2.5, 1], 5), ([1, 2, 2, 0], 3)])
def test_patience_is_tried_without_a_training(losses, epochs):
    assert rehearsed(EarlyStopping(2), losses).epoch == epochs


def test_early_stopping_ends_with_the_best_weights():
    trainer = trained(held_out=held(), epochs=300, patience=3, schedule="constant", learning_rate=0.05)
    losses = [h["validation_loss"] for h in trainer.state.history]
    assert trainer.state.over == "no better for 3 epochs" and len(losses) - 1 - int(np.argmin(losses)) == 3
    assert trainer.evaluate(held())["loss"] == pytest.approx(min(losses), rel=1e-6)


def test_curves_write_one_line_of_metrics_for_each_epoch(tmp_path):
    set_sink(tmp_path, "04_training")
    try:
        trained(happenings=[Curves("net", log=True)], held_out=held())
    finally:
        set_sink(None)
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3] and set(lines[0]["values"]) == {"train_loss", "validation_loss", "validation_accuracy", "rate"}
    assert any("neural network: step" in line["what"] for line in read_lines(tmp_path / "events.jsonl"))


def test_tensorboard_is_missed_in_words(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mlbench\[track\]'"):
        TensorBoard(tmp_path)


# one step


def test_four_batches_of_eight_are_one_of_thirty_two():
    whole = trained(Net(norm=None), batches(size=32), epochs=4)
    pieces = trained(Net(norm=None), batches(size=8), epochs=4, accumulate=4)
    assert whole.state.step == pieces.state.step == 12
    assert all(torch.allclose(t, pieces.tensors[name], atol=1e-6) for name, t in whole.tensors.items())


def test_pieces_count_by_their_rows_also_with_class_weights():
    loss, data = CrossEntropy(class_weight=torch.tensor([0.5, 3.0])), lambda size: RecordBatches(X[:50], y[:50], size)
    whole = trained(Net(norm=None), data(50), loss=loss, epochs=5)
    pieces = trained(Net(norm=None), data(17), loss=loss, epochs=5, accumulate=3)
    assert all(torch.allclose(t, pieces.tensors[name], atol=1e-6) for name, t in whole.tensors.items())


def test_long_gradients_are_shortened():
    class Length(Happening):
        def __init__(self):
            self.before = []

        def gradients_ready(self, trainer, state):
            self.before.append(float(torch.cat([w.grad.flatten() for w in trainer.weights]).norm()))

    length, first = Length(), Net(norm=None)
    choices = {"optimizer": "sgd", "clip": 1e-3, "epochs": 1, "learning_rate": 1.0, "schedule": "constant", "warm_up": 0.0, "weight_decay": 0.0}
    trainer = trained(Net(norm=None), happenings=[length], **choices)
    moved = torch.cat([(a - b).flatten() for a, b in zip(first.parameters(), trainer.network.parameters(), strict=True)]).norm()
    assert min(length.before) > 0.01 and moved < 6 * 1e-3 * 10  # six steps, momentum 0.9


def test_the_running_mean_is_judged_and_kept():
    plain, mean = trained(Net(norm=None)), trained(Net(norm=None), average=0.9)
    assert not same(plain, mean)
    assert all(torch.equal(mean.state.average[name], t) for name, t in mean.tensors.items())
    by_hand, towards = {n: t.clone() for n, t in tensors_of(Net(norm=None)).items()}, None

    class Follow(Happening):
        def step_end(self, trainer, state):
            nonlocal towards
            towards = max(0.1, 9 / (9 + state.step))
            for name, t in trainer.tensors.items():
                by_hand[name].lerp_(t, towards)

    followed = trained(Net(norm=None), happenings=[Follow()], average=0.9)
    assert towards == pytest.approx(9 / 27) and all(torch.allclose(by_hand[name], t, atol=1e-7) for name, t in followed.tensors.items())


def test_statistics_of_a_normalisation_belong_to_the_average_and_to_the_best():
    trainer = trained(average=0.9, held_out=held())
    assert "layers.1.running_mean" in trainer.state.average and "layers.1.num_batches_tracked" in trainer.state.best
    assert trainer.evaluate(held())["loss"] == pytest.approx(trainer.state.best_loss, rel=1e-6)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimiser_trains(name):
    trainer = trained(optimizer=name, epochs=12, learning_rate=0.05 if name != "sgd" else 0.2, held_out=held())
    history = trainer.state.history
    assert history[-1]["train_loss"] < 0.95 * history[0]["train_loss"]


def test_bf16_trains_and_fp16_asks_for_a_gpu():
    history = trained(precision="bf16", epochs=10).state.history
    assert history[-1]["train_loss"] < history[0]["train_loss"] and not same(trained(precision="bf16"), trained())
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="precision='fp16' needs a GPU"):
            trained(precision="fp16", device="cpu")
        with pytest.raises(UsageError, match="finds no such GPU here"):
            trained(device="cuda")


def scaled(network, hook=None):
    "A training whose loss is scaled, as fp16 on a GPU needs it."
    trainer = Trainer(network, CrossEntropy(), batches(), LoopSettings(epochs=3, learning_rate=0.02))
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    trainer.first_scale = trainer.scaler.state_dict()
    if hook:
        network.layers[0].weight.register_hook(hook)
    trainer.fit()
    return trainer


def test_a_scaled_loss_leads_to_the_same_weights_and_is_kept_with_the_state():
    plain, by_scale = trained(Net(norm=None)), scaled(Net(norm=None))
    assert all(torch.allclose(t, by_scale.tensors[name], rtol=0, atol=1e-7) for name, t in plain.tensors.items())
    assert by_scale.facts()["scaler"]["scale"] == 2.0**10


def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_halved():
    calls = []
    trainer = scaled(Net(norm=None), lambda grad: (calls.append(1), grad * float("inf") if len(calls) == 4 else grad)[1])
    assert trainer.state.step == 18 and trainer.scaler.get_scale() == 2.0**9 and not trainer.state.notes
    assert all(torch.isfinite(t).all() for t in trainer.tensors.values()) and trainer.optimizers[0].state[trainer.weights[0]]["step"] == 17
    trainer._forget_optimizer()
    assert trainer.scaler.get_scale() == 2.0**10


def test_a_network_is_compiled_on_a_gpu_alone_and_where_it_is_wanted(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network: (asked.append(network), network)[1])
    network = Net()
    for wanted, device in ((True, "cpu"), (False, "cuda"), (True, "cuda")):
        assert compiled(network, wanted, torch.device(device)) is network
    assert asked == [network] and same(trained(compile=True), trained())


def test_weights_that_are_frozen_stay():
    network = Net()
    for weight in network.layers[0].parameters():
        weight.requires_grad_(False)
    trainer = trained(network)
    assert torch.equal(trainer.network.layers[0].weight, Net().layers[0].weight)
    assert not torch.equal(trainer.network.layers[-1].weight, Net().layers[-1].weight)


def test_a_share_of_the_rate_is_taken():
    slow = Net(norm=None)
    for weight in slow.layers[0].parameters():
        weight.rate = 0.0
    trainer = trained(slow)
    assert torch.equal(trainer.network.layers[0].weight, Net(norm=None).layers[0].weight)
    assert not torch.equal(trainer.network.layers[-1].weight, Net(norm=None).layers[-1].weight)


# chance


def test_nothing_is_drawn_from_the_shared_random_state():
    network, before = Net(drop=0.3), (torch.get_rng_state(), np.random.get_state()[1].copy())
    trained(network, batches(augment=jitter), average=0.9, held_out=held())
    assert torch.equal(torch.get_rng_state(), before[0]) and np.array_equal(np.random.get_state()[1], before[1])


def jitter(parts, target, generator, training):
    assert training
    return {name: part + 0.1 * torch.randn(part.shape, generator=generator) for name, part in parts.items()}, target


def test_dropout_of_torch_is_seeded_and_the_shared_state_given_back():
    network = Net(own_dropout=0.3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = trained(network)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert same(one, trained(Net(own_dropout=0.3))) and not same(one, trained(Net(own_dropout=0.3), seed=1))


def test_fits_in_two_threads_are_those_of_one():
    make = lambda seed: trained(Net(drop=0.2, seed=seed), batches(augment=jitter, seed=seed), seed=seed)
    alone = [make(0), make(1)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(make, (0, 1)))
    assert all(same(a, b) for a, b in zip(alone, together, strict=True)) and not same(*alone)


def test_held_out_rows_are_never_augmented():
    seen = []

    def spy(parts, target, generator, training):
        seen.append(parts["table"].clone())
        return parts, target

    trained(data=batches(augment=spy), held_out=RecordBatches(X[96:], y[96:], 16, augment=spy), epochs=2)
    rows = {tuple(row) for part in seen for row in part.tolist()}
    assert len(seen) == 12 and len(rows) == 96 and not rows & {tuple(row) for row in X[96:].astype(np.float32).tolist()}


def test_a_generator_is_lent_for_the_time_of_a_fit():
    network = Net(drop=0.2)
    trained(network)
    assert [m.generator for m in network.modules() if hasattr(m, "generator")] == [None]
    with pytest.raises(ZeroDivisionError):
        trained(network, happenings=[Breaks()])
    assert [m.generator for m in network.modules() if hasattr(m, "generator")] == [None]


class Breaks(Happening):
    def step_end(self, trainer, state):
        raise ZeroDivisionError


def test_seeds_differ_in_all_that_they_are_made_from():
    seeds = [step_seed(s, p, n, r) for s in range(3) for p in ("a", "b") for n in range(300) for r in (0, 1)]
    assert len(set(seeds)) == len(seeds) and all(0 <= s < 2**63 for s in seeds)
    low = np.array([step_seed(0, "a", n) & 0xFFFFFFFF for n in range(2000)])
    assert len(set(low)) == 2000 and abs(low.mean() / 2**32 - 0.5) < 0.03  # a generator on the CPU reads 32 bits


# batches


@pytest.mark.parametrize(("rows", "size"), [(1, 4), (7, 3), (10, 10), (33, 16), (100, 7)])
def test_every_row_is_met_once_in_an_epoch_in_batches_of_nearly_the_same_size(rows, size):
    data, steps = RecordBatches(np.arange(rows)[:, None], np.arange(rows), size), steps_of_epoch(rows, size)
    data.order(2)
    found = [data.batch(step_slice(n, rows, steps), n, True)[1] for n in range(2 * steps, 3 * steps)]
    lengths = [len(f) for f in found]
    assert sorted(torch.cat(found).tolist()) == list(range(rows)) and max(lengths) <= size and max(lengths) - min(lengths) <= 1


def test_large_data_are_gathered_and_give_the_same_batches(monkeypatch):
    data, gathered = batches(), batches()
    monkeypatch.setattr("mlbench.models.batches.SHUFFLED_BYTES", 0)
    gathered.order(1)
    monkeypatch.undo()
    data.order(1)
    assert gathered.views is None and data.views is not None
    for where in (slice(0, 16), slice(80, 96)):
        one, other = data.batch(where, 0, True), gathered.batch(where, 0, True)
        assert torch.equal(one[0]["table"], other[0]["table"]) and torch.equal(one[1], other[1])


# batches ahead of time


def threads_left():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mlbench-batches")]


@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("choices", [{}, {"accumulate": 3, "average": 0.9, "epochs": 4}], ids=str)
def test_batches_of_a_thread_lead_to_the_same_weights(monkeypatch, gathered, choices):
    if gathered:
        monkeypatch.setattr("mlbench.models.batches.SHUFFLED_BYTES", 0)
    data = lambda: batches(rows=90, size=8, augment=jitter)
    plain = trained(Net(drop=0.2), data(), held_out=held(), **choices)
    ahead = trained(Net(drop=0.2), data(), held_out=held(), prefetch=True, **choices)
    assert ahead.prefetches and not plain.prefetches and same(plain, ahead) and plain.state.history == ahead.state.history
    assert threads_left() == [] and ahead.ahead is None


class Fails(RecordBatches):
    "Cannot look up the rows from the fifth batch on, so many times."

    def __init__(self, error, times=1):
        super().__init__(X[:96], y[:96], 16)
        self.error, self.left, self.done, self.by = error, times, 0, set()

    def gather(self, where, training=True):
        self.by.add(threading.current_thread().name.split("_")[0])
        self.done += 1
        if self.done >= 5 and self.left:
            self.left -= 1
            raise self.error("can't allocate memory")
        return super().gather(where, training)


def test_an_error_of_the_thread_comes_out_of_the_fit():
    data = Fails(OSError)
    with pytest.raises(OSError, match="can't allocate memory"):
        trained(data=data, prefetch=True)
    assert data.by == {"mlbench-batches"} and threads_left() == []


def test_a_batch_that_the_thread_has_no_memory_for_is_made_in_pieces():
    plain, ahead = trained(Net(norm=None), batches()), trained(Net(norm=None), Fails(MemoryError), prefetch=True)
    assert ahead.state.accumulate == 2 and "worked through 8 at a time" in ahead.state.notes[0] and ahead.state.step == plain.state.step
    assert all(torch.allclose(t, ahead.tensors[name], atol=1e-6) for name, t in plain.tensors.items()) and threads_left() == []


def test_the_thread_ends_with_a_training_that_is_killed_or_stopped():
    class Stop(Happening):
        def __init__(self, error):
            self.error = error

        def step_end(self, trainer, state):
            assert threads_left()
            if state.step == 3 and self.error:
                raise self.error
            state.over = "enough" if state.step == 3 else ""

    with pytest.raises(KeyboardInterrupt):
        trained(happenings=[Stop(KeyboardInterrupt)], prefetch=True)
    assert threads_left() == []
    assert trained(happenings=[Stop(None)], prefetch=True).state.step == 3 and threads_left() == []


def test_a_plan_within_seconds_and_one_that_begins_again_work_ahead_too():
    timed = trained(seconds=0.2, epochs=50, prefetch=True)
    assert same(timed, trained(**timed.replay())) and threads_left() == []
    wild = lambda **choices: Trainer(Steep(), Squared(), RecordBatches(X, X[:, 0], 30), LoopSettings(optimizer="sgd", clip=0, epochs=3, **choices))
    with pytest.raises(DivergedError):
        wild(learning_rate=1e3, prefetch=True).fit()
    assert threads_left() == []


def test_only_what_is_sent_to_a_gpu_is_pinned_and_by_the_thread(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: (pinned.append(threading.current_thread().name.split("_")[0]), self)[1])
    plain = trained(data=batches())
    assert not plain.prefetches and pinned == []
    data = batches()
    data.sends = True
    sent = trained(data=data)
    assert sent.prefetches and same(plain, sent) and set(pinned) == {"mlbench-batches"} and len(pinned) == 2 * sent.state.step


def test_batches_without_halves_cannot_be_made_ahead():
    class Whole:
        rows, size = 96, 16

        def __init__(self):
            self.order, self.batch = (inner := batches()).order, inner.batch

    assert same(trained(data=Whole()), trained())
    with pytest.raises(UsageError, match="prefetch=True, and Whole has no gather and finish"):
        trained(data=Whole(), prefetch=True)


def test_a_record_keeps_its_parts_and_their_types():
    dtype = np.dtype([("table", "f4", (2,)), ("words", "i4", (5,)), ("picture", "u1", (4, 4, 3))], align=True)
    record = np.zeros(6, dtype)
    record["words"] = np.arange(30).reshape(6, 5)
    data = RecordBatches(record, np.linspace(0, 1, 6), 2)
    parts, target = data.batch(slice(1, 3), 0, False)
    assert {n: (p.dtype, tuple(p.shape[1:])) for n, p in parts.items()} == {
        "table": (torch.float32, (2,)),
        "words": (torch.int32, (5,)),
        "picture": (torch.uint8, (4, 4, 3)),
    }
    assert parts["words"].tolist() == record["words"][1:3].tolist() and target.dtype == torch.float32
    assert as_tensors(torch.ones(2, 2))["table"].shape == (2, 2)


@pytest.mark.parametrize("target", [[], [0, 1], list(range(4))])
def test_targets_that_do_not_fit_are_refused(target):
    with pytest.raises(UsageError, match="expected as many targets as rows"):
        RecordBatches(np.zeros((3, 2)), np.array(target), 2)


# plans, time, ends


def test_a_fit_with_the_planned_steps_is_that_of_the_time():
    timed = trained(seconds=0.2, epochs=10_000, held_out=held(), average=0.9)
    again = trained(average=0.9, **timed.replay())
    assert same(timed, again) and again.state.total_steps == timed.state.total_steps < 60_000


def test_a_plan_that_was_changed_comes_out_again():
    first = LoopSettings(epochs=3, learning_rate=0.02)

    class Slower(Happening):
        def step_end(self, trainer, state):
            if state.step == 7:
                trainer._change_plan(left=5.0, pace=1.0)

    trainer = Trainer(Net(), CrossEntropy(), batches(), first, [Slower()], held())
    trainer.fit()
    assert trainer.state.plan == ((0, 18), (7, 12)) and trainer.state.step == 12
    replay = json.loads(json.dumps(trainer.replay()))
    assert same(trainer, trained(**replay)) and replay["steps"] == [[0, 18], [7, 12]]


def test_no_time_is_enough_for_one_step():
    for seconds in (0.0, 1e-9):
        assert trained(seconds=seconds, steps=1_000_000).state.step == 1
        assert trained(seconds=seconds).state.step == 1


def test_being_asked_to_end_is_obeyed_at_once_and_comes_out_again():
    event = threading.Event()

    class Ask(Happening):
        def step_end(self, trainer, state):
            if state.step == 9:
                event.set()

    with ended_by(event):
        ended = trained(happenings=[Ask()], held_out=held(), epochs=50)
    assert ended.state.step == 9 and ended.state.over == "asked to end"
    assert same(ended, trained(**ended.replay()))


def test_the_history_has_what_curves_are_drawn_from():
    history = trained(held_out=held(), average=0.5).state.history
    assert [h["epoch"] for h in history] == [1, 2, 3] and [h["step"] for h in history] == [6, 12, 18]
    assert all(set(h) == {"epoch", "step", "train_loss", "validation_loss", "validation_accuracy", "rate"} for h in history)
    assert history[-1]["rate"] == pytest.approx(0.02 / 25e4)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_every_schedule_is_followed(schedule):
    class Rates(Happening):
        seen: list[float] = []

        def step_end(self, trainer, state):
            self.seen.append(trainer.groups[0]["lr"])

    Rates.seen = []
    trained(happenings=[Rates()], schedule=schedule, epochs=2)
    assert np.allclose(Rates.seen, simulate(schedule, 12, 0.02)) and max(Rates.seen) <= 0.02


def test_the_cosine_is_that_of_torch():
    weight = nn.Parameter(torch.zeros(1))
    plain = torch.optim.SGD([weight], lr=1.0)
    theirs, seen = torch.optim.lr_scheduler.CosineAnnealingLR(plain, T_max=29), []
    for _ in range(30):
        seen.append(plain.param_groups[0]["lr"])
        plain.step()
        theirs.step()
    assert np.allclose(seen, rate_factors("cosine", 30, warm_up=0.0), atol=1e-12)


def test_steps_that_were_taken_keep_their_rates_whatever_is_planned_later():
    for schedule in SCHEDULES:
        plans = [((0, 100),), ((0, 100), (30, 60)), ((0, 100), (30, 60), (45, 200))]
        one, two, three = (rate_factors(schedule, plan) for plan in plans)
        assert np.array_equal(one[:30], two[:30]) and np.array_equal(two[:45], three[:45]) and len(three) == 200
        assert np.abs(np.diff(three)).max() < 0.2 and three[-1] == pytest.approx(one[-1], abs=1e-9)


def test_a_plateau_lets_the_rate_fall_and_comes_out_again():
    flat = trained(loss=lambda outputs, target: outputs.sum() * 0 + 1.0, schedule="plateau", epochs=8, held_out=held(), clip=0)
    rates = [h["rate"] for h in flat.state.history]
    assert rates[3] == pytest.approx(0.02) and rates[-1] == pytest.approx(0.02 * 0.3)
    assert plateau_factor([1.0] * 5) == pytest.approx(0.3) and plateau_factor([1.0] * 4) == 1


def test_settings_that_cannot_be_are_all_told():
    with pytest.raises(UsageError) as told:
        check_settings(LoopSettings(epochs=0, accumulate=0, warm_up=1.0, clip=-1, precision="fp8"))
    for word in ("epochs=0", "accumulate=0", "warm_up=1.0", "clip=-1", "precision='fp8'"):
        assert word in str(told.value)
    for choices, words in (({"optimizer": "adamv"}, "Did you mean"), ({"schedule": "cosin"}, "Did you mean 'cosine'"), ({"steps": ((1, 2),)}, "is no plan")):
        with pytest.raises(UsageError, match=words):
            trained(**choices)


# faults


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_no_number_is_named(value):
    wild = X[:96].copy()
    wild[41, 2] = value
    with pytest.raises(DataError, match=r"'table' holds values that are NaN or infinite in 1 of its 16 rows \(row 41\)") as told:
        trained(data=RecordBatches(wild, y[:96], 16), epochs=1, patience=2, held_out=held())
    order = RecordBatches(wild, y[:96], 16).order(0).tolist()
    assert f"batch {order.index(41) // 16 + 1})" in str(told.value)


def test_the_batch_with_a_wild_value_is_named_far_into_an_epoch():
    rows = rng.normal(size=(1600, 3)).astype(np.float32)
    data = RecordBatches(rows, (rows[:, 0] > 0).astype(int), 16)
    row = int(data.order(0)[16 * 17 + 3])
    data.parts["table"][row, 0] = float("nan")
    data.epoch = -1
    with pytest.raises(DataError, match=rf"at step 18 \(epoch 1, batch 18\).*\(row {row}\)"):
        trained(data=data, epochs=1)


def test_a_target_that_is_no_number_is_named():
    values = X[:96, 0].copy()
    values[5] = np.nan
    with pytest.raises(DataError, match=r"'target' holds values .* \(row 5\)"):
        trained(Net(outputs=1), RecordBatches(X[:96], values, 16), loss=Squared())


class Steep(nn.Module):
    "Its loss has no floor; with a small rate it stands still."

    def __init__(self, power=9):
        super().__init__()
        self.weight, self.power = nn.Parameter(torch.ones(1, 1)), power

    def forward(self, parts):
        return self.weight**self.power * parts["table"][:, :1]


def test_a_training_that_diverged_begins_again_with_half_the_rate_and_comes_out_again():
    data = lambda: RecordBatches(X[:96], 3 * X[:96, 0], 16)
    choices = {"optimizer": "sgd", "clip": 0.0, "schedule": "constant", "warm_up": 0.0, "epochs": 10, "weight_decay": 0.0}
    rates = [r for r in np.geomspace(1e-4, 1.0, 40) if not finite(r, data, choices) and finite(r / 2, data, choices)]
    assert rates, "no rate diverges whose half does not"
    trainer = trained(Steep(), data(), loss=Squared(), learning_rate=rates[0], held_out=data(), **choices)
    assert "began again with half the learning rate" in trainer.state.notes[0] and trainer.state.rate == 0.5
    assert [h["epoch"] for h in trainer.state.history] == list(range(1, 11))
    assert same(trainer, trained(Steep(), data(), loss=Squared(), **choices | trainer.replay()))


def finite(rate, data, choices):
    try:
        return not trained(Steep(), data(), loss=Squared(), learning_rate=rate, **choices).state.notes
    except DivergedError:
        return False


def test_a_training_that_always_diverges_ends_in_words():
    with pytest.raises(DivergedError, match="The training diverged: the loss was .* Write a smaller learning_rate"):
        trained(Steep(), RecordBatches(X, X[:, 0], 16), loss=Squared(), optimizer="sgd", clip=0.0, learning_rate=1e4)


def test_other_errors_of_a_step_go_through():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trained(Net(inputs=7))


class Narrow(nn.Module):
    "A network on a machine with room for so many rows."

    def __init__(self, most, error=MemoryError):
        super().__init__()
        self.net, self.most, self.error, self.seen = Net(norm=None), most, error, []

    def forward(self, parts):
        if self.training:
            self.seen.append(len(parts["table"]))
            if self.seen[-1] > self.most:
                raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes")
        return self.net(parts)


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, torch.OutOfMemoryError])
def test_a_step_that_does_not_fit_is_taken_in_pieces(error):
    narrow, wide = trained(Narrow(5, error), held_out=held()), trained(Narrow(1000), held_out=held())
    assert narrow.state.accumulate == 4 and max(narrow.network.seen[3:]) <= 5 and narrow.state.step == wide.state.step
    assert narrow.state.notes[0] == "a batch of 16 rows did not fit into memory: worked through 8 at a time"
    assert all(torch.allclose(t, wide.tensors[name], atol=1e-6) for name, t in narrow.tensors.items())


def test_rows_to_judge_that_do_not_fit_are_judged_in_pieces():
    class Tight(Narrow):
        def forward(self, parts):
            if not self.training and len(parts["table"]) > self.most:
                raise MemoryError
            return self.net(parts)

    tight, wide = trained(Tight(5), held_out=held()), trained(Narrow(1000), held_out=held())
    assert [n.split(" did not")[0] for n in tight.state.notes][0].endswith("rows to judge") and tight.judged_at_once <= 5
    assert len(tight.state.notes) < 5, "what does not fit is not tried again in every epoch"
    assert all(torch.equal(t, wide.tensors[name]) for name, t in tight.tensors.items())
    assert np.allclose([h["validation_loss"] for h in tight.state.history], [h["validation_loss"] for h in wide.state.history])
    with pytest.raises(moments.TooLarge, match="A single row"):
        trained(Tight(0), held_out=held())


def test_a_row_that_does_not_fit_is_told():
    with pytest.raises(moments.TooLarge, match="A single row of this network does not fit into memory. Choose a smaller"):
        trained(Narrow(0))


def test_a_real_lack_of_memory_is_understood():
    with pytest.raises(RuntimeError) as told:
        torch.empty(10**15)
    assert moments.out_of_memory(told.value) and not moments.out_of_memory(RuntimeError("shapes differ"))
    assert not moments.out_of_memory(ValueError("out of memory"))


def test_the_largest_batch_is_found():
    make = lambda most: lambda size: Trainer(Narrow(most), CrossEntropy(), RecordBatches(X, y, size), LoopSettings())
    assert largest_batch(make(40)) == 32 and largest_batch(make(32)) == 32 and largest_batch(make(10**6), most=64) == 64
    with pytest.raises(moments.TooLarge):
        largest_batch(make(0))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        largest_batch(lambda size: Trainer(Net(inputs=9), CrossEntropy(), batches(size=size), LoopSettings()))


def test_the_rate_finder_leaves_where_the_loss_explodes():
    make = lambda: Trainer(Net(drop=0.2), CrossEntropy(), batches(), LoopSettings(optimizer="sgd", clip=0.0))
    found = find_rate(make, 1e-4, 1e4, 120)
    assert len(found) < 120 and found["smooth"].iloc[-1] > 1.5 * found["smooth"].min() and 1e-2 < suggested_rate(found) < 10
    assert found.equals(find_rate(make, 1e-4, 1e4, 120))


# files


def test_a_stranger_is_not_opened(tmp_path):
    import pickle

    marker = tmp_path / "ran"

    class Stranger:
        def __reduce__(self):
            return open, (str(marker), "w")

    for suffix in ("pt", "bin", "pkl", "pth", "ckpt"):
        file = tmp_path / f"weights.{suffix}"
        file.write_bytes(pickle.dumps(Stranger()))
        with pytest.raises(CheckpointError, match="may run code when it is opened, so it is not.*convert it: python -c"):
            read_weights(file)
    file.rename(tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="does not begin like one"):
        read_weights(tmp_path / "weights.safetensors")
    assert not marker.exists()


def test_the_command_that_converts_works(tmp_path):
    import re
    import subprocess
    import sys

    torch.save({"weight": torch.arange(3.0)}, tmp_path / "old.pt")
    with pytest.raises(CheckpointError) as told:
        read_weights(tmp_path / "old.pt")
    command = re.search(r'python -c "(.*)"', str(told.value)).group(1)
    subprocess.run([sys.executable, "-c", command], check=True)
    assert read_weights(tmp_path / "old.safetensors")["weight"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("cut", [0, 5, 20, -1])
def test_a_file_that_was_cut_short_is_told(tmp_path, cut):
    path = write_weights(tmp_path / "w.safetensors", tensors_of(Net()))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match="w.safetensors is no whole safetensors file"):
        read_weights(path)
    with pytest.raises(CheckpointError, match="There is no file of weights"):
        read_weights(tmp_path / "none.safetensors")


def test_weights_of_another_network_are_listed():
    with pytest.raises(CheckpointError) as told:
        copy_into(tensors_of(Net()), tensors_of(Net(inputs=5, norm=None)))
    text = str(told.value)
    assert "layers.0.weight has the shape (8, 5), expected (8, 3)" in text and "layers.1.running_mean is missing" in text
    with pytest.raises(CheckpointError, match="; and .* more. Build the network"):
        copy_into({f"w{n}": torch.zeros(1) for n in range(20)}, {})


def test_weights_in_a_folder_can_be_used_by_themselves(tmp_path):
    trainer = trained(kept=Checkpoint(tmp_path / "run", about={"architecture": "Net"}), average=0.9, held_out=held())
    [file] = (tmp_path / "run").glob("model-*.safetensors")
    fresh = Net(seed=9)
    copy_into(tensors_of(fresh), read_weights(file))
    numbers, facts = read_state(tmp_path / "run")
    assert facts["step"] == 18 and numbers["best.layers.0.weight"].equal(trainer.tensors["layers.0.weight"])
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as opened:
        assert opened.metadata()["architecture"] == "Net" and opened.metadata()["format"] == "1"


def test_a_state_is_replaced_whole_when_writing_fails(tmp_path, monkeypatch):
    write_state(tmp_path, {"network.w": torch.zeros(2)}, {"step": 1})
    monkeypatch.setattr("mlbench.models.states.json.dumps", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_state(tmp_path, {"network.w": torch.ones(2)}, {"step": 2})
    monkeypatch.undo()
    numbers, facts = read_state(tmp_path)
    assert facts == {"step": 1} and numbers["network.w"].tolist() == [0, 0]
    write_state(tmp_path, {"network.w": torch.ones(2)}, {"step": 3})
    assert len(list(tmp_path.iterdir())) == 3 and read_state(tmp_path)[1] == {"step": 3}


# losses


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (CrossEntropy(0.1), torch.tensor([0, 2, 1, 1])),
        (CrossEntropy(0.1, balanced_weights([1, 2, 1]).double()), torch.tensor([0, 2, 1, 1])),
        (Focal(2.0), torch.tensor([0, 2, 1, 1])),
        (Quantile((0.1, 0.5, 0.9)), torch.linspace(-1, 1, 4, dtype=torch.float64)),
        (Squared(), torch.ones(4, 3, dtype=torch.float64)),
        (Huber(0.7), torch.ones(4, 3, dtype=torch.float64)),
        (Contrastive(0.5), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_gradients_of_losses_are_those_of_differences(loss, target):
    outputs = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    if isinstance(loss, CrossEntropy) and loss.class_weight is not None:
        target = nn.functional.one_hot(target, 3).double()
    if isinstance(loss, Focal):
        target = nn.functional.one_hot(target, 3).double()
    assert torch.autograd.gradcheck(lambda out: loss(out, target), (outputs,))


def test_codes_and_shares_of_classes_give_the_same_loss():
    outputs, codes = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 2, 0])
    shares = nn.functional.one_hot(codes, 3).float()
    for loss in (CrossEntropy(0.1), CrossEntropy(0.0, torch.tensor([1.0, 2.0, 0.5])), Focal(1.5), Focal(2.0, torch.tensor([1.0, 2.0, 0.5]))):
        assert torch.allclose(loss(outputs, codes), loss(outputs, shares), atol=1e-6)


def test_names_of_losses_and_options_are_checked():
    assert isinstance(make_loss("quantile", levels=(0.2,)), Quantile)
    with pytest.raises(UsageError, match="There is no loss 'mse'"):
        make_loss("mse")
    with pytest.raises(UsageError, match="no option 'gama'. Did you mean 'gamma'"):
        make_loss("focal", gama=1)


def test_decay_is_for_matrices():
    groups = weight_groups(Net(), 0.3)
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.3, 2), (0.0, 4)]
    muon = make_optimizer("muon", nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 2), nn.Conv1d(1, 1, 3)), 0.1)
    assert [sum(len(g["params"]) for g in part.param_groups) for part in muon.parts] == [1, 4]


def test_a_state_knows_its_plan():
    state = State(Net(), None)
    assert state.total_steps == 0
    state.plan = ((0, 30), (10, 20))
    assert state.total_steps == 20
