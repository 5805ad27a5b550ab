"""Whether a tensor is dealt out over processes, told without importing what only such tensors need."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(value: object) -> TypeGuard[DTensor]:
    """Whether ``value`` is a ``DTensor``.

    Importing ``torch.distributed.tensor`` takes a second and 50 MB of every start, for it brings sympy along.
    Who made a ``DTensor`` has imported it.
    """
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)
