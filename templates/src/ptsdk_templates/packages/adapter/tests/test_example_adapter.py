"""What a real run trains and leaves."""

from __future__ import annotations

import json
from pathlib import Path

import ptsdk
from ptsdk.testing import AdapterSuite
from safetensors.torch import load_file


class TestConforms(AdapterSuite):
    """The suite of the kind: what every component of it has to do."""

    component = "ptsdk-example-adapter/example-adapter"  # dist/name


JOB = Path(__file__).parents[1] / "example" / "job.yaml"


def test_a_run_leaves_the_files_of_peft(tmp_path: Path) -> None:
    final = ptsdk.run(JOB, overrides=[f"output_dir={tmp_path / 'run'}", "optimizer.lr=0.1"]).final_dir
    config = json.loads((final / "adapter_config.json").read_text("utf-8"))
    assert (config["peft_type"], config["target_modules"]) == ("IA3", ["k_proj", "v_proj"])
    factors = load_file(final / "adapter_model.safetensors")
    layers = {name.removeprefix("base_model.model.model.layers.") for name in factors}
    assert layers == {f"{block}.self_attn.{name}.ia3_l" for block in (0, 1) for name in ("k_proj", "v_proj")}
    assert all((factor != 1).any() for factor in factors.values())
