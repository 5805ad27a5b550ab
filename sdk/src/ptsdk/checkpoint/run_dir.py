"""The directory of a run: who may write in it, its checkpoints, its metrics.

<output_dir>/job.yaml lock.json metrics.jsonl checkpoints/step-00000100/ final/
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ptsdk.checkpoint.files import atomic_file, locked, remove_folder, remove_partials, verify_manifest
from ptsdk.errors import Problem, UserError

STEP = re.compile(r"^step-(\d{8,})$")
FILES = ("job.yaml", "lock.json", "metrics.jsonl")
"""What a run writes beside the folders ``checkpoints`` and ``final``."""


@dataclass(frozen=True)
class RunDir:
    """A run directory; nothing is read or written until a method is called."""

    path: Path

    @property
    def job_file(self) -> Path:
        """The job as given."""
        return self.path / "job.yaml"

    @property
    def lock_file(self) -> Path:
        """What the run was made of (``checkpoint.lock``)."""
        return self.path / "lock.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object an optimizer step."""
        return self.path / "metrics.jsonl"

    @property
    def final(self) -> Path:
        """The exported model or adapter."""
        return self.path / "final"

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint taken after ``step`` optimizer steps."""
        return self.path / "checkpoints" / f"step-{step:08d}"

    def check(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Refuse early, and write nothing, what ``claim`` would refuse for the results that are here.

        Raises:
            UserError: there are checkpoints or a final model, and neither ``resume`` nor
                ``overwrite``; or both; or a ``final`` that no run wrote would be overwritten.
        """
        if resume and overwrite:
            raise UserError("--resume and --overwrite exclude each other", hint="choose one of them")
        if self.path.exists() and not self.path.is_dir():
            raise _unusable(f"{self.path} is not a directory", "choose another output_dir")
        found = [*self.checkpoints(), *([self.final] if self.final.exists() else [])]
        if found and not resume and not overwrite:
            raise _unusable(
                f"{self.path} holds the results of an earlier run ({found[0].relative_to(self.path)})",
                "continue it with --resume, discard it with --overwrite, or choose another output_dir",
            )
        if overwrite and self.final.exists() and not self.lock_file.exists():
            raise _unusable(
                f"{self.final} is there, but {self.path} has no lock.json of a run that wrote it",
                "move it away, or choose another output_dir",
            )

    @contextmanager
    def claim(self, *, resume: bool = False, overwrite: bool = False) -> Iterator[None]:
        """Be the one process that writes here, until the block ends or the process dies.

        On entry, what killed runs left half-written is removed; ``overwrite`` also removes what
        earlier runs wrote, and nothing else; a start from scratch drops the metrics of a run
        that died before its first checkpoint. Call it when the job is known to be sound.

        Raises:
            UserError: another run is writing here; or what ``check`` refuses.
        """
        self.check(resume=resume, overwrite=overwrite)
        with ExitStack() as held:
            self._lock(held)
            self.check(resume=resume, overwrite=overwrite)  # another run may have ended in between
            self._clean(overwrite)
            if not resume:
                self.metrics_file.unlink(missing_ok=True)
            yield

    def _lock(self, held: ExitStack) -> None:
        holder = self.path / ".lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(holder, wait=False))
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        except BlockingIOError as error:
            who = holder.read_text(encoding="utf-8").strip() or "another process"
            hint = "wait for it, or choose another output_dir"
            raise _unusable(f"{self.path} is in use: {who} is training there", hint) from error
        except OSError as error:
            message = f"{self.path} cannot be written: {error.strerror}"
            raise _unusable(message, "choose another output_dir") from error

    def checkpoints(self) -> list[Path]:
        """Every checkpoint folder, newest first, damaged ones included."""
        folder = self.path / "checkpoints"
        found = [path for path in folder.glob("step-*") if STEP.match(path.name) and path.is_dir()]
        return sorted(found, key=step_of, reverse=True)

    def newest_intact(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint whose files are as they were written (read in full and hashed).

        Returns:
            Its folder, None where there is no checkpoint at all; and for each newer one that was
            skipped a warning that names its folder and what is wrong with it.

        Raises:
            UserError: there are checkpoints, and none is intact.
        """
        warnings: list[str] = []
        for folder in self.checkpoints():
            problems = verify_manifest(folder) or _incomplete(folder)
            if not problems:
                return folder, warnings
            warnings.append(f"checkpoint {folder} is damaged and was skipped: {'; '.join(problems)}")
        if warnings:
            raise UserError(
                *(Problem(warning.replace(" and was skipped", "")) for warning in warnings),
                Problem(f"no checkpoint in {self.path} is intact", "start again with --overwrite", path="output_dir"),
            )
        return None, warnings

    def prune(self, keep_last: int | None, step: int) -> None:
        """Remove all but the ``keep_last`` newest checkpoints up to ``step``, the one just saved.

        Folders of later steps, left damaged by a run that was resumed before them, do not count.
        """
        if keep_last is not None:
            for folder in [path for path in self.checkpoints() if step_of(path) <= step][max(1, keep_last) :]:
                remove_folder(folder)

    def truncate_metrics(self, step: int) -> None:
        """Drop the rows after ``step``, and a last line that a dying run wrote in part.

        Raises:
            UserError: a line before the last is not JSON.
        """
        if not self.metrics_file.exists():
            return
        lines = self.metrics_file.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for number, line in enumerate(lines, 1) if self._keeps(line, number, len(lines), step)]
        with atomic_file(self.metrics_file) as partial:
            partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def _keeps(self, line: str, number: int, last: int, step: int) -> bool:
        try:
            return bool(json.loads(line)["step"] <= step)
        except (ValueError, KeyError, TypeError) as error:
            if number == last:
                return False
            hint = "remove the line, or start again with --overwrite"
            raise UserError(Problem(f"not a row of metrics ({error})", hint, str(self.metrics_file), number)) from error

    def _clean(self, overwrite: bool) -> None:
        for parent in (self.path, self.path / "checkpoints"):
            remove_partials(parent)
        if not overwrite:
            return
        for folder in [*self.checkpoints(), *([self.final] if self.final.exists() else [])]:
            remove_folder(folder)
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)


def _unusable(message: str, hint: str) -> UserError:
    """What is wrong with the directory, as a fault of the key of a job that names it."""
    return UserError(Problem(message, hint, path="output_dir"))


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint folder."""
    match = STEP.match(folder.name)
    assert match is not None
    return int(match.group(1))


def _incomplete(folder: Path) -> list[str]:
    """A manifest may be intact and yet not that of a checkpoint."""
    return [f"{name} is missing" for name in ("state.json", "optimizer.safetensors") if not (folder / name).is_file()]
