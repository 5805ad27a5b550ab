"""The rollout engine of core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from ptsdk.contracts.rollout import Completion, RolloutEngine
from ptsdk.nn.causal_lm import CausalLM

if TYPE_CHECKING:
    from ptsdk.generate.sampling import SamplingParams


class Local(RolloutEngine):
    """The policy itself generates, in this process."""

    slots: int = Field(64, ge=1, description="completions that grow at a time; their keys and values are kept")

    def generate(self, model: CausalLM, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[Completion]:
        """See ``RolloutEngine.generate``."""
        from ptsdk.generate.engine import generate

        return generate(model, prompts, params, slots=self.slots)

    def rehearse(self, model: CausalLM, prompts: Sequence[Sequence[int]], params: SamplingParams) -> None:
        """See ``RolloutEngine.rehearse``."""
        from ptsdk.generate.engine import rehearse

        rehearse(model, prompts, params, slots=self.slots)
