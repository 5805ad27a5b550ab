"""The quantizer itself, imported when a job says ``quantizer: {use: example-quantizer, bits: 4}``."""

from __future__ import annotations

import torch
from ptsdk.contracts.quantizer import Quantizer
from ptsdk.nn.causal_lm import CausalLM, block_linears
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear


class ExampleLinear(nn.Linear):
    """Multiplies with its weight rounded; the weight itself stays whole, and the gradient passes
    through the rounding (the straight-through estimator, arXiv:1308.3432)."""

    def __init__(self, base: nn.Linear, bits: int) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.bits = bits
        self.weight, self.bias = base.weight, base.bias  # names and shapes stay those of the checkpoint

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        weight = self.weight + (rounded(self.weight, self.bits) - self.weight).detach()
        return linear(input, weight, self.bias)

    def plain(self) -> nn.Linear:
        """A layer that multiplies with the same weight and knows nothing of rounding."""
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        with torch.no_grad():
            self.weight.copy_(rounded(self.weight, self.bits))
        layer.weight, layer.bias = self.weight, self.bias
        return layer


class ExampleQuantizer(Quantizer):
    """The linear layers of the blocks compute with rounded weights while they train. What a run saves are the
    weights before rounding; ``convert`` gives whoever serves the rounded ones."""

    bits: int = Field(8, ge=2, le=8, description="bits of a weight; a row shares one scale")

    def prepare(self, model: CausalLM) -> None:
        """Swap the layers in place. The model is on the meta device still: names and shapes are there,
        weights are not."""
        for name, base in block_linears(model).items():
            model.set_submodule(name, ExampleLinear(base, self.bits))

    def convert(self, model: CausalLM) -> None:
        """Swap them back, with the rounding in their weights: the same outputs from plain layers. No run does
        it; a server written in Python does, after ``prepare`` and loading."""
        for name, layer in block_linears(model).items():
            if isinstance(layer, ExampleLinear):
                model.set_submodule(name, layer.plain())


def rounded(weight: Tensor, bits: int) -> Tensor:
    """[out, in], each row on a grid of ``2^bits - 1`` values that is symmetric about 0."""
    scale = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    return torch.where(scale > 0, (weight / scale).round() * scale, weight)
