"""Losses. Each objective has its own call; all return an unnormalised sum and its weight."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ptsdk.contracts.component import Component
from ptsdk.nn.head import Head


@dataclass(frozen=True)
class Ratio:
    """A metric that is a mean over something else than what the loss is weighted by: a sum, and the
    number of things summed."""

    sum: Tensor
    count: Tensor


@dataclass(frozen=True)
class LossOutput:
    """What one micro-batch contributes.

    Attributes:
        sum: scalar with gradient, summed over whatever ``weight`` counts, *not* divided by it.
        weight: scalar without gradient: tokens, pairs or completions. The trainer divides the
            gradient by the weight of the whole step, over micro-batches and ranks.
        metrics: name -> scalar *sum* over the same weight, divided likewise when logged, or a
            ``Ratio``. The same names from every micro-batch.
    """

    sum: Tensor
    weight: Tensor
    metrics: Mapping[str, Tensor | Ratio] = field(default_factory=dict)


class Loss(Component):
    """Base of every loss; see the subclass of each objective for the call."""

    kind: ClassVar[str] = "loss"


class TokenLoss(Loss):
    """A loss on every supervised token, for methods such as sft."""

    @abstractmethod
    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        """
        Args:
            hidden_states: [N, D], after the final norm.
            head: projects hidden states to the vocabulary.
            labels: int64 [N], ``IGNORE`` where there is no loss.
        """


@dataclass(frozen=True)
class Completions:
    """B completions, as a preference loss sees them.

    Attributes:
        policy: [B], the sum of each one's log-probs under the policy, with gradient.
        reference: [B], the same under the reference, None where the loss is reference-free.
        tokens: [B], how many tokens were summed, at least 1.
    """

    policy: Tensor
    reference: Tensor | None
    tokens: Tensor

    @property
    def log_ratios(self) -> Tensor:
        """[B], ``log (policy / reference)``; plain ``log policy`` without a reference."""
        return self.policy if self.reference is None else self.policy - self.reference


class PreferenceLoss(Loss):
    """A loss on pairs of completions, for methods such as dpo."""

    reference_free: ClassVar[bool] = False
    """Whether the reference policy is not needed."""

    @abstractmethod
    def __call__(self, chosen: Completions, rejected: Completions) -> Tensor:
        """The loss [B] of each pair."""

    def rewards(self, completions: Completions) -> Tensor:
        """What each completion [B] is worth to the policy, for metrics."""
        return completions.log_ratios


@dataclass(frozen=True)
class SampledTokens:
    """T tokens of B completions that a policy wrote, as a policy loss sees them.

    Attributes:
        policy: [T], log-probs under the policy that trains, with gradient.
        old: [T], log-probs under the policy that wrote them.
        reference: [T], log-probs under the reference, None where the loss needs none.
        advantages: [B], of each completion.
        completions: int64 [T], which of the B completions a token belongs to.
        budget: how many tokens a completion may have at most.
    """

    policy: Tensor
    old: Tensor
    reference: Tensor | None
    advantages: Tensor
    completions: Tensor
    budget: int


class PolicyLoss(Loss):
    """A loss on sampled tokens, for methods such as grpo."""

    @property
    def needs_reference(self) -> bool:
        """Whether ``SampledTokens.reference`` has to be there."""
        return False

    @abstractmethod
    def advantages(self, rewards: Tensor) -> Tensor:
        """How much better than its group each completion is: [P, G] -> [P, G], float64, for P prompts
        with G completions each."""

    @abstractmethod
    def __call__(self, tokens: SampledTokens) -> LossOutput:
        """The sum over the micro-batch and its weight, which decides what the loss is a mean of:
        tokens, completions, or a constant."""
