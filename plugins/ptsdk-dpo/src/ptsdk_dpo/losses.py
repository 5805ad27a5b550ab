"""Losses on pairs: functions of the log-probs of a chosen and of a rejected completion.

B pairs. ``h`` is the difference of log-ratios, ``log (policy / reference)`` of the chosen minus that
of the rejected completion.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from ptsdk.contracts.loss import Completions, PreferenceLoss

LABEL_SMOOTHING = "probability that the labels of a pair are the wrong way round"


class Scaled(PreferenceLoss):
    """A loss whose rewards are log-ratios times ``beta``."""

    beta: float = Field(0.1, gt=0, description="rewards are log-ratios times beta: the smaller, the further")

    def rewards(self, completions: Completions) -> Tensor:
        """``beta log (policy / reference)``, [B]."""
        return self.beta * super().rewards(completions)

    def margins(self, chosen: Completions, rejected: Completions) -> Tensor:
        """Reward of the chosen minus reward of the rejected completion, [B]."""
        return self.rewards(chosen) - self.rewards(rejected)


class Sigmoid(Scaled):
    """``-log sigmoid(beta h)`` (arXiv:2305.18290, eq. 7), ln 2 at the first step.

    With label smoothing the conservative DPO of https://ericmitchell.ai/cdpo.pdf.
    """

    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description=LABEL_SMOOTHING)

    def __call__(self, chosen: Completions, rejected: Completions) -> Tensor:
        """See the contract."""
        return smoothed_log_loss(self.margins(chosen, rejected), self.label_smoothing)


class Hinge(Scaled):
    """``max(0, 1 - beta h)``: nothing more is asked of a pair with a margin of 1 (SLiC, arXiv:2305.10425)."""

    def __call__(self, chosen: Completions, rejected: Completions) -> Tensor:
        """See the contract."""
        return relu(1 - self.margins(chosen, rejected))


class IPO(Scaled):
    """``(h - 1 / (2 beta))^2`` (arXiv:2310.12036, eq. 17; ``beta`` is its tau).

    Log-ratios are averaged over a completion's tokens, as TRL does on its authors' word, so that a
    loss does not grow with length. Rewards are those of sums, as in the other losses.
    """

    def __call__(self, chosen: Completions, rejected: Completions) -> Tensor:
        """See the contract."""
        averages = chosen.log_ratios / chosen.tokens - rejected.log_ratios / rejected.tokens
        return (averages - 1 / (2 * self.beta)).square()


class SimPO(Scaled):
    """``-log sigmoid(r_chosen - r_rejected - gamma)``, ``r = beta log policy / tokens`` (arXiv:2405.14734, eq. 6).

    No reference: the reward of a completion is its average log-prob.
    """

    reference_free: ClassVar[bool] = True

    beta: float = Field(2.0, gt=0, description="rewards are average log-probs times beta")
    gamma_margin: float = Field(0.5, ge=0, description="margin of the rewards that is aimed at")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description=LABEL_SMOOTHING)

    def rewards(self, completions: Completions) -> Tensor:
        """``beta log policy / tokens``, [B]."""
        return self.beta * completions.policy / completions.tokens

    def __call__(self, chosen: Completions, rejected: Completions) -> Tensor:
        """See the contract."""
        return smoothed_log_loss(self.margins(chosen, rejected) - self.gamma_margin, self.label_smoothing)


def smoothed_log_loss(margins: Tensor, label_smoothing: float) -> Tensor:
    """``-(1 - e) log sigmoid(margins) - e log sigmoid(-margins)``, elementwise."""
    return -(1 - label_smoothing) * logsigmoid(margins) - label_smoothing * logsigmoid(-margins)
