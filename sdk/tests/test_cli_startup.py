"""The shell of the command line: what it loads, its exit codes, and where it prints."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import click
import pytest

from ptsdk.cli import main as cli
from ptsdk.cli.main import main
from ptsdk.errors import RunError, UserError
from ptsdk.registry import Registry
from ptsdk.specs import KINDS

HEAVY = {"torch", "transformers", "datasets", "huggingface_hub", "pydantic", "numpy", "rich", "yaml"}


@pytest.mark.parametrize("line", [["--help"], ["plugins"], ["plugins", "--json"], ["list"], ["--version"]])
def test_nothing_heavy_is_loaded(line: list[str]) -> None:
    code = (
        "import sys; from ptsdk.cli.main import main; code = main(sys.argv[1:]); "
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def cpu_seconds(*arguments: str) -> float:
    """What a process of python costs: unlike the clock, the same beside busy neighbours."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_the_first_answer_comes_at_once() -> None:
    """In units of what it stands on, which a slow machine takes longer for as well; the seconds are
    row ``start`` of the bench."""
    base = "import click, hashlib, importlib.metadata, packaging.requirements, pluggy, subprocess"
    lines = ["-c", ""], ["-c", base], ["-m", "ptsdk", "plugins"]
    bare, libraries, plugins = map(min, zip(*([cpu_seconds(*line) for line in lines] for _ in range(4)), strict=True))
    assert plugins - bare < 3 * (libraries - bare)


def test_python_m_ptsdk() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ptsdk", "nothing-such"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "no installed plugin provides the command 'nothing-such'" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_every_verb_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--safe", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Installed plugins and their health" in text
    assert "--no-plugin DIST" in text


def test_no_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize("line", [["--nonsense"], ["plugins", "--nonsense"], ["--no-plugin"], ["show", "loss"]])
def test_wrong_usage_exits_2(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error:" in captured.err


def verb_that_raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make every verb raise ``error``."""

    @click.command()
    def verb() -> None:
        raise error

    monkeypatch.setattr(Registry, "load_command", lambda self, entry: verb)


class Panic(BaseException):
    """No ``Exception``, as what comes out of Rust."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("the job is wrong", hint="mend it"), 2, "ptsdk: the job is wrong\n    mend it"),
        (RunError("the disk is full"), 1, "ptsdk: the disk is full"),
        (ZeroDivisionError("by\nzero"), 1, "ptsdk: internal error: ZeroDivisionError: by zero\n    run with --debug"),
        (Panic("in Rust"), 1, "ptsdk: internal error: Panic: in Rust"),
        (KeyboardInterrupt(), 130, "ptsdk: interrupted"),
    ],
)
def test_errors_end_on_stderr_with_their_code(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb_that_raises(monkeypatch, error)
    assert main(["run"]) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert main(["--debug", "run"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_during_discovery(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def scan(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "scan", scan)
    assert main(["plugins"]) == 130
    assert capsys.readouterr().err == "ptsdk: interrupted\n"


def test_an_exit_code_of_a_verb_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    verb_that_raises(monkeypatch, click.exceptions.Exit(143))
    assert main(["run"]) == 143


def test_a_verb_gets_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[cli.CliContext] = []

    @click.command()
    @click.pass_obj
    def verb(context: cli.CliContext) -> None:
        seen.append(context)

    monkeypatch.setattr(Registry, "load_command", lambda self, entry: verb)
    assert main(["--debug", "--safe", "run"]) == 0
    (context,) = seen
    assert context.debug
    assert context.plugins.options.safe
    assert context.registry.plugins is context.plugins


def test_no_plugin_acts_before_discovery(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--no-plugin", "ptsdk-nothing-such", "plugins", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)
    assert "no plugin 'ptsdk-nothing-such' is installed" in captured.err


def test_list_and_its_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--safe", "list", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert {"kind": "loss", "name": "cross_entropy", "dist": "ptsdk"}.items() <= entries_of(entries, "loss")[0].items()
    assert {entry["kind"] for entry in entries} <= set(KINDS)
    assert main(["--safe", "list", "optimizer"]) == 0
    assert "adamw" in capsys.readouterr().out
    assert main(["--safe", "list", "optimiser"]) == 2
    assert "did you mean optimizer?" in capsys.readouterr().err


def entries_of(entries: list[dict[str, str]], kind: str) -> list[dict[str, str]]:
    return [entry for entry in entries if entry["kind"] == kind]


def test_plugins_of_a_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--safe", "plugins", "--json", "--kind", "loss"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert [c["name"] for c in record["components"]] == ["cross_entropy"]


def test_show_has_every_option_with_its_type_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    from ptsdk.builtin.optimizers import AdamW

    assert main(["--safe", "show", "optimizer", "adamw", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    options = {option["name"]: option for option in shown["options"]}
    assert list(options) == list(AdamW.model_fields)
    assert options["lr"] == {
        "name": "lr",
        "type": "float",
        "required": False,
        "default": AdamW.model_fields["lr"].default,
        "description": AdamW.model_fields["lr"].description,
    }
    assert options["betas"]["type"] == "tuple[float, float]"
    assert main(["--safe", "show", "dataset", "preference"]) == 0
    assert "objective" in capsys.readouterr().out
    assert main(["--safe", "show", "command", "show"]) == 0
    assert "--json" in capsys.readouterr().out


def test_a_closed_pipe_is_no_internal_error() -> None:
    """As in ``ptsdk list | head -1``."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "ptsdk", "list"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write)
    assert "internal error" not in done.stderr
