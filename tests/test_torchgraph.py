"""Networks of torch as ONNX: whole networks agree with torch for any number of rows, and what cannot be written is refused by name."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from mlbench.core.errors import ExportError
from mlbench.deployment.graph import Block, Graph
from mlbench.deployment.torchgraph import _entered, network_block, network_difference, operations

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(7, 5))
TOKENS = np.array([[2, 3, 4, 0, 0, 0], [5, 1, 9, 9, 2, 3], [0, 0, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [8, 2, 0, 0, 0, 0], [4, 5, 6, 7, 0, 0]])
PIXELS = RNG.integers(0, 256, (7, 12, 8, 3), dtype=np.uint8)


class Residual(nn.Module):
    "Two convolutions around which the picture passes unchanged."

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x):
        return F.relu(x + self.body(x))


class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Residual(8), nn.MaxPool2d(2), Residual(8))
        self.head = nn.Linear(8, 4)

    def forward(self, parts):
        x = parts["pixels"].permute(0, 3, 1, 2).float() / 255 - 0.5
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Encoder(nn.Module):
    "One block of a Transformer, as its paper has it."

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.first, self.second = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.into, self.back = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * width, width))

    def forward(self, x, hidden):
        query, key, value = self.into(self.first(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=~hidden[:, None, None, :])
        x = x + self.back(mixed.transpose(1, 2).flatten(2))
        return x + self.wide(self.second(x))


class Sentences(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(10, 8, padding_idx=0)
        self.place, self.whole = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(1, 1, 8))
        self.blocks = nn.ModuleList([Encoder(8, 2), Encoder(8, 4)])
        self.head = nn.Linear(8, 3)

    def forward(self, parts):
        tokens = parts["tokens"]
        x = torch.cat([self.whole.expand(tokens.shape[0], -1, -1), self.words(tokens) + self.place], 1)
        hidden = F.pad(tokens == 0, (1, 0), value=False)
        for block in self.blocks:
            x = block(x, hidden)
        return self.head(x[:, 0])


class Listening(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.words = nn.Embedding(10, 6)
        self.reader = getattr(nn, kind)(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 2)

    def forward(self, parts):
        there = parts["tokens"].ne(0).unsqueeze(-1).float()
        states, _ = self.reader(self.words(parts["tokens"]))
        return self.head((states * there).sum(1) / there.sum(1).clamp(min=1))


class Everything(nn.Module):
    "Numbers, words and a picture, joined."

    def __init__(self):
        super().__init__()
        self.table = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.SiLU())
        self.words, self.pictures = Listening("GRU"), Pictures()
        self.head = nn.Linear(12, 2)

    def forward(self, parts):
        return self.head(torch.cat([self.table(parts["table"]), self.words(parts), self.pictures(parts)], dim=1))


def made(kind, *settings):
    "A network with weights of its own, and with statistics that are not zero and one."
    torch.manual_seed(1)
    network = kind(*settings)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


CASES = [(Pictures, (), {"pixels": PIXELS}), (Sentences, (), {"tokens": TOKENS})]
CASES += [(Listening, (kind,), {"tokens": TOKENS}) for kind in ("RNN", "GRU", "LSTM")]
CASES += [(Everything, (), {"table": TABLE, "tokens": TOKENS, "pixels": PIXELS})]


@pytest.mark.parametrize(("kind", "settings", "parts"), CASES, ids=lambda v: getattr(v, "__name__", None) or "-".join(map(str, v)))
def test_one_file_answers_any_number_of_rows_as_torch_does(kind, settings, parts):
    network, graph, fed, blocks = made(kind, *settings), Graph(), {}, {}
    for name, values in parts.items():
        blocks[name], own = _entered(graph, name, values)
        fed |= own
    session = onnxruntime.InferenceSession(graph.build({"answer": network_block(graph, network, blocks)}), providers=["CPUExecutionProvider"])
    for rows in (slice(0, 1), slice(0, 7), slice(2, 5)):
        with torch.no_grad():
            tensors = {n: torch.tensor(v[rows], dtype=torch.float32 if v.dtype.kind == "f" else None) for n, v in parts.items()}
            expected = network(tensors).numpy()
        got = session.run(None, {n: v[rows] for n, v in fed.items()})[0]
        assert got.dtype == np.float64
        assert np.abs(got - expected).max() <= 1e-4


def test_inside_is_single_precision_and_the_doubles_beside_it_keep_their_digits():
    graph = Graph()
    x = graph.input("x", "number")
    network = made(lambda: nn.Sequential(Wrapped(nn.Linear(1, 2))))
    answer = network_block(graph, network, {"table": x})
    exact = Block(graph.node("Add", x.tensor, graph.constant(1e-12)), "number")
    data = graph.build({"answer": answer, "exact": exact})
    got = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": np.array([[1.0]])})
    assert got[1][0, 0] == 1.0 + 1e-12
    kinds = {i.name: i.data_type for i in onnx.load_from_string(data).graph.initializer}
    assert set(kinds.values()) == {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}


class Wrapped(nn.Module):
    "A layer that reads the table."

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, parts):
        return self.layer(parts["table"])


def test_the_same_network_is_the_same_file_and_is_written_once():
    network = made(Everything)
    files = []
    for _ in range(2):
        graph, blocks = Graph(), {}
        for name, values in {"table": TABLE, "tokens": TOKENS, "pixels": PIXELS}.items():
            blocks[name], _ = _entered(graph, name, values)
        first = network_block(graph, network, blocks)
        count = len(graph.nodes)
        assert network_block(graph, network, blocks) == first
        assert len(graph.nodes) == count
        files.append(graph.build({"answer": first}))
    assert files[0] == files[1]


def test_the_widest_activation_is_noted():
    graph = Graph()
    block, _ = _entered(graph, "pixels", PIXELS)
    network_block(graph, made(Pictures), {"pixels": block})
    assert graph.spread == 12 * 8 * 3  # the picture itself, wider than 8 channels of a quarter


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_a_constant_that_only_parameters_have_a_part_in_is_calculated_once(rows):
    class Whitened(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(5, 5))

        def forward(self, parts):
            inverse = torch.linalg.inv(self.matrix @ self.matrix.T + torch.eye(5))
            places = torch.arange(parts["table"].shape[1]).float()
            return parts["table"] @ inverse + torch.sort(places, descending=True).values

    network = made(Whitened)
    assert network_difference(network, {"table": TABLE[:rows]}) < 1e-4


class Branching(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[1] > 3 else x


class Asking(nn.Module):
    def forward(self, x):
        return x * x.tolist()[0][0]


class Sorting(nn.Module):
    def forward(self, x):
        return torch.sort(x, 1).values


class Centring(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Chance(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(5))

    def forward(self, x):
        return x + torch.rand_like(self.shift)


class Overwriting(nn.Module):
    def forward(self, x):
        return F.relu(x, inplace=True) + x


class Counting(nn.Module):
    def forward(self, x):
        return x / x.shape[0]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Branching, r"layer\.1 \(Branching\) cannot be followed by torch\.fx"),
        (Asking, r"layer\.1 \(Asking\) calls tolist"),
        (Sorting, r"layer\.1 \(Sorting\) calls sort, which cannot be written as ONNX"),
        (Centring, r"layer\.1 \(Centring\) joins different rows"),
        (Chance, r"layer\.1 \(Chance\) gives other numbers each time"),
        (Overwriting, r"layer\.1 \(Overwriting\) changes a tensor in place"),
        (Counting, r"layer\.1 \(Counting\) takes PerRow where a tensor or a number is expected"),
    ],
)
def test_what_cannot_be_written_is_refused_with_the_path_of_the_module(module, words):
    with pytest.raises(ExportError, match=words):
        network_difference(Wrapped(nn.Sequential(nn.Linear(5, 5), module())).eval(), {"table": TABLE})


def test_a_network_that_drops_in_training_is_refused():
    with pytest.raises(ExportError, match=r"Call \.eval\(\) first"):
        network_difference(Wrapped(nn.Linear(5, 2)), {"table": TABLE})


def test_half_precision_is_refused():
    with pytest.raises(ExportError, match=r"layer\.1 \(Halved\) gives a tensor .* calculates with float16"):
        network_difference(Wrapped(nn.Sequential(nn.Linear(5, 2), Halved())).eval(), {"table": TABLE})


class Halved(nn.Module):
    def forward(self, x):
        return x.to(torch.float16).float()


def test_an_answer_without_rows_is_refused():
    class Constant(nn.Module):
        def forward(self, parts):
            return torch.ones(2, 3)

    with pytest.raises(ExportError, match="rows and outputs is expected"):
        network_difference(Constant().eval(), {"table": TABLE})


def test_a_part_that_the_network_does_not_get_is_told():
    with pytest.raises(ExportError, match="fails on an example with the parts tokens"):
        network_difference(Wrapped(nn.Linear(5, 2)).eval(), {"tokens": TOKENS})


def test_every_operation_has_a_writer_with_a_docstring_or_a_name_on_both_sides():
    table = operations()
    assert {"linear", "conv2d", "layer_norm", "embedding", "scaled_dot_product_attention", "nn.GRU", "getitem", "cat"} <= set(table)
    assert all(callable(f) for f in table.values())
