"""The built-in data sets: rows to ids and masks, against transformers and TRL's own preparation."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from ptsdk.builtin.datasets import Binary, Chat, FileDataset, Instruct, Preference, Prompts, Text
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data.example import BadRow, Example, Row
from ptsdk.data.tokenizers import ByteTokenizer, FastTokenizer
from ptsdk.errors import UserError

CHATML = (Path(__file__).parent / "chat_templates" / "chatml.jinja").read_text(encoding="utf-8")
HEADERS = (Path(__file__).parent / "chat_templates" / "headers.jinja").read_text(encoding="utf-8")


def bpe(template: str | None = None, bos: bool = False) -> FastTokenizer:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|turn|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(["what is the answer? the answer is: yes\n no, assistant user"] * 30, trainer)
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return FastTokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>"}, template)


PLAIN = {"bytes": ByteTokenizer, "bpe": bpe, "bpe with bos": lambda: bpe(bos=True)}
CHATS = {
    "bytes": lambda: ByteTokenizer(CHATML),
    "bpe": lambda: bpe(CHATML),
    "bos twice": lambda: bpe(HEADERS, bos=True),
}


def encode(dataset: type[FileDataset], tokenizer: Tokenizer, row: dict[str, Any], **options: Any) -> Example:
    return dataset(path="unused.jsonl", **options).encode(Row(row), tokenizer)


def trl_rows(trainer: Any, config: Any, tokenizer: Tokenizer, row: dict[str, Any], folder: Path, *more: Any) -> Any:
    """What TRL's trainer makes of one row, without a model."""
    tokenizer.save(folder)
    oracle = AutoTokenizer.from_pretrained(folder)
    fields = {"_tokenizer": oracle, "chat_template": None, "completion_only_loss": True, "calculate_KL": False}
    fields |= {"_is_vlm": False, "desirable_weight": 1.0, "undesirable_weight": 1.0}
    args = config(output_dir=str(folder), report_to=[], max_length=None, use_cpu=True, bf16=False)
    stub, rows = SimpleNamespace(**fields), datasets.Dataset.from_list([row])
    return trainer._prepare_dataset(stub, rows, oracle, args, *more, "train")[0]


STRINGS = [
    {"prompt": "what is", "completion": " the answer?"},
    {"prompt": "the answer is: ", "completion": "yes"},  # a space that belongs to the next token
    {"prompt": "the ans", "completion": "wer is"},
    {"prompt": "x", "completion": "no 😀\n"},
]
TURNS = {
    "prompt": [{"role": "user", "content": "what is the answer?"}],
    "completion": [{"role": "assistant", "content": "the answer is yes"}],
}


@pytest.mark.parametrize("row", STRINGS)
@pytest.mark.parametrize("name", PLAIN)
def test_instruct_without_a_template_is_trls_prompt_completion(name: str, row: dict[str, str], tmp_path: Path) -> None:
    tokenizer = PLAIN[name]()
    theirs = trl_rows(SFTTrainer, SFTConfig, tokenizer, row, tmp_path, False, None)
    (document,) = encode(Instruct, tokenizer, row).documents
    assert list(document.tokens) == theirs["input_ids"]
    assert [t if on else -100 for t, on in zip(*document_columns(document), strict=True)] == theirs["labels"]
    assert document.tokens[-1] == tokenizer.eos_id and (document.tokens[0] == 0) == (name == "bpe with bos")


def document_columns(document: Any) -> tuple[Any, Any]:
    return document.tokens, document.supervised


@pytest.mark.parametrize("name", CHATS)
def test_instruct_with_a_template_is_trls_but_for_what_follows_the_turn(name: str, tmp_path: Path) -> None:
    tokenizer = CHATS[name]()
    theirs = trl_rows(SFTTrainer, SFTConfig, tokenizer, TURNS, tmp_path, False, None)
    strings = {key: messages[0]["content"] for key, messages in TURNS.items()}
    (document,) = encode(Instruct, tokenizer, TURNS).documents
    assert encode(Instruct, tokenizer, strings).documents == (document,)
    assert list(document.tokens) == theirs["input_ids"]
    ours = [t if on else -100 for t, on in zip(document.tokens, document.supervised, strict=True)]
    trailing = len(tokenizer.encode("\n", special=False)) if tokenizer.chat_template == CHATML else 0
    assert ours[: len(ours) - trailing] == theirs["labels"][: len(ours) - trailing]
    assert not any(document.supervised[len(ours) - trailing :])


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("prompt", ["what is", "the ans", "the answer is: "])
def test_preference_without_a_template_is_trls(name: str, prompt: str, tmp_path: Path) -> None:
    tokenizer = PLAIN[name]()
    row = {"prompt": prompt, "chosen": "wer is yes", "rejected": " no"}
    theirs = trl_rows(DPOTrainer, DPOConfig, tokenizer, row, tmp_path)
    example = encode(Preference, tokenizer, row)
    for document, key in zip(example.documents, ("chosen_ids", "rejected_ids"), strict=True):
        assert list(document.tokens) == theirs["prompt_ids"] + theirs[key]
        assert list(document.supervised) == [False] * len(theirs["prompt_ids"]) + [True] * len(theirs[key])


@pytest.mark.parametrize("name", CHATS)
def test_preference_with_a_template_has_trls_ids(name: str, tmp_path: Path) -> None:
    tokenizer = CHATS[name]()
    rejected = [{"role": "assistant", "content": "no"}]
    row = {"prompt": TURNS["prompt"], "chosen": TURNS["completion"], "rejected": rejected}
    theirs = trl_rows(DPOTrainer, DPOConfig, tokenizer, row, tmp_path)
    example = encode(Preference, tokenizer, row)
    for document, key in zip(example.documents, ("chosen_ids", "rejected_ids"), strict=True):
        assert list(document.tokens) == theirs["prompt_ids"] + theirs[key]
        assert document.supervised.index(True) == len(theirs["prompt_ids"])
    whole = {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + rejected}
    strings = {"prompt": "what is the answer?", "chosen": "the answer is yes", "rejected": "no"}
    for other in (whole, {**whole, "prompt": "what is the answer?"}, {**whole, "prompt": row["prompt"]}, strings):
        assert encode(Preference, tokenizer, other) == example


def test_only_the_answers_of_a_pair_carry_loss() -> None:
    tokenizer = ByteTokenizer(CHATML)
    asked = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    row = {"prompt": asked, "chosen": "yes", "rejected": "no"}
    answers = [tokenizer.decode([t for t, on in zip(*document_columns(d), strict=True) if on])
               for d in encode(Preference, tokenizer, row).documents]  # fmt: skip
    assert answers == ["yes<|im_end|>", "no<|im_end|>"]


def test_an_implicit_prompt_of_strings_is_cut_as_trl_cuts_it(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    row = {"chosen": "the answer is yes", "rejected": "the answer is no"}
    theirs = trl_rows(DPOTrainer, DPOConfig, tokenizer, row, tmp_path)
    documents = encode(Preference, tokenizer, row).documents
    assert [list(d.tokens) for d in documents] == [
        theirs["prompt_ids"] + theirs[k] for k in ("chosen_ids", "rejected_ids")
    ]
    assert documents[0].supervised.index(True) == len(theirs["prompt_ids"])


@pytest.mark.parametrize("label", [True, False])
def test_binary_is_trls(label: bool, tmp_path: Path) -> None:
    tokenizer = bpe(bos=True)
    row = {"prompt": "what is", "completion": " the answer?", "label": label}
    theirs = trl_rows(KTOTrainer, KTOConfig, tokenizer, row, tmp_path)
    example = encode(Binary, tokenizer, row)
    assert list(example.documents[0].tokens) == theirs["prompt_ids"] + theirs["completion_ids"]
    assert example.documents[0].supervised.index(True) == len(theirs["prompt_ids"])
    assert example.extras == {"label": label}
    with pytest.raises(BadRow, match="`label` must be"):
        encode(Binary, tokenizer, {**row, "label": "yes"})


@pytest.mark.parametrize("name", PLAIN)
def test_text_is_exactly_the_tokenizers_ids(name: str, tmp_path: Path) -> None:
    tokenizer = PLAIN[name]()
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)("what is\n\nthe answer?")["input_ids"]
    (document,) = encode(Text, tokenizer, {"text": "what is\n\nthe answer?"}).documents
    assert list(document.tokens) == theirs and all(document.supervised)


def test_chat_reads_openai_and_sharegpt() -> None:
    tokenizer = ByteTokenizer(CHATML)
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    turns = [{"from": "system", "value": "s"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    first = encode(Chat, tokenizer, {"messages": messages})
    for row in ({"conversations": turns}, {"messages": json.dumps(messages)}, {"messages": messages, "tools": None}):
        assert encode(Chat, tokenizer, row) == first
    assert first.supervised == len("b<|im_end|>")
    assert encode(Chat, tokenizer, {"messages": messages}, train_on="all").supervised == first.length - 1


def test_alpaca() -> None:
    tokenizer = ByteTokenizer(CHATML)
    joined = encode(Instruct, tokenizer, {"prompt": "do\n\nthis", "completion": "done"})
    assert encode(Instruct, tokenizer, {"instruction": "do", "input": "this", "output": "done"}) == joined
    alone = encode(Instruct, tokenizer, {"prompt": "do", "completion": "done"})
    assert encode(Instruct, tokenizer, {"instruction": "do", "input": "", "output": "done"}) == alone


def test_prompts_end_where_the_answer_begins(tmp_path: Path) -> None:
    tokenizer, row = bpe(CHATML), {"prompt": "what is?", "answer": 42}
    tokenizer.save(tmp_path)
    oracle = AutoTokenizer.from_pretrained(tmp_path)
    asked = [{"role": "user", "content": "what is?"}]
    example = encode(Prompts, tokenizer, row)
    assert list(example.documents[0].tokens) == oracle.apply_chat_template(
        asked, add_generation_prompt=True, return_dict=False
    )
    assert encode(Prompts, tokenizer, {"prompt": asked, "answer": 42}).documents == example.documents
    assert example.extras == {"row": row} and not any(example.documents[0].supervised)
    assert list(encode(Prompts, bpe(bos=True), row).documents[0].tokens) == bpe(bos=True).encode("what is?")


BAD: list[tuple[type[FileDataset], dict[str, Any], str]] = [
    (Chat, {"text": "x"}, "expected a column `messages` or `conversations`, found text"),
    (Chat, {"messages": []}, "non-empty list of messages, found an empty list"),
    (Chat, {"messages": "hello"}, "found str"),
    (Chat, {"messages": ["hello"]}, r"`messages\[0\]` must be a mapping"),
    (Chat, {"messages": [{"role": "robot", "content": "x"}]}, "'robot'; known are"),
    (Chat, {"conversations": [{"from": "robot", "value": "x"}]}, "'robot'; known are"),
    (Chat, {"messages": [{"role": "user", "content": "x"}]}, "last message must be the assistant's"),
    (Chat, {"messages": [{"role": "user", "content": 5}]}, r"`messages\[0\].content` must be text, found int"),
    (Chat, {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}]}, "is empty"),
    (Chat, {"messages": [{"role": "user", "content": "x"}, {"role": "assistant"}]}, "found nothing"),
    (Chat, {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]}, "second user message"),
    (Chat, {"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]}, "only the first"),
    (Chat, {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]}, "no assistant"),
    (Chat, {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "cannot be trained on"),
    (Chat, {"messages": [{"role": "user", "content": "\ud83d"}]}, "half a surrogate pair at character 0"),
    (Chat, {"messages": [{"role": "assistant", "content": "x"}], "tools": "{"}, "`tools` is not JSON"),
    (Instruct, {"prompt": "x"}, "expected `prompt` and `completion`"),
    (Instruct, {"prompt": "x", "completion": ""}, "`completion` is empty"),
    (Instruct, {"prompt": None, "completion": "x"}, "found nothing"),
    (Instruct, {"prompt": TURNS["completion"], "completion": "x"}, "must not end with the assistant's"),
    (Instruct, {"prompt": "x", "completion": TURNS["prompt"]}, "must end with the assistant's"),
    (Instruct, {"prompt": "x", "completion": TURNS["prompt"] + TURNS["completion"]}, "belongs to the prompt"),
    (Preference, {"prompt": "x", "chosen": "y"}, "expected columns `chosen` and `rejected`"),
    (Preference, {"prompt": "x", "chosen": "y", "rejected": "y"}, "are the same"),
    (Preference, {"chosen": "ab", "rejected": "cd"}, "do not begin alike"),
    (Preference, {"chosen": "ab", "rejected": "abc"}, "begins with the whole of the other"),
    (Preference, {"prompt": "x", "chosen": "y", "rejected": TURNS["completion"]}, "both be text"),
    (Preference, {"prompt": "else", "chosen": TURNS["prompt"] + TURNS["completion"],
                  "rejected": TURNS["prompt"] + [{"role": "assistant", "content": "z"}]}, "do not begin with `prompt`"),
    (Text, {"content": "x"}, "expected a column `text`, found content"),
    (Text, {"text": ""}, "`text` is empty"),
    (Prompts, {"question": "x"}, "expected a column `prompt`, found question"),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "row", "why"), BAD)
def test_a_bad_row_is_refused(dataset: type[FileDataset], row: dict[str, Any], why: str) -> None:
    with pytest.raises(BadRow, match=why):
        encode(dataset, ByteTokenizer(CHATML), row)


def test_messages_need_a_template() -> None:
    with pytest.raises(UserError, match="no chat template"):
        encode(Chat, ByteTokenizer(), {"messages": TURNS["prompt"] + TURNS["completion"]})
    for dataset, row in ((Instruct, TURNS), (Prompts, TURNS)):
        with pytest.raises(BadRow, match="has no chat template"):
            encode(dataset, ByteTokenizer(), row)
    endless = FastTokenizer(bpe()._backend, {})
    with pytest.raises(UserError, match="neither a chat template nor an EOS"):
        encode(Instruct, endless, STRINGS[0])


def test_rows_of_a_file(tmp_path: Path) -> None:
    lines = [{"q": str(i), "a": "x", "n": i} for i in range(5)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    dataset = Instruct(path="x.jsonl", columns={"prompt": "q", "completion": "a"}, limit=3)
    rows = list(dataset.rows(tmp_path))
    assert [row.values for row in rows] == [{"prompt": str(i), "completion": "x", "n": i} for i in range(3)]
    assert rows[2].place == f"{tmp_path}/x.jsonl:3"
    assert [file.name for file in dataset.files(tmp_path)] == [f"{tmp_path}/x.jsonl"]
    assert dataset.fingerprint(tmp_path) == Text(path=str(tmp_path / "x.jsonl")).fingerprint(Path("/"))
    with pytest.raises(UserError, match="no such file"):
        Text(path="no.jsonl").files(tmp_path)
