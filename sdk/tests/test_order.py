from __future__ import annotations

from collections import Counter
from copy import copy
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptsdk.contracts.run import Progress
from ptsdk.data.mixing import epoch_examples, permutation, quotas
from ptsdk.data.order import Cut, SamplePlan, filled, runs, share, validation_batches
from ptsdk.errors import UserError


def plan(n: int = 23, **options: Any) -> SamplePlan:
    defaults: dict[str, Any] = {
        "lengths": np.random.default_rng(n).integers(1, 33, n),
        "sizes": [n],
        "weights": [None] * len(options.get("sizes", [n])),
        "seed": 7,
        "shuffle": True,
        "packing": False,
        "capacity": 32,
        "batch_size": 4,
        "micro_batch_size": 2,
    }
    if "steps" not in options:
        options = {"epochs": 1, **options}
    chosen = {**defaults, **options}
    tokens = chosen.pop("micro_batch_tokens", None)
    size = chosen.pop("micro_batch_size")
    return SamplePlan(**chosen, cut=Cut(None if tokens else size, tokens))


def flat(share: list[list[int]]) -> list[int]:
    return [i for micro_batch in share for i in micro_batch]


plans = st.fixed_dictionaries(
    {
        "n": st.integers(1, 30),
        "packing": st.booleans(),
        "shuffle": st.booleans(),
        "batch_size": st.integers(1, 11),
        "micro_batch_size": st.integers(1, 5),
        "seed": st.integers(0, 2**63 - 1),
    }
)
lengths_of_runs = st.one_of(
    st.fixed_dictionaries({"steps": st.integers(1, 9)}),
    st.fixed_dictionaries({"epochs": st.sampled_from([0.3, 1, 1.5, 2, 3.0])}),
)


@settings(deadline=None)
@given(plans, lengths_of_runs)
def test_the_items_of_a_step_do_not_depend_on_the_world_size(options, length):
    total = plan(**options, **length).total_steps
    alone = list(islice(plan(**options, **length).steps(Progress()), total))
    assert len(alone) == total
    for size in (2, 3, 4):
        ranks = [plan(**options, **length, rank=r, world_size=size) for r in range(size)]
        shares = [list(islice(p.steps(Progress()), total)) for p in ranks]
        for step, of_ranks in zip(alone, zip(*shares, strict=True), strict=True):
            assert flat(step) == [i for share in of_ranks for i in flat(share)]
            assert len({len(share) for share in of_ranks}) == 1


@settings(deadline=None)
@given(plans, lengths_of_runs, st.integers(0, 8))
def test_a_run_resumed_from_a_copy_of_its_cursor_goes_on_where_it_stopped(options, length, stop):
    total = plan(**options, **length).total_steps
    whole = list(islice(plan(**options, **length).steps(Progress()), total))
    progress = Progress()
    before = list(islice(plan(**options, **length).steps(progress), min(stop, total)))
    resumed = plan(**options, **length, rank=0, world_size=1).steps(copy(progress))
    assert before + list(islice(resumed, total - len(before))) == whole


def test_the_cursor_is_past_a_step_as_soon_as_it_is_handed_out():
    progress = Progress()
    steps = plan(10, batch_size=4, epochs=2).steps(progress)
    next(steps)
    assert (progress.epoch, progress.offset) == (0, 4)
    next(steps), next(steps)
    assert (progress.epoch, progress.offset) == (1, 2)


def test_the_items_of_all_processes_are_those_that_they_share():
    mine, everyones = Progress(), Progress()
    for step in plan(10, batch_size=4, epochs=2).steps(mine):
        assert [
            i for item in plan(10, batch_size=4, epochs=2, rank=1, world_size=3).take(everyones) for i in item
        ] == flat(step)
        assert mine == everyones
    assert plan(10, batch_size=4, epochs=2).take(everyones) == []


def test_a_resume_on_another_world_size_reads_the_same_items():
    progress = Progress()
    alone = list(plan(30, batch_size=6).steps(Progress()))
    list(islice(plan(30, batch_size=6).steps(progress), 2))
    rest = [list(plan(30, batch_size=6, rank=r, world_size=2).steps(copy(progress))) for r in range(2)]
    assert [flat(a) + flat(b) for a, b in zip(*rest, strict=True)] == [flat(step) for step in alone[2:]]


@settings(deadline=None)
@given(plans, st.integers(1, 3))
def test_every_epoch_has_every_example_once(options, epochs):
    options = {**options, "batch_size": 1}
    seen = Counter(i for step in plan(**options, epochs=epochs).steps(Progress()) for i in flat(step))
    assert seen == dict.fromkeys(range(options["n"]), epochs)


@settings(deadline=None)
@given(plans)
def test_packs_hold_no_more_than_their_capacity(options):
    made = plan(**{**options, "packing": True})
    for epoch in range(2):
        items = made.items(epoch)
        assert all(sum(made.lengths[list(item)]) <= 32 for item in items)
        assert sorted(i for item in items for i in item) == list(range(options["n"]))


def test_a_batch_reaches_over_the_end_of_an_epoch():
    made = plan(5, batch_size=4, steps=4)
    order = [i for epoch in range(4) for (i,) in made.items(epoch)]
    assert [flat(step) for step in islice(made.steps(Progress()), 4)] == [order[i : i + 4] for i in range(0, 16, 4)]
    assert made.total_steps == 4


def test_only_the_last_batch_of_a_run_by_epochs_is_partial():
    made = plan(5, batch_size=4, epochs=2)
    assert [len(flat(step)) for step in made.steps(Progress())] == [4, 4, 2]
    assert made.total_steps == 3


def test_one_batch_may_hold_several_epochs():
    assert [len(flat(step)) for step in plan(3, batch_size=8, epochs=5).steps(Progress())] == [8, 7]


@pytest.mark.parametrize(("epochs", "items"), [(0.1, 1), (0.5, 5), (1.1, 11), (0.01, 1), (2.99, 30), (3.0, 30)])
def test_a_part_of_an_epoch_is_rounded_up_to_items(epochs, items):
    made = plan(10, batch_size=1, epochs=epochs)
    assert made.total_steps == items == len(list(made.steps(Progress())))


@pytest.mark.parametrize("weights", [[None, None], [3.0, 1.0]])
def test_total_steps_counts_the_packs_of_every_epoch(weights):
    lengths = np.random.default_rng(3).integers(1, 33, 40)
    made = plan(40, lengths=lengths, sizes=[25, 15], weights=weights, packing=True, batch_size=1, epochs=3)
    assert made.total_steps == len(list(made.steps(Progress()))) == sum(len(made.items(e)) for e in range(3))


def test_a_cursor_past_the_end_gives_no_step():
    assert list(plan(10, epochs=1).steps(Progress(epoch=2, offset=3))) == []


def test_epochs_done_counts_items():
    made = plan(10, batch_size=5, epochs=3)
    assert made.epochs_done(Progress()) == 0
    assert made.epochs_done(Progress(epoch=1, offset=5)) == 1.5


def test_shares_are_slices_and_every_process_has_as_many_micro_batches():
    items = [(i,) for i in range(5)]
    assert [share(items, 1, rank, 2) for rank in range(2)] == [[[0], [1], []], [[2], [3], [4]]]
    assert share([(0, 1), (2,), (3,)], 2, 0, 1) == [[0, 1, 2], [3]]


def test_micro_batches_have_their_size():
    [step] = plan(8, batch_size=8, micro_batch_size=3).steps(Progress())
    assert [len(micro_batch) for micro_batch in step] == [3, 3, 2]


def test_validation_reads_every_example_once():
    batches = [validation_batches([1] * 7, Cut(2), rank, 3) for rank in range(3)]
    assert [flat(share) for share in batches] == [[0, 1], [2, 3], [4, 5, 6]]
    assert [len(share) for share in batches] == [2, 2, 2]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [plan(50).items(0), plan(50).items(1), plan(50, seed=8).items(0)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_packs_have_other_neighbours_in_another_epoch():
    made = plan(40, lengths=np.full(40, 8), packing=True)
    assert {frozenset(item) for item in made.items(0)} != {frozenset(item) for item in made.items(1)}


def test_packs_come_in_another_order_in_another_epoch():
    made = plan(12, lengths=np.arange(20, 32), packing=True)
    first, second = made.items(0), made.items(1)
    assert sorted(first) == sorted(second) == [(i,) for i in range(12)]
    assert first != second
    assert [(i,) for i in range(11, -1, -1)] not in (first, second)


def test_without_shuffling_the_order_is_that_of_the_files():
    assert plan(5, sizes=[2, 3], shuffle=False).items(1) == [(0,), (1,), (2,), (3,), (4,)]
    made = plan(4, lengths=np.array([6, 5, 5, 4]), capacity=10, packing=True, shuffle=False)
    assert made.items(0) == [(0, 3), (1, 2)]
    made = plan(3, lengths=np.array([7, 9, 8]), capacity=10, packing=True, shuffle=False)
    assert made.items(0) == [(0,), (1,), (2,)]


def test_permutations_do_not_change_between_versions():
    # Philox and SeedSequence are frozen by NEP 19; an order that changed would break every resume.
    assert permutation(8, 0, 0, 0).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
    assert permutation(5, 2**63 - 1, 1, 2, 3).tolist() == [4, 0, 1, 3, 2]


sets = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 5)), min_size=1, max_size=4)


def weighted(sets: list[tuple[int, int]]) -> tuple[list[int], list[float | None]]:
    return [size for size, _ in sets], [float(weight) for _, weight in sets]


@settings(deadline=None)
@given(sets, st.booleans())
def test_a_mixture_holds_its_shares_and_uses_every_row_equally_often(drawn, shuffle):
    sizes, weights = weighted(drawn)
    shares = np.array(weights) / sum(weights) * sum(sizes)
    try:
        quota = quotas(sizes, weights)
    except UserError:
        assert shares.min() < 1
        return
    assert sum(quota) == sum(sizes)
    assert np.all(np.abs(quota - shares) < 1)
    uses = Counter[int]()
    for epoch in range(4):
        examples = epoch_examples(sizes, weights, 5, epoch, shuffle)
        uses.update(examples.tolist())
        starts = np.cumsum([0, *sizes])
        assert np.histogram(examples, starts)[0].tolist() == quota
        for start, size in zip(starts, sizes, strict=False):
            counts = [uses[i] for i in range(start, start + size)]
            assert max(counts) - min(counts) <= 1


def test_the_largest_remainders_get_what_is_left():
    assert quotas([4, 4, 2], [1, 1, 1]) == [4, 3, 3]
    assert quotas([5, 5], [0.7, 0.3]) == [7, 3]
    assert quotas([6, 2], [None, 3.0]) == [2, 6]


def test_an_unshuffled_mixture_is_interleaved_evenly_in_file_order():
    examples = epoch_examples([6, 2], [3.0, 1.0], 0, 0, shuffle=False)
    assert examples.tolist() == [0, 1, 6, 2, 3, 4, 7, 5]


def test_sets_are_mixed_otherwise_in_another_epoch():
    mixed = [(epoch_examples([30, 30], [2.0, 1.0], 0, epoch) >= 30).tolist() for epoch in range(2)]
    assert mixed[0] != mixed[1]


def test_a_mixture_goes_on_through_a_set_where_the_epoch_before_left_off():
    first, second = (epoch_examples([2, 6], [1.0, 1.0], 0, e, shuffle=False) for e in range(2))
    assert sorted(first[first >= 2]) == [2, 3, 4, 5]
    assert second[second >= 2].tolist() == [6, 7, 2, 3]


def test_a_set_that_would_never_be_seen_is_refused():
    with pytest.raises(UserError, match="data set number 2 would never be seen"):
        plan(12, sizes=[10, 2], weights=[1.0, 0.001])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": [3, 4]}, "do not make data sets"),
        ({"n": 0, "sizes": [0]}, "do not make data sets"),
        ({"steps": 3, "epochs": 1}, "either steps or epochs"),
        ({"packing": True, "capacity": 8}, "do not fit bins of 8"),
    ],
)
def test_what_makes_no_plan_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plan(**options)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 30), st.integers(1, 4), st.booleans())
def test_micro_batches_of_so_many_tokens(lengths, tokens, world_size, in_order):
    items = [(2 * i, 2 * i + 1) for i in range(len(lengths))]
    shares = Cut(tokens=tokens).shares(items, lengths, world_size, in_order=in_order)
    assert len({len(share) for share in shares}) == 1
    for rank, own in enumerate(shares):
        start, stop = rank * len(items) // world_size, (rank + 1) * len(items) // world_size
        assert sorted(flat(own)) == list(range(2 * start, 2 * stop))
        if in_order:
            assert flat(own) == sorted(flat(own))
        for micro_batch in own:
            items_of = micro_batch[::2]
            assert sum(lengths[i // 2] for i in items_of) <= tokens or len(items_of) == 1
        live = [bool(micro_batch) for micro_batch in own]
        assert live == sorted(live, reverse=True)  # fillers come last


def test_micro_batches_are_as_few_as_fit():
    lengths = [1, 9, 2, 8, 3, 7, 12]
    assert filled(lengths, 10) == [[6], [1, 0], [3, 2], [5, 4]]
    assert runs(lengths, 10) == [[0, 1], [2, 3], [4, 5], [6]]
    # every process has as many as the one that needs most
    assert Cut(tokens=10).shares([(i,) for i in range(4)], [9, 9, 1, 1], 2) == [[[0], [1]], [[2, 3], []]]


@pytest.mark.parametrize("packing", [False, True])
def test_tokens_cut_what_sizes_cut(packing):
    by_size, by_tokens = (plan(batch_size=8, packing=packing, **cut) for cut in ({}, {"micro_batch_tokens": 40}))
    for one, other in zip(by_size.steps(Progress()), by_tokens.steps(Progress()), strict=True):
        assert sorted(flat(one)) == sorted(flat(other))
        assert all(by_tokens.lengths[micro_batch].sum() <= 40 for micro_batch in other)


def test_the_largest_micro_batches_by_tokens():
    made = plan(6, lengths=np.array([4, 5, 6, 7, 8, 9]), batch_size=3, micro_batch_tokens=15, shuffle=False)
    first, later = made.largest_micro_batches(2)
    assert sorted(first) in ([1, 2], [0, 1, 2], [3, 4]) and made.lengths[first].sum() == 15
    assert sorted(later) == [3, 4]
