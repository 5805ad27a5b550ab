"""The adapter that authors start from, beside (IA)^3 of PEFT on one Llama: outputs, merges, files both ways."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from ptsdk_templates.rendering import PACKAGES
from tests.parity.test_lora_peft import close, our_logits, ours, their_logits, theirs

__all__ = ["theirs"]  # the fixture


@pytest.fixture(scope="module")
def adapter() -> Any:
    """The template is not installed, so its module is loaded from where it lies."""
    path = PACKAGES / "adapter" / "src" / "ptsdk_example_adapter" / "adapter.py"
    spec = importlib.util.spec_from_file_location("example_adapter", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ExampleAdapter(targets=["k_proj", "v_proj", "up_proj"])


def test_what_peft_saved_computes_the_same_here(theirs: Any, adapter: Any, tmp_path: Path) -> None:
    config = peft.IA3Config(task_type="CAUSAL_LM", target_modules=adapter.targets, feedforward_modules=[])
    model = peft.get_peft_model(copy.deepcopy(theirs), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ia3_l" in name:
                parameter.uniform_(0.5, 1.5)
    model.save_pretrained(tmp_path)
    mine = ours(theirs)
    adapter.apply(mine)
    adapter.init(mine, 0)
    close(our_logits(mine), their_logits(theirs))
    mine.load_state_dict(adapter.load(tmp_path, mine), strict=False)
    close(our_logits(mine), their_logits(model))
    merged = ours(theirs)
    merged.load_state_dict(adapter.merged(mine))
    close(our_logits(merged), their_logits(model))


def test_what_is_saved_here_computes_the_same_in_peft(theirs: Any, adapter: Any, tmp_path: Path) -> None:
    mine = ours(theirs)
    adapter.apply(mine)
    adapter.init(mine, 0)
    with torch.no_grad():
        for name, parameter in mine.named_parameters():
            if adapter.own(name):
                parameter.uniform_(0.5, 1.5)
    own = {name: p.detach() for name, p in mine.named_parameters() if adapter.own(name)}
    adapter.save(own, tmp_path, None)
    close(their_logits(peft.PeftModel.from_pretrained(copy.deepcopy(theirs), tmp_path)), our_logits(mine))
