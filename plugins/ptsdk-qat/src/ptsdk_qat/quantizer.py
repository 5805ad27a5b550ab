"""Training that feels the rounding of later quantisation, by ``torchao.quantization.qat``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from ptsdk.contracts.quantizer import Quantizer
from ptsdk.errors import Problem, RunError, UserError
from ptsdk.nn.causal_lm import CausalLM, block_linears, layers_by_inputs

if TYPE_CHECKING:
    from torchao.core.config import AOBaseConfig

SchemeName = Literal["int8-int4", "int4", "int8"]

GROUP_SIZE = 32
"""Where a job does not say."""


class Qat(Quantizer):
    """Linear layers of the blocks compute with weights (and inputs) rounded to what the quantised
    model will have, while gradients pass through the rounding (arXiv:1308.3432).

    With an adapter the frozen base is rounded, its inputs too; the update is not. What is
    trained and saved are plain weights; ``convert``, which no run calls, turns those of a live model into
    quantised ones.
    """

    scheme: SchemeName = Field(
        "int8-int4",
        description="int8-int4: weights int4 a group, inputs int8 a token; int4: weights alone; int8: weights a row",
    )
    group_size: int | None = Field(
        None, ge=2, description=f"int4 weights of a row that share a scale; null: {GROUP_SIZE}; int8 has one a row"
    )

    @model_validator(mode="after")
    def _rows_have_no_groups(self) -> Self:
        if self.scheme == "int8" and self.group_size is not None:
            raise ValueError("scheme int8 has one scale a row: leave group_size out, or choose int4 or int8-int4")
        return self

    @property
    def groups(self) -> int:
        """The int4 weights of a row that share a scale."""
        return self.group_size or GROUP_SIZE

    @property
    def base_config(self) -> AOBaseConfig:
        """What torchao quantises with after training, and simulates during it."""
        from torchao.quantization import Int8DynamicActivationIntxWeightConfig, IntxWeightOnlyConfig
        from torchao.quantization.granularity import PerAxis, PerGroup

        if self.scheme == "int8":
            return IntxWeightOnlyConfig(torch.int8, PerAxis(0))
        kind = IntxWeightOnlyConfig if self.scheme == "int4" else Int8DynamicActivationIntxWeightConfig
        return kind(torch.int4, PerGroup(self.groups))  # type: ignore[attr-defined]

    def prepare(self, model: CausalLM) -> None:
        """Swap the linear layers of the blocks for torchao's fake-quantised ones, which keep the
        names and shapes of their parameters.

        Raises:
            UserError: groups do not fill the rows of layers; those of one width are told together.
        """
        layers = block_linears(model)
        self.refuse_partial_groups(layers)

        from torchao.quantization import quantize_
        from torchao.quantization.qat import QATConfig

        quantize_(model, QATConfig(self.base_config, step="prepare"), lambda _, name: name in layers)

    def convert(self, model: CausalLM) -> None:
        """Quantise what ``prepare`` swapped: weights become torchao's packed tensors.

        Raises:
            RunError: an adapter is still beside the weights, or nothing was prepared.
        """
        from torchao.quantization import quantize_
        from torchao.quantization.qat import FakeQuantizedLinear, QATConfig

        swapped = {name: m for name, m in model.named_modules() if isinstance(m, FakeQuantizedLinear)}
        if adapted := [name for name, module in swapped.items() if type(module) is not FakeQuantizedLinear]:
            raise RunError(f"{adapted[0]} has an adapter, which conversion would lose; merge it first")
        if not swapped:
            raise RunError("the model was not prepared for quantisation, so there is nothing to convert")
        quantize_(model, QATConfig(self.base_config, step="convert"), _is_swapped)

    def quantize(self, model: CausalLM) -> None:
        """Quantise the linear layers of the blocks of a model that nothing was prepared in, as ``convert`` does of one
        that was.

        Raises:
            UserError: as ``prepare``.
        """
        layers = block_linears(model)
        self.refuse_partial_groups(layers)

        from torchao.quantization import quantize_

        quantize_(model, self.base_config, lambda _, name: name in layers)

    def refuse_partial_groups(self, layers: dict[str, nn.Linear]) -> None:
        """Raise a UserError where groups do not fill the rows of layers."""
        if self.scheme == "int8":
            return
        problems = [
            Problem(
                f"{', '.join(leaves)}: {width} inputs are no multiple of group_size {self.groups}",
                "choose a group_size that divides every layer's inputs",
                path="quantizer.group_size",
            )
            for width, leaves in layers_by_inputs(layers).items()
            if width % self.groups
        ]
        if problems:
            raise UserError(*problems)


def _is_swapped(module: Any, name: str) -> bool:
    from torchao.quantization.qat import FakeQuantizedLinear

    return isinstance(module, FakeQuantizedLinear)
