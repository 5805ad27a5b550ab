"""The page about speed and memory, made of what ``make bench`` recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "tests" / "benchmarks" / "results.json"
INTRODUCTION = """\
# Speed and memory beside the peers

What each row does is done by ptsdk and by what a user would take instead: TRL with PEFT on transformers, and the
recipes of torchtune. `make bench` makes `.venv-peers` and `.venv-torchtune`, runs the rows and writes this page;
`make bench ROWS=sft-full,sft-lora` runs some of them and replaces those alone.

* Everyone trains the same weights (and the same adapter) on the same sequences in the same micro-batches, in float32,
  with fused AdamW, the same learning rate and clipping, SDPA, without checkpointing and uncompiled, on all cores.
  The losses of the first and the last step show that it is the same work. On a GPU (`gpu-...`) the weights and all
  arithmetic are in bfloat16, and our attention is what `auto` takes there, `varlen`.
* Contestants take turns: a round is one process of each, and a number is the median over the rounds; the first step
  of a process does not count.
* Tokens are those that are no padding. Memory is the peak that was resident (`ru_maxrss`), loading and libraries
  included; on a GPU the peak that torch had allocated there.
* *roofline*: the operations that the step cannot do without (`tests/benchmarks/flops.py`) a second, over the best
  rate of a `linear` in the same dtype, measured between the rounds; *of the products alone*: what a step would reach
  that was its matrix products and nothing else, each timed by itself on the same layouts
  (`tests/benchmarks/contestants/products.py`). On a shared machine that rate changes from minute to minute; where the
  rounds differed, the slowest is told too.
* TRL packs without padding; torchtune's packs are padded to their length.
"""
UNITS = {"_bytes": "MiB", "_seconds": "s", "_per_second": "a second"}


def benchmarks() -> str:
    """A section a row: who came to what, and which holds are reached."""
    recorded = json.loads(RESULTS.read_text("utf-8"))
    missed = [hold for row in recorded.values() for hold in row["holds"] if not hold["reached"]]
    holds = sum(len(row["holds"]) for row in recorded.values())
    summary = f"\n{holds - len(missed)} of {holds} holds are reached.\n"
    return INTRODUCTION + summary + "".join(_section(name, row) for name, row in recorded.items())


def _section(name: str, row: dict[str, Any]) -> str:
    parts = [f"\n## {name}\n\n{row['work']}.\n\n", _contestants(row), _judgement(row["holds"])]
    if "profile" in row:
        shares = ", ".join(f"`{operation}` {share:.0%}" for operation, share in row["profile"].items())
        parts.append(f"\nWhere our time goes: {shares}.\n")
    return "".join([*parts, f"\n{_provenance(row)}\n"])


def _contestants(row: dict[str, Any]) -> str:
    """A line a contestant, and under its numbers what ours are of them."""
    present = {name: c for name, c in row["contestants"].items() if "absent" not in c}
    metrics = list(dict.fromkeys(key for c in present.values() for key in c if key != "versions"))
    lines = [["", *(_title(key) for key in metrics)], ["---"] * (len(metrics) + 1)]
    for name, values in present.items():
        lines.append([name, *(_shown(key, values[key]) if key in values else "" for key in metrics)])
        if ratios := row["ratios"].get(name):
            lines.append([f"ptsdk / {name}", *(f"{ratios[key]:.2f}x" if key in ratios else "" for key in metrics)])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    absent = [f"* {name}: {c['absent']}.\n" for name, c in row["contestants"].items() if "absent" in c]
    return table + ("\n" if absent else "") + "".join(absent)


def _judgement(holds: list[dict[str, Any]]) -> str:
    return "\n" + "".join(map(_hold, holds))


def _hold(hold: dict[str, Any]) -> str:
    verdict = "reached" if hold["reached"] else "**not reached**"
    value = "not measured" if hold["value"] is None else f"it is {hold['value']:.3g}"
    why = f": {hold['why']}" if "why" in hold else ""
    return f"* {verdict}: {hold['hold']} ({value}){why}\n"


def _title(key: str) -> str:
    for suffix, unit in UNITS.items():
        if key.endswith(suffix):
            return f"{key.removesuffix(suffix)}, {unit}".replace("_", " ")
    return key.replace("_", " ")


def _shown(key: str, value: float) -> str:
    if key.endswith("_bytes"):
        return f"{value / 2**20:,.0f}"
    if key.endswith("_per_second"):
        return f"{value:,.0f}"
    if key.startswith("roofline"):
        return f"{value:.1%}"
    if key == "efficiency":
        return f"{value:.2%}"
    return f"{value:.4g}"


def _provenance(row: dict[str, Any]) -> str:
    machine = row["machine"]
    contestants = {name: c["versions"] for name, c in row["contestants"].items() if "versions" in c}
    slowest = f" ({row['slowest_linear'] / 1e9:.0f} in the slowest round)" if "slowest_linear" in row else ""
    listed = "; ".join(
        f"{name}: {', '.join(f'{package} {version}' for package, version in versions.items())}"
        for name, versions in contestants.items()
    )
    return (
        f"{row['date']}, {row['rounds']} rounds; {_device(machine)}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}, Python {machine['python']}; {listed}; best "
        f"`linear` {row['linear_flops_per_second'] / 1e9:.0f} GFLOP/s{slowest}."
    )


def _device(machine: dict[str, Any]) -> str:
    return ", ".join(filter(None, (machine.get("gpu"), machine["processor"])))
