"""The library face: a run, its model, its logits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ptsdk
from ptsdk.errors import UserError
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM

JOB = """
api: 1
model: {use: tiny, config: {hidden_size: 32, intermediate_size: 48}}
tokenizer: {use: bytes}
data: {train: {use: instruct, path: rows.jsonl}, max_length: 64}
method: sft
optimizer: {use: adamw, lr: 1e-2}
loggers: [jsonl]
train: {steps: 3, batch_size: 4, seed: 1}
output_dir: OUT
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    row = json.dumps({"prompt": "one ", "completion": "two"})
    (folder / "rows.jsonl").write_text("\n".join([row] * 8))
    (folder / "job.yaml").write_text(JOB.replace("OUT", str(folder / "run")))
    return folder / "job.yaml"


@pytest.fixture(scope="module")
def result(job: Path) -> ptsdk.RunResult:
    return ptsdk.run(job, overrides=["train.steps=2"])


@pytest.fixture(scope="module")
def model(result: ptsdk.RunResult) -> CausalLM:
    model = ptsdk.load_model(result.final_dir)
    assert isinstance(model, CausalLM)
    return model


def test_a_run_hands_back_where_it_left_its_files(result: ptsdk.RunResult, job: Path) -> None:
    assert (result.steps, result.output_dir) == (2, job.parent / "run")
    assert (result.final_dir / "model.safetensors").is_file()
    assert result.metrics["loss"] > 0


HEAVY = ("torch._dynamo", "torch._inductor", "sympy", "transformers", "datasets", "torchao")
LOADED = f"""
import sys, ptsdk
ptsdk.run(sys.argv[1], ["train.steps=1", "output_dir=" + sys.argv[2], "optimizer.use=" + sys.argv[3]])
print([name for name in {HEAVY} if name in sys.modules])
"""


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_that_compiles_nothing_does_not_load_the_compiler(optimizer: str, job: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", LOADED, str(job), str(tmp_path / "run"), optimizer]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split("\n")[-2] == "[]"


def test_a_second_run_refuses_and_can_overwrite(result: ptsdk.RunResult, job: Path, tmp_path: Path) -> None:
    elsewhere = f"output_dir={tmp_path / 'run'}"
    assert ptsdk.run(str(job), ["train.steps=1", elsewhere]).steps == 1
    with pytest.raises(UserError) as caught:
        ptsdk.run(job, ["train.steps=1", elsewhere])
    assert [(p.path, p.file, p.line) for p in caught.value.problems] == [("output_dir", "override", 1)]
    assert ptsdk.run(job, ["train.steps=1", elsewhere], overwrite=True).steps == 1


def test_what_is_wrong_with_the_output_directory_has_its_line(result: ptsdk.RunResult, job: Path) -> None:
    line = next(n for n, text in enumerate(job.read_text().splitlines(), 1) if text.startswith("output_dir"))
    with pytest.raises(UserError, match=rf"job\.yaml:{line}: output_dir: .* holds the results") as caught:
        ptsdk.run(job)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (str(job), line)


def test_a_loaded_model_is_in_eval_mode_and_differentiable(model: CausalLM) -> None:
    assert not any(module.training for module in model.modules())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())


def test_another_dtype_is_refused(result: ptsdk.RunResult) -> None:
    with pytest.raises(UserError, match="float16"):
        ptsdk.load_model(result.final_dir, dtype="float16")  # type: ignore[arg-type]
    bfloat16 = ptsdk.load_model(result.final_dir, dtype="bfloat16")
    assert {p.dtype for p in bfloat16.parameters()} == {torch.bfloat16}
    assert ptsdk.logits(bfloat16, torch.ones(1, 3, dtype=torch.int64)).dtype == torch.float32


def test_no_such_model_or_adapter(result: ptsdk.RunResult, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        ptsdk.load_model(tmp_path / "nothing")
    with pytest.raises(UserError, match="is no adapter"):
        ptsdk.load_model(result.final_dir, adapter=tmp_path)


def alone(model: CausalLM, row: Tensor) -> Tensor:
    return model.head().logits(model(Batch.pack([row.tolist()])))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_each_row_is_a_document_and_padding_is_zero(model: CausalLM, dtype: torch.dtype) -> None:
    ids = torch.randint(0, 259, (4, 7))
    lengths = [7, 3, 0, 1]
    mask = (torch.arange(7) < torch.tensor(lengths)[:, None]).to(dtype)
    out = ptsdk.logits(model, ids, mask)
    assert out.shape == (4, 7, model.vocab_size)
    for row, document, length in zip(out, ids, lengths, strict=True):
        assert not row[length:].any()
        if length:
            torch.testing.assert_close(row[:length], alone(model, document[:length]))


def test_without_a_mask_every_token_counts(model: CausalLM) -> None:
    ids = torch.randint(0, 259, (2, 5), dtype=torch.int32)
    out = ptsdk.logits(model, ids)
    torch.testing.assert_close(out, torch.stack([alone(model, row) for row in ids]))


def test_what_is_padded_changes_nothing(model: CausalLM) -> None:
    ids, mask = torch.randint(0, 259, (2, 6)), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    other = ids.clone()
    other[1, 4:] = -100  # not even an id
    assert torch.equal(ptsdk.logits(model, ids, mask), ptsdk.logits(model, other, mask))


def test_gradients_flow(model: CausalLM) -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    total = ptsdk.logits(model, torch.ones(2, 3, dtype=torch.int64), mask).logsumexp(-1).sum()
    torch.autograd.backward(total)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_no_token_at_all(model: CausalLM) -> None:
    ids = torch.ones(2, 3, dtype=torch.int64)
    assert not ptsdk.logits(model, ids, torch.zeros(2, 3)).any()
    assert ptsdk.logits(model, ids[:, :0]).shape == (2, 0, model.vocab_size)


@pytest.mark.parametrize(
    ("ids", "mask", "words"),
    [
        (torch.ones(3, dtype=torch.int64), None, "must be int64"),
        (torch.ones(2, 3), None, "must be int64"),
        (torch.full((2, 3), 320), None, "vocabulary of 320"),
        (torch.full((2, 3), -1), None, "vocabulary of 320"),
        (torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 4), "attention_mask is"),
        (torch.ones(2, 3, dtype=torch.int64), torch.tensor([[1, 1, 1], [0, 1, 1]]), "after padding"),
    ],
)
def test_inputs_of_another_form_are_refused(model: CausalLM, ids: Tensor, mask: Tensor | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ptsdk.logits(model, ids, mask)
