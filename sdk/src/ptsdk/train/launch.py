"""One run from start to end: assemble, claim the directory, train, export."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

from ptsdk.checkpoint.environment import model_fingerprint
from ptsdk.checkpoint.export import export_model
from ptsdk.checkpoint.files import atomic_file, atomic_folder, write_json
from ptsdk.checkpoint.lock import lock_differences, lock_notes, make_lock, schedule_unchanged
from ptsdk.checkpoint.reproduction import locked_differences
from ptsdk.checkpoint.run_dir import RunDir
from ptsdk.checkpoint.state import CheckpointContents, load_checkpoint
from ptsdk.checkpoint.weights import adapter_names
from ptsdk.contracts.dataset import Dataset
from ptsdk.contracts.run import Progress, Run
from ptsdk.data.stream import Stream
from ptsdk.errors import Problem, UserError
from ptsdk.job.job import Job
from ptsdk.job.yaml_nodes import without
from ptsdk.redaction import HIDDEN, SECRET_KEY, environment_secrets, hide, written_secrets
from ptsdk.registry import Registry
from ptsdk.train.agreement import refuse_disagreement
from ptsdk.train.assemble import assemble
from ptsdk.train.events import RunEventBus
from ptsdk.train.memory import memory_explained, use_huge_pages
from ptsdk.train.result import RunResult
from ptsdk.train.saving import Saver, restore
from ptsdk.train.signals import one_request
from ptsdk.train.trainer import Trainer


def run_job(
    job: Job,
    registry: Registry,
    *,
    resume: bool = False,
    overwrite: bool = False,
    locked: Mapping[str, Any] | None = None,
) -> RunResult:
    """Train what ``job`` says and export the result. Nothing is written before the job is sound.

    Args:
        job: from ``load_job``.
        registry: what is installed.
        resume: continue from the newest intact checkpoint.
        overwrite: discard what an earlier run left in the output directory.
        locked: the lock of a run that this one must repeat to the bit.

    Raises:
        UserError: the job, its data or the output directory do not allow it.
        RunError: training failed.
        LostProcess: another process did.
        Stopped: a signal ended it, after saving.
    """
    use_huge_pages()
    with one_request(), memory_explained(job), job.strategy.exchanging():
        return _run(job, registry, resume, overwrite, locked)


def _run(job: Job, registry: Registry, resume: bool, overwrite: bool, locked: Mapping[str, Any] | None) -> RunResult:
    run_dir = RunDir(job.output_dir)
    run_dir.check(resume=resume, overwrite=overwrite)
    run = assemble(job, registry)
    is_main = run.world.is_main
    events = RunEventBus([*job.loggers, *job.callbacks] if is_main else [], secrets_of(job))
    lock = lock_of(run)
    refuse_disagreement(run.strategy, {**lock, "command": {"resume": resume, "overwrite": overwrite}})
    if locked is not None:
        refuse_unlocked(run, locked, lock)
    with run_dir.claim(resume=resume, overwrite=overwrite) if is_main else nullcontext():
        run.strategy.barrier()
        job.method.prepare(run)
        if resume:
            resume_from(run, events, run_dir, lock)
        if is_main:
            write_inputs(run_dir, job, lock)
        saver = Saver(run_dir, job.train, run.world.device)
        metrics = Trainer(run, events, saver).fit()
        if isinstance(run.train_data, Stream) and (told := run.train_data.told()):
            print(f"ptsdk: {told}", file=sys.stderr)
        export(run, run_dir)
        run.strategy.barrier()
    run.strategy.close()
    return RunResult(run_dir.path, run_dir.final, run.progress.step, metrics, run.progress.stopped)


def lock_of(run: Run) -> dict[str, Any]:
    """The content of lock.json."""
    job = run.job

    def fingerprints(datasets: Iterable[Dataset]) -> list[str]:
        return [dataset.fingerprint(job.base) for dataset in datasets]

    lock = make_lock(
        job,
        job.resolved(),
        data={"train": fingerprints(job.data.train), "validation": fingerprints(job.data.validation)},
        model=model_fingerprint(run.checkpoint.path) if run.checkpoint else None,
        frozen={name: model_fingerprint(checkpoint.path) for name, checkpoint in run.frozen_checkpoints.items()},
        tokenizer=run.tokenizer,
        total_steps=run.total_steps,
        seed=job.train.seed,
        world=run.world,
    )
    return {**lock, "base": str(job.base.resolve())}


def refuse_unlocked(run: Run, locked: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Stop where ``new`` is not what ``locked`` describes; the main process decides for all.

    Raises:
        UserError: every difference that matters.
    """
    differences = run.strategy.broadcast(locked_differences(locked, new) if run.world.is_main else [])
    if differences:
        hint = "install and give what the lock names, or run without --locked"
        raise UserError(*map(Problem, differences), Problem("this run would not be the one of the lock", hint))


def write_inputs(run_dir: RunDir, job: Job, lock: Mapping[str, Any]) -> None:
    """job.yaml as given, secrets that are written out hidden, and what it came to."""
    with atomic_file(run_dir.job_file) as partial:
        text = without(job.text, lambda key: SECRET_KEY.search(key) is not None, f'"{HIDDEN}"')
        partial.write_text(hide(text, secrets_of(job)), encoding="utf-8")
    with atomic_file(run_dir.lock_file) as partial:
        write_json(partial, lock)


def secrets_of(job: Job) -> set[str]:
    """What nothing that is written or shown may hold: from the environment, or written out in the job."""
    return {*job.secrets, *environment_secrets(), *written_secrets(job.resolved())}


def resume_from(run: Run, events: RunEventBus, run_dir: RunDir, lock: Mapping[str, Any]) -> None:
    """Put ``run`` where its newest intact checkpoint left it.

    Raises:
        UserError: this job would not continue the same training; each difference is named.
    """
    folder, warnings = run.strategy.broadcast(run_dir.newest_intact() if run.world.is_main else None)
    if folder is None:
        warnings.append(f"{run_dir.path} has no checkpoint yet: starting from the beginning")
    else:
        contents = load_checkpoint(folder)
        warnings += refuse_differences(run, contents, lock)
        warnings += restore(run, events, contents)
    if run.world.is_main:
        run_dir.truncate_metrics(run.progress.step)
        for warning in warnings:
            print(f"ptsdk: {warning}", file=sys.stderr)


def refuse_differences(run: Run, contents: CheckpointContents, new: Mapping[str, Any]) -> list[str]:
    """Stop where the checkpoint is of another training than ``new`` describes; what differs
    without changing results is returned, to be told."""
    old = contents.lock
    if old is None:
        raise UserError("the checkpoint does not say what it was made of (no lock.json)", hint="start anew")
    if differences := lock_differences(old, new, steps_may_change=length_may_change(run, contents, old)):
        raise UserError(
            *(Problem(line) for line in differences),
            Problem(
                "this job is not the one the checkpoints are of",
                hint="resume with the job as it was, or start anew in another output_dir (or with --overwrite)",
            ),
        )
    return lock_notes(old, new)


def length_may_change(run: Run, contents: CheckpointContents, old: Mapping[str, Any]) -> bool:
    """Whether a run of this length comes by the checkpoint too: not past its end, with the same
    learning rates, after the same batches."""
    return (
        contents.step <= run.total_steps
        and schedule_unchanged(run.job.schedule, contents.step, old["total_steps"], run.total_steps)
        and run.train_plan.continues(Progress(**contents.state["progress"]))
    )


def export(run: Run, run_dir: RunDir) -> None:
    """``final/``: a model that transformers loads, or an adapter that PEFT loads."""
    own = adapter_names(run.job.adapter, run.model)
    tensors = run.strategy.gather(run.model, own or [name for name, _ in run.model.named_parameters()])
    if not run.world.is_main:
        return
    if own:
        with atomic_folder(run_dir.final, replace=True) as partial:
            run.job.adapter.save(tensors, partial, run.base_model)
            run.tokenizer.save(partial)
    else:
        export_model(run_dir.final, tensors, run.config, run.tokenizer, generation_defaults(run))


def generation_defaults(run: Run) -> dict[str, Any]:
    """The checkpoint's generation_config.json; where it has none, the special ids of its config.json,
    then of the tokenizer. A model from scratch ends as its tokenizer says, not as its family's did."""
    if run.checkpoint and (given := run.checkpoint.generation_config()):
        return given
    tokenizer, config = run.tokenizer, run.config if run.checkpoint else {}
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    ids |= {key: config[key] for key in ids if config.get(key) is not None}
    return {key: value for key, value in ids.items() if value is not None}
