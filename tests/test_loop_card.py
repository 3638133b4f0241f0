"What is measured on a graphics card, tried on a processor with tiny sizes; that the large sizes are those that are meant."

from __future__ import annotations

import math

import pytest
import torch


@pytest.fixture
def card(checkout, monkeypatch):
    monkeypatch.syspath_prepend(str(checkout / "benchmarks"))
    from common import card

    return card


def test_every_figure_of_a_card_comes_out_on_a_processor_too(card, checkout, monkeypatch):
    import neural

    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    figures = [neural.Figure(*row) for row in card.measured(0, "cpu", card.TINY)]
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == before
    assert [figure.bar for figure in figures] == [None, 0.97, None, 2.0, None] * 2
    assert all(figure.ours is not None and math.isfinite(figure.ours) and figure.ours > 0 for figure in figures)
    assert figures[0].note.startswith("batches of 8") and "residual" in figures[0].what and "encoder" in figures[5].what
    for speed, share in ((figures[0], figures[2]), (figures[5], figures[7])):
        assert share.ours / share.peer == pytest.approx(speed.ours / speed.peer) and "a product of matrices reaches" in share.note


def test_the_loops_take_the_same_steps(card):
    "The bare loop is no other training than ours: the work of a row, the rows of a batch, the optimiser, the clipped gradient."
    [pictures, texts] = card.cases(0, card.TINY)
    for case in (pictures, texts):
        one, other = case.network(), case.network()
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
        parts, target = case.data(6, torch.device("cpu"))
        assert one(parts).shape == (6, 5) and target.max() < 5


def test_the_large_networks_have_the_size_that_is_meant(card):
    with torch.device("meta"):
        residual, encoder = card.Residual(card.Sizes()), card.Encoder(card.Sizes())
        pixels, tokens = torch.zeros(2, 224, 224, 3, dtype=torch.uint8), torch.zeros(2, 512, dtype=torch.long)
    count = lambda network: sum(weight.numel() for weight in network.parameters())
    assert count(residual) == 25_557_032 and 100e6 < count(encoder) < 103e6
    assert card.work_of_row(residual, {"pixels": pixels}) == pytest.approx(3 * 2 * 4.09e9, rel=0.03)
    by_hand = 3 * 12 * (2 * 512 * 12 * 768**2 + 4 * 512**2 * 768)
    assert card.work_of_row(encoder, {"tokens": tokens}) == pytest.approx(by_hand, rel=0.01)


PEAKS = {
    "NVIDIA H200": 989,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA L40S": 362,
    "NVIDIA L4": 121,
    "NVIDIA A10G": 125,
    "Other": None,
}


@pytest.mark.parametrize(("name", "peak"), PEAKS.items())
def test_the_peak_is_that_of_the_card(card, name, peak):
    assert next((value for part, value in card.SHEETS.items() if part in name), None) == peak


def test_a_batch_that_fits_leaves_room(card, monkeypatch):
    [case, _] = card.cases(0, card.TINY)
    assert card.fitting(case, torch.device("cpu")) == 8
    monkeypatch.setattr(card, "largest_batch", lambda make, most: 4)
    assert card.fitting(case, torch.device("cpu")) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card")
def test_without_a_card_it_says_so_and_misses_nothing(card, capsys):
    import neural

    assert neural.main(["gpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("not measured, torch" in line and "finds no graphics card" in line for line in lines)
