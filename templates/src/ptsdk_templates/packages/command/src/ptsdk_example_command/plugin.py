"""What ptsdk-example-command contributes.

Every `ptsdk` command reads this file, so it imports the standard library and ptsdk.specs alone: the
component's own module is imported when a job uses it.
"""

from __future__ import annotations

from ptsdk.specs import Spec

PTSDK_API = 1  # the plugin contract this was written for; ptsdk accepts it and the one before


def ptsdk_commands() -> list[Spec]:
    """A command."""
    return [
        Spec(
            "example-command",
            "ptsdk_example_command.command:report",
            "Where the runs below a folder ended",
        )
    ]
