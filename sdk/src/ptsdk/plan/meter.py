"""Bytes of tensors that are alive, counted at every operation.

Machine-independent: it counts what tensors hold, not what an allocator reserves. What an operation
needs inside itself (a workspace of a matrix product) is not seen.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from ptsdk.checkpoint.parts import plain

Resize = Callable[[torch.UntypedStorage, int], None]


@dataclass
class Segment:
    """A stretch of what was measured: what it is named, and the most that was alive in it."""

    label: tuple[Any, ...]
    peak: int


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, every storage that an operation makes is counted until it is freed.

    ``hold`` adds what was made before. A storage counts once, whatever views it has.

    Attributes:
        live: bytes alive now.
        segments: the peak of each stretch between two calls of ``mark``.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.segments = [Segment(("start",), 0)]
        self._watching = True
        self._alive: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    @property
    def peak(self) -> int:
        """The most bytes that were alive at a time."""
        return max(segment.peak for segment in self.segments)

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that were made outside."""
        for tensor in tensors:
            for part in plain(tensor):
                self._count(part)

    def mark(self, *label: Any) -> None:
        """Begin a stretch of that name."""
        self.segments.append(Segment(label, self.live))

    def restart(self) -> None:
        """Forget what was measured, not what is alive."""
        self.segments = [Segment(("start",), self.live)]

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Inside, what is alive counts towards no peak, unless it still is at the end."""
        self._watching = False
        try:
            yield
        finally:
            self._watching = True
            self._grow(0)

    def __enter__(self) -> Self:
        # FSDP frees and refills the storages of gathered weights, past every operation.
        self._resize: Any = torch.UntypedStorage.resize_
        setattr(torch.UntypedStorage, "resize_", self._resized())  # noqa: B010
        self._compile = torch.compile
        setattr(torch, "compile", self.compiled)  # noqa: B010
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        setattr(torch.UntypedStorage, "resize_", self._resize)  # noqa: B010
        setattr(torch, "compile", self._compile)  # noqa: B010

    def compiled(self, function: Callable[..., Any] | None = None, **options: Any) -> Callable[..., Any]:
        """In place of ``torch.compile``: ``function`` runs as it is, and what it holds meanwhile is not seen,
        as if it were one kernel."""
        if function is None:
            return functools.partial(self.compiled, **options)

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.unseen():
                return function(*args, **kwargs)

        return run

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run ``func`` and count what it made; what a subclass is made of is counted as it makes it.

        Where torch itself is thinking with fake tensors (DTensor decides about shards so) nothing is made.
        """
        if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
            return func(*args, **(kwargs or {}))
        if func is torch.ops.prim.device.default:  # of a subclass; two thirds of what comes by, and makes nothing
            return self.execute(func, list(args), args, {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(is_traceable_wrapper_subclass(tensor) for tensor in tensors):
            return NotImplemented
        out = self.execute(func, tensors, args, dict(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and not is_traceable_wrapper_subclass(leaf):
                self._count(leaf)
        return out

    def execute(self, func: Any, tensors: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operation on plain ``tensors``."""
        return func(*args, **kwargs)

    def has_storage(self, tensor: Tensor) -> bool:
        """Whether the tensor takes memory."""
        return not tensor.is_meta

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive or not self.has_storage(tensor):
            return
        self._alive[key] = (weakref.ref(storage, functools.partial(self._freed, key)), storage.nbytes())
        self._grow(storage.nbytes())

    def _freed(self, key: int, reference: object) -> None:
        self.live -= self._alive.pop(key)[1]

    def _grow(self, size: int) -> None:
        self.live += size
        if self._watching:
            self.segments[-1].peak = max(self.segments[-1].peak, self.live)

    def _resized(self) -> Resize:
        def resize_(storage: torch.UntypedStorage, size: int) -> None:
            self._resize(storage, size)
            if storage._cdata in self._alive:
                kept, before = self._alive[storage._cdata]
                self._alive[storage._cdata] = (kept, size)
                self._grow(size - before)

        return resize_


def held_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes that some tensors hold together, on this process; shared storage counts once."""
    storages = {part.untyped_storage()._cdata: part.untyped_storage().nbytes() for t in tensors for part in plain(t)}
    return sum(storages.values())
