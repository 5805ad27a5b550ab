"""The adapters: which layers get a low-rank update, and how it is scaled and stored."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, ValidationError, field_validator
from torch import Tensor

from ptsdk.checkpoint.weights import seeded, stored_tensors
from ptsdk.contracts.adapter import Adapter
from ptsdk.errors import Problem, RunError, UserError
from ptsdk.nn.causal_lm import CausalLM
from ptsdk_lora import files
from ptsdk_lora.layers import LowRankLinear, adapt
from ptsdk_lora.targets import ALL_LINEAR, Targets, find_targets, suffixes

OWN = re.compile(r"\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector)$")
HANDLED = frozenset({"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora"})


class LowRank(Adapter):
    """What the three have in common: options, names, files."""

    rank_stabilized: ClassVar[bool] = False
    decomposed: ClassVar[bool] = False

    rank: int = Field(16, ge=1, description="rank of the update")
    alpha: float = Field(32, gt=0, description="the update is multiplied by alpha / rank (rslora: alpha / sqrt(rank))")
    dropout: float = Field(0.0, ge=0, lt=1, description="probability that an input of the update is dropped")
    targets: Targets = Field(
        ALL_LINEAR,
        description="layers to adapt: all-linear (of the blocks), a list of name endings, or a regular expression",
    )

    @field_validator("targets")
    @classmethod
    def _targets_can_match(cls, targets: Targets) -> Targets:
        if not targets:
            raise ValueError("name at least one layer, or all-linear")
        if isinstance(targets, str):
            try:
                re.compile(targets)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return targets

    @property
    def scaling(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    def apply(self, model: CausalLM) -> None:
        """Freeze the model and adapt the targeted layers in place.

        Raises:
            UserError: a target matches no layer.
        """
        targets = find_targets(model, self.targets)
        if any(isinstance(module, LowRankLinear) for module in model.modules()):
            raise RunError("the model has a low-rank adapter already; merge it first")
        model.requires_grad_(False)
        for module in targets.values():
            adapt(module, rank=self.rank, scaling=self.scaling, dropout=self.dropout, magnitude=self.decomposed)

    def own(self, name: str) -> bool:
        """Whether that is one of lora_A, lora_B and the magnitude."""
        return OWN.search(name) is not None

    def init(self, model: CausalLM, seed: int) -> None:
        """Make the update zero and DoRA's magnitudes those of the loaded base."""
        for name, module in adapted_layers(model).items():
            module.reset(seeded(seed, f"{name}.lora_A.weight"))

    def disabled(self, model: CausalLM) -> AbstractContextManager[None]:
        """Inside, adapted layers are the base's. May be entered again inside."""
        return _switched_off(list(adapted_layers(model).values()))

    def merged(self, model: CausalLM) -> dict[str, Tensor]:
        """The base's state dict; each adapted or packed weight is new and dense, all else is shared."""
        layers = adapted_layers(model)
        kept = {name: tensor for name, tensor in stored_tensors(model).items() if not _is_folded(name, layers)}
        return kept | {f"{name}.weight": module.merged_weight() for name, module in layers.items()}

    def save(self, tensors: Mapping[str, Tensor], folder: Path, base: str | None) -> None:
        """adapter_config.json and adapter_model.safetensors, as PEFT reads them."""
        adapted = {OWN.sub("", name) for name in tensors}
        config = files.config_of(
            rank=self.rank,
            alpha=self.alpha,
            dropout=self.dropout,
            targets=suffixes(self.targets, adapted),
            rslora=self.rank_stabilized,
            dora=self.decomposed,
            base=base,
        )
        files.write(folder, config, tensors)

    def load(self, folder: Path, model: CausalLM | None = None) -> dict[str, Tensor]:
        """The tensors of a PEFT folder, checked against these options and ``model``.

        Raises:
            UserError: no adapter there, a damaged one, or one that does not fit.
        """
        self._check_same(folder, self.from_peft(files.read_config(folder)))
        tensors = files.read_tensors(folder)
        if model is not None:
            own = {name: parameter.shape for name, parameter in model.named_parameters() if self.own(name)}
            files.check_fit(folder, tensors, own)
        return tensors

    def _check_same(self, folder: Path, stored: LowRank) -> None:
        """Tensors of another rank or scaling would load, or nearly, and mean something else."""
        kinds = (("kind", type(stored).__name__, type(self).__name__), ("rank", stored.rank, self.rank))
        for what, there, here in (*kinds, ("scaling", stored.scaling, self.scaling)):
            if there != here and not (what == "scaling" and math.isclose(stored.scaling, self.scaling)):
                message = f"the stored adapter has {what} {there}, the one asked for {here}"
                raise UserError(Problem(message, "use the options it was saved with", str(folder / files.CONFIG)))

    @classmethod
    def from_peft(cls, adapter_config: Mapping[str, Any]) -> LowRank:
        """The adapter that an adapter_config.json describes: one of the three, whichever is asked.

        DoRA with rsLoRA's scaling becomes DoRA with an alpha that gives the same scaling.

        Raises:
            UserError: it is no LoRA, uses an option that is not supported, or lacks one.
        """
        kind = adapter_config.get("peft_type")
        if kind != "LORA":
            hint = "convert it with PEFT, or merge it into its base"
            raise UserError(Problem(f"{files.CONFIG}: peft_type is {kind}, this reads LORA", hint))
        files.check_supported(adapter_config, HANDLED)
        try:
            return _from_options(adapter_config)
        except KeyError as error:
            raise UserError(Problem(f"{files.CONFIG}: {error.args[0]} is missing", "save the adapter again")) from None
        except ValidationError as error:
            faults = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
            raise UserError(Problem(f"{files.CONFIG}: {faults}", "save the adapter again")) from None


class Lora(LowRank):
    """Low-rank adaptation, scaled by ``alpha / rank`` (arXiv:2106.09685)."""


class RsLora(LowRank):
    """LoRA scaled by ``alpha / sqrt(rank)``, so that high ranks learn (arXiv:2312.03732)."""

    rank_stabilized: ClassVar[bool] = True


class Dora(LowRank):
    """Weight-decomposed LoRA: the update turns rows, a magnitude sets their length (arXiv:2402.09353)."""

    decomposed: ClassVar[bool] = True


def adapted_layers(model: CausalLM) -> dict[str, LowRankLinear]:
    """The layers that carry an adapter, by name.

    Raises:
        RunError: there are none.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LowRankLinear)}
    if not layers:
        raise RunError("the model has no low-rank adapter; apply it first")
    return layers


def _is_folded(name: str, layers: Collection[str]) -> bool:
    """Whether a tensor is part of an adapted layer and not its bias: packed bits too are replaced."""
    layer = OWN.sub(".own", name).rpartition(".")[0]
    return layer in layers and name != f"{layer}.bias"


@contextmanager
def _switched_off(layers: list[LowRankLinear]) -> Iterator[None]:
    before = [layer.adapted for layer in layers]
    for layer in layers:
        layer.adapted = False
    try:
        yield
    finally:
        for layer, adapted in zip(layers, before, strict=True):
            layer.adapted = adapted


def _from_options(config: Mapping[str, Any]) -> LowRank:
    dora, rslora = bool(config.get("use_dora")), bool(config.get("use_rslora"))
    kind = Dora if dora else RsLora if rslora else Lora
    options = {"rank": config["r"], "alpha": config["lora_alpha"], "targets": config["target_modules"]}
    adapter = kind.model_validate({**options, "dropout": config.get("lora_dropout", 0.0)})
    if dora and rslora:
        return adapter.model_copy(update={"alpha": adapter.alpha * math.sqrt(adapter.rank)})
    return adapter
