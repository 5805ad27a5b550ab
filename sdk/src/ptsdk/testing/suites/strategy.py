"""What a strategy has to do when it is alone: one process, compared with plain torch.

What several processes do together is not tested here: compare a run in two with one in one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest
import torch
from torch import nn

from ptsdk.builtin.tiny import Tiny
from ptsdk.checkpoint.weights import build_on_meta, initial_tensors
from ptsdk.contracts.strategy import Strategy, World
from ptsdk.nn.batch import Batch
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.testing.checkpoints import built
from ptsdk.testing.suite import ComponentSuite

FAMILY = Tiny(config={"hidden_size": 16, "intermediate_size": 32})
BATCH = Batch.pack([[5, 17, 300, 2, 9, 33, 21], [64, 65, 66]])
ALONE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class StrategySuite(ComponentSuite):
    """For the kind ``strategy``."""

    kind: ClassVar[str] = "strategy"

    @contextmanager
    def joined(self) -> Iterator[tuple[Strategy, World]]:
        """The strategy, alone on the CPU; left again afterwards."""
        on_cpu = {"device": "cpu"} if "device" in self.cls.model_fields else {}
        strategy: Strategy = self.make(**on_cpu)
        with pytest.MonkeyPatch.context() as patch:
            for name in ALONE:
                patch.delenv(name, raising=False)
            world = strategy.setup()
            try:
                yield strategy, world
            finally:
                strategy.close()

    def wrapped(self, strategy: Strategy, world: World) -> CausalLM:
        """The small model under the strategy."""
        return self._wrapped(strategy, world, torch.float32)

    def _wrapped(self, strategy: Strategy, world: World, dtype: torch.dtype) -> CausalLM:
        model = build_on_meta(FAMILY, FAMILY.full_config(FAMILY.config or {}), dtype)
        model = strategy.wrap(model, world)
        names = [name for name, _ in model.named_parameters()]
        strategy.load(model, initial_tensors(model, names, 0), world, dtype)
        return model

    def test_alone_it_is_the_main_process(self) -> None:
        """Rank 0 of 1; what is exchanged with nobody comes back as it was."""
        with self.joined() as (strategy, world):
            assert (world.rank, world.size, world.is_main) == (0, 1, True), f"alone, it is {world}"
            values = torch.tensor([1.5, -2.0], dtype=torch.float64)
            assert strategy.all_reduce(values.clone()).equal(values), "the sum over one process is another"
            assert strategy.broadcast({"a": 1}) == {"a": 1}, "broadcast() gives back another value"
            assert strategy.collect("x") == ["x"], "collect() of one process is not a list of its value"
            strategy.barrier()

    def test_gathers_what_it_loaded(self) -> None:
        """Every tensor comes back whole, on the CPU, to the bit and under its name."""
        expected = dict(built(FAMILY).named_parameters())
        with self.joined() as (strategy, world):
            model = self.wrapped(strategy, world)
            gathered = strategy.gather(model, list(expected))
        assert gathered.keys() == expected.keys(), f"gathered {sorted(gathered)[:5]}"
        differ = [name for name, tensor in gathered.items() if not tensor.cpu().equal(expected[name])]
        assert not differ, f"{', '.join(differ[:5])} are not what was loaded"

    def test_a_step_is_that_of_plain_torch(self) -> None:
        """Forward, backward and an optimizer's step of the wrapped model leave the weights of plain torch."""
        plain = built(FAMILY)
        self._step(plain, plain)
        with self.joined() as (strategy, world):
            model = self.wrapped(strategy, world)
            self._step(model, model)
            gathered = strategy.gather(model, [name for name, _ in plain.named_parameters()])
        for name, parameter in plain.named_parameters():
            assert torch.allclose(gathered[name].cpu(), parameter, rtol=1e-5, atol=1e-7), f"{name} differs after a step"

    def test_measures_the_norm_of_all_gradients(self) -> None:
        """That of the plain model's in float64, to more digits than bfloat16 has, also where they are in bfloat16."""
        for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 1e-4)):
            plain = built(FAMILY).to(dtype)
            plain(BATCH).square().sum().backward()
            gradients = [p.grad.double().flatten() for p in plain.parameters() if p.grad is not None]
            expected = float(torch.cat(gradients).norm())
            with self.joined() as (strategy, world):
                model = self._wrapped(strategy, world, dtype)
                model(BATCH).square().sum().backward()
                found = float(strategy.grad_norm([p for p in model.parameters() if p.requires_grad]))
            assert abs(found - expected) <= error * expected, (
                f"the norm of gradients in {dtype} is {found:.6g}, in float64 it is {expected:.6g}"
            )

    def test_optimizer_state_comes_back(self) -> None:
        """Gathered by parameter name and put into a new optimizer, it is the same state."""
        with self.joined() as (strategy, world):
            model = self.wrapped(strategy, world)
            optimizer = self._step(model, model)
            saved = strategy.gather_optimizer(model, optimizer)
            fresh = torch.optim.AdamW(model.parameters(), lr=1e-2)
            strategy.load_optimizer(model, fresh, saved)
            again = strategy.gather_optimizer(model, fresh)
        assert saved["state"].keys() == {name for name, _ in built(FAMILY).named_parameters()}, "not by parameter name"
        for name, entry in saved["state"].items():
            for key, value in entry.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(again["state"][name][key])), (
                    f"{name}: {key} is lost"
                )

    def _step(self, model: CausalLM, owner: nn.Module) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(owner.parameters(), lr=1e-2)
        model(BATCH).square().sum().backward()
        optimizer.step()
        return optimizer
