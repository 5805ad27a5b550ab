"""The row formats of the field, each turned into the examples of an objective."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from ptsdk.contracts.dataset import Dataset
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.data import hub_files
from ptsdk.data import messages as shapes
from ptsdk.data import rows as files
from ptsdk.data.example import BadRow, Document, Example, Row
from ptsdk.data.lines import JsonLines
from ptsdk.data.masking import TrainOn, mask_messages
from ptsdk.data.templates import render
from ptsdk.data.turns import check_asked, shared
from ptsdk.errors import UserError


class FileDataset(Dataset):
    """Rows of data files. A subclass says what example a row makes."""

    path: str = Field(
        min_length=1,
        description="a file, folder, glob or URL: JSONL, JSON, CSV, Parquet; hf://datasets/org/name, or a file in it",
    )
    columns: dict[str, str] = Field(default_factory=dict, description="column expected -> column of the file")
    split: str | None = Field(None, description="split of an hf:// data set; train by default")
    limit: int | None = Field(None, gt=0, lt=2**63, description="read only so many rows, the first ones")

    def rows(self, base: Path) -> Iterator[Row]:
        """The rows, columns renamed; see the contract."""
        for row in islice(files.read(self.path, base, self.split), self.limit):
            yield files.rename(row, self.columns)

    def by_number(self, base: Path) -> Sequence[Row]:
        """The rows of JSONL files on this machine; see the contract. A subclass with ``rows`` of its own says itself
        how they are read by number."""
        if type(self).rows is not FileDataset.rows:
            return super().by_number(base)
        return JsonLines(files.locate_lines(self.path, base), self.limit, self.columns)

    def files(self, base: Path) -> list[files.DataFile]:
        """The local or remote files that will be read, without reading them; what the hub has is not
        looked up.

        Raises:
            UserError: there are none.
        """
        return [] if self.path.startswith(hub_files.HUB) else files.locate(self.path, base)

    def fingerprint(self, base: Path) -> str:
        """SHA-256 of the content; neither names nor places of files matter."""
        return files.fingerprint(self.path, base, self.split)

    @abstractmethod
    def encode(self, row: Row, tokenizer: Tokenizer) -> Example:
        """See the contract."""


class Chat(FileDataset):
    """``{messages: [{role, content, tool_calls?}], tools?}`` or ShareGPT's ``{conversations}``."""

    train_on: TrainOn = Field("assistant", description="assistant: every reply; last: the last reply; all: every token")
    template_options: dict[str, Any] = Field(default_factory=dict, description="variables of the chat template")

    def encode(self, row: Row, tokenizer: Tokenizer) -> Example:
        """The conversation as its template renders it, loss on the assistant's tokens."""
        messages = shapes.conversation(row.values)
        tools = shapes.tools_of(row.values)
        return Example((mask_messages(tokenizer, messages, tools, self.train_on, **self.template_options),))


class Instruct(FileDataset):
    """``{prompt, completion}``, strings or messages, or Alpaca's ``{instruction, input, output}``."""

    def encode(self, row: Row, tokenizer: Tokenizer) -> Example:
        """Prompt and completion, loss on the completion and its end."""
        prompt, completion = shapes.prompt_completion(row.values)
        return Example(answers(tokenizer, prompt, [completion], shapes.tools_of(row.values)))


class Text(FileDataset):
    """``{text}``: exactly the ids that the tokenizer gives, all of them supervised."""

    def encode(self, row: Row, tokenizer: Tokenizer) -> Example:
        """The ids of the text; no EOS is added that the tokenizer does not add."""
        if "text" not in row.values:
            raise BadRow(f"expected a column `text`, found {row.columns}")
        ids = tokenizer.encode(shapes.text(row.values["text"], "text"))
        return Example((Document(tuple(ids), (True,) * len(ids)),))


class Preference(FileDataset):
    """``{prompt, chosen, rejected}``: strings, messages, or two conversations that begin alike."""

    def encode(self, row: Row, tokenizer: Tokenizer) -> Example:
        """Two documents, chosen first, loss on what follows the prompt."""
        pair = shapes.preference(row.values)
        return Example(answers(tokenizer, pair.prompt, [pair.chosen, pair.rejected], shapes.tools_of(row.values)))


class Binary(FileDataset):
    """``{prompt, completion, label}``: whether the completion is wanted."""

    def encode(self, row: Row, tokenizer: Tokenizer) -> Example:
        """One document, its label in ``extras``."""
        prompt, completion = shapes.prompt_completion(row.values)
        label = row.values.get("label")
        if not isinstance(label, bool) and label not in (0, 1):
            raise BadRow(f"`label` must be true or false, found {label!r}")
        documents = answers(tokenizer, prompt, [completion], shapes.tools_of(row.values))
        return Example(documents, {"label": bool(label)})


class Prompts(FileDataset):
    """``{prompt, ...}`` for methods that generate; every column reaches the rewards."""

    template_options: dict[str, Any] = Field(default_factory=dict, description="variables of the chat template")

    def encode(self, row: Row, tokenizer: Tokenizer) -> Example:
        """The prompt, ready to be continued, and the whole row in ``extras``."""
        prompt = shapes.prompt(row.values)
        ids = prompt_ids(tokenizer, prompt, shapes.tools_of(row.values), **self.template_options)
        return Example((Document(tuple(ids), (False,) * len(ids)),), {"row": dict(row.values)})


def answers(
    tokenizer: Tokenizer, prompt: shapes.Text, completions: Sequence[shapes.Text], tools: list[Any] | None = None
) -> tuple[Document, ...]:
    """A prompt and what answers it, one document an answer, loss on the answer and its end.

    With a chat template it alone decides the ids. Without one they are those of the two texts
    joined, which is what the model meets, then EOS. The answers begin where their ids first
    differ from the prompt's alone: a token that reaches over the joint is an answer's, in all
    documents alike, as in TRL.

    Raises:
        BadRow: the row does not fit the tokenizer, or nothing of it carries loss.
    """
    if tokenizer.chat_template is None:
        return _plain_answers(tokenizer, prompt, completions)
    before = _messages(prompt, "user")
    conversations = [[*before, *_messages(completion, "assistant")] for completion in completions]
    return tuple(mask_messages(tokenizer, messages, tools, start=len(before)) for messages in conversations)


def _messages(text: shapes.Text, role: str) -> list[shapes.Message]:
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def _plain_answers(
    tokenizer: Tokenizer, prompt: shapes.Text, completions: Sequence[shapes.Text]
) -> tuple[Document, ...]:
    if tokenizer.eos_id is None:
        raise UserError("the tokenizer has neither a chat template nor an EOS token, so no completion would end")
    ids = [tokenizer.encode(_plain(prompt) + _plain(completion)) for completion in completions]
    ended = [one if one[-1:] == [tokenizer.eos_id] else [*one, tokenizer.eos_id] for one in ids]
    asked = tokenizer.encode(_plain(prompt))
    head = min(shared(asked, one) for one in ended)
    return tuple(Document(tuple(one), (False,) * head + (True,) * (len(one) - head)) for one in ended)


def _plain(text: shapes.Text) -> str:
    if not isinstance(text, str):
        raise BadRow("these are messages, but the tokenizer has no chat template; set tokenizer.chat_template")
    return text


def prompt_ids(tokenizer: Tokenizer, prompt: shapes.Text, tools: list[Any] | None = None, **options: Any) -> list[int]:
    """Ids to generate from: rendered up to the assistant's turn, or just the text's.

    Raises:
        BadRow: messages, and no chat template to render them with, or one that drops some.
    """
    if tokenizer.chat_template is not None:
        messages = _messages(prompt, "user")
        text = render(tokenizer, messages, tools, add_generation_prompt=True, **options).text
        check_asked(messages, text)
        return tokenizer.encode(text, special=False)
    ids = tokenizer.encode(_plain(prompt))
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_id else ids
