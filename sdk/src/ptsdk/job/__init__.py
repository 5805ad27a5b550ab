"""job.yaml: load, override, locate errors, schema."""

from __future__ import annotations

from ptsdk.job.job import Job
from ptsdk.job.load import load_job, load_locked, make_job

__all__ = ["Job", "load_job", "load_locked", "make_job"]
