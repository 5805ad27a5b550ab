"""There and back."""

from __future__ import annotations

from pathlib import Path

from ptsdk_example_tokenizer.tokenizer import ExampleTokenizer


def test_a_character_is_an_id() -> None:
    tokenizer = ExampleTokenizer(alphabet="abc ").load(None, Path())
    ids = tokenizer.encode("a cab!")
    assert ids == [2, 5, 4, 2, 3, 0]
    assert tokenizer.decode(ids) == "a cab"
    assert tokenizer.vocab_size == 6
