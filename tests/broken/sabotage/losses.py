"""Losses: cross-entropy and its like, but."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid
from torch.utils.checkpoint import checkpoint

from ptsdk.contracts.loss import Completions, LossOutput, PolicyLoss, PreferenceLoss, SampledTokens, TokenLoss
from ptsdk.nn.batch import IGNORE
from ptsdk.nn.head import Head
from ptsdk.nn.linear_loss import linear_cross_entropy as total
from ptsdk.nn.linear_loss import row_chunks


class MaskCounted(TokenLoss):
    """What is masked carries no loss, and weighs as much as the rest."""

    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        return LossOutput(total(hidden_states, head, labels), torch.tensor(len(labels)))


class BareHead(TokenLoss):
    """The weight of the head alone, without its bias and softcap."""

    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        return LossOutput(total(hidden_states, Head(head.weight), labels), (labels != IGNORE).sum())


class AllLogits(TokenLoss):
    """Logits of every row at a time."""

    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        losses = cross_entropy(head.logits(hidden_states), labels, ignore_index=IGNORE, reduction="sum")
        return LossOutput(losses, (labels != IGNORE).sum())


class Boxed(TokenLoss):
    """A sum of the shape [1]."""

    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        return LossOutput(total(hidden_states, head, labels).reshape(1), (labels != IGNORE).sum())


class MaskBlind(TokenLoss):
    """What is masked counts as token 0."""

    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        return LossOutput(total(hidden_states, head, labels.clamp(min=0)), torch.tensor(len(labels)))


class Mean(TokenLoss):
    """Divided by the local weight."""

    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        return LossOutput(total(hidden_states, head, labels) / (labels != IGNORE).sum(), torch.tensor(1.0))


class TwiceTheGradient(TokenLoss):
    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        value = total(hidden_states, head, labels)
        return LossOutput(value + (value - value.detach()), (labels != IGNORE).sum())


class Overflowing(TokenLoss):
    """Without the largest logit taken off first."""

    def __call__(self, hidden_states: Tensor, head: Head, labels: Tensor) -> LossOutput:
        rows = labels != IGNORE
        hidden, wanted = hidden_states[rows], labels[rows]
        parts = row_chunks(len(hidden), len(head.weight))
        losses = [checkpoint(self.part, hidden[p], head, wanted[p], use_reentrant=False) for p in parts]
        return LossOutput(torch.stack(losses).sum(), rows.sum())

    def part(self, hidden: Tensor, head: Head, labels: Tensor) -> Tensor:
        logits = head.logits(hidden)
        return (logits.exp().sum(1).log() - logits.gather(1, labels[:, None]).squeeze(1)).sum()


class PeeksAtReference(PreferenceLoss):
    """Says it needs no reference, and looks at it."""

    reference_free = True

    def __call__(self, chosen: Completions, rejected: Completions) -> Tensor:
        return -logsigmoid(chosen.log_ratios - rejected.log_ratios)


class Column(PreferenceLoss):
    """A column, [B, 1]."""

    def __call__(self, chosen: Completions, rejected: Completions) -> Tensor:
        losses = -logsigmoid(chosen.log_ratios - rejected.log_ratios)
        return losses[:, None]


class Ratios(PolicyLoss):
    """Policy gradient with importance weights, a mean over tokens."""

    def advantages(self, rewards: Tensor) -> Tensor:
        return rewards - rewards.mean(1, keepdim=True)

    def losses(self, tokens: SampledTokens, most: float) -> Tensor:
        ratio = (tokens.policy - tokens.old).clamp(max=most).exp()
        return -ratio * tokens.advantages[tokens.completions]

    def __call__(self, tokens: SampledTokens) -> LossOutput:
        losses = self.losses(tokens, 20.0)
        return LossOutput(losses.sum(), torch.tensor(len(losses)))


class CompletionMean(Ratios):
    """Each completion's tokens weigh what the longest of the micro-batch makes of them."""

    def __call__(self, tokens: SampledTokens) -> LossOutput:
        longest = torch.bincount(tokens.completions).max()
        return LossOutput(self.losses(tokens, 20.0).sum() / longest, torch.tensor(len(tokens.advantages)))


class Exploding(Ratios):
    def __call__(self, tokens: SampledTokens) -> LossOutput:
        losses = self.losses(tokens, 1e9)
        return LossOutput(losses.sum(), torch.tensor(len(losses)))
