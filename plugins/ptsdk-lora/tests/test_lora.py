"""The adapters by themselves: options, targets, meta device, files that must be refused."""

from __future__ import annotations

import copy
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ptsdk.errors import RunError, UserError
from ptsdk.nn.attention import Attend
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.head import Head
from ptsdk_lora.adapter import Dora, Lora, LowRank, RsLora
from ptsdk_lora.layers import LowRankLinear, adapt

KINDS = [Lora(rank=2, alpha=3), RsLora(rank=2, alpha=3), Dora(rank=2, alpha=3)]
kinds = pytest.mark.parametrize("adapter", KINDS, ids=["lora", "rslora", "dora"])


class Packed(nn.Linear):
    """A quantised layer as a plugin could write one: the weight in half its bits, unpacked to use."""

    def pack(self, leaf: str, tensor: Tensor) -> nn.Parameter:
        held = tensor.detach().mul(64).round().to(torch.int8) if leaf == "weight" else tensor
        return nn.Parameter(held, requires_grad=False)

    def unpacked(self, leaf: str) -> Tensor:
        held = self.get_parameter(leaf).detach()
        return held.float() / 64 if leaf == "weight" else held

    def unpacked_shape(self, leaf: str) -> torch.Size:
        return self.get_parameter(leaf).shape

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.unpacked("weight").to(x.dtype), self.bias)


class Block(nn.Module):
    def __init__(self, linear: type[nn.Linear], order: int) -> None:
        super().__init__()
        names = ["q_proj", "o_proj"][::order]
        for name in names:
            setattr(self, name, linear(8, 8, bias=name == "q_proj"))
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.o_proj(torch.relu(self.q_proj(self.norm(x))))


class Model(CausalLM):
    """Two blocks, an embedding, and a head that is a linear layer too."""

    num_layers, num_kv_heads, head_dim, vocab_size = 2, 1, 8, 11

    def __init__(self, linear: type[nn.Linear] = nn.Linear, order: int = 1) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"embed_tokens": nn.Embedding(11, 8)})
        self.model["layers"] = nn.ModuleList(Block(linear, order) for _ in range(2))
        self.lm_head = nn.Linear(8, 11)

    def hidden_states(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        x = self.model["embed_tokens"](tokens)
        for block in self.model["layers"]:
            x = block(x)
        return x

    def head(self) -> Head:
        return Head(self.lm_head.weight, self.lm_head.bias)

    def init_weight(self, name: str, weight: Tensor, generator: torch.Generator) -> None:
        weight.normal_(generator=generator)

    def run(self) -> Tensor:
        return self.hidden_states(torch.arange(11), torch.arange(11), None)  # type: ignore[arg-type]


def model(linear: type[nn.Linear] = nn.Linear) -> Model:
    torch.manual_seed(0)
    return Model(linear)


def ready(adapter: LowRank, base: Model | None = None) -> Model:
    """An adapted model whose adapter is far from its start."""
    base = base or model()
    adapter.apply(base)
    adapter.init(base, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(base.named_parameters()):
            if adapter.own(name):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return base


def own(adapter: LowRank, base: Model) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in base.named_parameters() if adapter.own(name)}


def saved(folder: Path, adapter: LowRank | None = None, **changes: Any) -> Path:
    """An adapter on disk, its config changed."""
    adapter = adapter or Lora(rank=2)
    adapter.save(own(adapter, ready(adapter)), folder, "base")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_the_plugin_loads_neither_torch_nor_pydantic():
    code = (
        "import sys, ptsdk_lora.plugin as p; names = [s.name for s in p.ptsdk_adapters()];"
        "assert names == ['lora', 'rslora', 'dora'], names;"
        "assert not {'torch', 'pydantic', 'safetensors'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@kinds
def test_names_and_what_trains(adapter):
    base = model()
    before = set(base.state_dict())
    adapter.apply(base)
    added = set(base.state_dict()) - before
    layers = [f"model.layers.{i}.{name}" for i in range(2) for name in ("q_proj", "o_proj")]
    leaves = ["lora_A.weight", "lora_B.weight"] + ["lora_magnitude_vector"] * isinstance(adapter, Dora)
    assert added == {f"{layer}.{leaf}" for layer in layers for leaf in leaves}
    assert {name for name, p in base.named_parameters() if p.requires_grad} == added
    assert all(adapter.own(name) == (name in added) for name in base.state_dict())


@kinds
def test_on_meta_then_loaded_then_initialised(adapter):
    with torch.device("meta"):
        late = Model()
    adapter.apply(late)
    assert all(p.is_meta for p in late.parameters())
    early = model()
    late.load_state_dict(early.state_dict(), strict=False, assign=True)
    late.requires_grad_(False)
    adapter.init(late, 3)
    adapter.apply(early)
    adapter.init(early, 3)
    for name, parameter in early.named_parameters():
        assert torch.equal(parameter, late.get_parameter(name)), name
    torch.testing.assert_close(late.run(), model().run())


@kinds
def test_init_depends_on_seed_and_name_alone(adapter):
    one, other = Model(order=1), Model(order=-1)
    other.load_state_dict(one.state_dict())
    before = torch.get_rng_state()
    for base in (one, other):
        adapter.apply(base)
        adapter.init(base, 7)
    assert torch.equal(before, torch.get_rng_state())
    first = own(adapter, one)
    assert all(torch.equal(first[name], tensor) for name, tensor in own(adapter, other).items())
    adapter.init(one, 8)
    name = "model.layers.0.q_proj.lora_A.weight"
    assert not torch.equal(one.get_parameter(name), first[name])
    a = [tensor for key, tensor in own(adapter, other).items() if "lora_A" in key]
    assert len({tuple(tensor.flatten().tolist()) for tensor in a}) == len(a)


@kinds
def test_a_quantised_base_keeps_its_own_forward(adapter):
    packed, dense = model(Packed), model()
    for name, layer in packed.named_modules():
        if isinstance(layer, Packed):
            layer.weight = layer.pack("weight", layer.weight)
            dense.get_submodule(name).weight.data = layer.unpacked("weight")
    torch.testing.assert_close(ready(adapter, packed).run(), ready(adapter, dense).run())
    packed.run().sum().backward()
    merged, expected = adapter.merged(packed), adapter.merged(dense)
    assert merged.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor)


def test_packed_bits_that_nobody_unpacks_are_refused():
    layer = nn.Linear(4, 4)
    layer.weight = nn.Parameter(torch.zeros(8, dtype=torch.uint8), requires_grad=False)
    adapted = adapt(layer, rank=1, scaling=1.0, dropout=0.0, magnitude=False)
    with pytest.raises(TypeError, match="has to be a Packs"):
        adapted.merged_weight()


def test_backward_makes_no_gradient_of_a_base_weight_and_keeps_x_once():
    layer = nn.Linear(64, 32)
    adapt(layer, rank=2, scaling=1.0, dropout=0.0, magnitude=False).reset(torch.Generator())
    layer.weight.requires_grad_(False)
    layer.bias.requires_grad_(False)
    x = torch.randn(100, 64, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = layer(x)
    inputs = [t for t in kept if t.shape == x.shape]
    assert len({t.data_ptr() for t in inputs}) == 1
    assert sum(t.numel() for t in {t.data_ptr(): t for t in kept}.values()) <= 100 * 64 + 100 * 2 + 32 * 64 + 2 * 96
    y.sum().backward()
    assert layer.weight.grad is None
    assert x.grad is not None


@kinds
def test_bfloat16_base_with_float32_adapter(adapter):
    base = model().bfloat16()
    ready(adapter, base)
    assert {tensor.dtype for tensor in own(adapter, base).values()} == {torch.float32}
    exact = ready(adapter, model().bfloat16().float())
    result = base.run()
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), exact.run(), rtol=0.05, atol=0.05)
    result.float().sum().backward()
    assert all(base.get_parameter(name).grad.dtype == torch.float32 for name in own(adapter, base))
    assert adapter.merged(base)["model.layers.0.q_proj.weight"].dtype == torch.bfloat16


@kinds
def test_a_copy_is_independent(adapter):
    base = ready(adapter)
    twin = copy.deepcopy(base)
    with adapter.disabled(base):
        assert not torch.equal(base.run(), twin.run())
    assert torch.equal(base.run(), twin.run())


def test_disabled_is_left_by_an_error_too():
    adapter = Lora(rank=2)
    base = ready(adapter)
    expected = base.run()
    with pytest.raises(KeyError), adapter.disabled(base):
        raise KeyError
    assert torch.equal(base.run(), expected)
    with pytest.raises(RunError, match="no low-rank adapter"):
        adapter.disabled(model())


def test_applying_twice_is_refused():
    base = ready(Lora(rank=2))
    with pytest.raises(RunError, match="already"):
        Dora().apply(base)


@pytest.mark.parametrize(
    ("targets", "layers"),
    [
        ("all-linear", ["0.q_proj", "0.o_proj", "1.q_proj", "1.o_proj"]),
        (["q_proj"], ["0.q_proj", "1.q_proj"]),
        (["layers.1.q_proj", "model.layers.0.o_proj"], ["0.o_proj", "1.q_proj"]),
        (r".*\.1\..*", ["1.q_proj", "1.o_proj"]),
    ],
)
def test_targets(targets, layers):
    base = model()
    Lora.model_validate({"targets": targets}).apply(base)
    found = [name for name, module in base.named_modules() if isinstance(module, LowRankLinear)]
    assert found == [f"model.layers.{layer}" for layer in layers]


def test_targets_that_match_nothing_name_what_there_is():
    with pytest.raises(UserError) as caught:
        Lora(targets=("q_proj", "o_prj", "lm_head")).apply(model())
    text = str(caught.value)
    assert "adapter.targets: 'o_prj' matches no linear layer of the blocks\n    did you mean o_proj?" in text
    assert "'lm_head' matches" in text
    assert "the blocks have o_proj, q_proj" in text
    with pytest.raises(UserError, match=r"a string is a regular expression .* such as \[q_proj\]"):
        Lora(targets="q_proj").apply(model())
    with pytest.raises(UserError, match="did you mean q_proj"):
        Lora(targets=("_proj",)).apply(model())
    base = model()
    with pytest.raises(UserError):
        Lora(targets=("nothing",)).apply(base)
    assert all(p.requires_grad for p in base.parameters())


@pytest.mark.parametrize(
    "options", [{"rank": 0}, {"alpha": 0}, {"dropout": 1}, {"targets": []}, {"targets": "("}, {"targets": ""}, {"r": 8}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValidationError):
        Lora.model_validate(options)


@kinds
def test_save_and_load(adapter, tmp_path):
    base = ready(adapter)
    adapter.save(own(adapter, base), tmp_path, None)
    loaded = adapter.load(tmp_path, base)
    assert loaded.keys() == own(adapter, base).keys()
    assert all(torch.equal(tensor, base.get_parameter(name)) for name, tensor in loaded.items())


@pytest.mark.parametrize(
    ("base", "name", "revision"),
    [("hf://org/name", "org/name", None), ("hf://org/name@v1", "org/name", "v1"), ("some/dir@x", "some/dir@x", None)],
)
def test_the_base_is_named_as_peft_names_it(base, name, revision, tmp_path):
    Lora(rank=2).save({}, tmp_path, base)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (name, revision)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias": "all"}, "bias = 'all' is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save = "),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern = "),
        ({"layers_to_transform": [0]}, "layers_to_transform = "),
        ({"fan_in_fan_out": True}, "fan_in_fan_out = True"),
        ({"task_type": "SEQ_CLS"}, "task_type = 'SEQ_CLS'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"something_new": 1}, "something_new = 1"),
        ({"peft_type": "IA3"}, "peft_type is IA3"),
        ({"r": 0}, "rank: "),
        ({"r": 4}, "has rank 4, the one asked for 2"),
        ({"lora_alpha": 7}, "has scaling 3.5"),
        ({"use_dora": True}, "has kind Dora, the one asked for Lora"),
        ({"target_modules": None}, "targets"),
    ],
)
def test_a_config_that_means_something_else_is_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        Lora(rank=2).load(saved(tmp_path, **changes))


def test_a_config_without_a_rank_is_refused():
    with pytest.raises(UserError, match="r is missing"):
        Lora.from_peft({"peft_type": "LORA", "lora_alpha": 1, "target_modules": ["q_proj"]})


def test_tensors_that_do_not_fit_are_refused(tmp_path):
    adapter, base = Lora(rank=2), ready(Lora(rank=2))
    file = saved(tmp_path) / "adapter_model.safetensors"
    good = load_file(file)
    name = "base_model.model.model.layers.0.q_proj.lora_A.weight"

    def refused(tensors: dict[str, Tensor], message: str) -> None:
        save_file(tensors, file)
        with pytest.raises(UserError, match=message):
            adapter.load(tmp_path, base)

    refused({key: t for key, t in good.items() if key != name}, r"0\.q_proj\.lora_A\.weight is missing")
    refused({**good, "base_model.model.lm_head.weight": torch.zeros(1)}, "lm_head.weight has no place in this model")
    refused({**good, name: torch.zeros(2, 9)}, r"lora_A\.weight is \[2, 9\], the model needs \[2, 8\]")
    refused({"foreign": torch.zeros(1)}, "does not start with base_model.model.")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UserError, match="damaged"):
        adapter.load(tmp_path, base)


def test_folders_without_an_adapter_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no adapter_config\.json here"):
        Lora().load(tmp_path)
    (saved(tmp_path) / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(UserError, match="is a pickle, which is never opened"):
        Lora(rank=2).load(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        Lora().load(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        Lora().load(tmp_path)


@pytest.mark.dist
@kinds
def test_sharded_from_meta_it_starts_the_same(adapter):
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=0, world_size=1)
    try:
        with torch.device("meta"):
            sharded = Model()
        adapter.apply(sharded)
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        for block in sharded.layers:
            fully_shard(block, mesh=mesh)
        plain = model()
        for name, tensor in plain.state_dict().items():
            parameter = sharded.get_parameter(name)
            if hasattr(parameter, "device_mesh"):
                tensor = dist.tensor.distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
            owner, _, leaf = name.rpartition(".")
            setattr(sharded.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
        adapter.init(sharded, 5)
        adapter.apply(plain)
        adapter.init(plain, 5)
        for name, tensor in own(adapter, plain).items():
            assert torch.equal(sharded.get_parameter(name).full_tensor(), tensor), name
        torch.testing.assert_close(sharded.run(), plain.run())
        sharded.run().sum().backward()
    finally:
        dist.destroy_process_group()


def test_layers_do_not_import_what_shards_need() -> None:
    """Seconds of every start."""
    code = "import ptsdk_lora.layers, sys; print(sorted({'sympy', 'torch._dynamo'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
