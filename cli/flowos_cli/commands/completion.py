"""`flowos completion`: the shell's script, and the live names that it asks for.

A completion that fails says nothing and offers nothing: it is asked for in the middle of a line.
"""

import os
import queue
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from flowos_cli.wiring import PASSWORD, Where, read_password

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_FLOWOS_COMPLETE"  # what click looks for in the environment
ANSWER_SECONDS: Final = 0.3  # a person waits at a keyboard
CONNECT_SECONDS: Final = 0.2
NAMES_MAX: Final = 200
DEFAULTS: Final[Mapping[str, Any]] = {
    "data_dir": "", "endpoints": "", "cell_name": "", "user": "", "password_file": "", "cacert": "",
    "cert": "", "key": "", "server_name": "",
}  # fmt: skip


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(flowos completion bash)"
    zsh:   eval "$(flowos completion zsh)"
    fish:  flowos completion fish | source
    """
    from click.shell_completion import get_completion_class

    from flowos_cli.main import cli

    known = get_completion_class(shell)
    assert known is not None, "click knows the shells that it names"
    script = known(cli, {}, "flowos", VARIABLE)
    # Not `source()`: for bash it starts a bash first, only to look at its version.
    click.echo(script.source_template % script.source_vars())
    return 0


def live(family: str) -> "Callable[[click.Context, click.Parameter, str], list[CompletionItem]]":
    """Return a completion with the names that a key family has now."""

    def complete(
        context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        names: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        arguments = (names, family, dict(context.params), incomplete)
        threading.Thread(target=_ask, args=arguments, daemon=True).start()
        try:
            found = names.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            found = []
        said = {w for value in context.params.values() if isinstance(value, tuple) for w in value}
        return [CompletionItem(name) for name in found[:NAMES_MAX] if name not in said]

    return complete


def policies(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Complete with the policies that are installed here."""
    from click.shell_completion import CompletionItem

    from flowos.runtime.plugins import installed

    names = dict.fromkeys(plugin.name for plugin in installed())
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _ask(
    names: "queue.SimpleQueue[list[str]]", family: str, options: dict[str, Any], start: str
) -> None:
    try:
        names.put(_names(family, options, start))
    except Exception:  # noqa: BLE001  # a completion has nowhere to say what went wrong
        names.put([])


def _names(family: str, options: Mapping[str, Any], start: str) -> list[str]:
    said = {**DEFAULTS, **{name: v for name, v in options.items() if name in DEFAULTS and v}}
    said["endpoints"] = tuple(e for e in said["endpoints"].split(",") if e)
    password = os.environ.get(PASSWORD, "")  # nobody is asked for one in the middle of a line
    if said["user"] and said["password_file"]:
        password = read_password(said["password_file"])
    store = Where(
        **said, password=password, allow_unsafe=True, connect_timeout_seconds=CONNECT_SECONDS
    ).store()
    if family == "slice":
        found = [
            record.key.partition("/")[2]
            for record in store.read(["slice/"]).records
            if b'"end":{' not in record.value
        ]
        tenant = options.get("tenant") or "default"
        plain = [n.partition("/")[2] for n in found if n.startswith(f"{tenant}/")]
        other = [n for n in found if not n.startswith(f"{tenant}/")]
        return sorted(n for n in (*plain, *other) if n.startswith(start))
    prefix = f"{family}/"
    return [record.key[len(prefix) :] for record in store.read([prefix + start]).records]
