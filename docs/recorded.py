"""The pages about long runs, made of what those wrote down."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
MATRIX = TESTS / "matrix" / "results.json"
KILLS = TESTS / "faults" / "kills.json"
WORLDS = TESTS / "faults" / "worlds.json"
LADDER = TESTS / "benchmarks" / "ladder.json"
PIECES = TESTS / "benchmarks" / "pieces.json"
MARKED = re.compile(r"(<!-- recorded: (\w+) -->\n).*?(?=<!-- end of what was recorded -->)", re.DOTALL)
"""In a page written by hand: where something that was recorded stands, and what."""
LOSSES = {
    "whole": "all logits at once",
    "core": "`cross_entropy`",
    "liger": "`liger_cross_entropy`, interpreted",
}
RELIABILITY = """\
Runs die by SIGKILL at random moments and are resumed, again and again, until they end. Then every row of
`metrics.jsonl`, every tensor of the last checkpoint (weights, optimizer), its other state (cursor, random
generators) and `final/` are compared with a run of the same job that nobody killed. They have to be equal to the
last bit. What else can go wrong is in [faults.md](faults.md).

A death counts under what the run was doing: starting (also reading a checkpoint), training, saving (a checkpoint
was half written) or exporting `final/`; and once more under "from a checkpoint" where there was one to go on
from. Two processes die one shortly after the other, in random order. `mixture` is three data sets with weights;
`packed` the same three in packs (pairs and prompts are not packed); `streamed` the mixture, packed where it can be,
read row by row.
"""


MOVED = """
## Resumed in another number of processes

Killed after the fifth of twelve steps and resumed with fewer or more processes, a run reads the same rows in the same
order, and each loss and every other number of its log agrees with the run left alone to a relative 1e-5 (counts and
learning rates exactly; grpo writes the same completions). LoRA is without dropout, whose masks each process draws.
"""


def matrix() -> str:
    """Family x method x update x strategy, as recorded."""
    results = json.loads(MATRIX.read_text("utf-8"))
    cells = {tuple(name.split("-")): cell for name, cell in results["cells"].items()}
    families, methods, updates, strategies = (list(dict.fromkeys(axis)) for axis in zip(*cells, strict=True))
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    columns = [f"{update}, {strategy}" for update in updates for strategy in strategies]
    rows = [
        [f"{family} {method}", *(_cell(cells[family, method, u, s]) for u in updates for s in strategies)]
        for family in families
        for method in methods
    ]
    refused = [[f"`{pair}`", message] for pair, message in results["refused"].items()]
    return (
        f"# The matrix\n\nEach cell was trained, killed with SIGKILL and resumed to the same bits (metrics and "
        "exported weights), and its export was loaded in transformers or PEFT to the same logits. fsdp2 is two "
        f"processes. Recorded on {results['date']} with `{results['command']}`; {versions}; {results['machine']}. "
        f"A cell shows its seconds.\n\n{_table(['', *columns], rows)}\n"
        "## Refused\n\nWhat cannot work is refused by `ptsdk check`, before a weight is read.\n\n"
        f"{_table(['', 'message'], refused)}"
    )


def _cell(cell: dict[str, Any]) -> str:
    return f"{cell['seconds']:.0f} s" if cell["outcome"] == "passed" else str(cell["outcome"])


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def reliability() -> str:
    """What became of runs that were killed, as it was recorded."""
    recorded = json.loads(KILLS.read_text("utf-8"))
    cells = recorded.pop("cells")
    counted = list(next(iter(cells.values())))[1:-1]
    sums = [sum(cell[name] for cell in cells.values()) for name in counted]
    rows = [[*name.split("-"), *(str(cell[key]) for key in counted), cell["outcome"]] for name, cell in cells.items()]
    same = sum(cell["outcome"] == "same bits" for cell in cells.values())
    lines = [
        "# Killed and resumed\n",
        RELIABILITY,
        f"`{recorded['command']}` on {recorded['date']}: {sum(sums[:-1])} deaths, {same} of {len(cells)} combinations "
        f"with the same bits (torch {recorded['torch']}, Python {recorded['python']}, {recorded['system']}).\n",
        "| method | update | processes | data | " + " | ".join(counted) + " | result |",
        "|---|---|---|---|" + "---|" * (len(counted) + 1),
        *("| " + " | ".join(row) + " |" for row in rows),
        "| all | | | | " + " | ".join(map(str, sums)) + " | |",
    ]
    return "\n".join(lines) + "\n" + _moved()


def _moved() -> str:
    recorded = json.loads(WORLDS.read_text("utf-8"))
    moves = {tuple(name.split("-")): said for name, said in recorded["moves"].items()}
    runs, changes = (list(dict.fromkeys(name[part] for name in moves)) for part in (slice(3), slice(3, 5)))
    rows = [[*run, *(moves[*run, *change] for change in changes)] for run in runs]
    where = f"torch {recorded['torch']}, Python {recorded['python']}, {recorded['system']}"
    header = ["method", "update", "data", *(f"{before} to {after}" for before, after in changes)]
    return f"{MOVED}\n`{recorded['command']}` on {recorded['date']} ({where}).\n\n{_table(header, rows)}"


def with_recorded(page: str) -> str:
    """The page with what was recorded, where it has the marks of it."""
    tables = {
        "ladder": ladder,
        "attention": attention,
        "losses": losses,
        "compiled": compiled,
        "optimizers": optimizers,
    }
    return MARKED.sub(lambda found: found[1] + tables[found[2]](), page)


def ladder() -> str:
    """What each technique costs and saves, as recorded."""
    recorded = json.loads(LADDER.read_text("utf-8"))
    header = ["", "peak of tensors", "planned", "error", "resident", "tokens/s of a core", "loss"]
    rows = [
        [
            name,
            *_of_tensors(rung),
            *_of_the_process(rung),
        ]
        for name, rung in recorded["rungs"].items()
    ]
    days = sorted({rung["date"] for rung in recorded["rungs"].values()})
    return _with_place({**recorded, "date": " and ".join(days)}, _table(header, rows))


def _of_tensors(rung: dict[str, float]) -> list[str]:
    """Nothing of compiled code, into which a meter does not see."""
    if "alive" not in rung:
        return ["", "", ""]
    alive, planned = rung["alive"], rung["planned"]
    return [f"{alive / 1e6:.0f} MB", f"{planned / 1e6:.0f} MB", f"{planned / alive - 1:+.1%}"]


def _of_the_process(rung: dict[str, float]) -> list[str]:
    """Nothing where a rung cannot run on a CPU."""
    if "resident" not in rung:
        return ["", "", ""]
    return [f"{rung['resident'] / 1e6:.0f} MB", f"{rung['tokens_per_second']:.0f}", f"{rung['loss']:.4f}"]


def attention() -> str:
    """What attention takes, done one way and another."""
    recorded = json.loads(PIECES.read_text("utf-8"))
    ways = list(next(iter(recorded["attention"].values())))
    rows = [
        [name, *(f"{found[way]['ms']:.0f} ms, {found[way]['bytes'] / 1e6:.0f} MB" for way in ways)]
        for name, found in recorded["attention"].items()
    ]
    return _with_place(recorded, _table(["documents", *ways], rows))


def losses() -> str:
    """What losses hold."""
    recorded = json.loads(PIECES.read_text("utf-8"))
    rows = [[LOSSES[name], f"{found['bytes'] / 1e6:.0f} MB"] for name, found in recorded["losses"].items()]
    return _with_place(recorded, _table(["", "peak"], rows))


def compiled() -> str:
    """What compiling a loss gives."""
    recorded = json.loads(PIECES.read_text("utf-8"))
    rows = [
        [name, *(f"{ms:.0f} ms" for ms in found.values()), f"{found['as it is'] / found['compiled']:.2f}x"]
        for name, found in recorded["compiled"].items()
    ]
    return _with_place(recorded, _table(["", "as it is", "compiled", ""], rows))


def optimizers() -> str:
    """What a step takes, done one way and another."""
    recorded = json.loads(PIECES.read_text("utf-8"))
    found = recorded["optimizers"]
    rows = [[name, *(f"{ms:.1f} ms" for ms in steps.values())] for name, steps in found.items()]
    return _with_place(recorded, _table(["", *next(iter(found.values()))], rows))


def _with_place(recorded: dict[str, Any], table: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in recorded["versions"].items())
    return (
        f"\nRecorded on {recorded['date']} with `{recorded['command']}`; {versions}; {recorded['machine']}.\n\n"
        f"{table}\n"
    )
