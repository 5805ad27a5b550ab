"""What every family builds: a decoder and the weight that projects its hidden states."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ptsdk.nn.attention import Attend, Backend, Documents
from ptsdk.nn.batch import Batch
from ptsdk.nn.head import Head


class CausalLM(nn.Module):
    """A decoder-only language model under its Hugging Face parameter names.

    Attributes:
        layers_path: the dotted path of the list of blocks, the units of sharding, compiling and
            activation checkpointing.
        num_layers, num_kv_heads, head_dim: the shape of a KV cache.
        config: the keys of config.json that built it.
        attention_backend: what each document of a batch attends to itself by.
    """

    layers_path: str = "model.layers"
    num_layers: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    config: dict[str, object]
    attention_backend: Backend = Documents.of

    def forward(self, batch: Batch, attend: Attend | None = None) -> Tensor:
        """Hidden states [N, D] after the final norm.

        Args:
            batch: documents of N tokens.
            attend: how queries meet keys; by default each document attends to itself. Generation
                passes a KV cache here.
        """
        return self.hidden_states(
            batch.tokens, batch.positions, attend or self.attention_backend(batch.seq_lens, batch.tokens.device)
        )

    @abstractmethod
    def hidden_states(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Hidden states [N, D] of ``tokens`` [N] at ``positions`` [N]."""

    @abstractmethod
    def head(self) -> Head:
        """The projection to the vocabulary, made anew at each call (its weight may be sharded)."""

    @abstractmethod
    def init_weight(self, name: str, weight: Tensor, generator: torch.Generator) -> None:
        """Fill one parameter of a model from scratch, in place."""

    def ignores(self, name: str) -> bool:
        """Whether a tensor of a checkpoint holds nothing to load: what is computed here instead."""
        return False

    def tied(self) -> dict[str, str]:
        """Names in checkpoints that stand for another parameter (``lm_head.weight`` ->
        ``model.embed_tokens.weight``)."""
        return {}

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The blocks."""
        blocks = self.get_submodule(self.layers_path)
        assert isinstance(blocks, nn.ModuleList)
        return list(blocks)


def eager(model: CausalLM) -> AbstractContextManager[object]:
    """Inside, compiled blocks run as they are written: where every call has another shape, or hooks inside."""
    compiled = any(hasattr(block.forward, "_torchdynamo_orig_callable") for block in model.layers)
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def block_linears(model: CausalLM) -> dict[str, nn.Linear]:
    """Every linear layer inside the blocks, by name: what adapters and quantizers may change."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(f"{model.layers_path}.")
    }


def layers_by_inputs(layers: Mapping[str, nn.Linear]) -> dict[int, list[str]]:
    """The last parts of the names of layers, by how many inputs they have: to tell those of many blocks
    together."""
    widths: dict[int, list[str]] = {}
    for name, layer in layers.items():
        leaves, leaf = widths.setdefault(layer.in_features, []), name.rpartition(".")[2]
        if leaf not in leaves:
            leaves.append(leaf)
    return widths
