"""What an optimizer has to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ptsdk.builtin.single import Single
from ptsdk.checkpoint.tensors import TensorFiles, save_tensors
from ptsdk.checkpoint.tree import flatten_state, unflatten_state
from ptsdk.testing.suite import ComponentSuite
from ptsdk.train.compiling import compile_step
from ptsdk.train.trainer import set_rate


class Weights(nn.Module):
    """Parameters under the names of a model, and a quadratic of them: half the squared distance to a target."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed, self.norm = nn.Embedding(12, 8), nn.LayerNorm(8, bias=False)
        layer = nn.ModuleDict({"up": nn.Linear(8, 16, bias=False), "down": nn.Linear(16, 8, bias=False)})
        self.layers = nn.ModuleList([layer])
        self.targets = {name: torch.randn(p.shape, generator=generator) for name, p in self.named_parameters()}
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def distance(self) -> Tensor:
        """The quadratic."""
        parts = [(p - self.targets[name]).square().sum() / 2 for name, p in self.named_parameters()]
        return torch.stack(parts).sum()

    def copy(self) -> dict[str, Tensor]:
        """The weights as they are."""
        return {name: p.detach().clone() for name, p in self.named_parameters()}


class OptimizerSuite(ComponentSuite):
    """For the kind ``optimizer``.

    Attributes:
        lr: a rate at which a quadratic of weights around 1 is to be descended in 60 steps.
    """

    kind: ClassVar[str] = "optimizer"
    lr: ClassVar[float] = 0.02

    def built(self, model: nn.Module, **options: Any) -> torch.optim.Optimizer:
        """The optimizer of all weights of ``model``."""
        optimizer: torch.optim.Optimizer = self.make(**{"lr": self.lr, **options}).build(dict(model.named_parameters()))
        return optimizer

    def steps(self, model: Weights, optimizer: torch.optim.Optimizer, count: int) -> None:
        """So many steps on the quadratic, uncompiled."""
        with eager():
            for _ in range(count):
                optimizer.zero_grad(set_to_none=True)
                model.distance().backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    def test_descends_a_quadratic(self) -> None:
        """60 steps bring every weight closer to where the loss is least."""
        model = Weights()
        before = {name: float((p.detach() - model.targets[name]).norm()) for name, p in model.named_parameters()}
        self.steps(model, self.built(model), 60)
        for name, parameter in model.named_parameters():
            after = float((parameter.detach() - model.targets[name]).norm())
            assert after < 0.95 * before[name], f"{name} was {before[name]:.3f} away, after 60 steps {after:.3f}"

    def test_takes_every_parameter_once(self) -> None:
        """Each is in one group, so that the schedule and a checkpoint reach it."""
        model = Weights()
        held = [p for group in self.built(model).param_groups for p in group["params"]]
        for name, parameter in model.named_parameters():
            times = sum(parameter is one for one in held)
            assert times == 1, f"{name} is in {times} groups"

    def test_state_survives_a_checkpoint(self) -> None:
        """Saved to safetensors and put back in another process, it goes on to the same bits."""
        whole, cut = Weights(), Weights()
        optimizer = self.built(whole)
        self.steps(whole, optimizer, 3)
        strategy: Any = Single()
        saved = strategy.gather_optimizer(whole, optimizer)
        tensors, tree = flatten_state(saved)
        save_tensors(tensors, self.folder / "optimizer.safetensors")
        state = unflatten_state(TensorFiles.of(self.folder / "optimizer.safetensors"), tree)
        cut.load_state_dict(whole.state_dict())
        resumed = self.built(cut)
        strategy.load_optimizer(cut, resumed, state)
        self.steps(whole, optimizer, 3)
        self.steps(cut, resumed, 3)
        theirs = whole.copy()
        for name, parameter in cut.copy().items():
            assert parameter.equal(theirs[name]), f"{name} differs three steps after a resume"

    def test_follows_the_rate_of_its_groups(self) -> None:
        """The schedule sets each group's ``lr`` before a step; at 0 nothing moves, at less it moves less."""
        moved = []
        for factor in (0.0, 0.1, 1.0):
            model = Weights()
            optimizer = self.built(model)
            self.steps(model, optimizer, 2)
            before = model.copy()
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * factor
            self.steps(model, optimizer, 1)
            moved.append(sum(float((p - before[name]).abs().sum()) for name, p in model.copy().items()))
        assert moved[0] == 0, f"at a learning rate of 0 weights moved by {moved[0]:.3g}"
        assert moved[1] < 0.5 * moved[2], f"at a tenth of the rate weights moved by {moved[1]:.3g}, not {moved[2]:.3g}"

    def test_a_compiled_step_is_the_step(self) -> None:
        """One that supports ``compiled-step`` goes to the same weights compiled, at a rate that changes.

        By inductor itself: it takes the number out of a tensor that is given as ``alpha=``, once and for all.
        """
        if "compiled-step" not in self.spec.supports:
            return
        weights = []
        for compiled in (False, True):
            model = Weights()
            optimizer = self.built(model)
            if compiled:
                compile_step(optimizer)
            for factor in (0.1, 1.0, 0.5, 0.2):
                optimizer.zero_grad(set_to_none=True)
                model.distance().backward()  # type: ignore[no-untyped-call]
                set_rate(optimizer, factor)
                optimizer.step()
            weights.append(model.copy())
        for name, weight in weights[0].items():
            off = float((weight - weights[1][name]).abs().max())
            # A rate that was compiled in is off by all of it; Muon's iterations in bfloat16 by a hundredth.
            assert off < 0.05 * self.lr, f"compiled, {name} is off by {off:.3g} after four steps"

    def test_leaves_what_has_no_gradient(self) -> None:
        """A parameter without a gradient in this step stays as it is, decay or not."""
        model = Weights()
        optimizer = self.built(model)
        self.steps(model, optimizer, 1)
        optimizer.zero_grad(set_to_none=True)
        before = model.copy()
        with eager():
            model.layers[0]["up"].weight.square().sum().backward()  # type: ignore[index]
            optimizer.step()
        moved = [name for name, parameter in model.copy().items() if not parameter.equal(before[name])]
        assert moved == ["layers.0.up.weight"], f"only layers.0.up.weight had a gradient, but {moved} moved"


@contextmanager
def eager() -> Iterator[None]:
    """Without torch.compile, which some optimizers use and which takes seconds a shape."""
    with torch.compiler.set_stance("force_eager"):
        yield
