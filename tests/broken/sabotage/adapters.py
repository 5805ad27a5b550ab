"""Adapters: LoRA, but."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from ptsdk.checkpoint.weights import seeded
from ptsdk.nn.causal_lm import CausalLM
from ptsdk_lora.adapter import LowRank, adapted_layers


class Sound(LowRank):
    @classmethod
    def from_peft(cls, adapter_config: Mapping[str, Any]) -> LowRank:
        return cls.model_validate(super().from_peft(adapter_config).model_dump())


class StartsElsewhere(Sound):
    @torch.no_grad()
    def init(self, model: CausalLM, seed: int) -> None:
        super().init(model, seed)
        for name, layer in adapted_layers(model).items():
            layer.lora_B.weight.normal_(generator=seeded(seed, name))


class FreezesOne(Sound):
    def apply(self, model: CausalLM) -> None:
        super().apply(model)
        next(iter(adapted_layers(model).values())).lora_A.weight.requires_grad_(False)

    def init(self, model: CausalLM, seed: int) -> None:
        super().init(model, seed)
        next(iter(adapted_layers(model).values())).lora_A.weight.requires_grad_(False)


class Detached(Sound):
    """The first layer's A is never learned."""

    def apply(self, model: CausalLM) -> None:
        super().apply(model)
        layer: Any = next(iter(adapted_layers(model).values()))

        def forward(self: Any, x: Tensor) -> Tensor:
            base = linear(x, self.weight, self.bias)
            update = linear(linear(x, self.lora_A.weight.detach()) * self.scaling, self.lora_B.weight)
            return base + update if self.adapted else base

        layer.forward = MethodType(forward, layer)


class Unseeded(Sound):
    @torch.no_grad()
    def init(self, model: CausalLM, seed: int) -> None:
        super().init(model, seed)
        for layer in adapted_layers(model).values():
            layer.lora_A.weight.normal_()


class NeverOff(Sound):
    def disabled(self, model: CausalLM) -> AbstractContextManager[None]:
        return nullcontext()


class SavesHalf(Sound):
    def save(self, tensors: Mapping[str, Tensor], folder: Path, base: str | None) -> None:
        super().save({name: tensor.half().to(tensor.dtype) for name, tensor in tensors.items()}, folder, base)


class MergesTwice(Sound):
    def merged(self, model: CausalLM) -> dict[str, Tensor]:
        merged = super().merged(model)
        layers = adapted_layers(model)
        return merged | {
            f"{n}.weight": 2 * merged[f"{n}.weight"] - layer.weight.detach() for n, layer in layers.items()
        }
