"""Group relative policy optimisation: the policy writes, rewards judge, the policy learns from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from ptsdk.builtin.rollout import Local
from ptsdk.contracts.component import Use
from ptsdk.contracts.loss import LossOutput, PolicyLoss, Ratio, SampledTokens
from ptsdk.contracts.method import Method
from ptsdk.contracts.model import ModelFamily
from ptsdk.contracts.reward import Reward
from ptsdk.contracts.rollout import Completion, RolloutEngine
from ptsdk.contracts.run import serving
from ptsdk.data.example import Example
from ptsdk.data.order import span
from ptsdk.errors import Problem, UserError
from ptsdk.generate.sampling import COLDEST, SamplingParams
from ptsdk.generate.stopping import stop_ids
from ptsdk.nn.batch import Batch
from ptsdk_grpo.losses import spread
from ptsdk_grpo.rewarding import named, scores_of
from ptsdk_grpo.rollout import (
    ADVANTAGES,
    COMPLETIONS,
    FINISHED,
    OLD,
    REFERENCE,
    SCORES,
    SPREADS,
    Rollout,
    Share,
    filler,
    written,
)
from ptsdk_grpo.scoring import token_log_probs

if TYPE_CHECKING:
    from ptsdk.contracts.run import Run
    from ptsdk.job.job import Job

PENDING = "ptsdk-grpo"
"""Where in a run's scratch the rollout is that it learns from."""


class GRPO(Method):
    """Make those completions likelier that do better than others of the same prompt.

    Shao et al., "DeepSeekMath", arXiv:2402.03300. The loss decides how rewards become advantages, how far one
    rollout may take the policy, and what is averaged. A sequence of ``batch_size`` is a completion.
    """

    group_size: int = Field(
        8, ge=2, description="completions of each prompt, which are compared with each other", examples=[2]
    )
    max_new_tokens: int = Field(
        256, ge=1, description="tokens of the longest completion, the end token included", examples=[8]
    )
    temperature: float = Field(
        1.0, ge=COLDEST, description="logits are divided by it, where completions are drawn and where they are learned"
    )
    epochs: int = Field(1, ge=1, description="optimizer steps that learn from the same completions")
    rewards: tuple[Annotated[Reward, Use("reward")], ...] = Field(
        description="what completions are worth: scores times weights, summed",
        examples=[[{"use": "length", "target": 12}]],
    )
    rollout: Annotated[RolloutEngine, Use("rollout-engine")] = Field(
        default_factory=Local, description="what generates the completions; the policy itself, in this process"
    )

    @field_validator("rewards", mode="before")
    @classmethod
    def _something_is_rewarded(cls, value: Any) -> Any:
        if not value:
            raise ValueError("there is no reward to learn from")
        return value

    @property
    def updates_per_batch(self) -> int:
        """``epochs``."""
        return self.epochs

    def items_per_step(self, batch_size: int) -> int:
        """How many prompts make ``batch_size`` completions."""
        if batch_size % self.group_size:
            raise ValueError(
                f"batch_size {batch_size} is no multiple of method.group_size {self.group_size}: "
                f"a batch is completions, whole groups of them"
            )
        return batch_size // self.group_size

    def frozen_models(self, job: Job) -> Mapping[str, ModelFamily]:
        """A copy of the model, where a reference is needed and no adapter can be switched off."""
        copied = policy_loss(job).needs_reference and not job.adapter.keeps_base
        return {REFERENCE: job.model} if copied else {}

    def prepare(self, run: Run) -> None:
        """Refuse prompts that leave no room for a completion.

        Raises:
            UserError: the longest prompt fills the model's context.
        """
        room = run.model.config.get("max_position_embeddings")
        longest = max(int(run.train_plan.lengths.max()), *(example.length for example in run.validation_data), 0)
        if isinstance(room, int) and longest >= room:
            message = f"a prompt has {longest} tokens, and the model's context of {room} has to hold the answer too"
            hint = f"set data.max_length below {room}: longer prompts are left out"
            raise UserError(Problem(message, hint, path="data.max_length"))

    def collate(self, run: Run, examples: Sequence[Example]) -> Batch:
        """The prompts alone."""
        return Batch.pack([example.documents[0].tokens for example in examples])

    def batches(self, run: Run) -> Iterator[list[Batch]]:
        """For each rollout as many optimizer steps as ``epochs``."""
        while mine := run.scratch.get(PENDING) or self._roll_out(run):
            micro_batches = mine.batches()
            for epoch in range(mine.epochs, self.epochs):
                run.scratch[PENDING] = replace(mine, epochs=epoch + 1)
                yield micro_batches
            del run.scratch[PENDING]

    def loss(self, run: Run, batch: Batch) -> LossOutput:
        """The job's loss on the completions of ``batch``."""
        policy = token_log_probs(run.model, batch, self.temperature)
        tokens = SampledTokens(
            policy=policy,
            # Learned from once, completions are the policy's own: the same numbers, without another pass.
            old=batch.extras[OLD] if OLD in batch.extras else policy.detach(),
            reference=batch.extras.get(REFERENCE),
            advantages=batch.extras[ADVANTAGES],
            completions=batch.extras[COMPLETIONS],
            budget=self.max_new_tokens,
        )
        output = policy_loss(run.job)(tokens)
        return replace(output, metrics={**output.metrics, **metrics(self, batch), **group_metrics(batch)})

    def micro_batch(self, run: Run, data: Sequence[Example], indices: Sequence[int]) -> Batch:
        """One completion of each of some validation prompts, drawn alike each time."""
        drawn, _ = self._write(run, data, indices, indices, seed_of(run.job.train.seed, "validation"))
        return drawn.batch() if indices else replace(self._idle(run).batch(), live=False)

    def validation_loss(self, run: Run, batch: Batch) -> LossOutput:
        """Minus the reward, a mean over prompts."""
        rewards = self.total(batch.extras[SCORES])
        return LossOutput(-rewards.sum(), torch.tensor(len(rewards)), metrics(self, batch))

    def state(self, run: Run) -> dict[str, Any]:
        """The completions of all processes that are still to be learned from, in the order of their places."""
        mine: Share | None = run.scratch.get(PENDING)
        if mine is None or mine.epochs == self.epochs:
            return {}
        parts = [part for own in run.strategy.collect(mine.parts[: mine.own]) for part in own]
        return {"epochs": mine.epochs, "rollout": Rollout.join(parts).columns()}

    def restore(self, run: Run, state: dict[str, Any]) -> None:
        """Take this process's share of the completions, whatever the number of processes."""
        if state:
            rollout = Rollout.restored(state["rollout"])
            own = rollout.cut(*span(len(rollout), run.world.rank, run.world.size))
            sizes = sizes_of(run, (rollout.prompts + rollout.lengths).tolist())
            run.scratch[PENDING] = Share.cut(own, sizes, rollout.cut(0, 1), state["epochs"])

    def total(self, scores: Tensor) -> Tensor:
        """The reward [n] of each completion: its scores [n, R] times their weights, summed."""
        return scores @ scores.new_tensor([reward.weight for reward in self.rewards])

    def _roll_out(self, run: Run) -> Share | None:
        """Completions of the next prompts, judged and ready to be learned from; None at the end."""
        seed = seed_of(run.job.train.seed, run.progress.step)
        indices = [i for item in run.train_plan.take(run.progress) for i in item for _ in range(self.group_size)]
        if not indices:
            return None
        start, stop = span(len(indices), run.world.rank, run.world.size)
        own, scores = self._write(run, run.train_data, indices[start:stop], range(start, stop), seed)
        groups = self.total(scores).view(-1, self.group_size)
        own = replace(
            own,
            advantages=policy_loss(run.job).advantages(groups).flatten()[start:stop],
            spreads=spread(groups).repeat_interleave(self.group_size)[start:stop],
        )
        everyones = run.strategy.collect((own.prompts + own.lengths).tolist())
        mine = Share.cut(own, sizes_of(run, [length for lengths in everyones for length in lengths]), self._idle(run))
        return replace(mine, parts=tuple(self._known(run, part) for part in mine.parts))

    def rehearse(self, run: Run) -> list[Batch]:
        """A step's first micro-batches, of completions of ``max_new_tokens`` to the prompts that fill one best,
        after a rollout of them; nothing is judged."""
        fullest = self._by_tokens(run)
        rows = [fullest[i // self.group_size % len(fullest)] for i in range(run.job.train.batch_size)]
        own = rows[slice(*span(len(rows), run.world.rank, run.world.size))]
        prompts = [run.train_data[row].documents[0].tokens for row in own]
        with run.strategy.unsharded(run.model):
            self.rollout.rehearse(run.model, prompts, SamplingParams(self.max_new_tokens, self.temperature))
        made_up = Completion((0,) * self.max_new_tokens, (0.0,) * self.max_new_tokens, "length")
        scores = torch.zeros(len(prompts), len(self.rewards), dtype=torch.float64)
        sizes = sizes_of(run, [int(run.train_plan.lengths[row]) + self.max_new_tokens for row in rows])
        mine = Share.cut(written(prompts, [made_up] * len(prompts), scores), sizes, self._idle(run))
        return [self._known(run, part).batch() for part in mine.parts[:2]]

    def _by_tokens(self, run: Run) -> list[int]:
        """The rows of the data, those first of which a micro-batch has most tokens: the longest, unless fewer of
        them fit into ``micro_batch_tokens``."""
        lengths = run.train_plan.lengths + self.max_new_tokens
        tokens = {n: n * sizes_of(run, [n] * run.job.train.batch_size)[0] for n in set(lengths.tolist())}
        return sorted(range(len(lengths)), key=lambda row: tokens[int(lengths[row])], reverse=True)

    def _write(
        self, run: Run, data: Sequence[Example], indices: Sequence[int], places: Sequence[int], seed: int
    ) -> tuple[Rollout, Tensor]:
        """This process's completions, one of each example of ``data`` named by ``indices``, and the scores
        [n, R] of all processes' together."""
        examples = [data[i] for i in indices]
        prompts = [example.documents[0].tokens for example in examples]
        params = SamplingParams(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=seed,
            stop_ids=stop_ids(run.checkpoint, run.tokenizer, chat=run.tokenizer.chat_template is not None),
            places=tuple(places),
        )
        with run.strategy.unsharded(run.model):
            completions = self.rollout.generate(run.model, prompts, params) if prompts else []
        texts = [run.tokenizer.decode(list(completion.tokens)) for completion in completions]
        rows = [dict(example.extras.get("row", example.extras)) for example in examples]
        everyones = scores_of(self.rewards, texts, rows, run.strategy)
        return written(prompts, completions, everyones[run.world.rank], indices), torch.cat(everyones)

    def _known(self, run: Run, part: Rollout) -> Rollout:
        """With the log-probs that the loss compares with, by the kernel that it trains through. All processes
        call it equally often."""
        batch = part.batch().to(run.world.device)
        old = reference = None
        if self.epochs > 1:
            with torch.no_grad(), serving(run.model):
                old = token_log_probs(run.model, batch, self.temperature).cpu()
        if policy_loss(run.job).needs_reference:
            with run.reference() as model:
                reference = token_log_probs(model, batch, self.temperature).cpu()
        return replace(part, old=old, reference=reference)

    def _idle(self, run: Run) -> Rollout:
        return filler(run.train_data[0].documents[0].tokens, len(self.rewards))


def policy_loss(job: Job) -> PolicyLoss:
    """The loss of a job whose method samples."""
    assert isinstance(job.loss, PolicyLoss)  # the resolver has matched the objectives
    return job.loss


def sizes_of(run: Run, lengths: Sequence[int]) -> list[int]:
    """How many of this process's completions each of its micro-batches has, they in their order: of a step whose
    completions have, over all processes, so many tokens with their prompts."""
    items = [(place,) for place in range(len(lengths))]
    shares = run.job.train.cut.shares(items, lengths, run.world.size, in_order=True)
    return [len(micro_batch) for micro_batch in shares[run.world.rank]]


def seed_of(*parts: object) -> int:
    """A seed for each combination of what is given."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def metrics(method: GRPO, batch: Batch) -> dict[str, Ratio]:
    """Means over completions: rewards in sum and each by itself, lengths, and how many met the limit."""
    scores, finished = batch.extras[SCORES], batch.extras[FINISHED]
    sums = {
        "reward/mean": method.total(scores).sum(),
        "completions/mean_length": torch.tensor(len(batch.extras[COMPLETIONS])),
        "completions/clipped_ratio": (~finished).sum(),
        **{f"rewards/{name}": scores[:, i].sum() for i, name in enumerate(named(method.rewards))},
    }
    return {name: Ratio(value, torch.tensor(len(finished))) for name, value in sums.items()}


def group_metrics(batch: Batch) -> dict[str, Ratio]:
    """Means over groups: the standard deviation of their rewards, and how many have none, so that nothing is
    learned from them."""
    spreads = batch.extras[SPREADS]
    count = torch.tensor(len(spreads))
    return {"reward/std": Ratio(spreads.sum(), count), "reward/zero_std": Ratio((spreads == 0).sum(), count)}
