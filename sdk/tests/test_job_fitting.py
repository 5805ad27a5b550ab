"""What components refuse of each other once they are put together is a fault of the job like any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ptsdk.builtin.full import Full
from ptsdk.builtin.sft import SFT
from ptsdk.builtin.tiny import Tiny
from ptsdk.checkpoint.weights import build_on_meta
from ptsdk.contracts.model import ModelFamily
from ptsdk.contracts.quantizer import Quantizer
from ptsdk.errors import Problem, RunError, UserError
from ptsdk.job import load_job
from ptsdk.job.job import Job
from ptsdk.job.load import make_job
from ptsdk.nn.causal_lm import CausalLM
from ptsdk.plugins import DiscoveryOptions, scan
from ptsdk.registry import Registry
from ptsdk.testing.jobs import TINY, job_values
from ptsdk.train.frozen import Opened, give_attention

PARTS = """
from ptsdk.builtin.full import Full
from ptsdk.errors import Problem, UserError


class Narrow(Full):
    most: int = 16

    def apply(self, model):
        width = model.get_parameter("model.norm.weight").shape[0]
        if width > self.most:
            raise UserError(Problem(f"{width} is too wide", "take a smaller model", path="adapter.most"))
        super().apply(model)
"""


class Halves(Quantizer):
    """Swaps a layer, then refuses."""

    def prepare(self, model: CausalLM) -> None:
        model.layers[0] = model.layers[1]
        raise UserError("the second half is odd", hint="take an even model")


class Watchful(Full):
    """Wants the model as it is built."""

    def apply(self, model: CausalLM) -> None:
        assert model.layers[0] is not model.layers[1]
        assert all(parameter.is_meta for parameter in model.parameters())
        raise RunError("nothing to adapt")


class Alone(SFT):
    """Compares with nothing."""

    def frozen_models(self, job: Job) -> Mapping[str, ModelFamily]:
        assert job.base and job.objective == "token"
        raise UserError(Problem("nothing to compare with", path="method"))


@pytest.fixture
def registry() -> Registry:
    return Registry(scan(DiscoveryOptions(safe=True)))


def values(folder: Path, **sections: Any) -> dict[str, Any]:
    (folder / "train.jsonl").write_text('{"text": "one"}\n')
    return {
        "api": 1,
        "model": {"use": "tiny", "config": {"hidden_size": 32}},
        "tokenizer": "bytes",
        "data": {"train": {"use": "text", "path": "train.jsonl"}},
        "method": "sft",
        "output_dir": str(folder / "run"),
        **sections,
    }


def test_a_refusal_has_its_place_and_both_names(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(values(tmp_path, adapter={"use": "./parts.py:Narrow"}), sort_keys=False))
    with pytest.raises(UserError) as caught:
        load_job(file, (), registry)
    (problem,) = caught.value.problems
    assert problem.message == "adapter local-narrow with model tiny: 32 is too wide"
    assert (problem.file, problem.path, problem.hint) == (str(file), "adapter.most", "take a smaller model")
    assert file.read_text().splitlines()[problem.line - 1].startswith("adapter:")
    load_job(file, ["model.config.hidden_size=16"], registry)


def test_more_blocks_than_the_model_has(tmp_path: Path, registry: Registry) -> None:
    train = {"activation_checkpointing": "full", "activation_checkpointing_every": 3}
    with pytest.raises(UserError) as caught:
        make_job(values(tmp_path, train=train), registry, tmp_path)
    (problem,) = caught.value.problems
    assert (problem.path, problem.hint) == ("train.activation_checkpointing_every", "choose a number up to 2")
    make_job(values(tmp_path, train={**train, "activation_checkpointing_every": 2}), registry, tmp_path)


def test_all_of_them_are_told(tmp_path: Path, registry: Registry) -> None:
    """A quantizer that gave up half-way does not spoil the model for the adapter."""
    parts = {"method": Alone(), "quantizer": Halves(), "adapter": Watchful()}
    with pytest.raises(UserError) as caught:
        make_job(values(tmp_path, **parts), registry, tmp_path)
    assert {(problem.path, problem.message) for problem in caught.value.problems} == {
        ("method", "method local-alone with loss cross_entropy: nothing to compare with"),
        ("quantizer", "quantizer local-halves with model tiny: the second half is odd"),
        ("adapter", "adapter local-watchful with model tiny: nothing to adapt"),
    }


def test_a_checkpoint_is_opened_once(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be on another machine."""
    from ptsdk.job import resolve

    opened = []

    class Remote:
        config = Tiny().full_config({"hidden_size": 32})

    def open_checkpoint(path: str, *_: Any, **options: Any) -> Any:
        opened.append((path, options))
        return Remote

    monkeypatch.setattr(resolve, "open_checkpoint", open_checkpoint)
    make_job(values(tmp_path, model={"path": "hf://org/name"}, tokenizer="bytes"), registry, tmp_path)
    assert opened == [("hf://org/name", {"weights": False})]


@pytest.mark.parametrize("wish", ["varlen", "flex", "flash"])
def test_attention_that_cannot_run_here_is_a_fault_of_the_job(tmp_path: Path, wish: str) -> None:
    registry = Registry(scan())
    with pytest.raises(UserError) as refused:
        make_job(job_values(tmp_path, registry, model={**TINY, "attention": wish}), registry, tmp_path)
    (problem,) = refused.value.problems
    assert problem.path == "model.attention"
    assert problem.message.startswith(f"{wish} attention cannot be had: ")


def test_attention_of_a_teacher_is_told_at_the_teacher() -> None:
    family = Tiny(config={}, attention="varlen")
    opened = Opened(family, None, family.full_config({}), "method.teacher")
    model = build_on_meta(family, opened.config, torch.float32)
    with pytest.raises(UserError) as refused:
        give_attention(model, opened, torch.device("cpu"), torch.float32)
    assert refused.value.problems[0].path == "method.teacher.attention"
