"""The conformance kit: one suite a kind, which an author subclasses to prove a component.

    from ptsdk.testing import LossSuite

    class TestFocal(LossSuite):
        component = "focal"            # a name, ``dist/name`` or ``./file.py:Class``
        options = {"gamma": 2.0}       # beside ``use``; optional

Needs pytest: ``pip install 'ptsdk[testing]'``. The names below are imported on use, so that the pytest
plugin (``ptsdk.testing.plugin``) loads neither torch nor pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptsdk.testing.finding import suites_of
    from ptsdk.testing.suite import Suite
    from ptsdk.testing.suites.adapter import AdapterSuite
    from ptsdk.testing.suites.checkpoint_format import CheckpointFormatSuite
    from ptsdk.testing.suites.checkpoint_source import CheckpointSourceSuite
    from ptsdk.testing.suites.command import CommandSuite
    from ptsdk.testing.suites.dataset import DatasetSuite
    from ptsdk.testing.suites.listener import CallbackSuite, LoggerSuite
    from ptsdk.testing.suites.loss import LossSuite
    from ptsdk.testing.suites.method import MethodSuite
    from ptsdk.testing.suites.model_family import ModelFamilySuite
    from ptsdk.testing.suites.optimizer import OptimizerSuite
    from ptsdk.testing.suites.plugin import PluginSuite
    from ptsdk.testing.suites.quantizer import QuantizerSuite
    from ptsdk.testing.suites.reward import RewardSuite
    from ptsdk.testing.suites.rollout_engine import RolloutEngineSuite
    from ptsdk.testing.suites.schedule import ScheduleSuite
    from ptsdk.testing.suites.strategy import StrategySuite
    from ptsdk.testing.suites.tokenizer import TokenizerSuite

__all__ = [
    "AdapterSuite",
    "CallbackSuite",
    "CheckpointFormatSuite",
    "CheckpointSourceSuite",
    "CommandSuite",
    "DatasetSuite",
    "LoggerSuite",
    "LossSuite",
    "MethodSuite",
    "ModelFamilySuite",
    "OptimizerSuite",
    "PluginSuite",
    "QuantizerSuite",
    "RewardSuite",
    "RolloutEngineSuite",
    "ScheduleSuite",
    "StrategySuite",
    "Suite",
    "TokenizerSuite",
    "suites_of",
]

SUITES: dict[str, tuple[str, str]] = {
    "model-family": ("model_family", "ModelFamilySuite"),
    "tokenizer": ("tokenizer", "TokenizerSuite"),
    "dataset": ("dataset", "DatasetSuite"),
    "method": ("method", "MethodSuite"),
    "loss": ("loss", "LossSuite"),
    "adapter": ("adapter", "AdapterSuite"),
    "quantizer": ("quantizer", "QuantizerSuite"),
    "optimizer": ("optimizer", "OptimizerSuite"),
    "schedule": ("schedule", "ScheduleSuite"),
    "strategy": ("strategy", "StrategySuite"),
    "logger": ("listener", "LoggerSuite"),
    "callback": ("listener", "CallbackSuite"),
    "reward": ("reward", "RewardSuite"),
    "checkpoint-source": ("checkpoint_source", "CheckpointSourceSuite"),
    "checkpoint-format": ("checkpoint_format", "CheckpointFormatSuite"),
    "rollout-engine": ("rollout_engine", "RolloutEngineSuite"),
    "command": ("command", "CommandSuite"),
}
"""The module under ``ptsdk.testing.suites`` and the class of each kind's suite."""

_LAZY = {
    "Suite": "ptsdk.testing.suite",
    "suites_of": "ptsdk.testing.finding",
    "PluginSuite": "ptsdk.testing.suites.plugin",
    **{name: f"ptsdk.testing.suites.{module}" for module, name in SUITES.values()},
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ptsdk.testing' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
