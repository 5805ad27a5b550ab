"""What the frozen base of our job takes: bytes a parameter, of all of it and of what is quantised."""

from __future__ import annotations

import math

from ptsdk.job import load_job
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.assemble import assemble
from tests.benchmarks.contestants.report import FOLDER, told

registry = Registry(scan())
job = load_job(FOLDER / "job.yaml", (), registry)
run = assemble(job, registry)
assert run.checkpoint
base = {name: p for name, p in run.model.named_parameters() if not job.adapter.own(name)}
held = {name: p.numel() * p.element_size() for name, p in base.items()}
sizes = {name: math.prod(run.checkpoint.shape(name)) for name in base}
packed = [name for name, p in base.items() if not p.is_floating_point()]
told(
    base_bytes_a_parameter=sum(held.values()) / sum(sizes.values()),
    quantised_bytes_a_parameter=sum(held[name] for name in packed) / max(1, sum(sizes[name] for name in packed)),
)
