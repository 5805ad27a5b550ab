"""The strategy ``fsdp2``: every parameter in shards, one a process.

A unit is gathered whole when its forward or backward needs it and is given up afterwards; its
gradient is summed over the processes and each keeps its rows (ZeRO-3, arXiv:1910.02054; torch's
``fully_shard``). Units are the blocks; what is left (embedding, final norm, head) is the root.

The root stays whole from its forward to the end of the backward. The fused losses read the head's
weight between the two, outside any forward: the tensor they read is the root's own whole parameter,
so the gradient they make lands where ``fully_shard`` looks for it, tied to the embedding or not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from ptsdk.contracts.strategy import Strategy, World, total_norm
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.nn.head import Head
from ptsdk_fsdp2.lost import told
from ptsdk_fsdp2.processes import Wish, join
from ptsdk_fsdp2.shards import beside, full, place, sharded


class Fsdp2(Strategy):
    """Fully sharded data parallelism."""

    device: Wish = Field("auto", description="where to train; auto is an accelerator a process if any, else the CPU")
    tensor_parallel: int = Field(1, ge=1, description="processes that share one layer; only 1 so far")
    reshard_after_forward: bool = Field(
        True, description="give a block up between forward and backward; false gathers it once, for more memory"
    )
    timeout: float = Field(
        1800,
        ge=1,
        le=10**6,
        description="seconds that a process waits for another before the run ends; more than a save takes",
    )

    @field_validator("tensor_parallel")
    @classmethod
    def _one(cls, value: int) -> int:
        if value != 1:
            raise ValueError(f"tensor parallelism is not supported yet: 1, not {value}")
        return value

    def setup(self) -> World:
        """Join the processes that `ptsdk run --nproc` or torchrun started; alone without them."""
        return join(self.device, self.timeout)

    def exchanging(self) -> AbstractContextManager[None]:
        """A process that has ended, or hangs, is told by its number."""
        return told(self.timeout)

    def device_type(self) -> str:
        """See ``Strategy.device_type``; a wish is taken at its word."""
        return super().device_type() if self.device == "auto" else self.device

    def wrap(self, model: CausalLM, world: World) -> CausalLM:
        """Shard each block, then what is left."""
        shard = functools.partial(
            fully_shard,
            mesh=init_device_mesh(world.device.type, (world.size,)),
            # bfloat16 gradients are added up in float32; inputs of a block are no business of FSDP.
            mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False),
        )
        for block in model.layers:
            shard(block, reshard_after_forward=self.reshard_after_forward)
        shard(model, reshard_after_forward=False)
        for unit in units(model):
            # The trainer divides by the weight of the whole step, so gradients are sums.
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)
        assert isinstance(model, FSDPModule)  # fully_shard has changed its class in place
        setattr(model, "head", functools.partial(_whole_head, model, model.head))  # noqa: B010
        return model

    def load(self, model: CausalLM, tensors: Mapping[str, Tensor], world: World, dtype: torch.dtype) -> None:
        """Each process keeps its rows of one tensor after the other."""
        give_up(model)
        for name in tensors:
            place(model, name, tensors[name], world.device, dtype)

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum, the same bits on every process."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    def grad_norm(self, parameters: list[nn.Parameter]) -> Tensor:
        """From the norm of each process's rows, squared and summed in float64."""
        gradients = [p.grad.to_local() for p in parameters if isinstance(p.grad, DTensor)]
        norm = total_norm(gradients).to(parameters[0].device)
        return self.all_reduce(norm.double().square()).sqrt().float()

    def gather(self, model: CausalLM, names: list[str]) -> dict[str, Tensor]:
        """One tensor is whole on the device at a time."""
        give_up(model)
        return {name: value for name in names if (value := full(sharded(model, name))) is not None}

    def gather_optimizer(self, model: CausalLM, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The same for each tensor of each parameter's state."""
        give_up(model)
        state = {
            name: {key: full(value) for key, value in entry.items()}
            for name, parameter in model.named_parameters()
            if (entry := optimizer.state.get(parameter))
        }
        return {"state": state} if dist.get_rank() == 0 else {}

    def load_optimizer(self, model: CausalLM, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Each process keeps the rows that belong to its rows of the parameter."""
        give_up(model)
        for name, entry in state["state"].items():
            parameter = sharded(model, name)
            optimizer.state[parameter] = {key: beside(value, parameter) for key, value in entry.items()}

    @contextmanager
    def unsharded(self, model: CausalLM) -> Iterator[None]:
        """Inside, every parameter is whole on every process, and no forward gives one up."""
        for unit in units(model):  # the root first: whichever comes first is taken for the root
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        try:
            yield
        finally:
            give_up(model)
            for block in units(model)[1:]:
                block.set_reshard_after_forward(self.reshard_after_forward, recurse=False)

    def broadcast(self, value: Any) -> Any:
        """The main process's ``value``, pickled."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def collect(self, value: Any) -> list[Any]:
        """Every process's ``value``, pickled."""
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """By exchanging nothing, over the CPU: no device needs to be named."""
        self.collect(None)

    def close(self) -> None:
        """Leave the process group."""
        dist.destroy_process_group()


def units(model: CausalLM) -> list[FSDPModule]:
    """What is gathered and given up together: the root, then the blocks in their order."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def give_up(model: CausalLM) -> None:
    """Every parameter in its shards: a forward without a backward leaves the root whole."""
    for unit in units(model):
        unit.reshard()


def _whole_head(model: FSDPModule, head: Callable[[], Head]) -> Head:
    """The head's own weight, gathered if no forward has done so just before."""
    model.unshard()
    return head()
