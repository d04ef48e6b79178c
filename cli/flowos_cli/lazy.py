"""Groups whose commands are imported only when they are called: help must feel instant."""

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A group whose commands are named in a table and imported when called.

    Attributes:
        table: Word -> (module:attribute, one line of help).
    """

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        """Make a group; everything but the table is click's."""
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the words in the table's order."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        found = self.table.get(cmd_name)
        if found is None:
            return None
        module, _, attribute = found[0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List all words from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(word, text) for word, (_, text) in self.table.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say what is near where a word is unknown."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(self._nothing(ctx, args[0]), error.ctx or ctx) from None

    def _nothing(self, ctx: click.Context, word: str) -> str:
        path = ctx.command_path
        if word.startswith("-"):
            return f"there is no option {word}: '{path} --help' says more"
        found = f"there is no command '{path} {word}'"
        if near := difflib.get_close_matches(word, self.table, 1):
            return f"{found}: did you mean '{path} {near[0]}'?"
        top = ctx.find_root()
        if isinstance(top.command, LazyGroup) and word in top.command.table and ctx is not top:
            return f"{found}: did you mean '{top.command_path} {word}'?"
        return f"{found}: '{path} --help' lists all"
