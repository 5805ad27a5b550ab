"""Telling shards apart without the import that makes them."""

from __future__ import annotations

import subprocess
import sys

import torch

from ptsdk.nn.sharded import is_sharded


def test_loading_a_model_does_not_import_what_shards_need() -> None:
    imports = "import ptsdk.generate.engine, ptsdk.api, sys"
    code = f"{imports}; print(sorted({{'sympy', 'torch._dynamo'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_tensor_dealt_out_is_told_from_a_plain_one() -> None:
    from torch.distributed.tensor import DTensor, Replicate
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        assert is_sharded(DTensor.from_local(torch.ones(2), mesh, (Replicate(),)))
    finally:
        torch.distributed.destroy_process_group()
    assert not is_sharded(torch.ones(2))
