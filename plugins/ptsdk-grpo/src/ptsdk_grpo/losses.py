"""Losses on sampled tokens: a clipped surrogate, a distance to the reference, and what it is a mean of.

T tokens of B completions; P prompts with G completions each. ``r`` is the ratio ``policy / old`` of a
token's probability under the policy that trains to that under the policy that wrote it, ``A`` the
advantage of its completion.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ptsdk.contracts.loss import LossOutput, PolicyLoss, Ratio, SampledTokens

EPS = 1e-4
"""Added to the standard deviation of a group, as in TRL: the papers leave it open."""
MAX_LOG_RATIO = 20.0
"""Beyond, ratios are cut off: e^20 times as likely is no longer a matter of degree, and e^89 is infinite."""

Positive = Annotated[float, Field(gt=0)]
Aggregation = Literal["sequence_mean", "token_mean", "constant"]


class Clipped(PolicyLoss):
    """``-min(r A, clip(r, 1 - low, 1 + high) A)`` for each token (PPO, arXiv:1707.06347, eq. 7)."""

    by_spread: ClassVar[bool] = True
    """Whether advantages are divided by the standard deviation of their group."""

    clip: Positive | tuple[Positive, Positive] = Field(
        0.2, description="ratios count up to 1 - clip and 1 + clip; a pair [low, high] for 1 - low and 1 + high"
    )
    kl: float = Field(
        0.0, ge=0, description="the distance to the reference counts so much; 0: no reference is needed, none is loaded"
    )
    kl_estimator: Literal["unbiased", "k3"] = Field(
        "unbiased", description="unbiased: k3 times the ratio, in value and gradient the KL; k3: as in the GRPO paper"
    )
    aggregation: Aggregation = Field(
        "sequence_mean",
        description="sequence_mean: over completions, of the mean over a completion's tokens; token_mean: over all "
        "tokens of the step; constant: of sums over tokens, divided by completions times max_new_tokens",
    )

    @property
    def needs_reference(self) -> bool:
        """Whether ``kl`` is above 0."""
        return self.kl > 0

    @property
    def bounds(self) -> tuple[float, float]:
        """The ratios beyond which nothing more is to be gained."""
        low, high = self.clip if isinstance(self.clip, tuple) else (self.clip, self.clip)
        return 1 - low, 1 + high

    def advantages(self, rewards: Tensor) -> Tensor:
        """Rewards relative to their group, [P, G] -> [P, G]."""
        return standardised(rewards) if self.by_spread else centred(rewards)

    def __call__(self, tokens: SampledTokens) -> LossOutput:
        """See the contract. Metrics are means over tokens: ``clip_ratio``, how many are past the bound that
        their advantage pushes them to; ``entropy``, in nats, estimated by the log-probs of the tokens that
        were drawn; ``kl``, where there is a reference."""
        ratio = exp_difference(tokens.policy, tokens.old)
        advantages = tokens.advantages.to(ratio.dtype)[tokens.completions]
        low, high = self.bounds
        losses = -torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
        past = torch.where(advantages > 0, ratio > high, ratio < low) & (advantages != 0)
        metrics = {"clip_ratio": past.sum(), "entropy": -tokens.policy.sum()}
        if self.needs_reference:
            assert tokens.reference is not None  # the method was told
            distance = k3(tokens.policy, tokens.reference)
            losses = losses + self.kl * (ratio * distance if self.kl_estimator == "unbiased" else distance)
            metrics["kl"] = distance.sum()
        total, weight = aggregate(losses, tokens.completions, len(tokens.advantages), tokens.budget, self.aggregation)
        count = torch.tensor(len(losses))
        return LossOutput(total, weight, {name: Ratio(value.detach(), count) for name, value in metrics.items()})


class GRPOLoss(Clipped):
    """Every completion weighs the same, whatever its length (arXiv:2402.03300, eq. 3).

    The paper's ``kl`` is 0.04, with the estimator k3.
    """


class DrGRPOLoss(Clipped):
    """Neither a completion's length nor the spread of its group changes what a token weighs
    (arXiv:2503.20783, section 3.2)."""

    by_spread: ClassVar[bool] = False

    aggregation: Aggregation = Field("constant", description=Clipped.model_fields["aggregation"].description)


class DAPOLoss(Clipped):
    """Every token weighs the same, and unlikely tokens have more room to grow (arXiv:2503.14476, eq. 8, 12)."""

    clip: Positive | tuple[Positive, Positive] = Field(
        (0.2, 0.28), description=Clipped.model_fields["clip"].description
    )
    aggregation: Aggregation = Field("token_mean", description=Clipped.model_fields["aggregation"].description)


def centred(rewards: Tensor) -> Tensor:
    """Rewards minus the mean of their group, [P, G] -> [P, G]; exactly 0 where all of a group are equal."""
    return (rewards - rewards.mean(1, keepdim=True)) * differing(rewards)


def standardised(rewards: Tensor) -> Tensor:
    """``centred``, divided by ``spread`` plus ``EPS``."""
    return centred(rewards) / (spread(rewards)[:, None] + EPS)


def spread(rewards: Tensor) -> Tensor:
    """The standard deviation (of G - 1) of each group, [P, G] -> [P]; exactly 0 where all are equal."""
    return rewards.std(1) * differing(rewards).squeeze(1)


def differing(rewards: Tensor) -> Tensor:
    """bool [P, 1]: whether a group has different rewards. Means of equal numbers are off by rounding."""
    return rewards.amax(1, keepdim=True) > rewards.amin(1, keepdim=True)


def exp_difference(a: Tensor, b: Tensor) -> Tensor:
    """``exp(a - b)`` elementwise, within e^-20 and e^20; beyond, without gradient."""
    return (a - b).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def k3(policy: Tensor, reference: Tensor) -> Tensor:
    """``q / p - 1 - log (q / p)`` of each token drawn from ``p``: its mean is KL(p || q), and it is never
    negative (http://joschu.net/blog/kl-approx.html).

    Its gradient by itself is not that of the KL, since where tokens fall depends on ``p`` too. Times the ratio
    ``p / old`` it is, and stays so when the tokens are those of an older policy (arXiv:2512.02556, eq. 7).
    """
    difference = (reference - policy).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.expm1(difference) - difference


def aggregate(values: Tensor, completions: Tensor, number: int, budget: int, how: Aggregation) -> tuple[Tensor, Tensor]:
    """The sum over a micro-batch, and what the sums of a whole step are to be divided by together.

    Args:
        values: [T], of each token.
        completions: int64 [T], the completion of each token.
        number: B, how many completions there are.
        budget: most tokens of a completion.
        how: see ``Clipped.aggregation``.
    """
    if how == "token_mean":
        return values.sum(), values.new_tensor(len(values))
    if how == "constant":
        return values.sum(), values.new_tensor(number * budget)
    lengths = torch.bincount(completions, minlength=number)
    return (values / lengths[completions]).sum(), values.new_tensor(number)
