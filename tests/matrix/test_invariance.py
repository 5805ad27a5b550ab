"""What must not change a run: accumulation, packing, recomputation, and what is masked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ptsdk.contracts.run import Run
from ptsdk.job import load_job
from ptsdk.nn.batch import Batch
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.train.assemble import assemble
from ptsdk.train.launch import run_job
from tests.conftest import WriteJob, metrics

FAMILIES = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64},
    "llama": {
        "vocab_size": 260, "hidden_size": 36, "num_hidden_layers": 2, "intermediate_size": 50, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 256,
    },
    "gemma3": {
        "vocab_size": 260, "hidden_size": 36, "num_hidden_layers": 3, "intermediate_size": 50, "num_attention_heads": 3,
        "num_key_value_heads": 1, "head_dim": 12, "sliding_window": 8, "max_position_embeddings": 256,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "qwen2": {
        "vocab_size": 260, "hidden_size": 36, "num_hidden_layers": 3, "intermediate_size": 50, "num_attention_heads": 6,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True,
        "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1,
    },
    "qwen3": {
        "vocab_size": 260, "hidden_size": 36, "num_hidden_layers": 2, "intermediate_size": 50, "num_attention_heads": 5,
        "num_key_value_heads": 1, "head_dim": 12, "max_position_embeddings": 256,
    },
    "mistral": {
        "vocab_size": 260, "hidden_size": 36, "num_hidden_layers": 2, "intermediate_size": 50, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 256, "sliding_window": 12,
    },
    "phi3": {
        "vocab_size": 260, "hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 50, "num_attention_heads": 6,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "original_max_position_embeddings": 40,
        "pad_token_id": None, "eos_token_id": 2, "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10_000.0, "partial_rotary_factor": 0.75,
            "short_factor": [1.0, 1.1, 1.5], "long_factor": [1.0, 2.0, 8.0],
        },
    },
    "gemma": {
        "vocab_size": 260, "hidden_size": 36, "num_hidden_layers": 2, "intermediate_size": 50, "num_attention_heads": 3,
        "num_key_value_heads": 1, "head_dim": 12, "max_position_embeddings": 256,
    },
}  # fmt: skip


def trained(
    job: dict[str, Any], write_job: WriteJob, name: str
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Metrics and final weights of a run."""
    registry = Registry(scan())
    out = Path(job["output_dir"]).parent / name
    result = run_job(load_job(write_job({**job, "output_dir": str(out)}), (), registry), registry)
    (weights,) = result.final_dir.glob("*model.safetensors")  # of an adapter where one trains
    return metrics(result.output_dir), load_file(weights)


def assert_same(a: Any, b: Any, rel: float) -> None:
    for x, y in zip(a[0], b[0], strict=True):
        assert x["loss"] == pytest.approx(y["loss"], rel=rel)
        assert x["grad_norm"] == pytest.approx(y["grad_norm"], rel=rel)
        assert x["supervised_tokens"] == y["supervised_tokens"]
    for name, weight in b[1].items():
        torch.testing.assert_close(a[1][name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_times_one_is_one_times_eight(job: dict[str, Any], write_job: WriteJob, family: str) -> None:
    """Rows differ in length, so a mean of means would differ by far more than rounding."""
    job["model"] = {"use": family, "config": FAMILIES[family]}
    job["optimizer"] = {"use": "sgd", "lr": 0.05}
    runs = []
    for size in (1, 8):
        job["train"]["micro_batch_size"] = size
        runs.append(trained(job, write_job, f"micro-{size}"))
    assert_same(*runs, rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_documents_are_as_if_alone(job: dict[str, Any], write_job: WriteJob, family: str) -> None:
    job["model"] = {"use": family, "config": FAMILIES[family]}
    run = assembled(job, write_job)
    examples = [run.train_data[i] for i in range(6)]
    method = run.job.method
    together = run.model(method.collate(run, examples))
    alone = torch.cat([run.model(method.collate(run, [example])) for example in examples])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_packing_sees_every_token_once(job: dict[str, Any], write_job: WriteJob) -> None:
    totals = []
    for packing in (False, True):
        job["data"]["packing"] = packing
        job["train"] = {"epochs": 1, "batch_size": 4, "micro_batch_size": 2}
        rows, _ = trained(job, write_job, f"packing-{packing}")
        totals.append((rows[-1]["tokens_total"], sum(row["supervised_tokens"] for row in rows), len(rows)))
    assert totals[0][:2] == totals[1][:2]
    assert totals[1][2] < totals[0][2]


@pytest.mark.parametrize(("mode", "every"), [("full", 1), ("selective", 1), ("full", 2)])
@pytest.mark.parametrize("adapter", ["full", {"use": "lora", "rank": 4, "dropout": 0.2}])
def test_recomputed_activations_give_the_same_bits(
    job: dict[str, Any], write_job: WriteJob, mode: str, every: int, adapter: Any
) -> None:
    job["adapter"] = adapter
    losses = []
    for chosen in ("none", mode):
        job["train"] |= {
            "activation_checkpointing": chosen, "activation_checkpointing_every": 1 if chosen == "none" else every,
        }  # fmt: skip
        registry = Registry(scan())
        out = Path(job["output_dir"]).parent / chosen
        result = run_job(load_job(write_job({**job, "output_dir": str(out)}), (), registry), registry)
        losses.append([(row["loss"], row["grad_norm"]) for row in metrics(result.output_dir)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_an_optimizer_in_the_backward_is_the_same(job: dict[str, Any], write_job: WriteJob, optimizer: str) -> None:
    job["optimizer"] = {"use": optimizer, "lr": 1e-3}
    job["train"] |= {"micro_batch_size": 8, "clip_grad_norm": None}
    after = trained(job, write_job, "after")
    job["train"]["optimizer_in_backward"] = True
    assert_same(trained(job, write_job, "inside"), after, rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_looks_ahead_or_across(job: dict[str, Any], write_job: WriteJob, family: str) -> None:
    """Change one token of the middle document: earlier positions and other documents stay."""
    job["model"] = {"use": family, "config": FAMILIES[family]}
    model = assembled(job, write_job).model.eval()
    documents = [list(range(5, 25)), list(range(30, 60)), list(range(70, 85))]
    before = model(Batch.pack(documents))
    documents[1][10] = 200
    after = model(Batch.pack(documents))
    changed = (before != after).any(1).nonzero().squeeze(1).tolist()
    assert changed == list(range(30, 50))


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_tokens_are_inert(job: dict[str, Any], write_job: WriteJob, family: str) -> None:
    """A trailing token without loss changes neither the loss nor any gradient."""
    job["model"] = {"use": family, "config": FAMILIES[family]}
    run = assembled(job, write_job)
    gradients = []
    for tail in (50, 60):
        run.model.zero_grad()
        batch = Batch.pack([[5, 6, 7, 8, 9, tail]], [[False, False, True, True, True, False]])
        output = run.job.method.loss(run, batch)
        output.sum.backward()
        assert output.weight.item() == 3
        gradients.append([output.sum.detach(), *(p.grad.clone() for p in run.model.parameters())])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


def assembled(job: dict[str, Any], write_job: WriteJob) -> Run:
    registry = Registry(scan())
    return assemble(load_job(write_job(job), (), registry), registry)


def test_the_order_is_the_seed_s(job: dict[str, Any], write_job: WriteJob) -> None:
    first = trained(job, write_job, "first")
    again = trained(job, write_job, "again")
    job["train"]["seed"] = 4
    other = trained(job, write_job, "other")
    assert [row["loss"] for row in first[0]] == [row["loss"] for row in again[0]]
    assert all(first[1][name].equal(again[1][name]) for name in first[1])
    assert [row["tokens"] for row in first[0]] != [row["tokens"] for row in other[0]]


def test_the_loss_is_the_mean_over_supervised_tokens(job: dict[str, Any], write_job: WriteJob, rows: Path) -> None:
    """By hand: prompt + completion + EOS, the prompt without loss, averaged over tokens, not rows."""
    job["data"]["shuffle"] = False
    run = assembled(job, write_job)
    total, count = 0.0, 0
    for line in rows.read_text().splitlines()[:8]:
        row = json.loads(line)
        prompt, completion = (list(row[key].encode()) for key in ("prompt", "completion"))
        ids = [*([256] if run.tokenizer.adds_bos else []), *prompt, *completion, 257]
        start = len(ids) - len(completion) - 1
        with torch.no_grad():
            logits = run.model.head().logits(run.model(Batch.pack([ids]))).double()
        picked = torch.log_softmax(logits, -1)[range(start - 1, len(ids) - 1), ids[start:]]
        total, count = total - picked.sum().item(), count + len(picked)
    rows_, _ = trained(job, write_job, "hand")
    assert rows_[0]["loss"] == pytest.approx(total / count, rel=1e-6)
    assert rows_[0]["supervised_tokens"] == count
