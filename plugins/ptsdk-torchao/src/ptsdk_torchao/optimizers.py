"""AdamW whose state takes 1 or 2 bytes a weight instead of 8.

torchao compiles the update of each shape on the first step: some seconds each. Parameters below
4096 elements, or of a size that blocks do not divide, keep full state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import nn
from torch.distributed.tensor import DTensor

from ptsdk.builtin.optimizers import Betas, decay_groups
from ptsdk.contracts.optimizer import Optimizer
from ptsdk.errors import Problem, UserError


class LowBit(Optimizer):
    """What the two have in common. Their defaults are those of ``adamw``."""

    betas: Betas = Field((0.9, 0.999), description="decay of the means of gradients and of their squares")
    eps: float = Field(1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay of matrices")
    stochastic_rounding: bool = Field(False, description="round updates of bfloat16 weights at random, without bias")

    def _options(self) -> dict[str, Any]:
        return {
            "lr": self.lr,
            "betas": self.betas,
            "eps": self.eps,
            "bf16_stochastic_round": self.stochastic_rounding,
        }


class AdamW8bit(LowBit):
    """State in 8 bits, dynamic code, a scale for each 256 (arXiv:2110.02861)."""

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """torchao's; a UserError where it cannot update the weights."""
        from torchao.optim import AdamW8bit as Torchao

        refuse_small_shards(parameters)
        groups = decay_groups(parameters, self.weight_decay)
        optimizer: torch.optim.Optimizer = Torchao(groups, **self._options())
        return optimizer


class AdamW4bit(LowBit):
    """State in 4 bits, a scale for each 128 (arXiv:2309.01507)."""

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """torchao's; a UserError where it cannot update the weights."""
        from torchao.optim import AdamW4bit as Torchao

        refuse_small_shards(parameters)
        groups = decay_groups(parameters, self.weight_decay)
        optimizer: torch.optim.Optimizer = Torchao(groups, **self._options())
        return optimizer


def refuse_small_shards(parameters: Mapping[str, nn.Parameter]) -> None:
    """torchao takes a step in float32, and on a shard its state does not turn into that.

    Raises:
        UserError: a sharded weight has another dtype than float32.
    """
    for name, parameter in parameters.items():
        if isinstance(parameter, DTensor) and parameter.dtype != torch.float32:
            message = f"its state cannot be updated beside shards in {parameter.dtype}: {name}"
            raise UserError(Problem(message, "set model.dtype to float32, or use another optimizer", path="optimizer"))
