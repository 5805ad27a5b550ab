"""The rotation of Phi: of a part of each head, and LongRoPE (arXiv:2402.13753).

N tokens, R numbers of a head that are turned.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from ptsdk.errors import RunError
from ptsdk.nn.rope import Rope, inverse_frequencies, rotations


class PhiRope(BaseModel):
    """``rope_parameters`` of a Phi."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rope_type: Literal["default", "longrope"] = "default"
    rope_theta: PositiveFloat
    partial_rotary_factor: float = Field(1.0, gt=0, le=1)
    short_factor: tuple[PositiveFloat, ...] | None = None
    long_factor: tuple[PositiveFloat, ...] | None = None
    factor: PositiveFloat | None = None
    attention_factor: PositiveFloat | None = None
    original_max_position_embeddings: PositiveInt | None = None

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Self:
        missing = [key for key in ("short_factor", "long_factor") if getattr(self, key) is None]
        if self.rope_type == "longrope" and missing:
            raise ValueError(f"rope_type longrope needs {', '.join(missing)}")
        return self

    def turned(self, head_dim: int) -> int:
        """R, of a head of ``head_dim`` numbers."""
        return int(head_dim * self.partial_rotary_factor)

    def rotations(self, positions: Tensor, head_dim: int, longest: int, dtype: torch.dtype) -> Rope:
        """The rotation of each of ``positions`` [N].

        Args:
            positions: of the documents of a batch, or of the next tokens of completions.
            head_dim: of which ``turned`` are turned.
            longest: ``max_position_embeddings``.
            dtype: of the result.

        Raises:
            RunError: a completion grows past the length from which on frequencies are others.
        """
        width = self.turned(head_dim)
        if self.rope_type == "default":
            inv_freq = inverse_frequencies(width, self.rope_theta, positions.device)
            return rotations(positions, inv_freq, dtype)
        original = self.original_max_position_embeddings
        assert original and self.short_factor and self.long_factor
        lengths = document_lengths(positions, original)
        short, long = (
            stretched(width, self.rope_theta, positions.new_tensor(factor, dtype=torch.float32))
            for factor in (self.short_factor, self.long_factor)
        )
        inv_freq = torch.where((lengths > original)[:, None], long, short)
        return rotations(positions, inv_freq, dtype, self.length(longest, original))

    def length(self, longest: int, original: int) -> float:
        """How many times as long queries and keys become."""
        if self.attention_factor is not None:
            return self.attention_factor
        factor = self.factor or longest / original
        return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


def stretched(width: int, theta: float, factor: Tensor) -> Tensor:
    """``1 / (factor * theta^(2i / R))``, in radians a token; float32 [R / 2]."""
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=factor.device) / width
    return 1.0 / (factor * theta**exponents)


def document_lengths(positions: Tensor, original: int) -> Tensor:
    """[N]: how many tokens the document of each token has: all of it where it begins here, at 0; else, as it grows in
    generation, up to that token.

    Raises:
        RunError: a completion grows past ``original``: its first keys are kept as they were turned before. Looked for
            where nothing trains, because to look is to wait for a GPU.
    """
    index = torch.arange(len(positions), device=positions.device)
    begins = torch.ones_like(positions, dtype=torch.bool)
    begins[1:] = positions[1:] != positions[:-1] + 1
    first = torch.where(begins, index, 0).cummax(0).values
    nearest = torch.where(begins, index, len(positions)).flip(0).cummin(0).values.flip(0)  # beginning from here on
    last = torch.cat((nearest[1:], nearest.new_full((1,), len(positions)))) - 1
    grows = positions[first] != 0
    if not torch.is_grad_enabled() and bool((grows & (positions == original)).any()):
        raise RunError(
            f"a completion passes {original} tokens, from which on this model turns all of them in another way\n"
            "    ask for fewer tokens, or begin with a longer prompt"
        )
    return torch.where(grows, positions, positions[last]) + 1
