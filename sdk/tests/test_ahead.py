from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ptsdk.data.ahead import ahead


def test_items_come_in_order_and_one_is_made_ahead():
    made: list[int] = []
    threads = set()

    def items() -> Iterator[int]:
        for i in range(5):
            made.append(i)
            threads.add(threading.current_thread())
            yield i

    taken = []
    reading = ahead(items())
    for item in reading:
        taken.append(item)
    assert taken == made == [0, 1, 2, 3, 4]
    assert threading.current_thread() not in threads


def test_the_next_item_is_made_while_one_is_used_and_no_further():
    second = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        second.set()
        yield 1
        raise AssertionError("nobody has asked for a third yet")

    reading = ahead(items())
    assert next(reading) == 0
    assert second.wait(10)
    reading.close()


def test_what_is_raised_comes_as_itself_in_its_turn():
    def items() -> Iterator[int]:
        yield 0
        raise LookupError("the second")

    reading = ahead(items())
    assert next(reading) == 0
    with pytest.raises(LookupError, match="the second"):
        next(reading)


def test_the_thread_ends_with_the_reading():
    before = threading.active_count()
    reading = ahead(iter(range(9)))
    next(reading)
    assert threading.active_count() == before + 1
    reading.close()
    assert threading.active_count() == before
