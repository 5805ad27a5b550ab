"""A config of torchtune, and what became of each of its keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ptsdk.errors import Problem, UserError
from ptsdk.job.source import Source

COMPONENT = "_component_"
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
WITHOUT_EFFECT = (
    "checkpointer.checkpoint_files",
    "checkpointer.model_type",
    "checkpointer.output_dir",
    "checkpointer.safe_serialization",
    "teacher_checkpointer.checkpoint_files",
    "teacher_checkpointer.model_type",
    "teacher_checkpointer.output_dir",
    "dataset.load_dataset_kwargs",
    "device",
    "log_every_n_steps",
    "log_level",
    "low_cpu_ram",
    "log_peak_memory_stats",
    "loss.num_output_chunks",
    "loss.ignore_index",
    "metric_logger.log_dir",
    "metric_logger.output_dir",
    "metric_logger.filename",
    "optimizer.foreach",
    "optimizer.fused",
    "profiler",
    "ref_checkpointer",
    "save_adapter_weights_only",
    "tensor_parallel_plan",
    "tokenizer.merges_file",
    "tokenizer.merges_path",
    "tokenizer.special_tokens",
    "tokenizer.special_tokens_path",
    "tokenizer.vocab_path",
)
"""Keys that say how torchtune does what ptsdk decides by itself, or always does: they are not told of."""


class Config:
    """Values by their paths (``optimizer.lr``); a key that nothing asks for is told of in the end.

    Attributes:
        notes: what a person has to know of the job that comes out: ``(path, text)``.
        problems: why no job comes out.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._asked = source, set[str]()
        self.notes: list[tuple[str, str]] = []
        self.problems: list[Problem] = list(source.problems)
        self._values = self._filled(source.values, ())

    def get(self, path: str, default: Any = None) -> Any:
        """The value at ``path``; ``default`` where there is none, or ``null``. One of another kind than ``default`` is
        refused."""
        self._asked.add(path)
        value: Any = self._values
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None or default is None or _alike(value, default):
            return default if value is None else value
        self.refuse(path, f"{value!r} is of another kind than expected", f"torchtune's own is {default!r}")
        return default

    def component(self, path: str) -> str:
        """The dotted name that stands at ``path._component_``, empty where there is none."""
        return str(self.get(f"{path}.{COMPONENT}", ""))

    def note(self, path: str, text: str) -> None:
        """Something that is otherwise in the job."""
        self.notes.append((path, text))

    def refuse(self, path: str, message: str, hint: str) -> None:
        """Something that no job can say."""
        self.problems.append(self._source.problem(tuple(path.split(".")), message, hint))

    def rest(self) -> list[str]:
        """The paths that nothing asked for, but those without effect."""
        return [path for path in _leaves(self._values) if not self._known(path)]

    def _known(self, path: str) -> bool:
        return path in self._asked or any(path == one or path.startswith(f"{one}.") for one in WITHOUT_EFFECT)

    def _filled(self, value: Any, keys: tuple[str | int, ...], depth: int = 0) -> Any:
        """``value`` with each ``${path}`` replaced, as OmegaConf does."""
        if isinstance(value, dict):
            return {key: self._filled(one, (*keys, key)) for key, one in value.items()}
        if isinstance(value, list):
            return [self._filled(one, (*keys, i)) for i, one in enumerate(value)]
        if not isinstance(value, str) or not REFERENCE.search(value):
            return value
        if depth > 9:
            raise UserError(self._source.problem(keys, "it refers to itself", "write the value out"))
        if whole := REFERENCE.fullmatch(value):
            return self._filled(self._referred(whole[1], keys), keys, depth + 1)
        filled = REFERENCE.sub(lambda found: str(self._referred(found[1], keys)), value)
        return self._filled(filled, keys, depth + 1)

    def _referred(self, path: str, keys: tuple[str | int, ...]) -> Any:
        value: Any = self._source.values
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                raise UserError(self._source.problem(keys, f"there is no {path}", "write the value out"))
            value = value[key]
        return value


def _alike(value: Any, default: Any) -> bool:
    """Whether both are numbers, or of one type."""
    number = isinstance(default, (int, float)) and not isinstance(default, bool)
    return isinstance(value, (int, float) if number else type(default)) and isinstance(value, bool) <= (not number)


def _leaves(value: Any, path: str = "") -> Iterator[str]:
    """Every path with a value; a list counts as one."""
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from _leaves(one, f"{path}.{key}" if path else str(key))
    elif value is not None and path:
        yield path
