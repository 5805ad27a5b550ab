from __future__ import annotations

import pytest
import torch
from torch import nn

from ptsdk.builtin.full import Full
from ptsdk.errors import RunError


def test_every_weight_trains_and_none_is_the_adapters(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)).requires_grad_(False)
    Full().apply(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(Full().own(name) for name in model.state_dict())
    merged = Full().merged(model)
    assert merged.keys() == model.state_dict().keys()
    assert all(torch.equal(merged[name], p) and not merged[name].requires_grad for name, p in model.named_parameters())


def test_there_is_no_base_to_go_back_to_and_nothing_to_store(tmp_path):
    for call in (
        lambda: Full().disabled(nn.Linear(1, 1)),
        lambda: Full().save({}, tmp_path, None),
        lambda: Full().load(tmp_path),
    ):
        with pytest.raises(RunError):
            call()
    assert not list(tmp_path.iterdir())
