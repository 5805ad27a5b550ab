from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trl.data_utils import _pack_bfd

from ptsdk.data.packing import best_fit_decreasing, pack

problems = st.integers(1, 60).flatmap(
    lambda capacity: st.tuples(st.lists(st.integers(1, capacity), max_size=80), st.just(capacity))
)


def trl_bins(lengths: list[int], capacity: int) -> list[list[int]]:
    """The lengths in each of TRL's bins."""
    table = pa.table({"input_ids": pa.array([[0] * n for n in lengths], pa.list_(pa.int64()))})
    return [sorted(bin) for bin in _pack_bfd(table, capacity)["seq_lengths"].to_pylist()]


def contents(lengths: list[int], capacity: int) -> list[list[int]]:
    bins = best_fit_decreasing(np.array(lengths, dtype=np.int64), capacity)
    return [sorted(lengths[i] for i in bin) for bin in bins]


@settings(deadline=None)
@given(problems)
def test_bins_are_those_of_trl(problem):
    lengths, capacity = problem
    assert not lengths or sorted(contents(lengths, capacity)) == sorted(trl_bins(lengths, capacity))


@settings(deadline=None)
@given(problems)
def test_every_index_is_in_one_bin_and_no_bin_overflows(problem):
    lengths, capacity = problem
    bins = best_fit_decreasing(np.array(lengths, dtype=np.int64), capacity)
    assert sorted(i for bin in bins for i in bin.tolist()) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in bin) <= capacity for bin in bins)
    assert all(len(bin) for bin in bins)


def test_bins_of_many_lognormal_lengths_are_those_of_trl():
    lengths = np.clip(np.random.default_rng(0).lognormal(5, 1, 4000).astype(int), 1, 1024).tolist()
    assert sorted(contents(lengths, 1024)) == sorted(trl_bins(lengths, 1024))


def test_the_best_bin_is_the_one_with_the_least_room_left():
    # 6 and 5 open a bin each; 4 fits both and fills the first; 3 + 2 then fill the second.
    assert contents([2, 3, 4, 5, 6], 10) == [[4, 6], [2, 3, 5]]


def test_equal_lengths_keep_their_order_inside_a_bin():
    bins = best_fit_decreasing(np.array([3, 3, 3, 3, 3]), 10)
    assert [bin.tolist() for bin in bins] == [[0, 1, 2], [3, 4]]


def test_the_flat_form_says_the_same_as_the_list():
    lengths = np.random.default_rng(1).integers(1, 50, 200)
    order, bounds = pack(lengths, 64)
    listed = best_fit_decreasing(lengths, 64)
    assert [order[a:b].tolist() for a, b in itertools.pairwise(bounds)] == [b.tolist() for b in listed]


@pytest.mark.parametrize("lengths", [[5, 0], [11, 2], [-1]])
def test_a_length_that_fits_no_bin_is_refused(lengths):
    with pytest.raises(ValueError, match="do not fit bins of 10"):
        best_fit_decreasing(np.array(lengths), 10)


def test_nothing_makes_no_bin():
    assert best_fit_decreasing(np.array([], dtype=np.int64), 8) == []
