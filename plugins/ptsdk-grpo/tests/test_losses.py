"""The losses against polgrad (float64, papers' equations), and against expectations computed in full."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import polgrad
import pytest
import torch
from polgrad.testing import assert_conforms, random_batches
from pydantic import ValidationError
from torch import Tensor

from ptsdk.contracts.loss import LossOutput, SampledTokens
from ptsdk_grpo.losses import Clipped, DAPOLoss, DrGRPOLoss, GRPOLoss, k3

BUDGET = 17
LOSSES: dict[str, Clipped] = {"grpo": GRPOLoss(), "dr_grpo": DrGRPOLoss(), "dapo": DAPOLoss()}
AGGREGATIONS = {
    "sequence_mean": polgrad.Aggregation.SEQ_MEAN_TOKEN_MEAN,
    "token_mean": polgrad.Aggregation.TOKEN_MEAN,
    "constant": polgrad.Aggregation.TOKEN_SUM_NORM,
}


def flat(batch: dict[str, Tensor], start: int = 0, stop: int | None = None) -> SampledTokens:
    """Rows ``start`` to ``stop`` of a padded batch [B, T], without its padding."""
    rows = {name: tensor[start:stop] for name, tensor in batch.items()}
    mask = rows["response_mask"]
    reference = rows.get("ref_logprobs")
    return SampledTokens(
        policy=rows["logprobs"][mask],
        old=rows["old_logprobs"][mask],
        reference=None if reference is None else reference[mask],
        advantages=rows["advantages"],
        completions=torch.arange(len(mask)).repeat_interleave(mask.sum(1)),
        budget=BUDGET,
    )


def mean(*outputs: LossOutput) -> Tensor:
    """What the trainer divides: sums of micro-batches by their weights together."""
    total: Tensor = sum(output.sum for output in outputs) / sum(output.weight for output in outputs)
    return total


def spec(name: str) -> Any:
    return replace(polgrad.get_algorithm(name).loss, norm_len=BUDGET if name == "dr_grpo" else None)


@pytest.mark.parametrize("name", LOSSES)
def test_the_defaults_are_those_of_the_papers(name: str) -> None:
    report = assert_conforms(lambda **batch: mean(LOSSES[name](flat(batch))), replace(spec(name), kl=None))
    assert report.n_cases == 64


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("cut", [(1, 2), (3,), (1, 2, 3)])
def test_a_mean_of_the_step_however_it_is_cut(name: str, cut: tuple[int, ...]) -> None:
    def accumulated(**batch: Tensor) -> Tensor:
        return mean(*(LOSSES[name](flat(batch, a, b)) for a, b in pairwise((0, *cut, 4))))

    assert_conforms(accumulated, replace(spec(name), kl=None), shapes=((4, 9),))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("clip", [0.1, (0.1, 0.5)])
def test_every_clip_with_every_aggregation(aggregation: Any, clip: Any) -> None:
    low, high = clip if isinstance(clip, tuple) else (clip, clip)
    config = replace(
        spec("grpo"),
        clip=polgrad.ClipConfig(low, high),
        aggregation=AGGREGATIONS[aggregation],
        norm_len=BUDGET,
        kl=None,
    )
    loss = GRPOLoss(clip=clip, aggregation=aggregation)
    assert_conforms(lambda **batch: mean(loss(flat(batch))), config)


@pytest.mark.parametrize("name", LOSSES)
def test_the_papers_distance_to_the_reference(name: str) -> None:
    """``assert_conforms`` leaves it out, so the whole loss and its gradient are compared here."""
    config = replace(spec(name), kl=polgrad.KLLossConfig(polgrad.KLEstimator.K3, 0.3))
    loss = type(LOSSES[name])(kl=0.3, kl_estimator="k3")
    for batch in random_batches(32, [(4, 8), (3, 12)], seed=1):
        policy = batch["logprobs"].requires_grad_()
        ours = torch.autograd.grad(mean(loss(flat(batch))), policy, retain_graph=True)[0]
        names = ("logprobs", "old_logprobs", "ref_logprobs", "advantages", "response_mask")
        result = polgrad.policy_loss(config, **{key: batch[key] for key in names})
        torch.testing.assert_close(mean(loss(flat(batch))), result.loss, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours, torch.autograd.grad(result.loss, policy)[0], rtol=1e-10, atol=1e-14)


def test_metrics_are_means_over_tokens() -> None:
    loss = DAPOLoss(kl=0.1)
    for batch in random_batches(16, [(5, 9)], seed=2):
        batch["advantages"][0] = 0
        tokens = flat(batch)
        found = {name: (ratio.sum.double() / ratio.count).item() for name, ratio in loss(tokens).metrics.items()}
        mask = batch["response_mask"]
        names = ("logprobs", "old_logprobs", "advantages", "response_mask")
        result = polgrad.policy_loss(spec("dapo"), **{key: batch[key] for key in names})
        clipped = (result.clipped_low | result.clipped_high)[mask].double().mean().item()
        kl = polgrad.kl_estimate(batch["logprobs"], batch["ref_logprobs"], polgrad.KLEstimator.K3, response_mask=mask)[
            mask
        ].mean()
        expected = {"clip_ratio": clipped, "kl": kl.item(), "entropy": -batch["logprobs"][mask].mean().item()}
        assert found == pytest.approx(expected, rel=1e-12)
    assert set(DAPOLoss()(tokens).metrics) == {"clip_ratio", "entropy"}


def test_the_unbiased_estimator_has_the_value_and_the_gradient_of_the_kl() -> None:
    """All outcomes of a distribution in their proportions under an older policy, instead of samples."""
    torch.manual_seed(0)
    logits, older, reference = (torch.randn(6, dtype=torch.float64) for _ in range(3))
    logits.requires_grad_()
    policy, old, ref = logits.log_softmax(0), older.log_softmax(0), reference.log_softmax(0)
    exact = (policy.exp() * (policy - ref)).sum()
    wanted = torch.autograd.grad(exact, logits, retain_graph=True)[0]

    def expected(estimator: str) -> Tensor:
        def one(outcome: int) -> Tensor:
            token = SampledTokens(
                policy[outcome, None], old[outcome, None], ref[outcome, None], torch.zeros(1), torch.zeros(1).long(), 1
            )
            return GRPOLoss(kl=1.0, kl_estimator=estimator)(token).sum

        return sum(old.exp()[i] * one(i) for i in range(6))

    torch.testing.assert_close(expected("unbiased"), exact, rtol=1e-12, atol=0)
    found = torch.autograd.grad(expected("unbiased"), logits, retain_graph=True)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-14)
    papers = torch.autograd.grad(expected("k3"), logits)[0]
    assert (papers - wanted).norm() > 0.1 * wanted.norm()


def test_both_estimators_are_one_value_where_the_tokens_are_the_policys_own() -> None:
    (batch,) = random_batches(1, [(4, 8)], seed=5)
    batch["old_logprobs"] = batch["logprobs"]
    values = [mean(GRPOLoss(kl=0.5, kl_estimator=name)(flat(batch))) for name in ("unbiased", "k3")]
    torch.testing.assert_close(*values, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_advantages(name: str) -> None:
    torch.manual_seed(0)
    rewards = torch.randn(5, 4, dtype=torch.float64)
    groups = torch.arange(5).repeat_interleave(4)
    config = polgrad.get_algorithm(name).advantage_config
    expected = polgrad.grpo_advantages(rewards.flatten(), groups, config).view(5, 4)
    torch.testing.assert_close(LOSSES[name].advantages(rewards), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e9])
def test_nothing_is_learned_from_a_group_of_equal_rewards(name: str, value: float) -> None:
    """Seven times 0.1 is not 7 * 0.1: the mean is off by rounding, the advantage is not."""
    rewards = torch.tensor([[value] * 7, [0.0, 1.0] * 3 + [0.5]], dtype=torch.float64)
    advantages = LOSSES[name].advantages(rewards)
    assert (advantages[0] == 0).all() and (advantages[1] != 0).any()


@pytest.mark.parametrize("distance", [100.0, -100.0, 800.0])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_far_policies_give_finite_numbers(distance: float, advantage: float) -> None:
    policy = torch.full((3,), -900.0, requires_grad=True)
    tokens = SampledTokens(
        policy, policy.detach() - distance, policy.detach() + distance, torch.tensor([advantage]),
        torch.zeros(3).long(), 3,
    )  # fmt: skip
    for estimator in ("unbiased", "k3"):
        output = GRPOLoss(kl=0.1, kl_estimator=estimator)(tokens)
        (gradient,) = torch.autograd.grad(output.sum, policy)
        assert output.sum.isfinite() and gradient.isfinite().all()


def test_k3_is_never_negative() -> None:
    policy, reference = torch.randn(2, 1000) * 1e-4
    assert (k3(policy, reference) >= 0).all()


@pytest.mark.parametrize(
    "options", [{"clip": 0}, {"clip": [0.2]}, {"clip": [0.2, -1]}, {"kl": -0.1}, {"aggregation": "mean"}, {"beta": 1}]
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GRPOLoss.model_validate(options)
