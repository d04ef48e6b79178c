"""`flowos run`: a data-flow program, on a cell, or with nothing started on this machine."""

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from flowos.model.errors import FlowosError, SpecError
from flowos_cli.output import say, seconds
from flowos_cli.wiring import Where, where_options

LONG_SECONDS: Final = 3.0  # a program that takes longer is told of
TELL_SECONDS: Final = 2.0

if TYPE_CHECKING:
    from flowos.flowlet.session import Result


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("program", metavar="PROGRAM.py")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS...]")
@click.option(
    "--on",
    type=click.Choice(["cell", "alone", "here", "dask"]),
    default=None,
    help="A cell; this machine alone, by a cell of its own; this process; Dask. "
    "Default: the cell that is up and runs things, else alone.",
)
@click.option("--engines", default="", metavar="cpu=4,gpu=1", help="So many of a kind at most.")
@click.option(
    "--tenant", envvar="FLOWOS_TENANT", default="default", metavar="T", help="Whose it is."
)
@click.option("--policy", default="", metavar="P", help="Who schedules it.")
@click.option("--timeout", callback=seconds, default=None, metavar="S", help="Give up after this.")
@click.option("--task-timeout", callback=seconds, default=None, metavar="S", help="For each task.")
@click.option("--picture", default="", metavar="F.svg", help="Draw the program, with its engines.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["json"]),
    default=None,
    help="Say on stderr what ran where, and when; the program has stdout for itself.",
)
@where_options
def run(
    program: str,
    arguments: tuple[str, ...],
    on: str | None,
    engines: str,
    tenant: str,
    policy: str,
    timeout: float | None,
    task_timeout: float | None,
    picture: str,
    output: str | None,
    where: Where,
) -> int:
    """Run a Python program that executes flowlets.

    Options of this command stand before PROGRAM.py; what follows it is the program's own.

    \b
    flowos run examples/flowlets/founding.py
    flowos run --engines cpu=2 --picture founding.svg examples/flowlets/founding.py
    """
    from flowos.flowlet.cell import end_own, own
    from flowos.flowlet.defaults import DEFAULTS

    path = Path(program)
    source = _read(path)
    results: list[Result] = []
    DEFAULTS.settings = {
        "engines": _counts(engines),
        "tenant": tenant,
        "policy": policy,
        "timeout_seconds": timeout or 0.0,
        "task_seconds": task_timeout or 0.0,
        "waiting": _Waiting(),
        "progress": _Progress(),
    }
    DEFAULTS.settings = {name: value for name, value in DEFAULTS.settings.items() if value}
    DEFAULTS.on = on if on in ("here", "dask") else None
    DEFAULTS.executed = results.append
    client = None
    try:
        if on == "alone":
            DEFAULTS.client = own().client
        elif on == "cell" or where.endpoints or where.data_dir:
            client = DEFAULTS.client = where.client()
        status = _executed(path, source, arguments)
    finally:
        end_own()
        if client is not None:
            client.close()
    if not results and status == 0:
        say(f"note: {program} has executed nothing: call execute() on a sink")
    if picture and results:
        from flowos.flowlet.picture import drawn

        Path(picture).write_text(drawn(results[-1]), encoding="utf-8")
    if output == "json":
        print(json.dumps([_item(result) for result in results], indent=2), file=sys.stderr)
    return status


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(
            f"cannot be read: {error.strerror}", where=str(path), hint="name a Python program"
        ) from None


def _executed(path: Path, source: bytes, arguments: tuple[str, ...]) -> int:
    """Run a program as Python would; an error of it is told as Python tells it, without our part."""
    try:
        code = compile(source, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        sys.stderr.write("".join(traceback.format_exception_only(error)))
        return 1
    main = type(sys)("__main__")
    main.__dict__.update({"__file__": str(path), "__builtins__": __builtins__})
    with _as_main(main, path, arguments):
        try:
            exec(code, main.__dict__)  # noqa: S102  # it is what this command is for
        except SystemExit as end:
            return _status(end.code)
        except FlowosError:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever the program raises
            trace = error.__traceback__
            while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
                trace = trace.tb_next
            sys.stderr.write("".join(traceback.format_exception(type(error), error, trace)))
            return 1
        finally:
            sys.stdout.flush()
    return 0


@contextlib.contextmanager
def _as_main(main: Any, path: Path, arguments: tuple[str, ...]) -> Iterator[None]:
    before = sys.argv, sys.path[:], sys.modules.get("__main__")
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules["__main__"] = main
    try:
        yield
    finally:
        sys.argv, sys.path[:] = before[0], before[1]
        if before[2] is not None:
            sys.modules["__main__"] = before[2]


def _status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code
    print(code, file=sys.stderr)
    return 1


def _counts(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        kind, _, count = part.strip().partition("=")
        if not kind or not count.isdecimal() or not int(count):
            raise click.UsageError(f"--engines {text} is no number of engines: write cpu=4")
        found[kind] = int(count)
    return found


class _Waiting:
    """Says why a slice waits, each reason once."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, why: str) -> None:
        if why != self._said and os.environ.get("FLOWOS_QUIET") is None:
            self._said = why
            say(f"waiting for engines: {why}")


class _Progress:
    """Counts the tasks of a program that takes its time, for a person at a terminal."""

    def __init__(self) -> None:
        self._began = 0.0
        self._told_at = 0.0

    def __call__(self, done: int, count: int) -> None:
        now = time.monotonic()
        self._began = self._began or now
        if now - max(self._told_at, self._began + LONG_SECONDS - TELL_SECONDS) < TELL_SECONDS:
            return
        if sys.stderr.isatty():
            self._told_at = now
            say(f"{done:,} of {count:,} tasks have ended")


def _item(result: "Result") -> dict[str, Any]:
    return {
        "slice": result.slice,
        "seconds": round(result.seconds, 6),
        "waves": result.waves,
        "engines": {str(rank): engine for rank, engine in result.engines.items()},
        "circuits": [list(pair) for pair in result.circuits],
        "tasks": [
            {"name": name, "engine": ran.engine, "began": round(ran.began, 6),
             "seconds": round(ran.took, 6)}
            for name, ran in result.tasks.items()
        ],
    }  # fmt: skip
