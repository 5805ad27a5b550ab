"""What a verb of the command line has to do."""

from __future__ import annotations

from typing import ClassVar

import click
from click.testing import CliRunner, Result

from ptsdk.testing.suite import Suite


class CommandSuite(Suite):
    """For the kind ``command``."""

    kind: ClassVar[str] = "command"

    @property
    def command(self) -> click.Command:
        """The command itself."""
        return self.registry.load_command(self.entry_in(self.registry))

    def invoke(self, *arguments: str) -> Result:
        """Run it in this process."""
        return CliRunner().invoke(self.command, list(arguments), prog_name=self.entry_in(self.registry).spec.name)

    def test_helps(self) -> None:
        """`--help` ends with 0 and says what the verb does."""
        result = self.invoke("--help")
        assert result.exit_code == 0, result.output
        assert (self.command.help or "").strip(), "the command has no docstring, so its help says nothing"

    def test_options_have_help(self) -> None:
        """Every option says what it is for."""
        options = [one for one in self.command.params if isinstance(one, click.Option) and not one.hidden]
        bare = [one.opts[0] for one in options if not (one.help or "").strip()]
        assert not bare, f"no help for {', '.join(bare)}"

    def test_refuses_unknown_options(self) -> None:
        """Exit code 2, as every mistake of the user's."""
        result = self.invoke("--no-such-option-")
        assert result.exit_code == 2, f"an unknown option ended with {result.exit_code}"
