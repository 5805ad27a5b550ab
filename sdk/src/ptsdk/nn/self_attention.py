"""Grouped-query self-attention: projections around the ``Attend`` seam."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from ptsdk.nn.attention import Attend
from ptsdk.nn.recompute import is_recomputed, not_kept, recomputed
from ptsdk.nn.rope import Rope, rotate


class Attention(nn.Module):
    """Project, rotate, attend, project (arXiv:1706.03762; grouped keys arXiv:2305.13245).

    A family whose projections are unlike those of ``SelfAttention`` gives ``o_proj`` and overrides ``project``.

    Args:
        layer: index of the block, which ``Attend`` gets (caches are kept by it).
        head_dim: E.
        scale: what scores are multiplied by; ``E ** -0.5`` where None.
        window: how many tokens a query sees, itself included; None for all before it.
    """

    o_proj: nn.Linear

    def __init__(self, layer: int, head_dim: int, *, scale: float | None = None, window: int | None = None) -> None:
        super().__init__()
        self.layer, self.head_dim, self.window = layer, head_dim, window
        self.scale = head_dim**-0.5 if scale is None else scale

    @abstractmethod
    def project(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [N, H, E], keys [N, K, E] and values [N, K, E] before rotation."""

    def forward(self, x_ND: Tensor, rope: Rope, attend: Attend) -> Tensor:
        """[N, D] -> [N, D]."""
        q_NHE, k_NKE, v_NKE = self.project(x_ND)
        q_NHE, k_NKE = rotated(q_NHE, rope), rotated(k_NKE, rope)
        with not_kept(q_NHE, k_NKE):
            mixed_NHE = attend(self.layer, q_NHE, k_NKE, v_NKE, scale=self.scale, window=self.window)
        out: Tensor = self.o_proj(mixed_NHE.flatten(1))
        return out


class SelfAttention(Attention):
    """One projection each for queries, keys and values.

    A family whose heads are treated before they are rotated overrides ``project``.

    Args:
        layer, head_dim, scale, window: see ``Attention``; ``head_dim`` need not be D / H.
        width: D, of the hidden states.
        heads, kv_heads: H and K; H is a multiple of K.
        bias, out_bias: whether q, k, v, and the output projection, have one.
    """

    def __init__(
        self,
        layer: int,
        width: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        scale: float | None = None,
        window: int | None = None,
        bias: bool = False,
        out_bias: bool = False,
    ) -> None:
        super().__init__(layer, head_dim, scale=scale, window=window)
        self.q_proj = nn.Linear(width, heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(width, kv_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(width, kv_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=out_bias)

    def project(self, x_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Attention.project``."""
        per_head = (len(x_ND), -1, self.head_dim)
        with not_kept(x_ND):
            return self.q_proj(x_ND).view(per_head), self.k_proj(x_ND).view(per_head), self.v_proj(x_ND).view(per_head)


def rotated(x_NHE: Tensor, rope: Rope) -> Tensor:
    """``rotate``; what was normalised before does not wait for the backward, only what it was made of."""
    if not is_recomputed(x_NHE):
        return rotate(x_NHE, rope)
    with not_kept(x_NHE):
        return recomputed(lambda x, cos, sin: rotate(x, Rope(cos, sin)), x_NHE, *rope)
