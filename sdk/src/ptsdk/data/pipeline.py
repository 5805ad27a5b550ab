"""Rows to examples: read, tokenized, cut to length, counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ptsdk.data.example import BadRow, Document, Example, Row
from ptsdk.data.report import DataReport, Tally, describe_lengths
from ptsdk.data.store import ExampleStore, StoreBuilder, concat
from ptsdk.errors import Problem, UserError
from ptsdk.specs import Objective

if TYPE_CHECKING:
    from ptsdk.contracts.dataset import Dataset
    from ptsdk.data.tokenizer import Tokenizer

PROBLEMS = 20
"""How many faulty rows are told at once."""

MALFORMED = "malformed"
TOO_LONG = "longer than max_length"
UNSUPERVISED = "no supervised tokens"
CUT_AWAY = "no supervised tokens left after truncation"
EMPTY = "empty prompt"


@dataclass(frozen=True)
class Rules:
    """What becomes of rows that do not fit.

    Attributes:
        max_length: tokens of the longest *document* (each side of a preference by itself).
        on_long_row: cut the end of its documents off, leave the row out, or refuse the data. A
            prompt of the objective ``policy`` is never cut, since another question would be asked:
            under ``truncate`` it is left out.
        on_bad_row: refuse the data, or leave the row out.
        objective: what the method learns from; ``policy`` has prompts, without supervised tokens.
    """

    max_length: int
    on_long_row: Literal["truncate", "drop", "error"] = "truncate"
    on_bad_row: Literal["error", "skip"] = "error"
    objective: Objective = "token"


@dataclass(frozen=True)
class Encoded:
    """The examples of one data set, what was counted on the way, and what forbids its use."""

    store: ExampleStore
    tally: Tally
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class EncodedData:
    """The examples of several data sets, one after the other.

    Attributes:
        store: all examples.
        report: what became of the rows.
        sizes: examples of each data set.
    """

    store: ExampleStore
    report: DataReport
    sizes: tuple[int, ...]


class _Refused(Exception):
    """This row forbids the use of the data."""


class _Dropped(Exception):
    """This row is left out, for this reason."""


def encode(
    datasets: Sequence[Dataset],
    tokenizer: Tokenizer,
    base: Path,
    *,
    max_length: int,
    on_long_row: Literal["truncate", "drop", "error"] = "truncate",
    on_bad_row: Literal["error", "skip"] = "error",
    objective: Objective = "token",
) -> EncodedData:
    """Every row of every data set as an example; see ``Rules`` for the options.

    Rows without a supervised token are left out and counted, unless they are prompts (``policy``);
    of a preference each side needs one.

    Raises:
        UserError: faulty rows (the first 20, each ``file:line``), or a data set none of whose rows
            can be used.
    """
    rules = Rules(max_length, on_long_row, on_bad_row, objective)
    return joined(datasets, [encode_dataset(dataset, tokenizer, base, rules) for dataset in datasets])


def joined(datasets: Sequence[Dataset], parts: Sequence[Encoded]) -> EncodedData:
    """The examples of several data sets, each encoded by itself.

    Raises:
        UserError: as of ``encode``.
    """
    problems = [problem for part in parts for problem in part.problems]
    empty = [] if problems else [unusable(d, p.tally) for d, p in zip(datasets, parts, strict=True) if not len(p.store)]
    if problems or empty:
        raise UserError(*problems[:PROBLEMS], *_more(problems), *empty)
    store, total = concat([part.store for part in parts]), Tally()
    for part in parts:
        total.merge(part.tally)
    return EncodedData(store, report(store, total), tuple(len(part.store) for part in parts))


def encode_dataset(dataset: Dataset, tokenizer: Tokenizer, base: Path, rules: Rules) -> Encoded:
    """The examples of one data set: a pure function of the arguments and of the files' content.

    Stops at the fault after the last one that would be told.

    Raises:
        UserError: a file that cannot be read.
    """
    return encode_rows(dataset, dataset.rows(base), tokenizer, rules)


def encode_rows(dataset: Dataset, rows: Iterable[Row], tokenizer: Tokenizer, rules: Rules) -> Encoded:
    """``encode_dataset`` of some rows."""
    builder, tally, problems = StoreBuilder(), Tally(), list[Problem]()
    for row in rows:
        tally.rows += 1
        try:
            _keep(builder, tally, dataset, row, tokenizer, rules)
        except _Dropped as dropped:
            tally.drop(str(dropped), row.place)
        except BadRow as error:
            if rules.on_bad_row == "error":
                problems.append(
                    _problem(row, str(error), "correct the row, or leave such rows out: data.on_bad_row=skip")
                )
            tally.drop(MALFORMED, f"{row.place}: {error}")
        except _Refused as refused:
            hint = "shorten it, or set data.on_long_row to truncate or drop"
            problems.append(_problem(row, str(refused), hint))
        if len(problems) > PROBLEMS:
            break
    return Encoded(builder.build(), tally, tuple(problems))


def truncate(example: Example, max_length: int) -> Example:
    """The first ``max_length`` tokens of each document: the sides of a preference keep their
    common prompt."""
    documents = (Document(d.tokens[:max_length], d.supervised[:max_length]) for d in example.documents)
    return Example(tuple(documents), example.extras)


def check_vocabulary(store: ExampleStore, vocab_size: int) -> None:
    """Refuse examples with an id that the model has no embedding for.

    Raises:
        UserError: naming the first such row.
    """
    outside = (store.tokens < 0) | (store.tokens >= vocab_size)
    if not outside.any():
        return
    position = int(outside.argmax())
    row = Row({}, store.place(store.example_of_token(position)))
    message = f"token id {store.tokens[position]}, but the model's vocabulary has {vocab_size} ids"
    raise UserError(_problem(row, message, "the tokenizer is not this model's: leave `tokenizer` out to use its own"))


def report(store: ExampleStore, tally: Tally) -> DataReport:
    """The numbers of ``store``, and of the rows it was made of."""
    return DataReport(
        rows=tally.rows,
        kept=len(store),
        truncated=tally.truncated,
        dropped=tally.dropped,
        tokens=len(store.tokens),
        supervised_tokens=int(store.supervised_tokens.sum(dtype=np.int64)),
        lengths=describe_lengths(store.lengths),
    )


def _keep(builder: StoreBuilder, tally: Tally, dataset: Dataset, row: Row, tokenizer: Tokenizer, rules: Rules) -> None:
    """Append the example of one row, or raise why not."""
    if row.fault:
        raise BadRow(row.fault)
    example = dataset.encode(row, tokenizer)
    _require_content(example, rules, UNSUPERVISED)
    if max(len(document.tokens) for document in example.documents) > rules.max_length:
        example = _shortened(example, rules)
        tally.truncated.add(row.place)
        _require_content(example, rules, CUT_AWAY)
    try:
        builder.append(example, row.place)
    except TypeError as error:
        raise BadRow(f"a column that JSON cannot hold: {error}") from error


def _require_content(example: Example, rules: Rules, reason: str) -> None:
    if rules.objective == "policy":
        if not all(document.tokens for document in example.documents):
            raise _Dropped(EMPTY)
    elif not all(any(document.supervised[1:]) for document in example.documents):
        raise _Dropped(reason)


def _shortened(example: Example, rules: Rules) -> Example:
    """A long example, by the rule for them."""
    if rules.on_long_row == "error":
        longest = max(len(document.tokens) for document in example.documents)
        raise _Refused(f"{longest} tokens, more than data.max_length={rules.max_length}")
    if rules.on_long_row == "drop" or rules.objective == "policy":
        raise _Dropped(TOO_LONG)
    return truncate(example, rules.max_length)


def _problem(row: Row, message: str, hint: str) -> Problem:
    file, _, line = row.place.rpartition(":")
    if file and line.isdecimal():
        return Problem(message, hint, file, int(line))
    return Problem(f"{row.place}: {message}" if row.place else message, hint)


def _more(problems: Sequence[Problem]) -> list[Problem]:
    return [Problem(f"and more: these are the first {PROBLEMS}")] if len(problems) > PROBLEMS else []


def unusable(dataset: Dataset, tally: Tally) -> Problem:
    """What to say of a data set that gives no example."""
    name = getattr(dataset, "path", None) or type(dataset).__name__
    if not tally.rows:
        return Problem("the data set has no rows", "add rows, or leave it out of the job", name)
    reasons = "; ".join(f"{c.count} {reason} (first {c.places[0]})" for reason, c in tally.dropped.items())
    hint = "`ptsdk data JOB` shows rows as the model sees them" if UNSUPERVISED in tally.dropped else ""
    return Problem(f"none of the {tally.rows} rows of the data set can be used: {reasons}", hint, name)
