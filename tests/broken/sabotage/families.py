"""Model families: core's small one, but; and one that says it is a Llama."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ptsdk.builtin.tiny import Tiny, TinyConfig, TinyForCausalLM
from ptsdk.nn.attention import Attend, Documents
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.kv_cache import Decode
from ptsdk_llama.model import Llama


class Misnamed(Tiny):
    """Reads an architecture that its spec does not declare."""


class TakesAnyKey(Tiny):
    def full_config(self, config: dict[str, Any]) -> dict[str, Any]:
        return super().full_config({key: value for key, value in config.items() if key in TinyConfig.model_fields})


class StoringModel(TinyForCausalLM):
    def __init__(self, settings: TinyConfig, config: Mapping[str, Any]) -> None:
        super().__init__(settings, config)
        self.register_buffer("table", torch.zeros(4, device="cpu"), persistent=False)


class Storing(Tiny):
    module = StoringModel


class RandomModel(TinyForCausalLM):
    def init_weight(self, name: str, weight: Tensor, generator: torch.Generator) -> None:
        weight.normal_(std=0.02)


class Random(Tiny):
    module = RandomModel


class LooksAheadModel(TinyForCausalLM):
    def forward(self, batch: Batch, attend: Attend | None = None) -> Tensor:
        hidden = super().forward(batch, attend)
        parts = [torch.cat([part[1:], part[:1] * 0]) for part in hidden.split(list(batch.seq_lens))]
        return hidden + 0.1 * torch.cat(parts)


class LooksAhead(Tiny):
    module = LooksAheadModel


class SeesNeighboursModel(TinyForCausalLM):
    def forward(self, batch: Batch, attend: Attend | None = None) -> Tensor:
        return self.hidden_states(batch.tokens, batch.positions, Documents((batch.tokens.numel(),)))


class SeesNeighbours(Tiny):
    module = SeesNeighboursModel


class LosesPlaceModel(TinyForCausalLM):
    def hidden_states(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        places = positions * 0 if isinstance(attend, Decode) else positions
        return super().hidden_states(tokens, places, attend)


class LosesPlace(Tiny):
    module = LosesPlaceModel


class PlaceOfTheFirstModel(TinyForCausalLM):
    """Every row of a decode step stands where the first one does."""

    def hidden_states(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        places = positions[:1].expand_as(positions) if isinstance(attend, Decode) else positions
        return super().hidden_states(tokens, places, attend)


class PlaceOfTheFirst(Tiny):
    module = PlaceOfTheFirstModel


class IdleModel(TinyForCausalLM):
    def __init__(self, settings: TinyConfig, config: Mapping[str, Any]) -> None:
        super().__init__(settings, config)
        self.model.spare = nn.Linear(4, 4, bias=False)


class Idle(Tiny):
    module = IdleModel


class DriftingModel(TinyForCausalLM):
    """Each one made computes a little else, and no weight says so."""

    made: ClassVar[int] = 0

    def __init__(self, settings: TinyConfig, config: Mapping[str, Any]) -> None:
        super().__init__(settings, config)
        DriftingModel.made += 1
        self.scale = 1 + 0.01 * DriftingModel.made

    def hidden_states(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        return super().hidden_states(tokens, positions, attend) * self.scale


class Drifting(Tiny):
    module = DriftingModel


class OtherNorms(Llama):
    """Norms that add another epsilon than the config says."""

    def build(self, config: dict[str, Any]) -> CausalLM:
        return super().build({**config, "rms_norm_eps": 0.1})
