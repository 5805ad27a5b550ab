"""Every backend of attention beside its definition, and which one a model gets."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from ptsdk.nn.attention import Backend, Documents
from ptsdk.nn.attention.choice import Unavailable, choose, obstacle
from ptsdk.nn.attention.documents import one_by_one
from ptsdk.nn.attention.flex import Flex
from ptsdk.nn.attention.packed import Flash, Packed, Varlen

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
LENGTHS = [(17,), (1, 8, 1, 13), (4, 4)]
WINDOWS = [None, 1, 3, 4, 7, 50]
HEADS = [(4, 4), (6, 2), (3, 1)]


def by_definition(
    q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, bounds: list[int], scale: float, left: int, right: int
) -> Tensor:
    """Query i of a document sees keys i - left to i + right of it, all on a side that is -1."""
    places = torch.arange(len(q_NHE))
    document = torch.bucketize(places, torch.tensor(bounds[1:]), right=True)
    distance = places[:, None] - places
    seen = document[:, None] == document
    seen &= (distance <= left) | torch.tensor(left == -1)
    seen &= (-distance <= right) | torch.tensor(right == -1)
    group = q_NHE.shape[1] // k_NKE.shape[1]
    keys, values = (t.repeat_interleave(group, dim=1) for t in (k_NKE, v_NKE))
    scores = torch.einsum("qhe,khe->hqk", q_NHE, keys) * scale
    return torch.einsum("hqk,khe->qhe", scores.masked_fill(~seen, -torch.inf).softmax(-1), values)


def drawn(seq_lens: tuple[int, ...], heads: int, kv_heads: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(sum(seq_lens), h, 8, generator=generator, dtype=dtype).requires_grad_()
        for h in (heads, kv_heads, kv_heads)
    ]


def check(backend: Backend, seq_lens: tuple[int, ...], heads: tuple[int, int], window: int | None) -> None:
    """Values and gradients are those of the definition."""
    q, k, v = drawn(seq_lens, *heads)
    found = backend(seq_lens, CPU)(0, q, k, v, scale=0.4, window=window)
    bounds = [sum(seq_lens[:i]) for i in range(len(seq_lens) + 1)]
    expected = by_definition(q, k, v, bounds, 0.4, -1 if window is None else window - 1, 0)
    torch.testing.assert_close(found, expected)
    probe = torch.randn_like(found)
    for mine, other in zip(
        torch.autograd.grad(found, (q, k, v), probe), torch.autograd.grad(expected, (q, k, v), probe), strict=True
    ):
        torch.testing.assert_close(mine, other)


class OneByOne(Documents):
    """What runs elsewhere than on a CPU, on one."""

    def __call__(self, layer: int, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, **how: Any) -> Tensor:
        return one_by_one(q_NHE, k_NKE, v_NKE, self.bounds, how["scale"], how["window"])


Sides = tuple[int, int]


def varlen_2_11(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, *, scale: float,
    window_size: Sides,
) -> Tensor:  # fmt: skip
    """That of torch 2.11, by its documentation; it takes grouped heads as they are."""
    assert cu_q.dtype == cu_k.dtype == torch.int32 and cu_q is cu_k
    assert max_q == max_k == int(cu_q.diff().max())
    return by_definition(q, k, v, cu_q.tolist(), scale, *window_size)


def varlen_attn(q: Tensor, k: Tensor, *rest: Any, enable_gqa: bool = False, **how: Any) -> Tensor:
    """That of torch 2.13."""
    assert enable_gqa == (q.shape[1] != k.shape[1]), "torch refuses grouped heads without it"
    return varlen_2_11(q, k, *rest, **how)


def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, *lengths: Any, **how: Any) -> Any:
    """flash-attn's, by its documentation: ``causal`` makes the right side of the window 0."""
    cu_q, cu_k, max_q, max_k = lengths
    assert cu_q.dtype == torch.int32 and cu_q is cu_k and max_q == max_k == int(cu_q.diff().max())
    assert set(how) == {"softmax_scale", "causal", "window_size"} and how["causal"]
    return by_definition(q, k, v, cu_q.tolist(), how["softmax_scale"], how["window_size"][0], 0)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for what runs on a GPU alone."""
    import torch.nn.attention.varlen

    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", varlen_attn)
    package = ModuleType("flash_attn")
    package.flash_attn_varlen_func = flash_attn_varlen_func  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("seq_lens", LENGTHS)
@pytest.mark.parametrize("backend", [Documents.of, OneByOne.of, Varlen.of, Flash.of])
def test_is_the_definition(
    backend: Backend, seq_lens: tuple[int, ...], heads: tuple[int, int], window: int | None
) -> None:
    check(backend, seq_lens, heads, window)


@pytest.mark.parametrize("heads", HEADS)
def test_varlen_of_an_older_torch(heads: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_2_11)
    check(Varlen.of, LENGTHS[2], heads, 3)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("seq_lens", LENGTHS[1:])
def test_flex_is_the_definition(seq_lens: tuple[int, ...], window: int | None) -> None:
    q, k, v = (t.detach() for t in drawn(seq_lens, 6, 2))  # on a CPU it has no backward
    found = Flex.of(seq_lens, CPU)(0, q, k, v, scale=0.4, window=window)
    bounds = [sum(seq_lens[:i]) for i in range(len(seq_lens) + 1)]
    torch.testing.assert_close(found, by_definition(q, k, v, bounds, 0.4, -1 if window is None else window - 1, 0))


def test_flex_makes_a_mask_a_window_and_a_batch() -> None:
    attend = Flex.of((3, 4), CPU)
    assert attend.mask(None) is attend.mask(None)
    assert attend.mask(2) is not attend.mask(3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 3])
def test_a_document_in_a_pack_is_the_document_alone_to_the_bit(dtype: torch.dtype, window: int | None) -> None:
    seq_lens = (5, 9, 1)
    q, k, v = (t.detach() for t in drawn(seq_lens, 6, 2, dtype))
    packed = Documents(seq_lens)(0, q, k, v, scale=0.4, window=window)
    alone = [
        Documents((len(part[0]),))(0, *part, scale=0.4, window=window)
        for part in zip(*(t.split(seq_lens) for t in (q, k, v)), strict=True)
    ]
    assert packed.equal(torch.cat(alone))


def test_what_waits_for_the_backward_has_as_many_heads_as_there_are() -> None:
    """Keys and values are not repeated for the queries that share them."""
    q, k, v = drawn((6, 3), 6, 2)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        Documents((6, 3))(0, q, k, v, scale=1.0)
    assert sum(t.shape == k.shape for t in kept) == 2
    assert sum(t.numel() for t in kept if t.is_floating_point()) == 2 * q.numel() + 2 * k.numel() + 6 * 9


def test_the_operator_keeps_what_torch_asks_of_one() -> None:
    q, k, v = drawn((6, 3), 6, 2)
    for window in (None, 2):
        arguments = (q, k, v, torch.tensor([0, 6, 9]), 0.5, window)
        torch.library.opcheck(torch.ops.ptsdk.documents_attention.default, arguments)


def test_gradients_of_a_slice_of_a_fused_projection() -> None:
    """Values that lie in a wider tensor, as those of a fused projection do."""
    fused = torch.randn(9, 3, 8, dtype=torch.float64, requires_grad=True)
    q, k, v = fused.unbind(1)
    inputs = [t[:, None] for t in (q, k, v)]
    found = Documents((4, 5))(0, *inputs, scale=0.4)
    (gradient,) = torch.autograd.grad(found.square().sum(), fused)
    expected = by_definition(*inputs, [0, 4, 9], 0.4, -1, 0)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), fused)[0])


def test_a_cpu_gets_sdpa_and_no_other() -> None:
    for wish in ("auto", "sdpa"):
        assert choose(wish, CPU, torch.float32, 64) == Documents.of  # type: ignore[arg-type]
    for wish, reason in (("varlen", "runs on cuda, not on cpu"), ("flex", "on cpu"), ("flash", "flash-attn")):
        with pytest.raises(Unavailable, match=reason):
            choose(wish, CPU, torch.float32, 64)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("capability", "dtype", "head_dim", "reason"),
    [
        ((9, 0), torch.bfloat16, 128, None),
        ((8, 0), torch.float16, 256, None),
        ((7, 5), torch.float16, 64, "capability 8.0"),
        ((9, 0), torch.float32, 64, "the model is in float32"),
        ((9, 0), torch.bfloat16, 264, "at most 256"),
        ((9, 0), torch.bfloat16, 36, "multiple of 8"),
    ],
)
def test_a_gpu_gets_varlen_where_it_has_a_kernel(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype, head_dim: int, reason: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    found: type[Packed] | type[Documents] = Documents if reason else Varlen
    assert choose("auto", CUDA, dtype, head_dim) == found.of
    told = obstacle("varlen", CUDA, dtype, head_dim)
    assert (told is None) if reason is None else (told is not None and reason in told)


def test_an_older_torch_has_no_varlen_with_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    def varlen_2_10(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int,
                    is_causal: bool = False) -> Tensor:  # fmt: skip
        raise AssertionError("this would be another attention")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_2_10)
    assert choose("auto", CUDA, torch.bfloat16, 64) == Documents.of
    with pytest.raises(Unavailable, match=r"does not have it with a scale and a window, 2\.11 does"):
        choose("varlen", CUDA, torch.bfloat16, 64)
