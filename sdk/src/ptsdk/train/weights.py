"""Moved to ``ptsdk.checkpoint.weights``, which generation needs as well."""

from __future__ import annotations

from ptsdk.checkpoint.weights import adapter_names, base_tensors, build_on_meta, resolve_dtype, seeded

__all__ = ["adapter_names", "base_tensors", "build_on_meta", "resolve_dtype", "seeded"]
