"""A loss of any objective on a few items, so that one suite can ask the same of all.

An item is what a batch is made of: a document, a pair, a completion. A case calls the loss on any
of its items in any order, and knows the tensors that its gradient goes to.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ptsdk.contracts.loss import (
    Completions,
    Loss,
    LossOutput,
    PolicyLoss,
    PreferenceLoss,
    SampledTokens,
    TokenLoss,
)
from ptsdk.contracts.run import Run
from ptsdk.data.example import Document
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head

WIDTH, VOCABULARY = 6, 11
LENGTHS = (5, 3, 7, 2)
BUDGET = 8


class Case(ABC):
    """Some items and a loss."""

    def __init__(self, dtype: torch.dtype, scale: float) -> None:
        self.dtype, self.scale = dtype, scale
        self.generator = torch.Generator().manual_seed(0)
        self.leaves: list[Tensor] = []
        """What the gradient goes to."""

    count = len(LENGTHS)

    @abstractmethod
    def raw(self, which: Sequence[int]) -> Any:
        """What the loss returns for these items."""

    def __call__(self, which: Sequence[int]) -> LossOutput:
        """The sum and the weight of these items.

        Raises:
            AssertionError: the loss returned something else.
        """
        return output_of(self.raw(which))

    @abstractmethod
    def disturb(self) -> bool:
        """Change everything that carries no loss; False where everything does."""

    def randn(self, *shape: int) -> Tensor:
        """Normal numbers, the same in any dtype, times the scale."""
        return (torch.randn(*shape, generator=self.generator, dtype=torch.float64) * self.scale).to(self.dtype)

    def leaf(self, value: Tensor) -> Tensor:
        """A tensor whose gradient is looked at."""
        self.leaves.append(value.requires_grad_())
        return self.leaves[-1]


class TokenCase(Case):
    """Documents: hidden states, labels, and the head they share."""

    def __init__(self, loss: TokenLoss, dtype: torch.dtype, scale: float) -> None:
        super().__init__(dtype, scale)
        self.loss = loss
        self.hidden = [self.leaf(self.randn(length, WIDTH)) for length in LENGTHS]
        weight = self.leaf(torch.randn(VOCABULARY, WIDTH, generator=self.generator, dtype=torch.float64).to(dtype))
        self.head = Head(weight)
        self.labels = [torch.randint(VOCABULARY, (length,), generator=self.generator) for length in LENGTHS]
        for labels in self.labels:
            labels[0] = labels[-1] = IGNORE
        self.labels[3][0] = 3  # every document carries loss, and no two the same share of it

    def raw(self, which: Sequence[int]) -> Any:
        """See ``Case.raw``."""
        return self.loss(
            torch.cat([self.hidden[i] for i in which]), self.head, torch.cat([self.labels[i] for i in which])
        )

    def disturb(self) -> bool:
        """What is masked, and how much of it there is: two positions more in each document."""
        with torch.no_grad():
            for hidden, labels in zip(self.hidden, self.labels, strict=True):
                hidden[labels == IGNORE] += 3.0
        self.hidden = [torch.cat([hidden, self.randn(2, WIDTH)]) for hidden in self.hidden]
        self.labels = [torch.cat([labels, labels.new_full((2,), IGNORE)]) for labels in self.labels]
        return True


class PreferenceCase(Case):
    """Pairs: log-probs of both sides, under policy and reference."""

    def __init__(self, loss: PreferenceLoss, dtype: torch.dtype, scale: float) -> None:
        super().__init__(dtype, scale)
        self.loss = loss
        self.policy = [self.leaf(-self.randn(self.count).abs() * 3) for _ in range(2)]
        self.reference: list[Tensor | None] = [-self.randn(self.count).abs() * 3 for _ in range(2)]
        self.tokens = [torch.tensor(LENGTHS), torch.tensor(LENGTHS[::-1])]

    def raw(self, which: Sequence[int]) -> Any:
        """See ``Case.raw``."""
        index = torch.tensor(which)
        sides = []
        for policy, reference, tokens in zip(self.policy, self.reference, self.tokens, strict=True):
            known = None if reference is None else reference[index]
            sides.append(Completions(policy[index], known, tokens[index]))
        return self.loss(*sides)

    def __call__(self, which: Sequence[int]) -> LossOutput:
        """The sum over the pairs, and their number."""
        losses = self.raw(which)
        assert isinstance(losses, Tensor), f"it returned {named(losses)}, not a Tensor: the loss [B] of each pair"
        return LossOutput(losses.sum(), losses.new_tensor(len(losses)))

    def disturb(self) -> bool:
        """The reference, of a loss that says it needs none."""
        if self.loss.reference_free:
            self.reference = [None, None]
        return self.loss.reference_free


class PolicyCase(Case):
    """Completions: log-probs of each token under three policies, and an advantage each."""

    def __init__(self, loss: PolicyLoss, dtype: torch.dtype, scale: float) -> None:
        super().__init__(dtype, scale)
        self.loss = loss
        self.policy = [self.leaf(-self.randn(length).abs()) for length in LENGTHS]
        near = [p.detach() + 0.3 * self.randn(len(p)) for p in self.policy]
        self.old, self.far = near, [p.detach() + 0.3 * self.randn(len(p)) for p in self.policy]
        self.reference: list[Tensor] | None = self.far
        self.advantages = torch.tensor([1.0, -0.5, 0.25, -2.0], dtype=dtype)

    def raw(self, which: Sequence[int]) -> Any:
        """See ``Case.raw``."""
        return self.loss(
            SampledTokens(
                policy=torch.cat([self.policy[i] for i in which]),
                old=torch.cat([self.old[i] for i in which]),
                reference=None if self.reference is None else torch.cat([self.reference[i] for i in which]),
                advantages=self.advantages[list(which)],
                completions=torch.cat([torch.full((LENGTHS[i],), place) for place, i in enumerate(which)]),
                budget=BUDGET,
            )
        )

    def disturb(self) -> bool:
        """The reference, of a loss that says it needs none."""
        if not self.loss.needs_reference:
            self.reference = None
        return not self.loss.needs_reference


class MethodCase(Case):
    """A loss with a call of its own, by way of the method that makes it: items are examples of a run."""

    def __init__(self, run: Run, dtype: torch.dtype, scale: float) -> None:
        super().__init__(dtype, scale)
        self.run = run
        for model in (run.model, *run.frozen.values()):
            model.to(dtype)
        with torch.no_grad():
            run.model.head().weight.mul_(scale)
        self.leaves = [p for p in run.model.parameters() if p.requires_grad]
        self.examples = [run.train_data[i] for i in range(self.count)]
        self.extra = 0

    def raw(self, which: Sequence[int]) -> Any:
        """See ``Case.raw``."""
        method = self.run.job.method
        batch = method.collate(self.run, [self._longer(i) for i in which])
        return method.loss(self.run, batch)

    def disturb(self) -> bool:
        """Tokens without loss at the end of each document."""
        self.extra = 2
        return True

    def _longer(self, index: int) -> Any:
        example = self.examples[index]
        documents = tuple(
            Document(d.tokens + (7,) * self.extra, d.supervised + (False,) * self.extra) for d in example.documents
        )
        return type(example)(documents, example.extras)


def output_of(raw: Any) -> LossOutput:
    """What a loss returned.

    Raises:
        AssertionError: it is no LossOutput.
    """
    assert isinstance(raw, LossOutput), f"it returned {named(raw)}, not a LossOutput(sum, weight)"
    return raw


def named(value: object) -> str:
    """A value's class with its article."""
    return "None" if value is None else f"a {type(value).__name__}"


def called_directly(loss: Loss) -> bool:
    """Whether its call is one of those that core knows."""
    return isinstance(loss, (TokenLoss, PreferenceLoss, PolicyLoss))


def direct_case(loss: Loss, dtype: torch.dtype, scale: float) -> Case:
    """The case of one of core's three calls."""
    if isinstance(loss, TokenLoss):
        return TokenCase(loss, dtype, scale)
    if isinstance(loss, PreferenceLoss):
        return PreferenceCase(loss, dtype, scale)
    assert isinstance(loss, PolicyLoss)
    return PolicyCase(loss, dtype, scale)
