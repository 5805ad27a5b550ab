"""What is exported loads in transformers as is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel

from ptsdk.builtin.formats import Safetensors
from ptsdk.checkpoint.export import export_model
from ptsdk.checkpoint.files import WriteError
from ptsdk.errors import RunError

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32, "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "bos_token_id": 1,
    "eos_token_id": 2, "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "awq"},
}  # fmt: skip


class FakeTokenizer:
    """Saves a tokenizer of two words."""

    def save(self, folder: Path) -> None:
        Backend(WordLevel({"a": 0, "b": 1}, unk_token="a")).save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def llama(tied: bool) -> dict[str, torch.Tensor]:
    """The state dict of a tiny Llama, made by hand under the names of its checkpoints."""
    torch.manual_seed(0)
    shapes = {"model.embed_tokens.weight": (32, 16), "model.norm.weight": (16,), "lm_head.weight": (32, 16)}
    for i in range(2):
        block = {"self_attn.q_proj": (16, 16), "self_attn.k_proj": (8, 16), "self_attn.v_proj": (8, 16),
                 "self_attn.o_proj": (16, 16), "mlp.gate_proj": (24, 16), "mlp.up_proj": (24, 16),
                 "mlp.down_proj": (16, 24), "input_layernorm": (16,), "post_attention_layernorm": (16,)}  # fmt: skip
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in block.items()}
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    if tied:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    return tensors


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("max_shard_bytes", [10**9, 4000])
def test_transformers_loads_it(tmp_path: Path, tied: bool, max_shard_bytes: int) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tensors, folder = llama(tied), tmp_path / "final"
    config = CONFIG | {"tie_word_embeddings": tied}
    export_model(folder, tensors, config, FakeTokenizer(), {"eos_token_id": [2, 3]}, max_shard_bytes=max_shard_bytes)  # type: ignore[arg-type]

    loaded: Any
    info: dict[str, Any]
    loaded, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)  # type: ignore[misc]
    assert not info["missing_keys"] and not info["unexpected_keys"] and loaded.dtype == torch.float32
    expected = LlamaForCausalLM(
        LlamaConfig(**{k: v for k, v in config.items() if "quant" not in k and "dtype" not in k})
    )
    expected.load_state_dict(tensors)
    ids = torch.tensor([[1, 5, 9, 30]])
    assert torch.equal(loaded(ids).logits, expected(ids).logits)
    assert loaded.generation_config.eos_token_id == [2, 3]
    assert AutoTokenizer.from_pretrained(folder).encode("b") == [1]


def test_tied_weights_are_written_once_and_marked_for_torch(tmp_path: Path) -> None:
    export_model(tmp_path / "final", llama(tied=True), CONFIG, None)
    with safe_open(tmp_path / "final" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert "lm_head.weight" not in file.keys() and len(file.keys()) == 20  # noqa: SIM118
    assert not (tmp_path / "final" / "generation_config.json").exists()


def test_config_speaks_of_what_was_written(tmp_path: Path) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in llama(False).items()}
    export_model(tmp_path / "final", tensors, CONFIG, None)
    config = json.loads((tmp_path / "final" / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and "torch_dtype" not in config and "quantization_config" not in config


def test_our_own_reader_agrees(tmp_path: Path) -> None:
    tensors = llama(False)
    export_model(tmp_path / "final", tensors, CONFIG, None, max_shard_bytes=4000)
    opened = Safetensors().open(tmp_path / "final")
    assert set(opened.names()) == set(tensors) and opened.config["model_type"] == "llama"
    assert all(torch.equal(opened.tensor(name), tensor) for name, tensor in tensors.items())
    assert all(opened.shape(name) == tuple(tensor.shape) for name, tensor in tensors.items())


def test_an_export_replaces_the_one_before_or_leaves_it(tmp_path: Path) -> None:
    final = tmp_path / "final"
    export_model(final, {"w": torch.zeros(2)}, CONFIG, None)
    export_model(final, {"w": torch.ones(2)}, CONFIG, None)
    assert Safetensors().open(final).tensor("w")[0] == 1

    class Broken(FakeTokenizer):
        def save(self, folder: Path) -> None:
            raise PermissionError(13, "Permission denied", str(folder / "tokenizer.json"))

    with pytest.raises(WriteError, match=r"Permission denied: .*tokenizer\.json"):
        export_model(final, {"w": torch.zeros(2)}, CONFIG, Broken())  # type: ignore[arg-type]
    assert Safetensors().open(final).tensor("w")[0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["final"]


def test_what_no_one_could_load_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="lacks architectures"):
        export_model(tmp_path / "f", {"w": torch.zeros(1)}, {"model_type": "llama"}, None)
    with pytest.raises(RunError, match="no weights"):
        export_model(tmp_path / "f", {}, CONFIG, None)
    assert not (tmp_path / "f").exists()
