"""One call for all documents, compiled for their shape of mask: ``torch.nn.attention.flex_attention``.

Blocks of 128 x 128 scores that no query of a document needs are skipped. The mask of a batch is made once a
window. A compiled block is in parts around it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention


@dataclass(frozen=True, eq=False)
class Flex:
    """All documents in one call: an ``Attend``.

    Attributes:
        documents: int64 [N] on the device: which document a token belongs to.
    """

    documents: Tensor
    _masks: dict[int | None, BlockMask] = field(default_factory=dict)

    @classmethod
    def of(cls, seq_lens: tuple[int, ...], device: torch.device) -> Flex:
        """Of the documents of a batch."""
        lengths = torch.tensor(seq_lens)
        return cls(torch.repeat_interleave(torch.arange(len(seq_lens)), lengths).to(device, non_blocking=True))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(
        self, layer: int, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, *, scale: float, window: int | None = None
    ) -> Tensor:
        """See ``Attend``."""
        q, k, v = (t.transpose(0, 1)[None] for t in (q_NHE, k_NKE, v_NKE))  # [1, heads, N, E]
        grouped = q_NHE.shape[1] != k_NKE.shape[1]
        mixed: Tensor = kernel(q_NHE.device.type)(
            q, k, v, block_mask=self.mask(window), scale=scale, enable_gqa=grouped
        )
        return mixed[0].transpose(0, 1)

    def mask(self, window: int | None) -> BlockMask:
        """Which blocks of scores are needed, and which scores of those."""
        if window not in self._masks:
            documents, tokens = self.documents, len(self.documents)

            def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                seen = (documents[query] == documents[key]) & (query >= key)
                return seen if window is None else seen & (query - key < window)

            self._masks[window] = create_block_mask(sees, None, None, tokens, tokens, device=documents.device)
        return self._masks[window]


@cache
def kernel(device: str) -> Any:
    """Compiled, but on a CPU: there it is for tests, and makes all scores."""
    return flex_attention if device == "cpu" else torch.compile(flex_attention, dynamic=True)
