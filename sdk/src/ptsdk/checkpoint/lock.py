"""lock.json: what a run is made of, and whether a resumed run is made of the same.

Whatever decides a weight is compared and refused when it differs: the job, its data, its model,
its tokenizer, local files, the versions of the packages that provide its components and of torch.
Three sets are told apart:

* ``FREE``: does not touch what has been trained (where output goes, how often it is saved, what an error
  that has not come does);
* ``REGROUPED``: the same sums in another order or with other memory (micro-batches, processes,
  recomputation), hardware, and edited sources of packages installed for development: results
  agree to rounding, or a bug was mended; the user is told;
* everything else changes results.

The number of steps decides the schedule. A run may be extended exactly where the learning rates of
the steps already taken stay what they were (``schedule_unchanged``): always under a constant
schedule without fractional warm-up, never under a cosine; and where ``epochs`` did not cut the
last batch short.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from ptsdk.checkpoint.environment import installed_dists, processor, source_digest
from ptsdk.contracts.schedule import Schedule
from ptsdk.contracts.strategy import World
from ptsdk.contracts.tokenizer import Tokenizer
from ptsdk.redaction import environment_secrets, redact

if TYPE_CHECKING:
    from ptsdk.registry import Entry

FORMAT = 1
FREE = re.compile(
    r"job\.(output_dir|loggers|data\.prefetch|callbacks\.\d+\.timeout|strategy\.timeout|"
    r"train\.(save_every|async_save|keep_last|on_save_error|on_nonfinite|max_skipped))(\.|$)"
)
REGROUPED = re.compile(
    r"environment\.|sources\.|data\.validation|job\.(strategy|model\.attention|data\.validation|"
    r"optimizer\.implementation|"
    r"train\.(validate_every|validate_at_start|micro_batch_size|micro_batch_tokens|compile|"
    r"activation_checkpointing(_every)?|activation_offloading|optimizer_in_backward))(\.|$)"
)
LENGTH = re.compile(r"(total_steps|job\.train\.(steps|epochs))$")
OF_ONE_PROCESS = re.compile(r"environment\.|job\.(output_dir|loggers)(\.|$)")
"""What may differ between the processes of a run: hardware, and what the main one alone uses. Nothing
else may, ``REGROUPED`` and ``save_every`` included: they would wait for each other for ever."""
FINGERPRINTED = {"data": r"job\.data\.train(\.\d+)?\.path$", "model": r"job\.model\.path$"}
"""Paths that may change because the content they lead to is fingerprinted."""


class LockedJob(Protocol):
    """What of a job goes into its lock."""

    @property
    def secrets(self) -> Any:
        """Values that came from the environment."""
        ...

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The installed component behind each path of the job."""
        ...

    @property
    def local_files(self) -> Mapping[str, str]:
        """SHA-256 of each local file a component came from."""
        ...


def what_runs(job: LockedJob, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a lock that is known before anything is read: the job and the code behind it."""
    # loggers train nothing; a component of a local file has no dist, its hash is under "files"
    entries = [entry for entry in job.entries.values() if entry.dist and entry.kind != "logger"]
    used = sorted({"ptsdk", *(entry.dist for entry in entries)})
    modules = {entry.spec.target.partition(".")[0].partition(":")[0] for entry in entries}
    return {
        "format": FORMAT,
        "job": redact(resolved, {secret for secret in job.secrets if secret} | environment_secrets()),
        "files": dict(job.local_files),
        "used": used,
        "sources": {module: source_digest(module) for module in sorted({"ptsdk", *modules})},
        "dists": installed_dists(),
    }


def make_lock(
    job: LockedJob,
    resolved: Mapping[str, Any],
    *,
    data: Mapping[str, Any],
    model: str | None,
    frozen: Mapping[str, str] = MappingProxyType({}),
    tokenizer: Tokenizer,
    total_steps: int,
    seed: int,
    world: World,
) -> dict[str, Any]:
    """The content of lock.json, secrets hidden.

    Args:
        job: knows its secrets, its components and its local files.
        resolved: the job with all its defaults.
        data: fingerprints, ``{"train": [...], "validation": [...]}``.
        model: a fingerprint of the checkpoint (``environment.model_fingerprint``), None from scratch.
        frozen: the same of each other model of the method, by name.
        tokenizer: is asked for its fingerprint and template.
        total_steps: optimizer steps of the whole run.
        seed: of the run.
        world: where it runs.
    """
    return {
        **what_runs(job, resolved),
        "data": dict(data),
        "model": model,
        "frozen": dict(frozen),
        "tokenizer": tokenizer.fingerprint(),
        "template": _digest(tokenizer.chat_template),
        "seed": seed,
        "total_steps": total_steps,
        "environment": _environment(world),
    }


def lock_differences(old: Mapping[str, Any], new: Mapping[str, Any], *, steps_may_change: bool = False) -> list[str]:
    """What changes results, one line each: ``optimizer.lr: 0.001 then, 0.01 now``. Empty: resume.

    Args:
        old: the lock of the run that is to be continued.
        new: the lock of this run.
        steps_may_change: whether the length of the run may differ (see ``schedule_unchanged``).
    """
    return [
        worded(path, before, now)
        for path, before, now in compared(old, new)
        if not (FREE.match(path) or REGROUPED.match(path) or (steps_may_change and LENGTH.match(path)))
    ]


def lock_notes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs and may change results by rounding: to be shown, not refused."""
    return [worded(*difference) for difference in compared(old, new) if REGROUPED.match(difference[0])]


def process_differences(main: Mapping[str, Any], other: Mapping[str, Any], rank: int) -> list[str]:
    """What two processes of one run do not agree about, one line each.

    Args:
        main: the lock of process 0, or a part of it.
        other: the same of process ``rank``.
    """
    ours = re.compile("|".join([OF_ONE_PROCESS.pattern, *FINGERPRINTED.values()]))  # contents are compared
    return [
        worded(path, here, there, ("in process 0", f"in process {rank}"))
        for path, here, there in _walk("", _relevant(main, other), _relevant(other, main))
        if not ours.match(path)
    ]


def schedule_unchanged(schedule: Schedule, done: int, old_total: int, new_total: int) -> bool:
    """Whether ``done`` steps of a run of ``old_total`` had the learning rates that a run of
    ``new_total`` gives them, so that the one may be continued as the other."""
    return all(schedule.factor(step, old_total) == schedule.factor(step, new_total) for step in range(done))


def compared(
    old: Mapping[str, Any], new: Mapping[str, Any], *, packages: Collection[str] | None = None
) -> list[tuple[str, Any, Any]]:
    """(path, before, now) of everything that differs between the parts of two locks that matter.

    Args:
        old: a lock.
        new: another.
        packages: those whose versions matter; by default the ones that provide the components, and torch.
    """
    same = [pattern for part, pattern in FINGERPRINTED.items() if old.get(part) and old.get(part) == new.get(part)]
    ignored = re.compile("|".join(same)) if same else None
    return [
        (path, before, now)
        for path, before, now in _walk("", _relevant(old, new, packages), _relevant(new, old, packages))
        if not (ignored and ignored.match(path))
    ]


def worded(path: str, before: Any, now: Any, when: tuple[str, str] = ("then", "now")) -> str:
    """One difference in a line."""
    return f"{path.removeprefix('job.')}: {_short(before)} {when[0]}, {_short(now)} {when[1]}"


def _relevant(
    lock: Mapping[str, Any], other: Mapping[str, Any], packages: Collection[str] | None = None
) -> dict[str, Any]:
    """A lock without the packages that neither run uses, and without what the job says already."""
    used = packages if packages is not None else {*lock.get("used", ()), *other.get("used", ()), "torch"}
    dists = {name: dist for name, dist in lock.get("dists", {}).items() if name in used}
    return {**{key: value for key, value in lock.items() if key not in ("used", "seed", "base")}, "dists": dists}


ABSENT = object()
"""What one of two locks does not have."""


def _walk(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """The leaves at which two trees differ."""
    if isinstance(old, list) and isinstance(new, list):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            yield from _walk(f"{path}.{key}" if path else str(key), old.get(key, ABSENT), new.get(key, ABSENT))
    elif old != new:
        yield path, old, new


def _short(value: Any) -> str:
    if value is ABSENT:
        return "absent"
    text = str(value)
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return text[:12]
    return text if len(text) <= 60 else f"{text[:57]}..."


def _digest(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def _environment(world: World) -> dict[str, Any]:
    import torch

    on_cuda = world.device.type == "cuda"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if on_cuda else None,  # type: ignore[no-untyped-call]
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(world.device) if on_cuda else world.device.type,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "world_size": world.size,
    }
