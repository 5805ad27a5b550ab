"""Methods: a generator of batches in front of a loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from ptsdk.contracts.component import Component
from ptsdk.contracts.loss import Loss, LossOutput
from ptsdk.contracts.model import ModelFamily
from ptsdk.data.ahead import ahead
from ptsdk.data.example import Example
from ptsdk.nn.batch import Batch

if TYPE_CHECKING:
    from ptsdk.contracts.run import Progress, Run
    from ptsdk.job.job import Job


class Method(Component):
    """The ``method:`` section: what is asked of the model, and on which batches.

    The trainer owns the loop, accumulation, normalisation, clipping, saving and logging; a
    method owns only what differs between methods.
    """

    kind: ClassVar[str] = "method"
    loss_type: ClassVar[type[Loss]] = Loss
    """What the method calls: a job with another loss, though of its objective, is refused."""

    @property
    def updates_per_batch(self) -> int:
        """How many optimizer steps learn from the same items of data; a policy method overrides it."""
        return 1

    def items_per_step(self, batch_size: int) -> int:
        """How many items of data make a batch of ``batch_size`` sequences: as many, unless a method
        makes several sequences of one item (completions of a prompt).

        Raises:
            ValueError: no number of items does; the message becomes a fault of ``train.batch_size``.
        """
        return batch_size

    def frozen_models(self, job: Job) -> Mapping[str, ModelFamily]:
        """Models that are loaded beside the policy and do not train, by the name the method finds
        them under in ``run.frozen``: a teacher, or ``reference`` where no adapter can be switched off.
        ``job.model`` itself stands for the policy training starts from, quantised like it. Any other
        must read the same token ids, or the run is refused."""
        return {}

    def prepare(self, run: Run) -> None:
        """Called once when the run is assembled and its directory is claimed, while the model is
        still the one training starts from, also before a resume."""

    @abstractmethod
    def collate(self, run: Run, examples: Sequence[Example]) -> Batch:
        """The micro-batch of some examples: a pure function of them. The default ``batches`` calls it in a thread,
        while the step before is taken (``data.prefetch``)."""

    def batches(self, run: Run) -> Iterator[list[Batch]]:
        """Optimizer steps from ``run.progress.step`` on, each a list of this process's
        micro-batches. The default reads the training data in its order, a step ahead; a policy method
        generates, scores, and yields each rollout as often as it learns from it."""
        steps = self._collated(run, replace(run.progress))
        for cursor, micro_batches in ahead(steps) if run.job.data.prefetch else steps:
            run.progress.epoch, run.progress.offset = cursor
            yield micro_batches

    def _collated(self, run: Run, cursor: Progress) -> Iterator[tuple[tuple[int, int], list[Batch]]]:
        """Each step's micro-batches, and where the next step begins."""
        pinned = run.world.device.type == "cuda"
        for share in run.train_plan.steps(cursor):
            batches = [self.micro_batch(run, run.train_data, indices) for indices in share]
            yield (cursor.epoch, cursor.offset), [batch.pinned() if pinned else batch for batch in batches]

    def micro_batch(self, run: Run, data: Sequence[Example], indices: Sequence[int]) -> Batch:
        """The batch of some examples of ``data``; of none, a filler that carries no weight."""
        if indices:
            return replace(self.collate(run, [data[i] for i in indices]), rows=tuple(indices))
        return replace(self.collate(run, [data[0]]), live=False)

    def rehearse(self, run: Run) -> list[Batch]:
        """The micro-batches of the step that needs most memory, for `ptsdk plan`: one that begins a step, and
        where gradients accumulate one that adds to them. The models of ``run`` have shapes and no data; a
        method whose batches come from the model goes once through what makes them."""
        largest = run.train_plan.largest_micro_batches(run.total_steps)
        return [self.micro_batch(run, run.train_data, indices) for indices in largest]

    @abstractmethod
    def loss(self, run: Run, batch: Batch) -> LossOutput:
        """What ``batch`` contributes, on the run's device."""

    def validation_loss(self, run: Run, batch: Batch) -> LossOutput:
        """The same for validation data, without gradient; the training loss by default."""
        return self.loss(run, batch)

    def state(self, run: Run) -> dict[str, Any]:
        """What a resumed run must have back beyond the step: a tree of tensors, numbers, strings,
        lists and mappings, kept in checkpoints. The same on every process, or by ``collect``."""
        return {}

    def restore(self, run: Run, state: dict[str, Any]) -> None:
        """The inverse of ``state``."""
