"""Write the reference pages from the code, or check that they are fresh.

    python docs/generate.py [--check]

``components.md``: every component of the workspace and its options. ``hooks.md``: every hook.
``job.schema.json``: the job file, for editors.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from ptsdk.cli.show import describe
from ptsdk.hookspecs import Contributions, RunEvents
from ptsdk.job.schema import job_schema
from ptsdk.plugins import scan
from ptsdk.registry import Registry
from ptsdk.specs import KINDS

HERE = Path(__file__).parent
NOTE = "<!-- made by docs/generate.py; edit the code instead -->\n\n"


def components(registry: Registry) -> str:
    """Every component, by kind."""
    parts = ["# Components\n\nWhat `ptsdk show KIND NAME` prints, for the packages of this repository.\n"]
    for kind in KINDS:
        entries = registry.entries(kind)
        if entries:
            parts.append(f"\n## {kind}\n")
            parts += [_component(describe(entry, registry)) for entry in entries]
    return NOTE + "".join(parts)


def _component(shown: dict[str, Any]) -> str:
    lines = [f"\n### {shown['name']}\n", f"{shown['summary']}. From `{shown['dist']}`.\n"]
    if shown["options"]:
        lines += ["| option | type | default | |", "|---|---|---|---|"]
        lines += [_option(option) for option in shown["options"]]
        lines.append("")
    return "\n".join(lines)


def _option(option: dict[str, Any]) -> str:
    default = "required" if option["required"] else f"`{json.dumps(option['default'])}`"
    cells = (f"`{option['name']}`", f"`{option['type']}`", default, option["description"] or "")
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def hooks() -> str:
    """Every hook with its signature, and for contributions the contract to subclass."""
    by_hook = {kind.hook: kind for kind in KINDS.values()}
    parts = ["# Hooks\n\n## Contributions\n\nFunctions of a dist's `plugin.py`; each returns an iterable of specs.\n"]
    for name, hook in _hooks(Contributions):
        kind = by_hook[name]
        parts.append(
            f"\n### {name}\n\n{inspect.getdoc(hook)}\n\n"
            f"Kind `{kind.name}`, spec `ptsdk.specs.{kind.spec.__name__}`, contract `{kind.contract}`.\n"
        )
    parts.append("\n## Run events\n\nMethods of the loggers and callbacks that a job names.\n")
    for name, hook in _hooks(RunEvents):
        parts.append(f"\n### {name}{inspect.signature(hook)}\n\n{inspect.getdoc(hook)}\n")
    return NOTE + "".join(parts)


def _hooks(owner: type) -> list[tuple[str, Any]]:
    return [(name, hook) for name, hook in vars(owner).items() if not name.startswith("_")]


def schema(registry: Registry) -> str:
    """JSON Schema of the job file."""
    return json.dumps(job_schema(registry)[0], indent=1) + "\n"


def main() -> int:
    """Write the pages; with --check, 1 where one is stale."""
    registry = Registry(scan())
    pages = {"components.md": components(registry), "hooks.md": hooks(), "job.schema.json": schema(registry)}
    stale = [n for n, text in pages.items() if not (HERE / n).exists() or (HERE / n).read_text("utf-8") != text]
    if "--check" in sys.argv[1:]:
        print(f"stale: {', '.join(stale)}; run python docs/generate.py" if stale else "the reference pages are fresh")
        return 1 if stale else 0
    for name in stale:
        (HERE / name).write_text(pages[name], encoding="utf-8")
    print(f"wrote {', '.join(stale) or 'nothing: all fresh'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
