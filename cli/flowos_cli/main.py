"""The `flowos` command: which words there are, and what becomes of errors."""

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from flowos_cli.lazy import LazyGroup

# word -> (module:attribute, one line of help). Nothing of a command is imported before it is
# called: `flowos --help` must feel instant.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "up": ("flowos_cli.commands.up:up", "Start a cell on this machine: store, schedulers, agents."),
    "down": ("flowos_cli.commands.up:down", "Stop what 'up' started."),
    "status": ("flowos_cli.commands.status:status", "One screen: what is free, queued, alive."),
    "top": ("flowos_cli.commands.status:top", "The same, live."),
    "submit": ("flowos_cli.commands.submit:submit", "Submit a slice (short for 'slice submit')."),
    "run": ("flowos_cli.commands.run:run", "Run a data-flow program, on a cell or just here."),
    "ls": ("flowos_cli.commands.slice:ls", "List slices (short for 'slice ls')."),
    "explain": ("flowos_cli.commands.explain:explain", "Why a slice waits (short for 'slice explain')."),
    "cancel": ("flowos_cli.commands.wishes:cancel", "End a slice (short for 'slice cancel')."),
    "cell": ("flowos_cli.commands.cell:cell", "Load, show, verify and export a cell."),
    "slice": ("flowos_cli.commands.slice:slice_", "Submit, list, wait for and end slices."),
    "engine": ("flowos_cli.commands.engine:engine", "List, drain and undrain engines."),
    "switch": ("flowos_cli.commands.fabric:switch", "List switches."),
    "circuit": ("flowos_cli.commands.fabric:circuit", "List circuits that stand."),
    "bitstream": ("flowos_cli.commands.bitstream:bitstream", "Add, list and remove bitstreams."),
    "tenant": ("flowos_cli.commands.tenant:tenant", "Set and list tenants."),
    "reservation": (
        "flowos_cli.commands.reservation:reservation", "Keep units for a tenant or for maintenance.",
    ),
    "power": ("flowos_cli.commands.power:power", "Budgets and draw by power domain."),
    "scheduler": ("flowos_cli.commands.processes:scheduler", "Run and watch schedulers."),
    "agent": ("flowos_cli.commands.processes:agent", "Run an agent."),
    "controller": ("flowos_cli.commands.processes:controller", "Run a controller."),
    "replay": ("flowos_cli.commands.replay:replay", "Replay real jobs on a cell, through the store."),
    "simulate": (
        "flowos_cli.commands.simulate:simulate", "Simulate schedulers, and sweep over what may matter.",
    ),
    "tune": ("flowos_cli.commands.tune:tune", "Search for better weights of the planner, off-line."),
    "completion": ("flowos_cli.commands.completion:completion", "Print the shell's completion script."),
}  # fmt: skip


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": None},
)
@click.version_option(package_name="flowos", message="flowos %(version)s")
def cli() -> None:
    """Flow OS: slices of unlike AI engines, planned by many schedulers on one shared state."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and end the process with the status that CLI users rely on."""
    code = run(arguments)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # Not sys.exit: grpc's objects may wait for ever, when the interpreter takes them apart, for a
    # lock that one of its stopped threads holds (seen once in 400 waits).
    os._exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status. No traceback ever reaches a user."""
    from flowos.model.errors import FlowosError

    try:
        result: Any = cli.main(
            list(arguments) if arguments is not None else None,
            prog_name="flowos",
            standalone_mode=False,
        )
    except FlowosError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()  # a group's name alone: what it has, in whole
        return 2
    except click.ClickException as error:
        from flowos_cli.wrong_use import sentence

        click.echo(f"error: {sentence(error)}", err=True)
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone: not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the last door: what is left is a bug of ours
        if os.environ.get("FLOWOS_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            click.echo("error: no room is left where the output goes: make some", err=True)
            return 1
        click.echo(
            f"error: internal: {type(error).__name__}: {error} "
            "(FLOWOS_DEBUG=1 shows where; please report it)",
            err=True,
        )
        return 1
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    main()
