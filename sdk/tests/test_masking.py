"""Loss masks: which characters of which conversation carry loss, under templates of every kind."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from ptsdk.data.example import BadRow, Document
from ptsdk.data.masking import document, mask_messages
from ptsdk.data.tokenizers import ByteTokenizer, FastTokenizer

TEMPLATES = {
    path.stem: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("chat_templates/*.jinja")
}
SPECIAL = [
    "<bos>",
    "<eos>",
    "<pad>",
    "<|im_start|>",
    "<|im_end|>",
    "<|end|>",
    "<|turn|>",
    "<|start|>",
    "<|sep|>",
    "</turn>",
]
Message = dict[str, Any]


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str, **more: Any) -> Message:
    return {"role": "assistant", "content": content, **more}


def call(name: str) -> Message:
    return assistant("", tool_calls=[{"type": "function", "function": {"name": name, "arguments": {"city": "Bern"}}}])


FOUR = [user("one?"), assistant(" a b "), user("two?"), assistant("c")]


def merging_tokenizer(template: str) -> FastTokenizer:
    """Byte-level BPE that joins across the edges of messages where no special token stands."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "the assistant and the user say hello: \n\n what is it? a b c 😀 <think> assistant user system\n"
    backend.train_from_iterator([text] * 50, trainer)
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return FastTokenizer(backend, names, template)


def supervised(tokenizer: FastTokenizer, masked: Document) -> list[str]:
    """The stretches of text that carry loss."""
    runs: list[list[int]] = []
    previous = False
    for token, on in zip(masked.tokens, masked.supervised, strict=True):
        if on and not previous:
            runs.append([])
        if on:
            runs[-1].append(token)
        previous = on
    return [tokenizer.decode(run, skip_special=False) for run in runs]


THOUGHT = "<think>\nwhy\n</think>\n\n"
EXPECTED: list[tuple[str, list[Message], list[str]]] = [
    ("chatml", FOUR, [" a b <|im_end|>", "c<|im_end|>"]),
    ("chatml", [user("x"), assistant("tail \n ")], ["tail \n <|im_end|>"]),
    ("chatml", [user("x"), assistant("say <|im_end|> now")], ["say <|im_end|> now<|im_end|>"]),
    ("chatml", [user("c"), assistant("c"), user("c"), assistant("c")], ["c<|im_end|>", "c<|im_end|>"]),
    ("headers", FOUR, ["a b<|turn|>", "c<|turn|>"]),
    ("folded_system", [{"role": "system", "content": "s"}, *FOUR], ["a b</turn>", "c</turn>"]),
    ("instruct_tags", FOUR, ["  a b <eos>", " c<eos>"]),
    ("system_in_last", [{"role": "system", "content": "s"}, *FOUR], [" a b <eos>", "c<eos>"]),
    ("thinking", [user("x"), assistant("c")], ["<think>\n\n</think>\n\nc<|im_end|>"]),
    ("thinking", [user("x"), assistant(THOUGHT + "c")], [THOUGHT + "c<|im_end|>"]),
    (
        "thinking",
        [user("x"), assistant(THOUGHT + "a"), user("y"), assistant(THOUGHT + "c")],
        ["a<|im_end|>", THOUGHT + "c<|im_end|>"],
    ),
    (
        "thinking",
        [user("x"), assistant("a", reasoning_content="old"), user("y"), assistant("c", reasoning_content="why")],
        ["a<|im_end|>", THOUGHT + "c<|im_end|>"],
    ),
    ("prompt_opens_thought", [user("x"), assistant(THOUGHT + "c")], ["why\n</think>\n\nc<|im_end|>"]),
    (
        "prompt_opens_thought",
        [user("x"), assistant(THOUGHT + "a"), user("y"), assistant(THOUGHT + "c")],
        ["a<|im_end|>", "why\n</think>\n\nc<|im_end|>"],
    ),
    ("two_ends", FOUR, [" a b <|end|>", "c<|end|>"]),
    ("end_once", FOUR, [" a b ", "c\n\n<eos>"]),
    ("generation", FOUR, [" a b <|im_end|>", "c<|im_end|>"]),
]


@pytest.mark.parametrize(("name", "messages", "expected"), EXPECTED)
@pytest.mark.parametrize("make", [ByteTokenizer, merging_tokenizer])
def test_the_assistants_words_and_their_end_carry_loss(
    name: str, messages: list[Message], expected: list[str], make: Any, tmp_path: Path
) -> None:
    tokenizer = make(TEMPLATES[name])
    masked = mask_messages(tokenizer, messages)
    if (name, make) == ("two_ends", ByteTokenizer):  # there <|end|> is only text, so the last end is all of it
        expected = [*expected[:-1], expected[-1] + "\n<eos>"]
    assert [text.strip() for text in supervised(tokenizer, masked)] == [text.strip() for text in expected]
    assert supervised(tokenizer, masked) == expected or make is merging_tokenizer
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(messages, return_dict=False)
    assert list(masked.tokens) == theirs


def test_tool_calls_carry_loss_and_their_results_do_not() -> None:
    messages = [user("weather?"), call("weather"), {"role": "tool", "content": "sun"}, assistant("It is sun.")]
    for conversation in (messages, [*messages, user("thanks"), assistant("np")]):
        tokenizer = ByteTokenizer(TEMPLATES["thinking"])
        first, *rest = supervised(tokenizer, mask_messages(tokenizer, conversation))
        assert (
            first.endswith('"arguments": {"city": "Bern"}}\n</tool_call><|im_end|>') and "<tool_response>" not in first
        )
        assert [text.split("\n")[-1] for text in rest] == ["It is sun.<|im_end|>", "np<|im_end|>"][: len(rest)]
    tokenizer = ByteTokenizer(TEMPLATES["tool_in_turn"])
    assert supervised(tokenizer, mask_messages(tokenizer, messages)) == ["<call>weather</call>", "It is sun.</turn>"]
    tokenizer = ByteTokenizer(TEMPLATES["headers"])
    assert supervised(tokenizer, mask_messages(tokenizer, messages))[0] == (
        '{"name": "weather", "parameters": {"city": "Bern"}}<|turn|>'
    )


@pytest.mark.parametrize("template", ["tool_in_turn", "headers"])
def test_a_call_without_words_may_have_no_content(template: str) -> None:
    tokenizer = ByteTokenizer(TEMPLATES[template])
    wordless = [user("weather?"), {**call("weather"), "content": None}]
    assert mask_messages(tokenizer, wordless) == mask_messages(tokenizer, [wordless[0], call("weather")])


def test_a_generation_template_gives_transformers_mask(tmp_path: Path) -> None:
    tokenizer = merging_tokenizer(TEMPLATES["generation"])
    tokenizer.save(tmp_path)
    # (transformers drops a span that begins with a space where the post-processor trims offsets)
    messages = [user("what?"), assistant("the user 😀"), user("it"), assistant("hello ")]
    theirs = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    masked = mask_messages(tokenizer, messages)
    assert list(masked.tokens) == theirs["input_ids"]
    assert [int(on) for on in masked.supervised] == theirs["assistant_masks"]


def test_a_derived_mask_is_that_of_the_same_template_with_generation_blocks() -> None:
    derived, marked = (merging_tokenizer(TEMPLATES[name]) for name in ("chatml", "generation"))
    for messages in (FOUR, [{"role": "system", "content": "the user"}, *FOUR], [user("?"), assistant("\n\n 😀")]):
        assert mask_messages(derived, messages) == mask_messages(marked, messages)


REFUSED: list[tuple[str, list[Message], str]] = [
    ("{% for m in messages %}{{ m.role }};{% endfor %}", [user("x"), assistant("y")], "does not write the content"),
    ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", [user("x"), assistant("y")], "once"),
    ("{% for m in messages %}[{{ m.content | upper }}]{% endfor %}", [user("x"), assistant("yes")], "content"),
    ("{% for m in messages %}[{{ m.content | replace('y', '') }}]{% endfor %}", [user("x"), assistant("yes")], "drops"),
    ("{% for m in messages %}[{{ m.content.split('>')[-1] }}]{% endfor %}", [user("x"), assistant("<a>y")], "drops"),
    (TEMPLATES["chatml"], [user("x"), assistant("y", reasoning_content="lost")], "drops part of .*'lost'"),
    (TEMPLATES["chatml"], [user("x"), call("weather")], "drops part of .*'weather'"),
    ("{% for m in messages %}{{ m.content }}{% endfor %}{{ messages[-1].content[0] }}", FOUR, "exactly"),
    (
        "{% for m in messages %}{{ m.content }}{{ '<eos>' if loop.last else '<pad>' }}{% endfor %}",
        FOUR,
        "ends .* otherwise than a last message",
    ),
    (TEMPLATES["chatml"], [user("x")], "no assistant message"),
    (TEMPLATES["chatml"], [user("x"), assistant("y", weight=0.5)], "0 or 1"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "messages", "why"), REFUSED)
def test_what_cannot_be_masked_exactly_is_refused(template: str, messages: list[Message], why: str) -> None:
    with pytest.raises(BadRow, match=why):
        mask_messages(ByteTokenizer(template), messages)


def test_messages_can_be_left_out() -> None:
    tokenizer = ByteTokenizer(TEMPLATES["chatml"])
    marked = [
        user("one?"),
        assistant("a", weight=0),
        user("two?"),
        assistant("b", train=False),
        user("?"),
        assistant("c"),
    ]
    assert supervised(tokenizer, mask_messages(tokenizer, marked)) == ["c<|im_end|>"]
    generation = ByteTokenizer(TEMPLATES["generation"])
    assert mask_messages(generation, marked) == mask_messages(tokenizer, marked)
    assert supervised(tokenizer, mask_messages(tokenizer, FOUR, train_on="last")) == ["c<|im_end|>"]
    assert supervised(tokenizer, mask_messages(tokenizer, FOUR, start=2)) == ["c<|im_end|>"]
    assert all(mask_messages(tokenizer, FOUR, train_on="all").supervised)
    with pytest.raises(BadRow, match="no assistant message"):
        mask_messages(tokenizer, [user("x"), assistant("y", weight=0)])


def test_options_reach_the_template() -> None:
    tokenizer = ByteTokenizer(TEMPLATES["thinking"])
    masked = mask_messages(tokenizer, [user("x"), assistant("c")], enable_thinking=False)
    assert supervised(tokenizer, masked) == ["c<|im_end|>"]


def test_a_token_across_the_edge_is_the_assistants() -> None:
    tokenizer = merging_tokenizer("")
    ids, offsets = tokenizer.encode_with_offsets("say hello")
    assert offsets[-1] == (3, 9)
    masked = document(tokenizer, "say hello", [(4, 9)])
    assert masked.supervised == (False,) * (len(ids) - 1) + (True,)


def test_white_space_and_bytes_of_one_character_are_reached() -> None:
    for tokenizer in (ByteTokenizer(), merging_tokenizer("")):
        text = "x \n\n 😀"
        masked = document(tokenizer, text, [(1, 6)])
        assert supervised(tokenizer, masked) == [" \n\n 😀"]


def test_what_has_no_width_belongs_to_the_character_that_follows() -> None:
    class Narrow(ByteTokenizer):
        def encode_with_offsets(self, text: str, *, special: bool = False) -> Any:
            return [0, 1, 2, 3], [(0, 0), (0, 1), (1, 1), (1, 2)]

    assert document(Narrow(), "ab", [(0, 1)]).supervised == (True, True, False, False)
    assert document(Narrow(), "ab", [(1, 2)]).supervised == (False, False, True, True)


def test_tokens_are_found_by_halving_as_by_looking_at_each() -> None:
    drawn = random.Random(0)
    for _ in range(300):
        text, offsets, at = "x" * drawn.randrange(1, 30), [], 0
        while at < len(text):
            end = min(at + drawn.choice((0, 1, 1, 3)), len(text))
            offsets += [(at, end)] * drawn.choice((1, 1, 2))  # the bytes of one character
            at = max(end, at + drawn.randrange(2)) + drawn.choice((0, 0, 1))  # a character that no token stands for

        class Drawn(ByteTokenizer):
            def encode_with_offsets(self, text: str, *, special: bool = False, offsets: Any = offsets) -> Any:
                return list(range(len(offsets))), offsets

        start = drawn.randrange(len(text))
        stop = drawn.randrange(start, len(text) + 1)
        reached = [begin < stop and max(end, begin + 1) > start for begin, end in offsets]
        if any(reached):
            assert document(Drawn(), text, [(start, stop)]).supervised == tuple(reached)


def test_the_keys_of_the_mask_are_not_shown_to_the_template() -> None:
    shows = "{% for m in messages %}<{{ m.content }}{{ m.weight is defined or m.train is defined }}>{% endfor %}"
    tokenizer = ByteTokenizer(shows)
    masked = mask_messages(tokenizer, [user("x"), assistant("y", weight=1, train=True)])
    assert tokenizer.decode(list(masked.tokens)) == "<xFalse><yFalse>"


class WithoutOffsets(ByteTokenizer):
    """A tokenizer that cannot tell places; two characters become one token where ``pairs`` is set."""

    pairs = False

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        ids = super().encode(text, special=special)
        return [ids[i] + (ids[i + 1] if i + 1 < len(ids) else 0) for i in range(0, len(ids), 2)] if self.pairs else ids

    def encode_with_offsets(self, text: str, *, special: bool = False) -> Any:
        raise NotImplementedError


def test_without_offsets_edges_come_from_prefixes() -> None:
    tokenizer, plain = (make(TEMPLATES["chatml"]) for make in (WithoutOffsets, ByteTokenizer))
    assert mask_messages(tokenizer, FOUR) == mask_messages(plain, FOUR)
    tokenizer.pairs = True
    with pytest.raises(BadRow, match="tells no offsets"):
        document(tokenizer, "abcd", [(1, 4)])
