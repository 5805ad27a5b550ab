"""No adapter: every weight of the model trains."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from ptsdk.contracts.adapter import Adapter
from ptsdk.errors import RunError
from ptsdk.nn.causal_lm import CausalLM


class Full(Adapter):
    """Full fine-tuning. It owns no parameter, so there is no adapter to write or read."""

    keeps_base: ClassVar[bool] = False

    def apply(self, model: CausalLM) -> None:
        """Let every parameter train."""
        model.requires_grad_(True)

    def disabled(self, model: CausalLM) -> AbstractContextManager[None]:
        """Always an error: training overwrote the base.

        Raises:
            RunError: always.
        """
        raise RunError("every weight trains, so the base is gone: keep a frozen copy, or train an adapter")

    def save(self, tensors: Mapping[str, Tensor], folder: Path, base: str | None) -> None:
        """Always an error: the whole model is saved instead.

        Raises:
            RunError: always.
        """
        raise RunError("adapter full has nothing of its own to save; save the model")

    def load(self, folder: Path, model: CausalLM | None = None) -> dict[str, Tensor]:
        """Always an error: the whole model is loaded instead.

        Raises:
            RunError: always.
        """
        raise RunError("adapter full has nothing of its own to load; load the model")

    def merged(self, model: CausalLM) -> dict[str, Tensor]:
        """The state dict itself, detached; storage is shared with the live model."""
        return {name: tensor.detach() for name, tensor in model.state_dict().items()}
