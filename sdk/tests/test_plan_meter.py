"""The meter: what is alive, once each, and what is not made at all."""

from __future__ import annotations

import torch

from ptsdk.plan.depth import extrapolated, runs
from ptsdk.plan.meter import Meter, Segment, held_bytes
from ptsdk.plan.rehearsal import Trace
from ptsdk.plan.shadows import Shadows

KIB = 1024


def test_a_storage_counts_once_from_its_making_to_its_end() -> None:
    before = torch.zeros(256)
    meter = Meter()
    meter.hold([before, before[:10]])
    with meter:
        made = before + 1
        view = made[10:]
        made.mul_(2)
        assert meter.live == 2 * KIB
        del made
        assert meter.live == 2 * KIB  # the view holds it
        del view
        assert meter.live == KIB
    del before
    assert (meter.live, meter.peak) == (0, 2 * KIB)


def test_what_the_backward_saves_is_alive() -> None:
    weight = torch.ones(256, requires_grad=True)
    with Meter() as meter:
        result = (weight.exp() * 2).sum()
        assert meter.live == KIB + 4  # exp for its own gradient, and the sum
        result.backward()
        del result
        assert meter.live == KIB  # the gradient


def test_a_storage_that_is_resized_counts_as_it_is() -> None:
    with Meter() as meter:
        tensor = torch.empty(256)
        tensor.untyped_storage().resize_(0)
        assert meter.live == 0
        tensor.untyped_storage().resize_(2 * KIB)
        assert meter.live == meter.peak == 2 * KIB


def test_stretches_have_their_own_peaks() -> None:
    with Meter() as meter:
        torch.empty(512)
        meter.mark("next")
        kept = torch.empty(256)
    assert [(segment.label, segment.peak) for segment in meter.segments] == [(("start",), 2 * KIB), (("next",), KIB)]
    del kept


def test_shadows_have_no_data_and_places_are_real() -> None:
    with Shadows() as meter:
        big = torch.empty(2**40, 1)  # 4 TiB
        product = big.view(2**20, -1) @ big.view(-1, 2**20)
        assert product.sum().item() == 1.0
        assert torch.arange(5)[torch.tensor([3, 1])].tolist() == [3, 1]
        assert meter.live >= held_bytes([big, product]) == 8 * 2**40


def test_what_is_compiled_counts_as_one_kernel() -> None:
    calls = []

    def update(weight: torch.Tensor) -> None:
        calls.append(weight)
        weight.copy_((weight * 2).sqrt() + 1)

    with Shadows() as meter:
        weights = [torch.empty(256), torch.empty(256), torch.empty(128)]
        for weight in weights:
            torch.compile(update, fullgraph=True)(weight)
    assert meter.peak == 2 * KIB + KIB // 2
    assert [len(call) for call in calls] == [256, 128]


def test_depth_is_refused_where_the_middle_is_no_line() -> None:
    def trace(*peaks: int) -> Trace:
        segments = [Segment(("forward", "policy", i), peak) for i, peak in enumerate(peaks)]
        return Trace(0, 0, 0, 0, 0, 0, 1, 1, (Segment(("start",), 1), *segments))

    assert len(runs(trace(5, 6, 7).segments)) == 2
    straight = extrapolated(trace(0, 2, 4, 6, 8, 99), trace(0, 2, 4, 6, 8, 10, 101), 10)
    assert straight is not None and straight.total == 119
    assert extrapolated(trace(0, 2, 4, 7, 8, 99), trace(0, 2, 4, 7, 8, 10, 101), 10) is None
