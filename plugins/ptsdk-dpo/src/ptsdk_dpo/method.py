"""Direct preference optimisation: the policy beside what it started from, on pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor

from ptsdk.contracts.loss import Completions, LossOutput, PreferenceLoss
from ptsdk.contracts.method import Method
from ptsdk.contracts.model import ModelFamily
from ptsdk.data.example import Example
from ptsdk.errors import Problem, UserError
from ptsdk.nn.batch import Batch
from ptsdk_dpo.precomputed import precompute
from ptsdk_dpo.scoring import score, supervised_tokens

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run
    from ptsdk.job.job import Job

REFERENCE = "reference"


class DPO(Method):
    """Make chosen completions likelier than rejected ones, relative to the policy training starts from.

    Rafailov et al., "Direct Preference Optimization", arXiv:2305.18290. The loss decides how; with a
    reference-free one (simpo) no second model is asked. The weight of a batch is its pairs.
    """

    reference: Literal["auto", "copy", "precompute"] = Field(
        "auto",
        description="what the policy is compared with. auto: the adapter switched off, a frozen copy where there is "
        "none; copy: a frozen copy; precompute: log-probs of all pairs, made once and kept in output_dir",
    )

    def frozen_models(self, job: Job) -> Mapping[str, ModelFamily]:
        """A copy of the model, where the reference has to be one.

        Raises:
            UserError: a reference is asked for by name, but the loss has no use for it; or it would be computed
                beforehand of data that is streamed.
        """
        if preference_loss(job).reference_free:
            if self.reference != "auto":
                message = f"reference is {self.reference}, but the loss does not use one"
                raise UserError(Problem(message, "leave it out, or choose another loss", path="method.reference"))
            return {}
        if self.reference == "precompute" and job.data.streaming:
            message = "log-probs of all pairs are kept in memory, but the data is streamed"
            raise UserError(Problem(message, "set method.reference=auto or copy", path="method.reference"))
        by_default = self.reference == "auto" and not job.adapter.keeps_base
        return {REFERENCE: job.model} if by_default or self.reference == "copy" else {}

    def prepare(self, run: Run) -> None:
        """Compute or read the reference's log-probs, where they are to be known beforehand."""
        if self.reference == "precompute":
            run.scratch[self] = precompute(run)

    def collate(self, run: Run, examples: Sequence[Example]) -> Batch:
        """Chosen and rejected document of each pair, end to end: 2 B documents."""
        documents = [document for example in examples for document in example.documents]
        return Batch.pack([d.tokens for d in documents], [d.supervised for d in documents])

    def micro_batch(self, run: Run, data: Sequence[Example], indices: Sequence[int]) -> Batch:
        """See the contract; log-probs that were computed beforehand come along."""
        batch = super().micro_batch(run, data, indices)
        known: dict[str, Tensor] | None = run.scratch.get(self)
        if known is None:
            return batch
        pairs = known["train" if data is run.train_data else "validation"]
        return replace(batch, extras={REFERENCE: pairs[list(indices) or [0]].flatten()})

    def rehearse(self, run: Run) -> list[Batch]:
        """See the contract; log-probs that a run would compute beforehand are there."""
        batches = super().rehearse(run)
        if self.reference != "precompute":
            return batches
        return [replace(batch, extras={REFERENCE: torch.zeros(len(batch.seq_lens))}) for batch in batches]

    def loss(self, run: Run, batch: Batch) -> LossOutput:
        """The job's loss on the pairs of ``batch``; the metrics have TRL's names."""
        loss = preference_loss(run.job)
        reference = None if loss.reference_free else self._reference(run, batch)  # before any activation is kept
        policy, tokens = score(run.model, batch), supervised_tokens(batch).clamp(min=1)
        chosen, rejected = (
            Completions(policy[side::2], None if reference is None else reference[side::2], tokens[side::2])
            for side in (0, 1)
        )
        losses = loss(chosen, rejected)
        return LossOutput(losses.sum(), losses.new_tensor(len(losses)), metrics(loss, chosen, rejected))

    def _reference(self, run: Run, batch: Batch) -> Tensor:
        """The reference's log-probs, [2 B]."""
        if REFERENCE in batch.extras:
            return batch.extras[REFERENCE]
        with run.reference() as model:
            return score(model, batch)


def preference_loss(job: Job) -> PreferenceLoss:
    """The loss of a job whose method learns from pairs."""
    assert isinstance(job.loss, PreferenceLoss)  # the resolver has matched the objectives
    return job.loss


def metrics(loss: PreferenceLoss, chosen: Completions, rejected: Completions) -> dict[str, Tensor]:
    """Sums over the pairs: rewards as the loss defines them, and log-probs of whole completions."""
    good, bad = loss.rewards(chosen).detach(), loss.rewards(rejected).detach()
    values = {
        "rewards/chosen": good,
        "rewards/rejected": bad,
        "rewards/margins": good - bad,
        "rewards/accuracies": (good > bad).to(good.dtype),
        "logps/chosen": chosen.policy.detach(),
        "logps/rejected": rejected.policy.detach(),
    }
    return {name: value.sum() for name, value in values.items()}
