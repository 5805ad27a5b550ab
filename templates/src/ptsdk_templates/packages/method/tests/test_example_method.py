"""What a document weighs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from ptsdk.contracts.loss import LossOutput, TokenLoss
from ptsdk.data.example import Document, Example
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk.testing import MethodSuite
from torch import Tensor

from ptsdk_example_method.method import ExampleMethod


class TestConforms(MethodSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-method/example-method"  # dist/name


class Labels(TokenLoss):
    """A token's loss is its label, so that sums can be told by heart."""

    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        kept = labels[labels != IGNORE]
        return LossOutput(kept.sum().float(), torch.tensor(len(kept)))


class Model:
    """As much of a model as the method asks for."""

    def __call__(self, batch: Any) -> Tensor:
        return torch.zeros(len(batch.tokens), 2)

    def head(self) -> Head:
        return Head(torch.zeros(3, 2))


def test_long_documents_weigh_no_more() -> None:
    documents = [(0, 4, 6, 8), (0, 2), (0, 9)]
    flags = [(True,) * 4, (True,) * 2, (False,) * 2]
    examples = [Example((Document(ids, on),)) for ids, on in zip(documents, flags, strict=True)]
    run: Any = SimpleNamespace(job=SimpleNamespace(loss=Labels()), model=Model())
    method = ExampleMethod()
    found = method.loss(run, method.collate(run, examples))
    assert (found.sum.item(), found.weight.item()) == (6.0 + 2.0, 2)
