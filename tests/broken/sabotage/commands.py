"""Verbs."""

from __future__ import annotations

import click


@click.command()
def wordless() -> None:
    pass


@click.command()
@click.option("--speed")
def bare(speed: str) -> None:
    """Has an option that nobody explains."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("rest", nargs=-1)
def swallowing(rest: tuple[str, ...]) -> None:
    """Takes anything."""
