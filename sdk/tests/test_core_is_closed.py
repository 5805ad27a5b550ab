"""Core knows seams, not plugins: no name of one outside the hint table, no branch on a component."""

from __future__ import annotations

import re
from pathlib import Path

import ptsdk
from ptsdk.specs import KINDS, Spec

CORE = Path(ptsdk.__file__).parent
PLUGIN = re.compile(r"ptsdk[-_](llama|gemma|qwen|mistral|phi|lora|dpo|kd|grpo|ppo|torchao|qat|fsdp2|wandb|mlflow|gguf)")
FAMILY = re.compile(r"\b(llama|gemma3?|qwen[23]?|mistral|phi[34]?)\b", re.IGNORECASE)
BRANCH = re.compile(r"if .*\b(method|adapter|strategy|quantizer|loss)(\.name|\.use)?\s*==\s*['\"]")


def sources() -> list[Path]:
    return [path for path in CORE.rglob("*.py") if path.name != "hints.py"]


def code(path: Path) -> str:
    """A module without its strings of prose and comments: templates are told apart by their own words."""
    return re.sub(r'"""[\s\S]*?"""|#.*', "", path.read_text("utf-8"))


def test_no_module_names_a_plugin() -> None:
    assert [str(path) for path in sources() if PLUGIN.search(code(path))] == []


def test_no_module_branches_on_a_component() -> None:
    assert [str(path) for path in sources() if BRANCH.search(code(path))] == []


def test_no_module_names_a_family() -> None:
    assert [str(path) for path in sources() if FAMILY.search(code(path))] == []


def test_every_kind_has_a_hook_and_a_contract() -> None:
    from ptsdk.hookspecs import Contributions

    hooks = {name for name in vars(Contributions) if name.startswith("ptsdk_")}
    assert {kind.hook for kind in KINDS.values()} == hooks
    assert all(issubclass(kind.spec, Spec) for kind in KINDS.values())
