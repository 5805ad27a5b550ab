"""Optimizers and the parameters they are given."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from ptsdk.contracts.component import Component


class Optimizer(Component):
    """The ``optimizer:`` section."""

    kind: ClassVar[str] = "optimizer"

    lr: float = Field(2e-4, ge=0, description="peak learning rate")

    @abstractmethod
    def build(self, parameters: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of the trainable ``parameters``, by name.

        Its state must be tensors, numbers and strings, reachable by ``state_dict()``: the run
        stores it in safetensors, never pickled. The schedule scales each group's ``lr``.
        """
