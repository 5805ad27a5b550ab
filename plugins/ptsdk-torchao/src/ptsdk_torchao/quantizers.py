"""Quantizers of a frozen base: QLoRA is one of them under a low-rank adapter."""

from __future__ import annotations

from abc import abstractmethod

from pydantic import Field, field_validator

from ptsdk.contracts.quantizer import Quantizer
from ptsdk.errors import Problem, UserError
from ptsdk.nn.causal_lm import CausalLM, block_linears, layers_by_inputs
from ptsdk_torchao import schemes
from ptsdk_torchao.layers import PackedLinear


class WeightOnly(Quantizer):
    """Every linear layer of the blocks is packed as its weight arrives; embeddings, norms and the
    head are not touched."""

    @property
    @abstractmethod
    def scheme(self) -> schemes.Scheme:
        """How weights are packed."""

    def prepare(self, model: CausalLM) -> None:
        """Swap the linear layers of the blocks.

        Raises:
            UserError: the shape of layers does not allow it; those of one width are told together.
        """
        layers = block_linears(model)
        hint = "choose another quantizer, or another group_size"
        widths = layers_by_inputs(layers)
        if faults := [(leaves, fault) for width, leaves in widths.items() if (fault := self.scheme.fault(width))]:
            told = (f"{', '.join(leaves)} cannot be packed: {fault}" for leaves, fault in faults)
            raise UserError(*(Problem(fault, hint, path="quantizer") for fault in told))
        for name, layer in layers.items():
            model.set_submodule(name, PackedLinear.of(layer, self.scheme))


class NF4(WeightOnly):
    """4-bit NormalFloat, double quantised: the base of QLoRA (arXiv:2305.14314)."""

    @property
    def scheme(self) -> schemes.Scheme:
        """Blocks of 64."""
        return schemes.NF4()


class Int8(WeightOnly):
    """8-bit integers, symmetric, one scale a row."""

    @property
    def scheme(self) -> schemes.Scheme:
        """A scale a row."""
        return schemes.Int8()


class Int4(WeightOnly):
    """4-bit integers, symmetric, one scale a group."""

    group_size: int = Field(32, ge=16, description="neighbours in a row that share a scale; a multiple of 16")

    @field_validator("group_size")
    @classmethod
    def _whole_words(cls, group_size: int) -> int:
        if group_size % schemes.MULTIPLE:
            raise ValueError(f"must be a multiple of {schemes.MULTIPLE}")
        return group_size

    @property
    def scheme(self) -> schemes.Scheme:
        """A scale a group."""
        return schemes.Int4(self.group_size)
