"""The kit itself: what guards its tests, what its fixtures see, and what ``ptsdk conform`` says.

That each of its tests can fail is shown in tests/broken.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ptsdk
from ptsdk.cli.main import main
from ptsdk.errors import UserError
from ptsdk.plugins import scan
from ptsdk.specs import KINDS
from ptsdk.testing import SUITES, ScheduleSuite
from ptsdk.testing.plugin import pytest_terminal_summary
from ptsdk.testing.running import Outcome, run_file

HEAD = "from ptsdk.testing import ScheduleSuite\n"
STANDARD = "test_standard_tests_are_whole"


def suite(name: str, body: str) -> str:
    return f"class Test{name}(ScheduleSuite):\n    component = 'cosine'\n    {body}\n\n"


GUARDED = HEAD + "".join(
    suite(name, body)
    for name, body in {
        "Sound": "pass",
        "Replaced": "def test_warms_up(self): pass",
        "Removed": "test_warms_up = None",
        "Reasoned": "deviations = {'test_warms_up': 'it starts hot'}\n    def test_warms_up(self): pass",
        "Left": "deviations = {'test_warms_up': 'it starts hot'}",
        "Misspelt": "deviations = {'test_warm': 'it starts hot'}",
        "Wordless": "deviations = {'test_warms_up': ' '}",
        "More": "def test_of_its_own(self): assert self.make().factor(0, 1) == 1",
    }.items()
)


@pytest.fixture(scope="module")
def guarded() -> dict[str, Outcome]:
    names = [line.split("(")[0].removeprefix("class Test") for line in GUARDED.splitlines() if line.startswith("class")]
    return dict(zip(names, run_file(GUARDED), strict=True))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Replaced", "changed without a reason in `deviations`: test_warms_up"),
        ("Removed", "changed without a reason in `deviations`: test_warms_up"),
        ("Misspelt", "`deviations` names no standard test: test_warm"),
        ("Wordless", "`deviations` gives no reason for test_warms_up"),
    ],
)
def test_a_changed_suite_is_caught(name: str, says: str, guarded: dict[str, Outcome]) -> None:
    failed = guarded[name].failed
    assert list(failed) == [STANDARD]
    assert says in failed[STANDARD]


def test_a_reason_is_accepted(guarded: dict[str, Outcome]) -> None:
    assert not guarded["Sound"].failed and not guarded["Sound"].skipped
    assert not guarded["Reasoned"].failed and "test_warms_up" in guarded["Reasoned"].passed
    assert guarded["Left"].skipped == {"test_warms_up": "it starts hot"} and not guarded["Left"].failed
    assert "test_of_its_own" in guarded["More"].passed


def test_the_guard_cannot_be_replaced() -> None:
    with pytest.raises(TypeError, match="must not replace test_standard_tests_are_whole"):
        type("TestAll", (ScheduleSuite,), {STANDARD: lambda self: None, "__module__": "mine"})
    soft = type("Soft", (), {STANDARD: lambda self: None})
    with pytest.raises(TypeError, match="must not replace test_standard_tests_are_whole"):
        type("TestSoft", (soft, ScheduleSuite), {"__module__": "mine"})


def test_a_suite_skipped_with_its_guard_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    ids = [f"test_mine.py::TestSoft::{name}" for name in (STANDARD, "test_warms_up")]
    reporter: Any = SimpleNamespace(stats={"skipped": [SimpleNamespace(nodeid=i) for i in ids]}, write_line=print)
    pytest_terminal_summary(reporter)
    said = "test_mine.py::TestSoft was skipped with its guard: nothing is proven of its component\n"
    assert capsys.readouterr().out == said


def test_a_component_of_a_file(tmp_path: Path) -> None:
    text = "from ptsdk.contracts.schedule import Schedule\nclass Flat(Schedule):\n    def factor(self, step, total):\n"
    (tmp_path / "flat.py").write_text(text + "        return 1.0\n")
    component = f"component = {str(tmp_path / 'flat.py') + ':Flat'!r}"
    (outcome,) = run_file(HEAD + f"class TestFlat(ScheduleSuite):\n    {component}\n")
    assert list(outcome.failed) == ["test_warms_up"]


def test_a_suite_without_a_component_says_so() -> None:
    (outcome,) = run_file(HEAD + "class TestNothing(ScheduleSuite):\n    pass\n")
    assert all("set `component`" in message for message in outcome.failed.values()) and outcome.failed


def test_pytest_that_gets_nowhere_is_no_success() -> None:
    with pytest.raises(KeyboardInterrupt):
        run_file("raise KeyboardInterrupt")
    for text in ("raise ValueError", "x = 1"):
        (outcome,) = run_file(text)
        assert outcome.failed, text


def test_every_kind_has_a_suite() -> None:
    assert SUITES.keys() == KINDS.keys()
    for kind, (_, name) in SUITES.items():
        assert name == "".join(part.capitalize() for part in kind.split("-")) + "Suite"
        assert getattr(ptsdk.testing, name).kind == kind and name in ptsdk.testing.__all__


def test_the_pytest_plugin_is_light() -> None:
    code = "import ptsdk.testing.plugin, sys; print(sorted({'torch', 'pydantic', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A dist with one schedule, as pip leaves it on disk."""
    package = tmp_path / "site" / "ptsdk_zigzag"
    package.mkdir(parents=True)
    spec = 'Spec("zigzag", "ptsdk_zigzag.parts:Zigzag", "Up and down")'
    plugin = f"from ptsdk.specs import Spec\nPTSDK_API = 1\ndef ptsdk_schedules():\n    return [{spec}]\n"
    parts = (
        "from ptsdk.contracts.schedule import Schedule\nclass Zigzag(Schedule):\n    def factor(self, step, total):\n"
    )
    parts += "        warmup = self.warmup_steps(total)\n        return min(1.0, (step + 1) / (warmup + 1))\n"
    for name, text in {"__init__.py": "", "plugin.py": plugin, "parts.py": parts}.items():
        (package / name).write_text(text)
    info = package.parent / "ptsdk_zigzag-1.0.dist-info"
    info.mkdir()
    head = "Metadata-Version: 2.1\nName: ptsdk-zigzag\nVersion: 1.0\nRequires-Dist: ptsdk>=0.1\n"
    (info / "METADATA").write_text(head)
    (info / "entry_points.txt").write_text("[ptsdk]\nzigzag = ptsdk_zigzag.plugin\n")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delenv("PTSDK_PLUGINS", raising=False)
    yield "ptsdk-zigzag"
    for name in [name for name in sys.modules if name.partition(".")[0] == "ptsdk_zigzag"]:
        del sys.modules[name]


def test_discovery_is_blocked(dist: str, plugins: Callable[..., Any]) -> None:
    assert [record.dist for record in scan().records if record.status == "loaded"] == ["ptsdk"]
    registry = plugins(dist)
    assert registry.find("schedule", "zigzag").dist == dist
    loaded = [record.dist for record in scan().records if record.status == "loaded"]
    assert loaded == ["ptsdk", dist], "the environment allows what was named, and nothing else"


def test_a_plugin_that_is_not_there(plugins: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="ptsdk-nowhere is not usable here: it is not installed"):
        plugins("ptsdk-nowhere")


def test_jobs_see_what_the_test_lets_in(dist: str, plugins: Any, tiny_job: Any, run_job: Any) -> None:
    job = tiny_job(schedule="zigzag", train={"steps": 2})
    with pytest.raises(UserError, match="no installed plugin provides the schedule 'zigzag'"):
        run_job(job)
    plugins(dist)
    result = run_job(job)
    assert result.steps == 2 and result.metrics["loss"] > 0
    assert (result.final_dir / "config.json").is_file()


def test_conform(dist: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", dist, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["dist"], report["ok"]) == (dist, True)
    about = [(s["suite"], s["component"], s["failed"], s["skipped"]) for s in report["suites"]]
    assert about == [("PluginSuite", dist, 0, 0), ("ScheduleSuite", "zigzag", 0, 0)]
    assert all(isinstance(s["passed"], int) and s["passed"] >= 4 for s in report["suites"])


def test_conform_says_what_fails(dist: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = tmp_path / "site" / "ptsdk_zigzag" / "parts.py"
    parts.write_text(parts.read_text().replace("min(1.0, ", "min(2.0, 2 * "))
    assert main(["conform", dist]) == 1
    out = capsys.readouterr().out
    assert "BAD  schedule zigzag" in out and "test_factors_are_fractions: " in out and "has the factor 2" in out
    assert "AssertionError" not in out and "assert " not in out, "the suite's sentence, without pytest's values"
    assert "ptsdk-zigzag does not conform" in out


def test_a_loss_that_returns_a_tensor_is_told_once(tmp_path: Path) -> None:
    call = "def __call__(self, hidden_states, head, labels):\n        return head.logits(hidden_states).sum()\n"
    (tmp_path / "mean.py").write_text(f"from ptsdk.contracts.loss import TokenLoss\nclass Mean(TokenLoss):\n    {call}")
    component = f"component = {str(tmp_path / 'mean.py') + ':Mean'!r}"
    (outcome,) = run_file(f"from ptsdk.testing import LossSuite\nclass TestMean(LossSuite):\n    {component}\n")
    assert {message.partition("\n")[0] for message in outcome.failed.values()} == {
        "it returned a Tensor, not a LossOutput(sum, weight)"
    }


def test_conform_of_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", "ptsdk-nowhere"]) == 2
    assert "no plugin 'ptsdk-nowhere' is installed" in capsys.readouterr().err


def test_conform_of_a_blocked_plugin(dist: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--no-plugin", dist, "conform", dist]) == 2
    assert "ptsdk-zigzag is disabled" in capsys.readouterr().err


def test_conform_without_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; from ptsdk.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "conform", "ptsdk"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "pip install 'ptsdk[testing]'" in done.stderr
