"""What a quantizer has to do."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from ptsdk.builtin.tiny import Tiny
from ptsdk.checkpoint.tensors import TensorFiles, save_tensors
from ptsdk.checkpoint.weights import build_on_meta, fill, initial_tensors, stored_shape, stored_tensors
from ptsdk.contracts.quantizer import Packs, Quantizer
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM, block_linears
from ptsdk.testing.checkpoints import CPU, built
from ptsdk.testing.suite import ComponentSuite
from ptsdk.testing.suites.model_family import states

FILE = "model.safetensors"
FAMILY = Tiny(config={"hidden_size": 64, "intermediate_size": 128})
DOCUMENTS = [[5, 17, 300, 2, 9, 33, 21], [64, 65, 66]]


class QuantizerSuite(ComponentSuite):
    """For the kind ``quantizer``, on core's small model with layers of 64 and 128 inputs.

    Attributes:
        error: how far the quantised model's states may be from the plain one's, as a fraction of them.
    """

    kind: ClassVar[str] = "quantizer"
    error: ClassVar[float] = 0.3

    def on_meta(self) -> CausalLM:
        """A model without storage, prepared."""
        model = build_on_meta(FAMILY, FAMILY.full_config(FAMILY.config or {}), torch.float32)
        quantizer: Quantizer = self.make()
        quantizer.prepare(model)
        return model

    def prepared(self) -> CausalLM:
        """The same with the weights of ``plain``."""
        model = self.on_meta()
        fill(model, initial_tensors(model, [name for name, _ in model.named_parameters()], 0), CPU, torch.float32)
        return model.eval()

    def plain(self) -> CausalLM:
        """The model before."""
        return built(FAMILY).eval()

    def packing(self, model: CausalLM) -> dict[str, Packs]:
        """The modules that hold packed weights, by name."""
        return {name: module for name, module in model.named_modules() if isinstance(module, Packs)}

    def test_swaps_without_storage(self) -> None:
        """On the meta device, before weights: names and stored shapes stay, layers are still linear to an adapter."""
        plain, model = self.plain(), self.on_meta()
        real = [name for name, parameter in model.named_parameters() if not parameter.is_meta]
        assert not real, f"{', '.join(real[:5])} have storage before weights were loaded"
        shapes = {name: tuple(stored_shape(model, name)) for name, _ in model.named_parameters()}
        expected = {name: tuple(p.shape) for name, p in plain.named_parameters()}
        assert shapes == expected, f"names or shapes differ: {sorted(shapes.items() ^ expected.items())[:4]}"
        assert block_linears(model).keys() == block_linears(plain).keys(), "a swapped layer is no nn.Linear any more"

    def test_is_close_to_the_model(self) -> None:
        """Fewer bits are a rounding, not another model."""
        theirs, ours = states(self.plain(), DOCUMENTS), states(self.prepared(), DOCUMENTS)
        error = float((ours - theirs).norm() / theirs.norm())
        assert 0 < error < self.error, f"the states are off by {error:.3f} of their size"

    def test_packs_row_by_row(self) -> None:
        """Row i of what a module holds is row i of the weight, so that a strategy can deal rows out."""
        model = self.prepared()
        if not self.packing(model):
            pytest.skip("it packs nothing: weights keep their form while they train")
        for name, module in self.packing(model).items():
            assert isinstance(module, nn.Module)
            held, rows = module.get_parameter("weight"), module.unpacked_shape("weight")[0]
            assert held.shape[0] == rows, f"{name} holds {held.shape[0]} rows of a weight of {rows}"
            order, weight = torch.randperm(rows, generator=torch.Generator().manual_seed(0)), module.unpacked("weight")
            for what, chosen in (("moved", order), ("dealt out", order[: rows // 3]), ("of no one", order[:0])):
                setattr(module, "weight", nn.Parameter(held.detach()[chosen], requires_grad=False))  # noqa: B010
                expected = weight[chosen]
                assert module.unpacked("weight").equal(expected), (
                    f"{name}: rows {what} in packed form unpack to other values"
                )

    def test_gradients_pass(self) -> None:
        """Through every layer, to what is below it and to whatever trains; close to the plain model's."""
        gradients = []
        for model in (self.plain(), self.prepared()):
            model.get_parameter("model.embed_tokens.weight").requires_grad_()
            states_of(model).square().sum().backward()  # type: ignore[no-untyped-call]
            idle = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
            assert not idle, f"no gradient reaches {', '.join(idle[:5])}"
            gradient = model.get_parameter("model.layers.0.input_layernorm.weight").grad
            assert gradient is not None
            gradients.append(gradient)
        alike = float(torch.cosine_similarity(gradients[0], gradients[1], dim=0))
        assert alike > 0.9, f"the gradient below the layers points elsewhere: cosine {alike:.2f}"

    def test_convert_keeps_what_was_trained(self) -> None:
        """What is served after ``convert`` computes what training simulated."""
        model = self.prepared()
        before = states(model, DOCUMENTS)
        self.make().convert(model)
        error = float((states(model, DOCUMENTS) - before).norm() / before.norm())
        assert error < 1e-3, f"after convert() the states are off by {error:.2g} of their size"

    def test_convert_ends_the_simulation(self) -> None:
        """No layer is left that simulates; where plain weights are, the plain model computes the same with them."""
        model, plain = self.prepared(), self.plain()
        if self.packing(model):
            pytest.skip("it packs: what trains is what is served")
        native = {type(module) for module in plain.modules()}
        inserted = {type(module) for module in model.modules()} - native
        self.make().convert(model)
        left = [name for name, module in model.named_modules() if type(module) in inserted]
        assert not left, f"after convert() {', '.join(left[:5])} are still what prepare() made of them"
        before = states(model, DOCUMENTS)
        if all(type(p) is nn.Parameter and type(p.data) is Tensor for p in model.parameters()):
            save_tensors({name: t.contiguous() for name, t in stored_tensors(model).items()}, self.folder / FILE)
            fill(plain, TensorFiles.of(self.folder / FILE), CPU, torch.float32)
            error = float((states(plain, DOCUMENTS) - before).norm() / before.norm())
            assert error < 1e-4, f"the plain model with the converted weights is off by {error:.2g} of the states"

    def test_what_is_stored_is_what_computes(self) -> None:
        """The weights that a checkpoint gets: of packed ones the values they stand for, of others what was loaded."""
        model, plain = self.prepared(), self.plain()
        loaded = dict(plain.named_parameters())
        save_tensors({name: t.contiguous() for name, t in stored_tensors(model).items()}, self.folder / FILE)
        stored = TensorFiles.of(self.folder / FILE)
        packed = {f"{name}.weight" for name in self.packing(model)}
        changed = [name for name in stored if name not in packed and not stored[name].equal(loaded[name])]
        assert not changed, f"{', '.join(changed[:5])} are stored with other values than were loaded"
        if packed:
            fill(plain, stored, CPU, torch.float32)
            before = states(model, DOCUMENTS)
            error = float((states(plain, DOCUMENTS) - before).norm() / before.norm())
            assert error < 1e-4, f"the plain model with the stored weights is off by {error:.2g} of the states"


def states_of(model: CausalLM) -> Tensor:
    """Hidden states with gradient."""
    hidden: Tensor = model(Batch.pack(DOCUMENTS))
    return hidden
