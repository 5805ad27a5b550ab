"""What a process is told about the others, and what it takes for a device."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from ptsdk.errors import UserError
from ptsdk_fsdp2 import processes
from ptsdk_fsdp2.processes import device_of, place_among
from ptsdk_fsdp2.strategy import Fsdp2

SET = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "1"}


def test_alone_without_a_word_of_others() -> None:
    assert place_among({}) == (0, 1, 0)
    assert place_among({"MASTER_PORT": "1"}) == (0, 1, 0)  # some shells have it


def test_one_of_several() -> None:
    assert place_among(SET) == (3, 4, 1)


@pytest.mark.parametrize("missing", sorted(SET))
def test_half_an_environment_is_refused(missing: str) -> None:
    with pytest.raises(UserError, match=f"{missing} is not set") as error:
        place_among({name: value for name, value in SET.items() if name != missing})
    assert "--nproc" in str(error.value)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(UserError, match="RANK='x'"):
        place_among({**SET, "RANK": "x"})


def test_the_cpu_is_for_all() -> None:
    assert device_of(7, "cpu") == torch.device("cpu")


def test_an_accelerator_is_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert device_of(1, "auto") == torch.device("cuda", 1)
    with pytest.raises(UserError, match="process 2 of this machine has no cuda device: there are 2"):
        device_of(2, "auto")
    with pytest.raises(UserError, match=r"strategy\.device is xpu"):
        device_of(0, "xpu")


def test_an_accelerator_that_cannot_exchange_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("mps"))
    assert device_of(0, "auto") == torch.device("cpu")
    with pytest.raises(UserError, match=r"strategy\.device is cuda"):
        device_of(0, "cuda")


def test_every_device_has_a_way_to_exchange() -> None:
    assert set(processes.COLLECTIVES) | {"auto"} == set(processes.Wish.__args__)  # type: ignore[attr-defined]


def test_tensor_parallelism_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="tensor parallelism is not supported yet: 1, not 2"):
        Fsdp2(tensor_parallel=2)
