"""What ptsdk-grpo contributes."""

from __future__ import annotations

from ptsdk.specs import LossSpec, MethodSpec, Spec

PTSDK_API = 1


def ptsdk_methods() -> list[MethodSpec]:
    """Learning from what the policy itself writes."""
    return [
        MethodSpec(
            "grpo",
            "ptsdk_grpo.method:GRPO",
            "Group relative policy optimisation (arXiv:2402.03300)",
            objective="policy",
            needs=frozenset({"reference", "rollout"}),
            default_loss="grpo",
        )
    ]


def ptsdk_losses() -> list[LossSpec]:
    """Clipped losses on sampled tokens, for any method that samples."""
    module = "ptsdk_grpo.losses"
    return [
        LossSpec("grpo", f"{module}:GRPOLoss", "A mean over completions (arXiv:2402.03300)", objective="policy"),
        LossSpec(
            "dr_grpo", f"{module}:DrGRPOLoss", "No bias of length or spread (arXiv:2503.20783)", objective="policy"
        ),
        LossSpec(
            "dapo", f"{module}:DAPOLoss", "A mean over tokens, clip-higher (arXiv:2503.14476)", objective="policy"
        ),
    ]


def ptsdk_rewards() -> list[Spec]:
    """Scores that need nothing but the text and its row."""
    module = "ptsdk_grpo.rewards"
    return [
        Spec("exact_match", f"{module}:ExactMatch", "1 where the completion is what a column of the row says"),
        Spec("length", f"{module}:Length", "1 at a length in characters, less the further away"),
        Spec("regex", f"{module}:Regex", "1 where a pattern is found in the completion"),
    ]
