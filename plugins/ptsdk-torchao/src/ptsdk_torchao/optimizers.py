"""AdamW whose state takes 1 or 2 bytes a weight instead of 8.

torchao compiles the update of each shape on the first step: some seconds each. Parameters below
4096 elements, or of a size that blocks do not divide, keep full state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ptsdk.builtin.optimizers import Betas, decay_groups
from ptsdk.contracts.optimizer import Optimizer
from ptsdk.errors import Problem, UserError
from ptsdk.nn.sharded import is_sharded


class LowBit(Optimizer):
    """What the two have in common. Their defaults are those of ``adamw``."""

    betas: Betas = Field((0.9, 0.999), description="decay of the means of gradients and of their squares")
    eps: float = Field(1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay of matrices")
    stochastic_rounding: bool = Field(False, description="round updates of bfloat16 weights at random, without bias")

    def _options(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Any]:
        if self.stochastic_rounding and not any(p.dtype == torch.bfloat16 for p in parameters.values()):
            message = "updates of bfloat16 weights alone are rounded at random, and no weight that trains is bfloat16"
            hint = "leave it out, or set model.dtype to bfloat16"
            raise UserError(Problem(message, hint, path="optimizer.stochastic_rounding"))
        return {
            "lr": self.lr,
            "betas": self.betas,
            "eps": self.eps,
            "bf16_stochastic_round": self.stochastic_rounding,
        }


class AdamW8bit(LowBit):
    """State in 8 bits, dynamic code, a scale for each 256 (arXiv:2110.02861)."""

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """torchao's; a UserError where an option would do nothing."""
        from torchao.optim import AdamW8bit as Torchao

        class OnShards(Float32OnShards, Torchao):  # type: ignore[misc]
            pass

        groups = decay_groups(parameters, self.weight_decay)
        optimizer: torch.optim.Optimizer = OnShards(groups, **self._options(parameters))
        return optimizer


class AdamW4bit(LowBit):
    """State in 4 bits, a scale for each 128 (arXiv:2309.01507)."""

    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """torchao's; a UserError where it cannot update the weights."""
        from torchao.optim import AdamW4bit as Torchao

        refuse_small_shards(parameters)
        groups = decay_groups(parameters, self.weight_decay)
        optimizer: torch.optim.Optimizer = Torchao(groups, **self._options(parameters))
        return optimizer


def refuse_small_shards(parameters: Mapping[str, nn.Parameter]) -> None:
    """Two codes share a byte, in one row: beside shards that are not float32, what torch compiles of the step
    takes these for the shape of the weight.

    Raises:
        UserError: a sharded weight has another dtype than float32.
    """
    for name, parameter in parameters.items():
        if is_sharded(parameter) and parameter.dtype != torch.float32:
            message = f"its state in 4 bits cannot be updated beside shards in {parameter.dtype}: {name}"
            raise UserError(Problem(message, "use adamw-8bit, or set model.dtype to float32", path="optimizer"))


class Float32OnShards:
    """A torchao optimizer whose state beside shards calls itself float32, in as few bits as ever.

    The dtype is a mere label of the codes. ``DTensor`` views and gathers what it holds, and there torchao's state
    forgets a label other than float32: in the middle of a step it would not be what its ``DTensor`` says.
    """

    def _new_buffer(self, p: Tensor, signed: bool) -> Tensor:
        labelled = p.detach().float() if is_sharded(p) else p
        state: Tensor = super()._new_buffer(labelled, signed)  # type: ignore[misc]
        return state
