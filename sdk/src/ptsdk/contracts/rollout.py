"""Rollout engines: what generates completions for a policy method."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ptsdk.contracts.component import Component
from ptsdk.nn.causal_lm import CausalLM

if TYPE_CHECKING:
    from ptsdk.generate.sampling import SamplingParams


@dataclass(frozen=True)
class Completion:
    """One sampled continuation. ``finish_reason``: ``stop`` (an end token, included in
    ``tokens``) or ``length``. ``log_probs``: of each token under the sampling policy at
    temperature 1."""

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    finish_reason: str


class RolloutEngine(Component):
    """The ``rollout:`` option of a policy method."""

    kind: ClassVar[str] = "rollout-engine"

    @abstractmethod
    def generate(self, model: CausalLM, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[Completion]:
        """One completion of each prompt, in order. The result depends on ``params.seed`` and
        each prompt's place alone, not on how prompts are batched."""

    def rehearse(self, model: CausalLM, prompts: Sequence[Sequence[int]], params: SamplingParams) -> None:
        """Go through what needs most memory in ``generate``, for `ptsdk plan`: ``model`` has shapes and no
        data. By default nothing: the engine holds its memory elsewhere."""
