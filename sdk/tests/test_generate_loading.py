"""From a folder to a model; what does not fit is said, tensor by tensor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file

from ptsdk.builtin.tiny import Tiny
from ptsdk.contracts.adapter import Adapter
from ptsdk.data.tokenizers import ByteTokenizer, FastTokenizer
from ptsdk.errors import UserError
from ptsdk.generate.loading import find_adapter, load_pretrained
from ptsdk.generate.prompts import chat_prompt, plain_prompt
from ptsdk.generate.stopping import end_of_turn, stop_ids
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.plugins import DiscoveryOptions, Entry, scan
from ptsdk.registry import Registry
from ptsdk.specs import Spec

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def registry() -> Registry:
    return Registry(scan(DiscoveryOptions(safe=True)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model as a run leaves it, without a tokenizer."""
    config = {"architectures": ["TinyForCausalLM"], "hidden_size": 16, "intermediate_size": 24}
    model = Tiny().build(config)
    torch.manual_seed(0)
    with torch.no_grad():
        tensors = {name: torch.randn_like(parameter) for name, parameter in model.named_parameters()}
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Replace tensors of the checkpoint, or drop those that are None."""
    file = folder / "model.safetensors"
    contents = {**load_file(file), **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}
    save_file({name: tensor for name, tensor in contents.items() if tensor is not None}, file)


def test_weights_are_those_of_the_file(folder: Path, registry: Registry) -> None:
    model, tokenizer, checkpoint = load_pretrained("model", registry, folder.parent)
    stored = load_file(folder / "model.safetensors")
    assert {name for name, _ in model.named_parameters()} == stored.keys()
    assert all(torch.equal(parameter, stored[name]) for name, parameter in model.named_parameters())
    assert not any(module.training for module in model.modules())
    assert tokenizer is None
    assert checkpoint.path == folder
    half = load_pretrained(str(folder), registry, Path(), "bfloat16").model
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_loading_does_not_import_a_compiler(folder: Path) -> None:
    """Of the two seconds that would take, a model that is only read has no use."""
    code = f"import sys, ptsdk; ptsdk.load_model({str(folder)!r}); print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_tied_head_may_be_stored_too(folder: Path, registry: Registry) -> None:
    change(folder, lm_head__weight=load_file(folder / "model.safetensors")["model.embed_tokens.weight"])
    assert load_pretrained(str(folder), registry, Path()).model.tied() == {
        "lm_head.weight": "model.embed_tokens.weight"
    }


def test_tensors_that_do_not_fit_are_named(folder: Path, registry: Registry) -> None:
    change(folder, model__norm__weight=None, extra=torch.zeros(1), model__embed_tokens__weight=torch.zeros(5, 16))
    with pytest.raises(UserError) as error:
        load_pretrained(str(folder), registry, Path())
    message = str(error.value)
    assert "model.norm.weight is missing" in message
    assert "extra is not part of the model" in message
    assert "model.embed_tokens.weight is [5, 16], config.json makes it [320, 16]" in message


@pytest.mark.parametrize(
    ("config", "words"),
    [({"architectures": None}, "names no architecture"), ({"architectures": ["NopeLM"]}, "reads the architecture")],
)
def test_a_model_that_nobody_reads(folder: Path, registry: Registry, config: dict[str, Any], words: str) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    with pytest.raises(UserError, match=words):
        load_pretrained(str(folder), registry, Path())


class Shift(Adapter):
    """Adds a number to the last norm; stands for an adapter of a plugin."""

    by: float = 0.0

    def apply(self, model: CausalLM) -> None:
        norm = model.get_submodule("model.norm")
        norm.shift = torch.nn.Parameter(torch.empty(1, device="meta"))
        norm.register_forward_hook(lambda module, _, out: out + module.shift)

    def own(self, name: str) -> bool:
        return name.endswith(".shift")

    def disabled(self, model: CausalLM) -> Any:
        raise NotImplementedError

    def save(self, tensors: Any, folder: Path, base: str | None) -> None:
        raise NotImplementedError

    def load(self, folder: Path, model: CausalLM | None = None) -> dict[str, torch.Tensor]:
        return {"model.norm.shift": torch.full((1,), self.by)}

    def merged(self, model: CausalLM) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    @classmethod
    def from_peft(cls, adapter_config: Any) -> Adapter:
        if adapter_config.get("peft_type") != "SHIFT":
            raise UserError(f"peft_type is {adapter_config.get('peft_type')}, this reads SHIFT")
        return cls(by=adapter_config["by"])


class Again(Shift):
    """Reads the same, from another plugin."""


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "SHIFT", "by": 2.5}))
    return folder


def install(registry: Registry, monkeypatch: pytest.MonkeyPatch, *classes: type[Adapter]) -> None:
    """Let ``registry`` have these adapters, as installed plugins would."""
    known = {f"{cls.__name__.lower()}{i}": cls for i, cls in enumerate(classes)}
    peft = frozenset({"peft"})
    specs = [Spec(name, f"plugin:{cls.__name__}", supports=peft) for name, cls in known.items()]
    entries = [Entry("adapter", spec, "ptsdk-shift", "1") for spec in specs]
    load, found = registry.load, registry.entries
    monkeypatch.setattr(registry, "entries", lambda kind: found(kind) + (entries if kind == "adapter" else []))
    monkeypatch.setattr(registry, "load", lambda entry: known.get(entry.spec.name) or load(entry))


def test_an_adapter_of_a_plugin(
    folder: Path, adapter: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(registry, monkeypatch, Shift)
    model = load_pretrained("model", registry, folder.parent, "bfloat16", Path("adapter")).model
    shift = model.get_parameter("model.norm.shift")
    assert (shift.item(), shift.dtype) == (2.5, torch.float32), "in the dtype that the adapter gave it"
    assert model.get_parameter("model.norm.weight").dtype == torch.bfloat16


def test_an_adapter_that_nobody_reads(adapter: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no installed plugin reads the adapter"):
        find_adapter(adapter, registry)
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(UserError, match="pip install ptsdk-lora"):
        find_adapter(adapter, registry)
    install(registry, monkeypatch, Shift)
    with pytest.raises(UserError, match="peft_type is LORA, this reads SHIFT"):
        find_adapter(adapter, registry)


def test_an_adapter_that_two_plugins_read(adapter: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    install(registry, monkeypatch, Shift, Shift)
    assert find_adapter(adapter, registry) == Shift(by=2.5)
    install(registry, monkeypatch, Again)
    with pytest.raises(UserError, match="several plugins read the adapter"):
        find_adapter(adapter, registry)


@pytest.mark.parametrize(
    ("contents", "words"), [(None, "has no adapter_config.json"), ("{", "not JSON"), ("[]", "expected a JSON object")]
)
def test_a_folder_that_is_no_adapter(adapter: Path, registry: Registry, contents: str | None, words: str) -> None:
    (adapter / "adapter_config.json").unlink()
    if contents is not None:
        (adapter / "adapter_config.json").write_text(contents)
    with pytest.raises(UserError, match=words):
        find_adapter(adapter, registry)


def test_the_tokenizer_is_the_one_trained_with(
    folder: Path, adapter: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(registry, monkeypatch, Shift)
    ByteTokenizer().save(folder)
    ByteTokenizer(CHATML).save(adapter)
    plain = load_pretrained(str(folder), registry, Path()).tokenizer
    adapted = load_pretrained(str(folder), registry, Path(), adapter=adapter).tokenizer
    assert plain is not None
    assert adapted is not None
    assert (plain.chat_template, adapted.chat_template) == (None, CHATML)


def chatml_tokenizer() -> ByteTokenizer:
    """Its template ends turns with a special token that is not EOS."""
    tokenizer = ByteTokenizer(CHATML)
    tokenizer._backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return tokenizer


def test_stop_tokens(folder: Path, registry: Registry) -> None:
    tokenizer = chatml_tokenizer()
    config, generation = folder / "config.json", folder / "generation_config.json"
    base = json.loads(config.read_text())

    def stops(chat: bool = False) -> tuple[int, ...]:
        return stop_ids(load_pretrained(str(folder), registry, Path()).checkpoint, tokenizer, chat=chat)

    assert stops() == (257,)
    assert stops(chat=True) == (257, 260)
    config.write_text(json.dumps({**base, "eos_token_id": 7}))
    assert stops() == (7, 257)
    generation.write_text(json.dumps({"eos_token_id": [5, 257, 6]}))
    assert stops() == (5, 257, 6), "what generation_config.json says comes before config.json"
    assert stop_ids(None, tokenizer) == (257,), "a model from scratch ends with what the tokenizer says"


def test_an_end_of_turn_that_is_no_token() -> None:
    assert end_of_turn(chatml_tokenizer()) == 260
    assert end_of_turn(ByteTokenizer("{% for m in messages %}{{ m.content }}\n{% endfor %}")) is None
    assert end_of_turn(ByteTokenizer("{{ raise_exception('no') }}")) is None
    assert end_of_turn(ByteTokenizer("{% for m in messages %}{{ m.content }} <eos>{% endfor %}")) == 257


def test_prompts() -> None:
    tokenizer = chatml_tokenizer()
    assert plain_prompt(tokenizer, "hi") == [104, 105]
    with pytest.raises(UserError, match="the prompt is empty"):
        plain_prompt(tokenizer, "")
    messages = [{"role": "user", "content": "hi"}]
    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(chat_prompt(tokenizer, messages), skip_special=False) == text
    with pytest.raises(UserError, match="no chat template"):
        chat_prompt(ByteTokenizer(), messages)
    with pytest.raises(UserError, match="refuses this conversation"):
        chat_prompt(ByteTokenizer("{{ raise_exception('no') }}"), messages)


def bos_and_eos_tokenizer() -> FastTokenizer:
    """Puts <s> in front and </s> behind, as does its template."""
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "hi": 2}, unk_token="hi"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "add_eos_token": True}
    return FastTokenizer(backend, config, "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}")


def test_a_prompt_begins_with_bos_and_never_ends_with_eos() -> None:
    tokenizer = bos_and_eos_tokenizer()
    assert tokenizer.encode("hi") == [0, 2, 1]
    assert plain_prompt(tokenizer, "hi") == [0, 2]
    assert plain_prompt(tokenizer, "") == [0]


def test_the_chat_template_alone_decides_the_ids() -> None:
    assert chat_prompt(bos_and_eos_tokenizer(), [{"role": "user", "content": "hi"}]) == [0, 2, 1]
