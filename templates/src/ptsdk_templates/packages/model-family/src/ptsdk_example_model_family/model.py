"""The family in one file: config, block, model.

Parameters have the names and layout of the family's Hugging Face checkpoints, so loading is a
memory-mapped read and adapters have PEFT's names for free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ptsdk.contracts.model import DecoderFamily
from ptsdk.nn.attention import Attend
from ptsdk.nn.config import RotaryConfig
from ptsdk.nn.decoder import Decoder, DecoderLM, PreNormBlock
from ptsdk.nn.mlp import GatedMLP
from ptsdk.nn.norm import RMSNorm
from ptsdk.nn.rope import rotations
from ptsdk.nn.self_attention import SelfAttention
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import relu


class ExampleConfig(RotaryConfig):
    """The keys of config.json. A key that would change the maths and is not supported is declared
    with the values that are (as ``Literal``), so that a checkpoint that needs another is refused."""

    architectures: tuple[str, ...] = ("ExampleForCausalLM",)
    model_type: Literal["example-model-family"] = "example-model-family"
    vocab_size: PositiveInt = 320
    hidden_size: PositiveInt = 64
    intermediate_size: PositiveInt = 192
    num_hidden_layers: PositiveInt = 2
    num_attention_heads: PositiveInt = 4
    num_key_value_heads: PositiveInt | None = 2
    hidden_act: Literal["relu2"] = "relu2"


class ExampleForCausalLM(DecoderLM):
    """Pre-norm blocks with grouped-query attention; squared ReLU (arXiv:2109.08668) in the gated MLP."""

    settings: ExampleConfig

    def __init__(self, settings: ExampleConfig, config: Mapping[str, Any]) -> None:
        width, eps = settings.hidden_size, settings.rms_norm_eps
        heads = (settings.num_attention_heads, settings.kv_heads, settings.head_size)
        blocks = (
            PreNormBlock(
                SelfAttention(layer, width, *heads),
                GatedMLP(width, settings.intermediate_size, squared_relu),
                width,
                eps,
            )
            for layer in range(settings.num_hidden_layers)
        )
        decoder = Decoder(nn.Embedding(settings.vocab_size, width), blocks, RMSNorm(width, eps))
        super().__init__(settings, config, decoder)

    def hidden_states(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """[N], [N] -> [N, D]. ``attend`` is how queries meet keys: inside each document while
        training, by way of a cache while generating. Attention elsewhere than through it leaks."""
        embedded = self.model.embed_tokens(tokens)
        inv_freq = self.settings.rope_parameters.inverse_frequencies(self.head_dim, tokens.device)
        rope = rotations(positions, inv_freq, embedded.dtype)
        hidden: Tensor = self.model(embedded, [rope] * self.num_layers, attend)
        return hidden


def squared_relu(x: Tensor) -> Tensor:
    """``max(x, 0)^2``, elementwise."""
    return relu(x).square()


class ExampleFamily(DecoderFamily):
    """What a job names, or what is found for a checkpoint by ``architectures`` in its config.json."""

    architectures = ("ExampleForCausalLM",)
    settings = ExampleConfig
    module = ExampleForCausalLM
    tiny: ClassVar[dict[str, Any]] = {"hidden_size": 16, "intermediate_size": 32}
