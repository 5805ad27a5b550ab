"""The method in real runs: what is sampled, what is learned from it, and what is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import polgrad
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ptsdk.contracts.run import Run
from ptsdk.errors import RunError, UserError
from ptsdk.nn.batch import IGNORE, Batch
from ptsdk_grpo.method import GRPO, PENDING

VOLATILE = {"tokens_per_second", "step_seconds", "peak_memory_bytes"}
SPECS = {"grpo": "grpo", "dr_grpo": "dr_grpo", "dapo": "dapo"}


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in VOLATILE} for row in rows]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "final" / "model.safetensors")


def sampled(batches: list[Batch]) -> list[list[int]]:
    """The documents of a step, in order."""
    return [part.tolist() for batch in batches for part in torch.split(batch.tokens, batch.seq_lens)]


@pytest.mark.parametrize("loss", SPECS)
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_rewarded_letter_is_learned(job: dict[str, Any], train: Any, loss: str, epochs: int) -> None:
    job["method"] |= {"epochs": epochs, "group_size": 8}
    job |= {"loss": loss, "optimizer": {"use": "adamw", "lr": 1e-2}}
    job["train"] |= {"steps": 40, "batch_size": 32, "micro_batch_size": 32}
    rows, _ = train(job)
    rewards = [row["reward/mean"] for row in rows]
    assert sum(rewards[:4]) / 4 < 0.1 and sum(rewards[-4:]) / 4 > 0.7, rewards
    assert rows[-1]["entropy"] < rows[0]["entropy"] - 1


@pytest.mark.parametrize("loss", SPECS)
def test_eight_times_one_is_one_times_eight(job: dict[str, Any], train: Any, loss: str) -> None:
    job["method"] |= {"epochs": 2, "max_new_tokens": 12, "rewards": [{"use": "length", "target": 9}]}
    job |= {"loss": {"use": loss, "kl": 0.1}, "optimizer": {"use": "sgd", "lr": 0.1}}
    runs = []
    for size in (1, 8):
        job["train"]["micro_batch_size"] = size
        runs.append(train(job, f"micro-{size}"))
    for a, b in zip(*(rows for rows, _ in runs), strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - VOLATILE:
            assert a[key] == pytest.approx(b[key], rel=1e-5, abs=1e-6), key
    ours, theirs = (weights(folder) for _, folder in runs)
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", SPECS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_second_epoch_by_hand(job: dict[str, Any], assembled: Any, loss: str, temperature: float) -> None:
    """Every number again without kernel, packing or micro-batches: one document at a time, whole logits,
    advantages, loss and gradient from polgrad, in float64. The policy has moved, and far."""
    job["method"] |= {"epochs": 2, "temperature": temperature, "rewards": [{"use": "length", "target": 5, "weight": 2}]}
    job |= {"loss": {"use": loss, "kl": 0.2, "kl_estimator": "k3"}}
    run: Run = assembled(job)
    for model in (run.model, *run.frozen.values()):
        model.double()
    torch.manual_seed(0)
    start = {name: parameter.detach().clone() for name, parameter in run.model.named_parameters()}
    steps = run.job.method.batches(run)
    moved = {name: weight + 0.3 * torch.randn_like(weight) for name, weight in start.items()}

    def set_weights(tensors: dict[str, Tensor]) -> None:
        for name, parameter in run.model.named_parameters():
            parameter.data.copy_(tensors[name])

    batches = next(steps)
    set_weights(moved)
    assert next(steps) is batches
    outputs = [run.job.method.loss(run, batch) for batch in batches]
    weight = sum(output.weight for output in outputs)
    for output in outputs:
        output.sum.backward()
    ours = {name: p.grad / weight for name, p in run.model.named_parameters()}
    run.model.zero_grad()

    documents = sampled(batches)
    labels = torch.cat([batch.labels for batch in batches])
    supervised = [part != IGNORE for part in torch.split(labels, [len(document) for document in documents])]
    longest = max(int(flags.sum()) for flags in supervised)

    def padded() -> Tensor:
        rows = []
        for document, flags in zip(documents, supervised, strict=True):
            logits = run.model.head().logits(run.model(Batch.pack([document]))) / temperature
            picked = logits[:-1].log_softmax(1)[range(len(document) - 1), document[1:]][flags[:-1]]
            rows.append(torch.nn.functional.pad(picked, (0, longest - len(picked)), value=-1.0))
        return torch.stack(rows)

    set_weights(start)
    with torch.no_grad():
        old = padded()
    set_weights(moved)
    texts = [
        run.tokenizer.decode(document[-int(flags.sum()) :])
        for document, flags in zip(documents, supervised, strict=True)
    ]
    rewards = torch.tensor([2 * max(0.0, 1 - abs(len(text) - 5) / 5) for text in texts], dtype=torch.float64)
    spec = polgrad.get_algorithm(loss)
    config = replace(spec.loss, kl=polgrad.KLLossConfig(polgrad.KLEstimator.K3, 0.2), norm_len=6)
    result = polgrad.policy_loss(
        config,
        logprobs=padded(),
        old_logprobs=old,
        ref_logprobs=old,  # the run has only begun: it started where the old policy was
        advantages=polgrad.grpo_advantages(rewards, torch.arange(8) // 4, spec.advantage_config),
        response_mask=torch.arange(longest) < torch.tensor([int(flags.sum()) for flags in supervised])[:, None],
    )
    assert (result.ratio - 1).abs().max() > 0.2 and (result.clipped_low | result.clipped_high).any()
    total = sum(output.sum for output in outputs) / weight
    torch.testing.assert_close(total, result.loss, rtol=1e-10, atol=1e-12)
    result.loss.backward()
    for name, parameter in run.model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-8, atol=1e-10)


def test_the_first_epoch_is_the_same_however_many_follow(job: dict[str, Any], train: Any) -> None:
    """The old log-probs that are kept, and those that are taken from the step itself, are the same bits."""
    job["loss"] = {"use": "grpo", "kl": 0.1}
    job["train"]["steps"] = 1
    first = comparable(train(job, "one")[0])
    job["method"]["epochs"] = 2
    assert [{**row, "epoch": 0} for row in comparable(train(job, "two")[0])] == [{**row, "epoch": 0} for row in first]
    assert first[0]["clip_ratio"] == 0 and first[0]["kl"] == 0


def test_ratios_leave_one_in_the_second_epoch(job: dict[str, Any], train: Any) -> None:
    job["method"] |= {"epochs": 3, "rewards": [{"use": "length", "target": 6}]}
    job["optimizer"]["lr"] = 0.05
    job["train"]["steps"] = 6
    rows, _ = train(job)
    clipped = [row["clip_ratio"] for row in rows]
    assert clipped[0] == clipped[3] == 0 and clipped[2] > 0 and clipped[5] > 0
    for start in (0, 3):
        assert len({row["reward/mean"] for row in rows[start : start + 3]}) == 1
    assert rows[0]["completions/mean_length"] * 8 == rows[0]["supervised_tokens"]


def test_what_is_sampled_depends_on_seed_step_and_place(job: dict[str, Any], assembled: Any) -> None:
    def first_steps(**options: Any) -> list[list[list[int]]]:
        for section, value in options.items():
            job[section] = {**job[section], **value}
        run: Run = assembled(job)
        steps = []
        for batches in islice(run.job.method.batches(run), 2):
            steps.append(sampled(batches))
            run.progress.step += 1
        return steps

    first = first_steps()
    assert first[0] != first[1]
    group = first[0][:4]
    assert len({tuple(document) for document in group}) > 1, "completions of one prompt differ"
    assert first_steps(train={"micro_batch_size": 1}) == first
    assert first_steps(method={"rollout": {"use": "local", "slots": 3}}) == first
    assert first_steps(train={"micro_batch_size": 8, "seed": 4}) != first


def test_metrics_by_hand(job: dict[str, Any], assembled: Any) -> None:
    job["method"]["rewards"] = [
        {"use": "./reward.py:Letter", "letter": "q", "weight": 3},
        {"use": "length", "target": 7},
    ]
    job["method"] |= {"max_new_tokens": 40}
    job["tokenizer"] = "bytes"
    job["train"]["micro_batch_size"] = 8
    run: Run = assembled(job)
    (batch,) = next(run.job.method.batches(run))
    output = run.job.method.loss(run, batch)
    found = {name: (ratio.sum.double() / ratio.count).item() for name, ratio in output.metrics.items()}
    counts = torch.bincount(batch.extras["completions"]).tolist()
    ids = [document[-n:] for document, n in zip(sampled([batch]), counts, strict=True)]
    texts = [run.tokenizer.decode(one) for one in ids]
    letter = torch.tensor([text.count("q") / max(1, len(text)) for text in texts], dtype=torch.float64)
    length = torch.tensor([max(0.0, 1 - abs(len(text) - 7) / 7) for text in texts], dtype=torch.float64)
    total = 3 * letter + length
    assert found == pytest.approx(
        {
            "reward/mean": total.mean().item(),
            "reward/std": total.view(2, 4).std(1).mean().item(),
            "reward/zero_std": sum(len(set(group)) == 1 for group in total.view(2, 4).tolist()) / 2,
            "rewards/Letter": letter.mean().item(),
            "rewards/length": length.mean().item(),
            "completions/mean_length": sum(counts) / 8,
            "completions/clipped_ratio": sum(one[-1] != 257 for one in ids) / 8,
            "clip_ratio": 0.0,
            "entropy": found["entropy"],
        }
    )
    assert 3 < found["entropy"] < 6.5


def test_the_distance_to_the_reference_is_held(job: dict[str, Any], train: Any) -> None:
    job["method"] |= {"group_size": 8}
    job["optimizer"]["lr"] = 1e-2
    job["train"] |= {"steps": 20, "batch_size": 16, "micro_batch_size": 16}
    found = {}
    for kl in (1e-9, 1.0):
        job["loss"] = {"use": "grpo", "kl": kl}
        rows, _ = train(job, f"kl-{kl}")
        assert rows[0]["kl"] == 0
        found[kl] = rows[-1]["kl"]
    assert found[1e-9] > 0.05 and found[1.0] < found[1e-9] / 3


def test_a_reference_is_loaded_only_where_it_is_needed(job: dict[str, Any], assembled: Any) -> None:
    assert not assembled(job).frozen
    run = assembled({**job, "loss": {"use": "grpo", "kl": 0.1}})
    assert list(run.frozen) == ["reference"]
    assert not any(parameter.requires_grad for parameter in run.frozen["reference"].parameters())


def test_epochs_of_the_data_are_prompts_times_updates(job: dict[str, Any], train: Any) -> None:
    """16 prompts, 2 a step, each rollout learned from twice: 16 steps see the data once."""
    job["method"]["epochs"] = 2
    job["train"] = {"epochs": 1, "batch_size": 8, "seed": 1}
    rows, _ = train(job)
    assert len(rows) == 16 and rows[-1]["epoch"] == 1
    job["train"]["epochs"] = 0.2  # 4 prompts of 16, rounded up: 2 rollouts
    assert len(train(job, "part")[0]) == 4


def test_a_checkpoint_between_epochs_holds_the_rollout(job: dict[str, Any], train: Any) -> None:
    job["method"] |= {"epochs": 3, "rewards": [{"use": "length", "target": 5}]}
    job["loss"] = {"use": "dapo", "kl": 0.1}
    job["train"] |= {"steps": 8, "save_every": 1, "keep_last": None}
    rows, whole = train(job, "whole")
    for stop in (3, 4, 5):
        short = {**job, "train": {**job["train"], "steps": stop}}
        train(short, f"at-{stop}")
        again, resumed = train(job, f"at-{stop}", resume=True)
        assert comparable(again) == comparable(rows)
        assert all(weights(resumed)[name].equal(weight) for name, weight in weights(whole).items())
    states = [json.loads((whole / f"checkpoints/step-{step:08}/state.json").read_text())["state"] for step in (3, 4, 5)]
    assert states[0]["method"] == {} and [state["method"]["epochs"] for state in states[1:]] == [1, 2]


def test_a_resume_in_other_micro_batches(job: dict[str, Any], train: Any) -> None:
    job["method"] |= {"epochs": 3}
    job["train"] |= {"steps": 5, "save_every": 4, "micro_batch_size": 8}
    rows, _ = train(job, "whole")
    train({**job, "train": {**job["train"], "steps": 4}}, "cut")
    again, _ = train({**job, "train": {**job["train"], "micro_batch_size": 2}}, "cut", resume=True)
    assert again[-1]["loss"] == pytest.approx(rows[-1]["loss"], rel=1e-4, abs=1e-7)
    assert again[-1]["tokens"] == rows[-1]["tokens"]


def test_validation_is_the_reward_of_one_completion_each(job: dict[str, Any], train: Any) -> None:
    job["data"]["validation"] = {**job["data"]["train"], "limit": 5}
    job["method"]["rewards"] = [{"use": "length", "target": 5}]
    job["train"] |= {"steps": 2, "validate_at_start": True, "micro_batch_size": 2}
    rows, _ = train(job)
    start = rows[0]
    assert start["val/loss"] == -start["val/reward/mean"] and 0 < start["val/reward/mean"] <= 1
    assert start["val/rewards/length"] == start["val/reward/mean"]
    job["train"]["micro_batch_size"] = 4
    again, _ = train(job, "again")
    assert again[0]["val/loss"] == pytest.approx(start["val/loss"], rel=1e-12), "validation is drawn alike each time"


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ("Short", "reward Short gave 7 scores for 8 completions"),
        ("Endless", "reward Endless gave nan where a finite number is needed"),
        ("Vague", "reward Vague gave 'good' where a finite number is needed"),
        ("Buggy", "reward Buggy failed: ZeroDivisionError"),
    ],
)
def test_a_reward_that_fails_ends_the_run(job: dict[str, Any], train: Any, reward: str, message: str) -> None:
    job["method"]["rewards"] = [f"./reward.py:{reward}"]
    with pytest.raises(RunError, match=message):
        train(job)


def test_rows_reach_the_rewards(job: dict[str, Any], assembled: Any) -> None:
    job["method"]["rewards"] = ["./reward.py:Answer"]
    seen: list[dict[str, Any]] = []
    run: Run = assembled(job)
    reward = run.job.method.rewards[0]  # type: ignore[attr-defined]
    score = type(reward).score
    type(reward).score = lambda self, texts, rows: seen.extend(rows) or score(self, texts, rows)
    next(run.job.method.batches(run))
    assert len(seen) == 8 and [row["answer"] in "ab" for row in seen] == [True] * 8
    assert seen[0] == seen[3] != seen[4], "four completions of each prompt"


def test_a_batch_of_broken_groups_is_refused_before_anything_is_read(job: dict[str, Any], load: Any) -> None:
    job["train"]["batch_size"] = 6
    job["train"]["micro_batch_size"] = 2
    with pytest.raises(UserError) as caught:
        load(job)
    (problem,) = caught.value.problems
    assert problem.path == "train.batch_size"
    assert problem.message == (
        "batch_size 6 is no multiple of method.group_size 4: a batch is completions, whole groups of them"
    )


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"group_size": 1}, "method.group_size"),
        ({"temperature": 0}, "method.temperature"),
        ({"epochs": 0}, "method.epochs"),
        ({"rewards": []}, "method.rewards"),
        ({"rewards": ["lenght"]}, "method.rewards.0"),
        ({"rewards": [{"use": "length", "target": -1}]}, "method.rewards.0.target"),
        ({"rollout": "remote"}, "method.rollout"),
        ({"top_p": 0.9}, "method.top_p"),
    ],
)
def test_impossible_options_are_refused(job: dict[str, Any], load: Any, options: dict[str, Any], path: str) -> None:
    job["method"] |= options
    with pytest.raises(UserError) as caught:
        load(job)
    assert [problem.path for problem in caught.value.problems] == [path]


def test_a_loss_of_another_objective_is_refused(job: dict[str, Any], load: Any) -> None:
    with pytest.raises(UserError, match="loss cross_entropy is for methods of the objective token"):
        load({**job, "loss": "cross_entropy"})
    job["method"] = "sft"
    job["data"]["train"] = {"use": "text", "path": "prompts.jsonl", "columns": {"text": "prompt"}}
    with pytest.raises(UserError, match="loss dapo is for methods of the objective policy"):
        load({**job, "loss": "dapo"})


def test_prompts_that_fill_the_context_are_refused_at_once(job: dict[str, Any], train: Any) -> None:
    job["model"]["config"]["max_position_embeddings"] = 8
    with pytest.raises(UserError, match="a prompt has 9 tokens, and the model's context of 8"):
        train(job)


def test_nothing_is_kept_in_the_component(job: dict[str, Any], assembled: Any) -> None:
    run: Run = assembled(job)
    method = run.job.method
    assert isinstance(method, GRPO)
    next(method.batches(run))
    assert set(run.scratch) == {PENDING}
    assert method.state(run) == {}, "after the last epoch nothing of a rollout is kept"
