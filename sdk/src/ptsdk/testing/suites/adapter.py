"""What an adapter has to do."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from ptsdk.builtin.tiny import Tiny
from ptsdk.checkpoint.weights import adapter_names, build_on_meta, fill, initial_tensors
from ptsdk.contracts.adapter import Adapter
from ptsdk.errors import RunError
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.testing.checkpoints import CPU, built
from ptsdk.testing.suite import ComponentSuite
from ptsdk.testing.suites.model_family import close, states

FAMILY = Tiny(config={"hidden_size": 32, "intermediate_size": 64})
DOCUMENTS = [[5, 17, 300, 2, 9], [64, 65, 66]]


class AdapterSuite(ComponentSuite):
    """For the kind ``adapter``, on core's small model in float64."""

    kind: ClassVar[str] = "adapter"

    def adapted(self, seed: int = 0) -> tuple[Adapter, CausalLM]:
        """A model with the adapter, its base as ``plain`` has it."""
        adapter: Adapter = self.make()
        model = build_on_meta(FAMILY, FAMILY.full_config(FAMILY.config or {}), torch.float64)
        adapter.apply(model)
        base = [name for name, _ in model.named_parameters() if not adapter.own(name)]
        fill(model, initial_tensors(model, base, 0), CPU, torch.float64)
        adapter.init(model, seed)
        return adapter, model.eval()

    def trained(self) -> tuple[Adapter, CausalLM]:
        """The same with weights that training might have given the adapter."""
        adapter, model = self.adapted()
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.add_(0.1 * noise.to(parameter.dtype))
        return adapter, model

    def plain(self) -> CausalLM:
        """The base alone."""
        return built(FAMILY, torch.float64).eval()

    def own(self, adapter: Adapter, model: CausalLM) -> dict[str, Tensor]:
        """The adapter's parameters."""
        return {name: model.get_parameter(name).detach().clone() for name in adapter_names(adapter, model)}

    def test_starts_as_the_base(self) -> None:
        """Before the first step the model computes what its base computes."""
        _, model = self.adapted()
        assert close(states(model, DOCUMENTS), states(self.plain(), DOCUMENTS)), "a new adapter changes the model"

    def test_trains_what_it_owns(self) -> None:
        """The base keeps its names; exactly the adapter's own parameters train, or all where it has none."""
        adapter, model = self.adapted()
        own = set(adapter_names(adapter, model))
        names = {name for name, _ in model.named_parameters()}
        assert names - own == set(dict(self.plain().named_parameters())), "names of the base have changed"
        trains = {name for name, p in model.named_parameters() if p.requires_grad}
        assert trains == (own or names), f"these train but are not its own, or the reverse: {sorted(trains ^ own)[:5]}"

    def test_every_own_parameter_learns(self) -> None:
        """Once trained a little, a gradient reaches each of them."""
        _, model = self.trained()
        model(Batch.pack(DOCUMENTS)).square().sum().backward()
        idle = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
        assert not idle, f"no gradient reaches {', '.join(idle[:5])}"

    def test_starts_are_of_the_seed_and_name(self) -> None:
        """New parameters depend on the seed alone, not on what was drawn before: no world size changes them."""
        torch.manual_seed(1)
        first = self.own(*self.adapted(seed=0))
        torch.manual_seed(2)
        second = self.own(*self.adapted(seed=0))
        differ = [name for name, tensor in first.items() if not tensor.equal(second[name])]
        assert not differ, f"{', '.join(differ[:5])} start otherwise the second time, though the seed is the same"

    def test_disabled_it_is_the_base(self) -> None:
        """Switched off after training the model is its base to the bit; one that keeps none says so."""
        adapter, model = self.trained()
        if not adapter.keeps_base:
            with pytest.raises(RunError):
                adapter.disabled(model).__enter__()
            return
        with adapter.disabled(model):
            off = states(model, DOCUMENTS)
        assert off.equal(states(self.plain(), DOCUMENTS)), "switched off, the model is not its base"
        assert not close(states(model, DOCUMENTS), off), "after disabled() the adapter is still off"

    def test_what_is_saved_is_loaded(self) -> None:
        """To the bit, into a new model; what supports ``peft`` makes the same adapter of its adapter_config.json."""
        adapter, model = self.trained()
        tensors = self.own(adapter, model)
        if not tensors:
            with pytest.raises(RunError):
                adapter.save(tensors, self.folder, None)
            return
        adapter.save({name: tensor.cpu() for name, tensor in tensors.items()}, self.folder, None)
        readers = [adapter]
        if "peft" in self.spec.supports:
            config = json.loads((self.folder / "adapter_config.json").read_text(encoding="utf-8"))
            readers.append(type(adapter).from_peft(config))
        for reader in readers:
            _, fresh = self.adapted()
            loaded = reader.load(self.folder, fresh)
            assert loaded.keys() == tensors.keys(), f"names differ: {sorted(loaded.keys() ^ tensors.keys())[:5]}"
            lost = [name for name, tensor in loaded.items() if not tensor.equal(tensors[name])]
            assert not lost, f"{', '.join(lost[:5])} came back with other values"

    def test_merged_it_is_the_adapted_model(self) -> None:
        """The merged weights in the plain base compute the same; the live model is not touched."""
        adapter, model = self.trained()
        before = states(model, DOCUMENTS)
        merged = adapter.merged(model)
        plain = self.plain()
        assert merged.keys() == plain.state_dict().keys(), "the merged names are not the base's"
        copies = {name: tensor.clone() for name, tensor in merged.items()}
        assert states(model, DOCUMENTS).equal(before), "merging has changed the live model"
        plain.load_state_dict(copies)
        assert close(states(plain, DOCUMENTS), before), "the merged model computes something else"
