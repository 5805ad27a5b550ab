"""The ``ptsdk`` command: discovery once, verbs on use, one place for errors.

Verbs are components of the kind ``command``, core's own included; `ptsdk --help` lists them from
their specs and imports none.
"""

from __future__ import annotations

import os
import stat
import sys
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

import ptsdk
from ptsdk.cli.processes import rank, should_warn, wait_for_the_cause
from ptsdk.errors import LostProcess, PtsdkError
from ptsdk.plugins import DiscoveryOptions, Plugins, scan
from ptsdk.redaction import environment_secrets, hide
from ptsdk.registry import Registry

if TYPE_CHECKING:
    from ptsdk.job import Job

SUMMARY = "Post-training of large language models, assembled from plugins."


@dataclass(frozen=True)
class CliContext:
    """What every verb gets through ``@click.pass_obj``."""

    plugins: Plugins
    registry: Registry
    debug: bool = False
    arguments: tuple[str, ...] = ()
    """The whole command line, for a verb that starts other processes of itself."""
    secrets: set[str] = field(default_factory=environment_secrets)
    """What no message may hold; grows with the jobs that are loaded."""

    def load_job(self, path: Path, overrides: Sequence[str], *, locked: bool = False) -> Job:
        """The job of a file, or of a lock.json; what it has from the environment will not be shown."""
        from ptsdk.job import load_job, load_locked

        job = (load_locked if locked else load_job)(path, overrides, self.registry)
        self.secrets.update(job.secrets)
        return job


class Verbs(click.Group):
    """The verbs of the installed plugins. A word that core has means core's, so that no plugin takes
    it away: ``ptsdk dist/run`` is another's."""

    def __init__(self, registry: Registry) -> None:
        super().__init__("ptsdk", help=SUMMARY, params=_global_options(), callback=_no_work)
        self.registry = registry

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb, core's first."""
        return self.registry.names("command")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Import a verb.

        Raises:
            UserError: no plugin provides it, or it does not import.
        """
        return self.registry.load_command(self.registry.find("command", cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Names and summaries, from the specs."""
        specs = [(name, self.registry.find("command", name).spec) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, spec.summary) for name, spec in specs])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code: 0 done, 1 failed, 2 wrong input, 130 interrupted.

    A verb ends with another code by ``ctx.exit(code)`` or by raising a ``PtsdkError``.
    """
    os.umask(os.umask(0o077) | stat.S_IWOTH)  # nothing that is made here may be written by everybody
    arguments = list(sys.argv[1:] if argv is None else argv)
    given = _given(arguments)
    secrets = environment_secrets()
    try:
        return _run(arguments, given, secrets)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):  # what click makes of ctrl-c
        return _report("interrupted", 130, given.debug, secrets)
    except PtsdkError as error:
        wait_for_the_cause(certain=not isinstance(error, LostProcess))
        return _report(str(error), error.exit_code, given.debug, secrets)
    except SystemExit:  # a verb of a plugin chose its exit code
        raise
    except BaseException as error:  # noqa: BLE001  a person gets one line, whatever went wrong: a Rust panic too
        wait_for_the_cause(certain=False)
        text = " ".join(f"internal error: {type(error).__name__}: {error}".split())
        text = text if given.debug else f"{text}\n    run with --debug for the traceback"
        return _report(text, 1, given.debug, secrets)


@dataclass(frozen=True)
class _Given:
    """The global options that act before discovery."""

    options: DiscoveryOptions
    debug: bool


def _run(arguments: list[str], given: _Given, secrets: set[str]) -> int:
    plugins = scan(given.options)
    if should_warn():
        for warning in plugins.warnings():
            click.echo(f"ptsdk: {warning}", err=True)
    registry = Registry(plugins)
    context = CliContext(plugins, registry, given.debug, tuple(arguments), secrets)
    result = Verbs(registry).main(arguments, prog_name="ptsdk", standalone_mode=False, obj=context)
    return result if isinstance(result, int) else 0


def _given(arguments: list[str]) -> _Given:
    """Read the global options ahead of the verbs, which discovery decides about. What is wrong
    with them is said later, by the real parser."""
    parser = click.Command(
        "ptsdk",
        params=_global_options(),
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "allow_extra_args": True},
    )
    values = parser.make_context("ptsdk", list(arguments), resilient_parsing=True).params
    options = DiscoveryOptions.from_environment(no_plugin=values["no_plugin"] or (), safe=bool(values["safe"]))
    return _Given(options, bool(values["debug"]))


def _global_options() -> list[click.Parameter]:
    def show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(f"ptsdk {ptsdk.__version__}")
            ctx.exit()

    return [
        click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
        click.Option(["--no-plugin"], multiple=True, metavar="DIST", help="Leave a plugin out; may be repeated."),
        click.Option(["--safe"], is_flag=True, help="Leave every plugin out."),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=show_version,
            help="Show the version and exit.",
        ),
    ]


def _no_work(**options: object) -> None:
    """The global options have acted already."""


def _report(text: str, code: int, debug: bool, secrets: Collection[str]) -> int:
    """The error on stderr, without secrets; with ``--debug`` the traceback of the one being handled before it."""
    if debug:
        click.echo(_plain(hide(traceback.format_exc(), secrets)), err=True, nl=False)
    who = f"process {rank()}: " if rank() else ""
    click.echo(_plain(f"ptsdk: {who}{hide(text, secrets)}"), err=True)
    return code


def _plain(text: str) -> str:
    """What is quoted from a file must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
