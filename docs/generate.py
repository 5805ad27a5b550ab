"""Write the reference pages from the code, or check that they are fresh.

    python docs/generate.py [--check]

``components.md``: every component of the workspace and its options. ``hooks.md``: every hook, and the two
files its author writes. ``conformance.md``: every suite of ``ptsdk.testing`` and what each of its tests
proves. ``job.schema.json``: the job file, for editors. ``matrix.md`` and ``reliability.md``: what was
recorded of long runs (``recorded.py``). ``benchmarks.md``: what ``make bench`` measured (``benched.py``). In pages
written by hand, the blocks that are slices of files (``slices.py``), and what was recorded (``recorded.py``).
"""

from __future__ import annotations

import inspect
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from benched import benchmarks
from recorded import matrix, reliability, with_recorded
from slices import filled

from ptsdk import testing
from ptsdk.cli.show import describe
from ptsdk.errors import UserError
from ptsdk.hookspecs import Contributions, RunEvents
from ptsdk.job.schema import job_schema
from ptsdk.plugins import DiscoveryOptions, scan
from ptsdk.registry import Registry
from ptsdk.specs import KINDS, Kind
from ptsdk.testing.suite import standard_tests
from ptsdk_templates.rendering import template

HERE = Path(__file__).parent
NOTE = "<!-- made by docs/generate.py; edit the code instead -->\n\n"


def workspace() -> Registry:
    """The components of the packages of this repository, whatever else is installed beside them.

    Raises:
        UserError: one of the packages is broken or not installed.
    """
    members = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["tool"]["uv"]["workspace"]["members"]
    projects = [path for member in members for path in HERE.parent.glob(f"{member}/pyproject.toml")]
    dists = frozenset(tomllib.loads(path.read_text("utf-8"))["project"]["name"] for path in projects)
    plugins = scan(DiscoveryOptions(allow=dists, strict=True))
    if plugins.notices:
        raise UserError("; ".join(plugins.notices), hint="make install")
    return Registry(plugins)


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
    """Every hook with its signature, and for contributions the contract to subclass and the files to write."""
    by_hook = {kind.hook: kind for kind in KINDS.values()}
    parts = [
        "# Hooks\n\n## Contributions\n\nFunctions of a dist's `plugin.py`; each returns an iterable of specs. What is "
        "shown of each are the two files of its template: `ptsdk new-plugin KIND NAME` writes them under another "
        "name, with the tests they pass.\n"
    ]
    for name, hook in _hooks(Contributions):
        kind = by_hook[name]
        parts.append(
            f"\n### {name}\n\n{inspect.getdoc(hook)}\n\n"
            f"Kind `{kind.name}`, spec `ptsdk.specs.{kind.spec.__name__}`, contract `{kind.contract}`.\n"
        )
        parts += [f"\n`{path}`\n\n```python\n{text}```\n" for path, text in _two_files(kind).items()]
    parts.append(
        "\n## Run events\n\nMethods of the loggers and callbacks that a job names: the two files are those of "
        "[ptsdk_loggers](#ptsdk_loggers) and [ptsdk_callbacks](#ptsdk_callbacks). Override the events you need.\n"
    )
    for name, hook in _hooks(RunEvents):
        parts.append(f"\n### {name}{inspect.signature(hook)}\n\n{inspect.getdoc(hook)}\n")
    return NOTE + "".join(parts)


def _two_files(kind: Kind) -> dict[str, str]:
    """What an author writes: ``plugin.py`` and the component's module, by their path in the package."""
    sources = {path.removeprefix("src/"): text for path, text in template(kind.name).items() if path.startswith("src/")}
    modules = [path for path in sources if path.endswith(".py") and not path.endswith("/__init__.py")]
    return {path: sources[path] for path in sorted(modules, key=lambda path: not path.endswith("/plugin.py"))}


def _hooks(owner: type) -> list[tuple[str, Any]]:
    return [(name, hook) for name, hook in vars(owner).items() if not name.startswith("_")]


CONFORMANCE = """# Conformance

`ptsdk.testing` has a suite for every kind. A subclass in a test file that names a component is all an author
writes; `pip install 'ptsdk[testing]'` brings pytest.

```python
from ptsdk.testing import LossSuite


class TestFocal(LossSuite):
    component = "focal"  # a name, dist/name, or ./file.py:Class beside the test file
    options = {"gamma": 2.0}  # beside `use`; optional
```

`ptsdk conform DIST [--json]` runs the suites over everything that an installed dist contributes, with or without
tests of its own: exit code 0 when it conforms, 1 when a test fails, 2 when there is no such dist.

* **Values for options.** An option without a default, or whose default cannot be tried (a server, thousands of tokens),
  has an example: `Field(examples=[...])`. The suites take the first one where `options` does not say otherwise.
  A data set that reads other columns than the built-in ones declares `example_rows`, a checkpoint source
  `example_url`, a listener that writes beside the output directory `writes_beside`.
* **Deviations.** A standard test may be left out or replaced only with a reason:
  `deviations = {"test_text_comes_back": "lower-cases by design"}`. One that is changed silently, a reason that is
  empty and a name that is no standard test fail `test_standard_tests_are_whole`. `ptsdk conform` knows no deviations.
  That test itself cannot be replaced, and pytest's summary names a suite that was skipped with it.
* **What is seen.** Core, the component's dist, the plugins that dist requires, and `needs = ("ptsdk-dpo",)`;
  nothing else that happens to be installed.
* **Fixtures** for tests of your own, from the pytest plugin: `plugins("ptsdk-lora")` lets dists in by name and
  gives a registry; `tiny_job("sft", train={"steps": 2})` is a job of seconds; `run_job(job, resume=False)` trains
  it in this process. Discovery is blocked in a test that asks for one of them: it sees core alone.

Each test is shown to fail: `tests/broken/sabotage` has a component for it that it alone catches.
"""


def conformance() -> str:
    """Every suite, its attributes and its tests."""
    from ptsdk.testing.suite import ComponentSuite, Suite

    of_all, shown = set(standard_tests(Suite)), set(standard_tests(ComponentSuite))
    parts = [CONFORMANCE, _suite("Every suite", Suite, set()), _suite("Every kind but command", ComponentSuite, of_all)]
    parts.append(_suite("A dist as a whole: PluginSuite", testing.PluginSuite, shown))
    for kind, (_, name) in testing.SUITES.items():
        parts.append(_suite(f"{kind}: {name}", getattr(testing, name), shown))
    return NOTE + "".join(parts)


def _suite(title: str, suite: Any, shown: set[str]) -> str:
    rows = [
        f"| `{name}` | {' '.join((inspect.getdoc(test) or '').split())} |"
        for name, test in standard_tests(suite).items()
        if name not in shown
    ]
    about = "" if title.startswith("Every") else f"{inspect.getdoc(suite)}\n\n"
    return "\n".join([f"\n## {title}\n\n{about}| test | what it proves |", "|---|---|", *rows, ""])


def schema(registry: Registry) -> str:
    """JSON Schema of the job file."""
    return json.dumps(job_schema(registry)[0], indent=1) + "\n"


def main() -> int:
    """Write the pages; with --check, 1 where one is stale."""
    registry = workspace()
    pages = {
        "benchmarks.md": NOTE + benchmarks(),
        "components.md": components(registry),
        "conformance.md": conformance(),
        "hooks.md": hooks(),
        "job.schema.json": schema(registry),
        "matrix.md": NOTE + matrix(),
        "reliability.md": NOTE + reliability(),
    }
    by_hand = [page for page in HERE.glob("*.md") if page.name not in pages]
    pages |= {page.name: with_recorded(filled(page.read_text("utf-8"))) for page in by_hand}
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
