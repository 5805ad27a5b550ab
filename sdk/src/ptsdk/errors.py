"""What a user is told when something is wrong. Imports nothing but the standard library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault, with its place and what to do about it.

    ``path`` is dotted like an override (``optimizer.lr``); ``line`` counts from 1.
    """

    message: str
    hint: str = ""
    file: str = ""
    line: int = 1
    path: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file else ""
        key = f"{self.path}: " if self.path else ""
        fix = f"\n    {self.hint}" if self.hint else ""
        return f"{place}{key}{self.message}{fix}"


class PtsdkError(Exception):
    """Base of every error that is shown without a traceback. ``exit_code`` ends the command."""

    exit_code = 1


class UserError(PtsdkError):
    """The input is wrong: a job, a data file, a path, an option. Nothing was written."""

    exit_code = 2

    def __init__(self, *problems: Problem | str, hint: str = "") -> None:
        self.problems = tuple(Problem(p, hint) if isinstance(p, str) else p for p in problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class RunError(PtsdkError):
    """The run itself failed: a non-finite loss, a full disk, a dead rank."""


class LostProcess(RunError):
    """Another process of the run has ended or hangs. If it can, it tells more than this one knows."""
