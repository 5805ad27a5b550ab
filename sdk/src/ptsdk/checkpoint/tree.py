"""Trees of state: the tensors apart, the rest as JSON, and back without losing a bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ptsdk.checkpoint.parts import Parts, parts_of, rebuild
from ptsdk.errors import RunError


def flatten_state(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Take the tensors out of a tree of dicts, lists, tuples, numbers, strings, dtypes and None.

    A tensor subclass is stored as the plain tensors it is made of (``__tensor_flatten__``).

    Returns:
        The tensors by their JSON pointer (RFC 6901) in the tree, and the tree for JSON with
        ``{"$tensor": pointer}`` in their places. ``unflatten_state`` gives back the same tree,
        tuples, integer keys, dtypes and bits included.

    Raises:
        RunError: anything else is in the tree; the message has its place.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _flatten(tree, "", tensors)


def _flatten(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        if (parts := parts_of(value)) is not None:
            return {"$parts": _flatten(vars(parts), place, tensors)}
        tensors[place] = value
        return {"$tensor": place}
    if isinstance(value, torch.dtype):
        return {"$dtype": str(value).removeprefix("torch.")}
    if isinstance(value, (list, tuple)):
        items = [_flatten(item, f"{place}/{i}", tensors) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, Mapping):
        pairs = [(key, _flatten(item, f"{place}/{_escape(key)}", tensors)) for key, item in value.items()]
        plain = all(isinstance(key, str) and not key.startswith("$") for key in value)
        return dict(pairs) if plain else {"$pairs": [[_scalar(key, place), item] for key, item in pairs]}
    return _scalar(value, place)


def _scalar(value: Any, place: str) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    raise RunError(
        f"the state at {place or '/'} is a {type(value).__name__}: checkpoints hold tensors, numbers, strings, "
        f"lists and mappings of them"
    )


def _escape(key: object) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def unflatten_state(tensors: Mapping[str, Tensor], tree: Any) -> Any:
    """The inverse of ``flatten_state``."""
    if isinstance(tree, list):
        return [unflatten_state(tensors, item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    match tree:
        case {"$tensor": place}:
            return tensors[place]
        case {"$parts": parts}:
            return rebuild(Parts(**unflatten_state(tensors, parts)))
        case {"$dtype": name}:
            return getattr(torch, name)
        case {"$tuple": items}:
            return tuple(unflatten_state(tensors, item) for item in items)
        case {"$pairs": pairs}:
            return {key: unflatten_state(tensors, item) for key, item in pairs}
        case {"$float": text}:
            return float(text)
    return {key: unflatten_state(tensors, item) for key, item in tree.items()}
