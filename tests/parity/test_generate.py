"""Greedy completions and loaded checkpoints against transformers and PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import ptsdk
from ptsdk.contracts.model import Dtype
from ptsdk.generate.engine import generate
from ptsdk.generate.sampling import SamplingParams
from ptsdk.nn.causal_lm import CausalLM

SMALL = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 6, "head_dim": 8}
SMALL |= {"max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 1}
FAMILIES = {
    "llama": (transformers.LlamaConfig, {"num_hidden_layers": 3, "num_key_value_heads": 2}),
    "gemma3": (
        transformers.Gemma3TextConfig,
        # Untied: with a tied head, random weights say the last token again and again.
        {"num_hidden_layers": 4, "num_key_value_heads": 2, "sliding_window": 5, "sliding_window_pattern": 2}
        | {"tie_word_embeddings": False},
    ),
}
PROMPTS = [[1, *range(10, 10 + n)] for n in (1, 12, 3, 7, 20, 2)]


@pytest.fixture(params=FAMILIES)
def oracle(request: pytest.FixtureRequest) -> Any:
    config, keys = FAMILIES[request.param]
    torch.manual_seed(0)
    auto: Any = transformers.AutoModelForCausalLM
    model = auto.from_config(config(**SMALL, **keys)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
    return model


@pytest.fixture
def model(oracle: Any, tmp_path: Path) -> CausalLM:
    oracle.save_pretrained(tmp_path / "model")
    model = ptsdk.load_model(tmp_path / "model")
    assert isinstance(model, CausalLM)
    return model


def test_greedy_completions_are_those_of_transformers(oracle: Any, model: CausalLM) -> None:
    free = generate(model, PROMPTS, SamplingParams(max_new_tokens=24, temperature=0))
    params = SamplingParams(max_new_tokens=24, temperature=0, stop_ids=(free[1].tokens[4], free[4].tokens[9]))
    completions = generate(model, PROMPTS, params, slots=4)
    assert len({len(completion.tokens) for completion in completions}) > 2, "rows must end at different steps"
    for prompt, ours in zip(PROMPTS, completions, strict=True):
        out = oracle.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=list(params.stop_ids),
            return_dict_in_generate=True,
            output_logits=True,
        )
        theirs = out.sequences[0, len(prompt) :].tolist()
        assert list(ours.tokens) == theirs
        scores = torch.cat(out.logits).log_softmax(-1).gather(1, torch.tensor(theirs)[:, None]).squeeze(1)
        torch.testing.assert_close(torch.tensor(ours.log_probs), scores, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_logits_of_padded_rows_are_those_of_transformers(oracle: Any, model: CausalLM) -> None:
    width = max(map(len, PROMPTS))
    rows = torch.tensor([prompt + [0] * (width - len(prompt)) for prompt in PROMPTS])
    mask = torch.tensor([[1] * len(prompt) + [0] * (width - len(prompt)) for prompt in PROMPTS])
    ours = ptsdk.logits(model, rows, mask)
    assert ours.dtype == torch.float32
    for row, prompt in zip(ours, PROMPTS, strict=True):
        theirs = oracle(torch.tensor([prompt])).logits[0]
        torch.testing.assert_close(row[: len(prompt)], theirs, rtol=1e-4, atol=1e-4)
        assert not row[len(prompt) :].any()


def test_a_checkpoint_in_bfloat16_is_loaded_in_what_is_asked_for(oracle: Any, tmp_path: Path) -> None:
    oracle.bfloat16().save_pretrained(tmp_path)
    wishes: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    for wish, dtype in wishes.items():
        model = ptsdk.load_model(tmp_path, dtype=wish)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype).state_dict()
        for name, parameter in model.named_parameters():
            assert parameter.dtype == dtype
            torch.testing.assert_close(parameter, theirs[name], rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}], ids=str)
def test_an_adapter_of_peft_on_its_base(oracle: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    import peft

    oracle.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        r=4, lora_alpha=10, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", **options
    )
    adapted = peft.get_peft_model(oracle, config).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.add_(torch.rand_like(parameter) * 0.2)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    model = ptsdk.load_model(tmp_path / "base", adapter=tmp_path / "adapter")
    ids = torch.tensor([PROMPTS[1]])
    theirs = adapted(ids).logits
    torch.testing.assert_close(ptsdk.logits(model, ids), theirs, rtol=1e-3, atol=1e-4)
    plain = ptsdk.logits(ptsdk.load_model(tmp_path / "base"), ids)
    assert (plain - theirs).abs().max() > 0.1, "the adapter must matter"
