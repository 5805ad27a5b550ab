"""Rotary embedding against transformers and against what defines it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from ptsdk.nn.config import RopeParameters
from ptsdk.nn.rope import inverse_frequencies, rotate, rotations

LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALINGS: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 8.0},
    {**LLAMA3, "factor": 8.0, "original_max_position_embeddings": 8192},
    {**LLAMA3, "factor": 32.0, "original_max_position_embeddings": 64},
]


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(("head_dim", "theta"), [(64, 500_000.0), (128, 10_000.0), (14, 77.0)])
def test_frequencies_are_those_of_transformers(scaling: dict[str, Any], head_dim: int, theta: float) -> None:
    keys = {**scaling, "rope_theta": theta}
    config = LlamaConfig(hidden_size=2 * head_dim, num_attention_heads=2, rope_parameters=keys)
    if scaling["rope_type"] == "default":
        expected, attention_factor = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    else:
        expected, attention_factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config)
    assert attention_factor == 1.0
    ours = RopeParameters(**keys).inverse_frequencies(head_dim, torch.device("cpu"))
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)


def test_rotation_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(9, 3, 16), torch.randn(9, 1, 16)
    positions = torch.tensor([0, 1, 2, 3, 0, 1, 500, 4000, 31_000])
    rope = rotations(positions, inverse_frequencies(16, 10_000.0), torch.float32)
    cos, sin = rope.cos[:, 0][None], rope.sin[:, 0][None]
    theirs = apply_rotary_pos_emb(q.transpose(0, 1)[None], k.transpose(0, 1)[None], cos, sin)
    for ours, expected in zip((rotate(q, rope), rotate(k, rope)), theirs, strict=True):
        torch.testing.assert_close(ours, expected[0].transpose(0, 1))
    rotary = LlamaRotaryEmbedding(LlamaConfig(hidden_size=16, num_attention_heads=1))
    expected_cos, expected_sin = rotary(torch.empty(0), positions[None])
    torch.testing.assert_close(cos, expected_cos)
    torch.testing.assert_close(sin, expected_sin)


def test_scores_depend_on_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 32, dtype=torch.float64), torch.randn(1, 1, 32, dtype=torch.float64)
    inv_freq = inverse_frequencies(32, 100.0).double()

    def score(at: int, other: int) -> torch.Tensor:
        ropes = (rotations(torch.tensor([p]), inv_freq, torch.float64) for p in (at, other))
        return torch.sum(rotate(q, next(ropes)) * rotate(k, next(ropes)))

    torch.testing.assert_close(score(7, 3), score(104, 100), rtol=1e-5, atol=1e-5)
    assert (score(7, 3) - score(7, 4)).abs() > 1e-2


def test_angles_keep_their_precision_when_handed_out_in_bfloat16() -> None:
    rope = rotations(torch.tensor([30_001]), inverse_frequencies(64, 10_000.0), torch.bfloat16)
    exact = rotations(torch.tensor([30_001]), inverse_frequencies(64, 10_000.0), torch.float32)
    assert (rope.cos.float() - exact.cos).abs().max() < 2**-8


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rope_type": "linear"}, "needs factor"),
        ({"rope_type": "llama3", "factor": 8.0}, "needs low_freq_factor, high_freq_factor, original_max"),
        ({"rope_type": "yarn", "factor": 4.0}, "rope_type"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"beta_fast": 32}, "beta_fast"),
        ({"rope_theta": 0.0}, "rope_theta"),
    ],
)
def test_scalings_that_are_not_implemented_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RopeParameters(**{"rope_theta": 10_000.0, **keys})
