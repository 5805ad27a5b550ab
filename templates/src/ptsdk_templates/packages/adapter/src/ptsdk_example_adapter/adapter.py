"""The adapter itself, imported when a job says ``adapter: {use: example-adapter, targets: [v_proj]}``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ptsdk.checkpoint.weights import stored_tensors
from ptsdk.contracts.adapter import Adapter
from ptsdk.errors import UserError
from ptsdk.nn.causal_lm import CausalLM, block_linears
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

OWN, ON = "ia3_l", "ia3_on"
PREFIX = "base_model.model."
"""What PEFT puts before a parameter's name."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class ExampleAdapter(Adapter):
    """(IA)^3 (arXiv:2205.05638): a learned factor for each output of some layers; the base stays as it is."""

    targets: list[str] = Field(["k_proj", "v_proj"], min_length=1, description="names of the layers that are scaled")

    def apply(self, model: CausalLM) -> None:
        """Give the layers their factors; weights are not there yet, names and shapes are.

        Raises:
            UserError: no layer has one of these names.
        """
        model.requires_grad_(False)
        layers = {n: layer for n, layer in block_linears(model).items() if n.rpartition(".")[2] in self.targets}
        if not layers:
            raise UserError(f"no layer is called {' or '.join(self.targets)}", hint="correct adapter.targets")
        for layer in layers.values():
            # A hook leaves the layer's class alone: a quantizer may have put its own there.
            factors = torch.empty(layer.out_features, 1, device="meta", dtype=torch.float32)
            layer.register_parameter(OWN, nn.Parameter(factors))
            layer.register_forward_hook(scaled)
            setattr(layer, ON, True)

    def own(self, name: str) -> bool:
        """Whether the parameter is one of the factors."""
        return name.endswith(f".{OWN}")

    def init(self, model: CausalLM, seed: int) -> None:
        """Ones, so that training starts from the base. What is drawn at random is drawn from the seed
        and the parameter's name alone: ``ptsdk.checkpoint.weights.seeded``."""
        for layer in scaled_layers(model).values():
            factors = layer.get_parameter(OWN)
            if factors.is_meta:  # the base has storage by now: the factors get theirs beside it
                factors = nn.Parameter(torch.empty_like(factors, device=layer.weight.device))
                layer.register_parameter(OWN, factors)
            nn.init.ones_(factors)

    @contextmanager
    def disabled(self, model: CausalLM) -> Iterator[None]:
        """Inside, the model is its base: what DPO and GRPO take for the reference."""
        layers = scaled_layers(model).values()
        before = [getattr(layer, ON) for layer in layers]
        for layer in layers:
            setattr(layer, ON, False)
        try:
            yield
        finally:
            for layer, on in zip(layers, before, strict=True):
                setattr(layer, ON, on)

    def merged(self, model: CausalLM) -> dict[str, Tensor]:
        """The base's weights, those of the scaled layers multiplied; what is packed comes unpacked."""
        tensors = stored_tensors(model)
        factors = {name.removesuffix(OWN): tensors.pop(name) for name in list(tensors) if self.own(name)}
        for layer, factor in factors.items():
            weight = tensors[f"{layer}weight"]
            tensors[f"{layer}weight"] = (weight * factor).to(weight.dtype)
            if f"{layer}bias" in tensors:
                bias = tensors[f"{layer}bias"]
                tensors[f"{layer}bias"] = (bias * factor.squeeze(1)).to(bias.dtype)
        return tensors

    def save(self, tensors: Mapping[str, Tensor], folder: Path, base: str | None) -> None:
        """PEFT's two files: whoever has PEFT can load what was trained."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({f"{PREFIX}{name}": tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
        config = {
            "peft_type": "IA3",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "target_modules": self.targets,
            "feedforward_modules": [],  # PEFT scales the inputs of these instead
        }
        (folder / CONFIG).write_text(json.dumps(config, indent=2), "utf-8")

    def load(self, folder: Path, model: CausalLM | None = None) -> dict[str, Tensor]:
        """What ``save`` wrote, by parameter name.

        Raises:
            UserError: it is not there, is damaged, or belongs to another model.
        """
        try:
            tensors = {name.removeprefix(PREFIX): t for name, t in load_file(folder / WEIGHTS).items()}
        except (OSError, SafetensorError) as error:
            raise UserError(f"{folder / WEIGHTS} cannot be read: {error}", hint="save the adapter again") from None
        if model is not None:
            expected = {name: parameter.shape for name, parameter in model.named_parameters() if self.own(name)}
            if expected != {name: tensor.shape for name, tensor in tensors.items()}:
                raise UserError(f"the adapter in {folder} does not fit the model", hint="is it another base's?")
        return tensors

    @classmethod
    def from_peft(cls, adapter_config: Mapping[str, Any]) -> ExampleAdapter:
        """The adapter that an adapter_config.json describes.

        Raises:
            UserError: it asks for what this one does not do.
        """
        if adapter_config.get("peft_type") != "IA3" or adapter_config.get("feedforward_modules"):
            raise UserError(f"{CONFIG} is not of an IA3 without feedforward_modules", hint="merge it with PEFT")
        return cls(targets=list(adapter_config["target_modules"]))


def scaled(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """A layer's output, each number of it times its factor."""
    if not getattr(layer, ON):
        return output
    return (output * layer.get_parameter(OWN).squeeze(1)).to(output.dtype)


def scaled_layers(model: CausalLM) -> dict[str, nn.Linear]:
    """The layers that have factors, by name."""
    return {name: layer for name, layer in block_linears(model).items() if hasattr(layer, OWN)}
