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
class LossOutput:
    """What one micro-batch contributes.

    Attributes:
        sum: scalar with gradient, summed over whatever ``weight`` counts, *not* divided by it.
        weight: scalar without gradient: tokens, pairs or completions. The trainer divides the
            gradient by the weight of the whole step, over micro-batches and ranks.
        metrics: name -> scalar *sum* over the same weight, divided likewise when logged.
    """

    sum: Tensor
    weight: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


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


class PolicyLoss(Loss):
    """A loss on sampled tokens with advantages, for methods such as grpo."""

    @abstractmethod
    def __call__(
        self,
        log_probs: Tensor,
        old_log_probs: Tensor,
        reference_log_probs: Tensor | None,
        advantages: Tensor,
        completion_ids: Tensor,
        completions: int,
    ) -> LossOutput:
        """
        Args:
            log_probs: [T] of each sampled token under the policy, with gradient.
            old_log_probs: [T] under the policy that sampled it.
            reference_log_probs: [T] under the reference, None when it is not used.
            advantages: [T], already spread over the tokens of each completion.
            completion_ids: int64 [T], which completion of the micro-batch a token belongs to.
            completions: how many completions the micro-batch holds.
        """
