"""What a model reads: documents laid end to end, without padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

IGNORE = -100
"""The label of a position that carries no loss."""


@dataclass(frozen=True)
class Batch:
    """``B`` documents of ``N`` tokens in all; no document sees another.

    Attributes:
        tokens: int64 [N].
        positions: int64 [N], counting from 0 in each document.
        labels: int64 [N]; the token to predict *after* this position, or ``IGNORE``. The last
            position of a document is always ``IGNORE``.
        seq_lens: the B lengths, summing to N.
        extras: whatever else a method's collate puts there (rewards, old log-probs, ...).
        live: False for a filler that a process runs only to keep step with the others; the
            trainer gives it no weight.
        rows: indices of the examples it was made of, in the data they are of: to say which rows are
            at fault. Empty where nobody knows.
    """

    tokens: Tensor
    positions: Tensor
    labels: Tensor
    seq_lens: tuple[int, ...]
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    live: bool = True
    rows: tuple[int, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same batch with every tensor on ``device``."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in memory that a CUDA device copies from by itself."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            tokens=change(self.tokens),
            positions=change(self.positions),
            labels=change(self.labels),
            extras={name: change(tensor) for name, tensor in self.extras.items()},
        )

    @classmethod
    def pack(
        cls,
        documents: Sequence[Sequence[int]],
        supervised: Sequence[Sequence[bool]] | None = None,
        extras: Mapping[str, Tensor] | None = None,
    ) -> Batch:
        """Lay documents end to end.

        Args:
            documents: token ids of each document.
            supervised: for each token, whether predicting *it* carries loss (None: none does).
            extras: see above.

        The labels are shifted here, once, inside each document.
        """
        tokens = [token for document in documents for token in document]
        labels: list[int] = []
        for i, document in enumerate(documents):
            flags = supervised[i] if supervised is not None else [False] * len(document)
            labels += [t if on else IGNORE for t, on in zip(document[1:], flags[1:], strict=True)]
            labels += [IGNORE] * min(1, len(document))
        seq_lens = tuple(len(document) for document in documents)
        positions = torch.cat([torch.arange(n) for n in seq_lens]) if seq_lens else torch.empty(0, dtype=torch.int64)
        return cls(
            torch.tensor(tokens, dtype=torch.int64),
            positions,
            torch.tensor(labels, dtype=torch.int64),
            seq_lens,
            dict(extras or {}),
        )
