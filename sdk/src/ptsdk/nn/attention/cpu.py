"""Attention of documents on a CPU as one operator, which a compiled block holds as it is.

The kernel is the one behind ``scaled_dot_product_attention``, once a document. Around it: queries that
share a key head are a dimension of their own, over which keys and values are a view, so that nothing is
repeated and what waits for the backward is [N, K, E].

N tokens of B documents, H = K * G query heads in groups of G, K key/value heads, E head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ptsdk.nn.attention.bands import bands

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


torch.library.define(
    "ptsdk::documents_attention",
    "(Tensor q, Tensor k, Tensor v, Tensor bounds, float scale, int? window) -> (Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "ptsdk::documents_attention_backward",
    "(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor mixed, Tensor lse, Tensor bounds, float scale, int? window)"
    " -> (Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)
# Not by ``torch.library.custom_op``: what that makes imports torch's compiler, seconds of the first step of any run.
documents_attention: Callable[..., tuple[Tensor, Tensor]] = torch.ops.ptsdk.documents_attention.default
documents_attention_backward = torch.ops.ptsdk.documents_attention_backward.default


@torch.library.impl("ptsdk::documents_attention", "cpu")
def _forward_on_cpu(
    q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, bounds: Tensor, scale: float, window: int | None
) -> tuple[Tensor, Tensor]:
    """Causal attention inside each document.

    Args:
        q_NHE, k_NKE, v_NKE: rotated queries and keys, values.
        bounds: int64 [B + 1]: where documents begin, and N.
        scale: what scores are multiplied by.
        window: how many tokens a query sees, itself included; None for all before it.

    Returns:
        The mixed values [N, H, E], and the logarithms [K, G, N] of what their weights sum to, for the backward.

    Raises:
        RuntimeError: the documents have another number of tokens than N.
    """
    queries, keys, values = _grouped(q_NHE, k_NKE, v_NKE)
    mixed_NHE, lse_KGN = _results(q_NHE, k_NKE)
    mixed = _by_group(mixed_NHE, k_NKE)
    for band in bands(bounds, q_NHE, window):
        q, k, v = queries[:, :, band.queries], keys[:, :, band.keys], values[:, :, band.keys]
        out, lse = _forward(q, k, v, 0.0, band.mask is None, attn_mask=band.mask, scale=scale)
        mixed[:, :, band.queries], lse_KGN[:, :, band.queries] = out, lse
    return mixed_NHE, lse_KGN


@torch.library.impl("ptsdk::documents_attention_backward", "cpu")
def _backward_on_cpu(
    grad_NHE: Tensor,
    q_NHE: Tensor,
    k_NKE: Tensor,
    v_NKE: Tensor,
    mixed_NHE: Tensor,
    lse_KGN: Tensor,
    bounds: Tensor,
    scale: float,
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values; arguments as above."""
    queries, keys, values = _grouped(q_NHE, k_NKE, v_NKE)
    grad, mixed = (_by_group(t.contiguous(), k_NKE) for t in (grad_NHE, mixed_NHE))
    grad_q, grad_k, grad_v = (torch.empty(t.shape, dtype=t.dtype) for t in (q_NHE, k_NKE, v_NKE))
    if window is not None:  # the keys of bands overlap
        grad_k.zero_(), grad_v.zero_()
    for band in bands(bounds, q_NHE, window):
        q, k, v = queries[:, :, band.queries], keys[:, :, band.keys], values[:, :, band.keys]
        out, lse = mixed[:, :, band.queries], lse_KGN[:, :, band.queries]
        causal = band.mask is None
        parts = _backward(grad[:, :, band.queries], q, k, v, out, lse, 0.0, causal, attn_mask=band.mask, scale=scale)
        _by_group(grad_q, k_NKE)[:, :, band.queries] = parts[0]
        for total, part in zip((grad_k, grad_v), parts[1:], strict=True):
            share = part.sum(1).transpose(0, 1)
            total[band.keys] = share if window is None else total[band.keys] + share
    return grad_q, grad_k, grad_v


def _grouped(q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[K, G, N, E] each, of which keys and values are the same for all of a group."""
    queries = _by_group(q_NHE.contiguous(), k_NKE)
    keys, values = (t.contiguous().transpose(0, 1)[:, None].expand_as(queries) for t in (k_NKE, v_NKE))
    return queries, keys, values


def _by_group(x_NHE: Tensor, k_NKE: Tensor) -> Tensor:
    """[N, H, E] seen as [K, G, N, E]."""
    tokens, heads, size = x_NHE.shape
    kv_heads = k_NKE.shape[1]
    return x_NHE.view(tokens, kv_heads, heads // kv_heads, size).permute(1, 2, 0, 3)


def _results(q_NHE: Tensor, k_NKE: Tensor) -> tuple[Tensor, Tensor]:
    tokens, heads, kv_heads = q_NHE.shape[0], q_NHE.shape[1], k_NKE.shape[1]
    sums = q_NHE.new_empty((kv_heads, heads // kv_heads, tokens), dtype=torch.promote_types(q_NHE.dtype, torch.float32))
    return q_NHE.new_empty(q_NHE.shape), sums


@torch.library.register_fake("ptsdk::documents_attention")  # type: ignore[untyped-decorator]
def _shaped(
    q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, bounds: Tensor, scale: float, window: int | None
) -> tuple[Tensor, Tensor]:
    return _results(q_NHE, k_NKE)


@torch.library.register_fake("ptsdk::documents_attention_backward")  # type: ignore[untyped-decorator]
def _shaped_gradients(grad_NHE: Tensor, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, *rest: Any) -> Any:
    return tuple(t.new_empty(t.shape) for t in (q_NHE, k_NKE, v_NKE))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, bounds, ctx.scale, ctx.window = inputs
    ctx.save_for_backward(*tensors, *output, bounds)


def _differentiate(ctx: Any, grad_NHE: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    gradients = documents_attention_backward(grad_NHE, *ctx.saved_tensors, ctx.scale, ctx.window)
    return *gradients, None, None, None


torch.library.register_autograd("ptsdk::documents_attention", _differentiate, setup_context=_keep)
