from __future__ import annotations

import pytest
import torch

from ptsdk_fsdp2.shards import rows_of


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_rows_are_cut_as_torch_cuts_them(rows: int, size: int) -> None:
    full = torch.arange(rows * 2).reshape(rows, 2)
    theirs = [*torch.chunk(full, size), *[full[:0]] * size][:size]
    ours = [rows_of(full, rank, size) for rank in range(size)]
    assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))
    assert torch.cat(ours).equal(full)
    assert all(not part.numel() or part.data_ptr() >= full.data_ptr() for part in ours)  # views
