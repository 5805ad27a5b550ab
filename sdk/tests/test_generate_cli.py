"""``ptsdk generate``: the document it prints, what ends up in the text, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ptsdk.builtin.tiny import Tiny
from ptsdk.cli.generate import Stream
from ptsdk.cli.main import main
from ptsdk.data.tokenizers import ByteTokenizer
from ptsdk.generate.engine import generate
from ptsdk.generate.loading import load_pretrained
from ptsdk.generate.sampling import SamplingParams
from ptsdk.plugins import DiscoveryOptions, scan
from ptsdk.registry import Registry

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)
END = 33
"""The id of an exclamation mark: an end token that is ordinary text."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    config: dict[str, Any] = {
        "architectures": ["TinyForCausalLM"],
        "hidden_size": 32,
        "intermediate_size": 48,
        "vocab_size": 259,
    }
    config["max_position_embeddings"] = 4096
    torch.manual_seed(0)
    tensors = {name: torch.randn_like(p) * 0.4 for name, p in Tiny().build(config).named_parameters()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [END, 1]}))
    ByteTokenizer(TEMPLATE).save(folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["--safe", "generate", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def document(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> dict[str, Any]:
    code, out, _ = run(capsys, "--model", str(folder), *arguments, "--json")
    assert code == 0
    parsed: dict[str, Any] = json.loads(out)
    return parsed


def expected(folder: Path, prompts: list[list[int]], **params: Any) -> list[tuple[int, ...]]:
    model = load_pretrained(str(folder), Registry(scan(DiscoveryOptions(safe=True))), Path()).model
    return [c.tokens for c in generate(model, prompts, SamplingParams(**params, stop_ids=(END, 1, 257)))]


def test_the_json_document(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    options = ["--prompt", "ab", "--prompt", "c", "--num", "3", "--max-new-tokens", "40", "--seed", "4"]
    got = document(capsys, folder, *options)
    assert got.keys() == {"completions", "tokens_per_second"}
    assert got["tokens_per_second"] > 0
    assert all(entry.keys() == {"text", "tokens", "finish_reason"} for entry in got["completions"])
    tokens = [tuple(entry["tokens"]) for entry in got["completions"]]
    assert tokens == expected(folder, [[97, 98]] * 3 + [[99]] * 3, max_new_tokens=40, seed=4)
    assert len(set(tokens)) == 6


def test_the_stop_token_is_a_token_and_no_text(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    options = ["--prompt", "ab", "--num", "24", "--max-new-tokens", "60", "--top-k", "100"]
    entries = document(capsys, folder, *options)["completions"]
    stopped = [entry for entry in entries if entry["tokens"][-1] == END]
    assert stopped, "no completion met the end token: the test would be empty"
    for entry in entries:
        assert (entry["finish_reason"] == "stop") == (entry["tokens"][-1] in (END, 1, 257))
        assert "!" not in entry["text"]
    assert all(e["text"] == bytes(e["tokens"][:-1]).decode(errors="replace") for e in stopped if max(e["tokens"]) < 256)


def test_temperature_0_is_greedy(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    options = ["--prompt", "ab", "--max-new-tokens", "9", "--temperature", "0"]
    first, second = (document(capsys, folder, *options, "--seed", str(seed)) for seed in range(2))
    assert first["completions"] == second["completions"]
    assert tuple(first["completions"][0]["tokens"]) == expected(folder, [[97, 98]], max_new_tokens=9, temperature=0)[0]


def test_filters_are_passed_on(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    options = ["--top-k", "7", "--top-p", "0.8", "--min-p", "0.1", "--temperature", "2"]
    got = document(capsys, folder, "--prompt", "ab", *options)["completions"][0]["tokens"]
    assert tuple(got) == expected(folder, [[97, 98]], top_k=7, top_p=0.8, min_p=0.1, temperature=2.0)[0]


def test_chat_renders_the_template(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    got = document(capsys, folder, "--prompt", "ab", "--chat", "--max-new-tokens", "5")
    prompt = [*b"user:ab", 257, *b"A:"]
    assert tuple(got["completions"][0]["tokens"]) == expected(folder, [prompt], max_new_tokens=5)[0]


def test_one_completion_is_shown_as_it_grows(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    options = ["--prompt", "ab", "--max-new-tokens", "30"]
    text = document(capsys, folder, *options)["completions"][0]["text"]
    code, out, err = run(capsys, "--model", str(folder), *options)
    assert (code, out) == (0, text + "\n")
    assert "tokens/s" in err
    both = run(capsys, "--model", str(folder), *options, "--prompt", "c")
    assert both[1].startswith(text + "\n\n")


def test_characters_are_shown_when_they_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Stream(ByteTokenizer(), SamplingParams(stop_ids=(END,)))
    shown = []
    for token in [*"aé".encode(), END]:
        stream(0, token)
        shown.append(capsys.readouterr().out)
    assert (shown, stream.shown) == (["a", "", "é", ""], "aé")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt", "a", "--temperature", "-1", "--top-p", "3"], ["temperature is -1.0", "top_p is 3.0"]),
        (["--prompt", ""], ["the prompt is empty"]),
        (["--prompt", "a" * 5000], ["5000 tokens", "context"]),
        (["--prompt", "a", "--adapter", "nowhere"], ["nowhere is no adapter"]),
        ([], ["--prompt"]),
        (["--prompt", "a", "--num", "0"], ["--num"]),
    ],
)
def test_wrong_input_exits_2(
    capsys: pytest.CaptureFixture[str], folder: Path, options: list[str], words: list[str]
) -> None:
    code, out, err = run(capsys, "--model", str(folder), *options, "--json")
    assert (code, out) == (2, "")
    assert all(word in err for word in words)
    assert "Traceback" not in err


def test_a_model_without_a_tokenizer(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    code, _, err = run(capsys, "--model", str(tmp_path), "--prompt", "a")
    assert code == 2
    assert "brings no tokenizer" in err


def test_options_are_checked_before_anything_is_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "--model", str(tmp_path / "none"), "--prompt", "a", "--top-k", "0")
    assert code == 2
    assert "top_k is 0" in err
    assert "does not exist" not in err


def test_the_cli_names_the_model_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "--model", str(tmp_path / "none"), "--prompt", "a")
    assert code == 2
    assert "does not exist" in err
