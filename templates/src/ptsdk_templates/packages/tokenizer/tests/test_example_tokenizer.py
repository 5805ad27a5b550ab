"""What it learns."""

from __future__ import annotations

from pathlib import Path

from ptsdk.testing import TokenizerSuite

from ptsdk_example_tokenizer.tokenizer import ExampleTokenizer


class TestConforms(TokenizerSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-tokenizer/example-tokenizer"  # dist/name


def test_what_is_frequent_becomes_one_id(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("sugar " * 50, "utf-8")
    plain = ExampleTokenizer().load(None, tmp_path)
    learned = ExampleTokenizer(path="text.txt").load(None, tmp_path)
    assert (len(plain.encode("sugar")), len(learned.encode("sugar"))) == (5, 1)
    assert plain.vocab_size == 257
    assert 257 < learned.vocab_size <= 300
    assert learned.decode(learned.encode("na\u00efve sugar")) == "na\u00efve sugar"
