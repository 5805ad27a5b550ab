"""What a source of tokenizers has to do."""

from __future__ import annotations

from typing import ClassVar

import pytest

from ptsdk.contracts.tokenizer import Tokenizer, TokenizerSource
from ptsdk.data.tokenizers import from_folder
from ptsdk.errors import UserError
from ptsdk.testing.checkpoints import tiny_checkpoint
from ptsdk.testing.suite import ComponentSuite

TEXTS = (
    "one row of data",
    "  two  spaces, and\n\ta tab",
    "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve \N{SNOWMAN}",
    "x",
)


class TokenizerSuite(ComponentSuite):
    """For the kind ``tokenizer``.

    Attributes:
        lossless: whether every text comes back from its ids as it was.
    """

    kind: ClassVar[str] = "tokenizer"
    lossless: ClassVar[bool] = True

    def loaded(self) -> Tokenizer:
        """The tokenizer, beside a checkpoint where it needs one."""
        source: TokenizerSource = self.make()
        model = tiny_checkpoint(self.folder / "model") if source.needs_model else None
        return source.load(model, self.folder)

    def test_says_whether_it_needs_a_model(self) -> None:
        """``needs_model`` and a model from scratch: refused where it says so, loaded where it does not."""
        source: TokenizerSource = self.make()
        if source.needs_model:
            with pytest.raises(UserError):
                source.load(None, self.folder)
        else:
            assert source.load(None, self.folder) is not None

    def test_text_comes_back(self) -> None:
        """``decode(encode(text))`` is the text, and every id is below ``vocab_size``."""
        tokenizer = self.loaded()
        for text in TEXTS:
            ids = tokenizer.encode(text)
            assert ids and all(0 <= i < tokenizer.vocab_size for i in ids), f"{text!r} has the ids {ids}"
            back = tokenizer.decode(ids)
            same = back == text if self.lossless else back.split() == text.split()
            assert same, f"{text!r} came back as {back!r}"

    def test_offsets_go_along_the_text(self) -> None:
        """Where it tells them: places inside the text that never go back, one an id; masks are found by them."""
        tokenizer = self.loaded()
        for text in TEXTS:
            try:
                ids, offsets = tokenizer.encode_with_offsets(text, special=False)
            except NotImplementedError:
                return
            assert ids == tokenizer.encode(text, special=False), f"{text!r} has other ids with offsets"
            assert len(offsets) == len(ids), f"{len(offsets)} offsets for {len(ids)} ids of {text!r}"
            inside = all(0 <= start <= end <= len(text) for start, end in offsets)
            ways = [list(one) for one in zip(*offsets, strict=True)]
            assert inside and all(way == sorted(way) for way in ways), f"the offsets of {text!r} are {offsets}"

    def test_special_tokens_have_ids(self) -> None:
        """BOS, EOS and padding are None or ids of the vocabulary; there is an end; BOS is added where it says so."""
        tokenizer = self.loaded()
        for name in ("bos_id", "eos_id", "pad_id"):
            value = getattr(tokenizer, name)
            assert value is None or 0 <= value < tokenizer.vocab_size, f"{name} is {value}"
        begins = tokenizer.encode(TEXTS[0], special=True)[0] == tokenizer.bos_id
        assert begins == tokenizer.adds_bos, f"adds_bos is {tokenizer.adds_bos}, yet BOS in front: {begins}"

    def test_saves_what_it_reads(self) -> None:
        """What ``save`` writes is read back as the same tokenizer: that is what ``final/`` holds."""
        tokenizer = self.loaded()
        saved = self.folder / "saved"
        saved.mkdir()
        tokenizer.save(saved)
        again = from_folder(saved)
        assert again is not None, f"save() wrote {sorted(p.name for p in saved.iterdir())}: no tokenizer to read"
        for text in TEXTS:
            assert again.encode(text) == tokenizer.encode(text), f"{text!r} has other ids after saving"
        assert again.eos_id == tokenizer.eos_id, "EOS is another id after saving"

    def test_released_it_is_the_same(self) -> None:
        """``release`` changes nothing but memory: a run asks for it when its data is read, and may encode later."""
        tokenizer = self.loaded()
        before = [tokenizer.encode(text) for text in TEXTS]
        tokenizer.release()
        assert [tokenizer.encode(text) for text in TEXTS] == before, "ids are others once it is released"

    def test_fingerprint_is_of_what_decides_ids(self) -> None:
        """Loaded twice it is the same, or a resume would be refused."""
        first, second = self.loaded().fingerprint(), self.loaded().fingerprint()
        assert first == second and first, f"the fingerprint was {first}, then {second}"
