"""`flowos scheduler|controller|agent run`: the processes of a cell."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flowos.model import keys
from flowos.model.errors import SpecError, UnknownName
from flowos_cli.children import Child, keep
from flowos_cli.commands.completion import policies
from flowos_cli.commands.plugins import policy_named
from flowos_cli.lazy import LazyGroup
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.drivers.step import Driver

F = TypeVar("F", bound=Callable[..., Any])

PROGRAM = (sys.executable, "-m", "flowos_cli.main")


def ttl_option(function: F) -> F:
    """Add how long others wait for a sign of life; short ones are for trials with kills."""
    option = click.option(
        "--ttl", "ttl_seconds", envvar="FLOWOS_TTL", type=click.IntRange(min=1), hidden=True
    )
    return option(function)


def _ttl(seconds: int | None) -> dict[str, int]:
    """Return the argument for a process's session; none = what its role needs."""
    return {} if seconds is None else {"ttl_seconds": seconds}


def log_to_stderr(name: str) -> None:
    """Write what a process says of itself to stderr, a line each."""
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s {name} %(levelname)s %(message)s",
        stream=sys.stderr,
        force=True,
    )


def counted(text: str) -> tuple[str, int]:
    """Return name and number of "NAME" or "NAME=N"."""
    name, equals, number = text.partition("=")
    if not equals:
        return name, 1
    if not number.isdigit() or not 1 <= int(number) <= 64:
        raise SpecError(f"'{text}': the number of processes is 1 to 64", hint=f"write {name}=2")
    return name, int(number)


@click.group(
    cls=LazyGroup,
    short_help="Run and watch schedulers.",
    table={
        "run": (f"{__name__}:scheduler_run", "Run N processes of a policy."),
        "ls": ("flowos_cli.commands.stats:scheduler_ls", "List the schedulers that live."),
        "plugins": (
            "flowos_cli.commands.plugins:scheduler_plugins",
            "List the installed schedulers.",
        ),
        "stats": ("flowos_cli.commands.stats:scheduler_stats", "What each of them has done."),
    },
)
def scheduler() -> None:
    """Run and watch scheduler processes."""


@click.command("run")
@click.argument("plugin", metavar="NAME[=N]", shell_complete=policies)
@click.option("--name", default="", help="What to call this process; default NAME-0.")
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    help="Serve figures as Prometheus text on this local port; of N processes, on N in a row.",
)
@click.option(
    "--decision-timeout",
    envvar="FLOWOS_DECISION_TIMEOUT",
    default="30s",
    show_default=True,
    metavar="T",
    help="Begin anew, with that slice left aside, when the policy thinks for longer.",
)
@ttl_option
@where_options
def scheduler_run(
    plugin: str,
    name: str,
    metrics_port: int | None,
    decision_timeout: str,
    ttl_seconds: int | None,
    where: Where,
) -> int:
    """Run N scheduler processes of a policy until SIGTERM or Ctrl-C.

    \b
    flowos scheduler run mpi
    flowos scheduler run batch=2 --metrics-port 9100   # http://127.0.0.1:9100/metrics, and 9101
    """
    policy_name, number = counted(plugin)
    decision_seconds = _above_zero(decision_timeout)
    policy = policy_named(policy_name)
    if number > 1:
        names = [f"{policy_name}-{n}" for n in range(number)]
        return _run_many(names, policy_name, ttl_seconds, metrics_port, decision_timeout, where)
    from flowos.runtime.clock import SystemClock
    from flowos.runtime.processes import Supervisor, scheduler_process

    process = name or f"{policy_name}-0"
    log_to_stderr(process)
    supervisor = Supervisor(where.store(), SystemClock())
    supervisor.stop_on_signals()
    more: dict[str, Any] = _ttl(ttl_seconds)
    more |= {"on_hung": _begin_anew, "decision_seconds": decision_seconds}
    if metrics_port is not None:
        from flowos.runtime.metrics import Metrics

        more["tell"] = Metrics(metrics_port, process).tell
        logging.getLogger("flowos").info("metrics on http://127.0.0.1:%d/metrics", metrics_port)
    supervisor.run(lambda s: scheduler_process(s, policy, process, ready=_say(process), **more))
    supervisor.store.close()
    return 0


def _run_many(
    names: list[str],
    plugin: str,
    ttl_seconds: int | None,
    metrics_port: int | None,
    decision_timeout: str,
    where: Where,
) -> int:
    """Run one child process each, start again what ends, and end them."""
    where.store().close()  # a store that cannot be reached is said once, here
    environment = os.environ | ({"FLOWOS_PASSWORD": where.password} if where.password else {})
    if ttl_seconds is not None:
        environment |= {"FLOWOS_TTL": str(ttl_seconds)}
    children = [
        Child(
            name,
            [
                *("scheduler", "run", plugin, "--name", name, *where.arguments()),
                *("--decision-timeout", decision_timeout),
                *([] if metrics_port is None else ["--metrics-port", str(metrics_port + number)]),
            ],
        )
        for number, name in enumerate(names)
    ]
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return keep(
        children,
        lambda child: subprocess.Popen([*PROGRAM, *child.arguments], env=environment),
        lambda: stopping,
    )


def _above_zero(text: str) -> float:
    from flowos.documents.quantities import seconds_of

    seconds = seconds_of(text)
    if seconds <= 0:
        raise SpecError(
            f"'{text}' is no time to decide in", where="--decision-timeout", hint="write 30s"
        )
    return seconds


def _begin_anew() -> None:
    """Become the same program again, in the same process: nobody who looks after it need know."""
    logging.shutdown()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # our own words


def _say(process: str) -> Callable[[], None]:
    return lambda: logging.getLogger("flowos").info("%s is in step with the cell", process)


@click.group(short_help="Run a controller.")
def controller() -> None:
    """Run a controller; of all that run, one acts."""


@controller.command("run")
@click.option("--name", default="controller-0", help="What to call this process.")
@click.option(
    "--idle-off",
    default="15m",
    show_default=True,
    metavar="T",
    help="Power engines off after this long without use; 0 = never.",
)
@click.option(
    "--agent-grace",
    default="60s",
    show_default=True,
    metavar="T",
    help="Quarantine what a node holds whose agent is silent for this long.",
)
@click.option(
    "--keep-ended",
    default="24h",
    show_default=True,
    metavar="T",
    help="Forget ended slices after this long.",
)
@ttl_option
@where_options
def controller_run(
    name: str,
    idle_off: str,
    agent_grace: str,
    keep_ended: str,
    ttl_seconds: int | None,
    where: Where,
) -> int:
    """Move slices along their life cycle until SIGTERM or Ctrl-C."""
    from flowos.documents.quantities import seconds_of
    from flowos.runtime.clock import SystemClock
    from flowos.runtime.lifecycle import Rules
    from flowos.runtime.processes import Supervisor, controller_process

    rules = Rules(
        idle_off_seconds=seconds_of(idle_off),
        agent_grace_seconds=seconds_of(agent_grace),
        ended_seconds=seconds_of(keep_ended),
    )
    log_to_stderr(name)
    supervisor = Supervisor(where.store(), SystemClock())
    supervisor.stop_on_signals()
    supervisor.run(
        lambda s: controller_process(s, name, rules, ready=_say(name), **_ttl(ttl_seconds))
    )
    supervisor.store.close()
    return 0


@click.group(short_help="Run an agent.")
def agent() -> None:
    """Run an agent: it carries out the orders of nodes and switches."""


@agent.command("run")
@click.option(
    "--driver",
    type=click.Choice(["sim", "local"]),
    default="sim",
    show_default=True,
    help="What drives the devices.",
)
@click.option(
    "--name",
    default="",
    help="What to call this process; default its first place, or agent-0 where none is named.",
)
@click.option(
    "--place",
    "places",
    multiple=True,
    metavar="NAME",
    help="A node or switch to act for; all of the cell where none is named.",
)
@click.option(
    "--delay",
    "delays",
    multiple=True,
    metavar="VERB=T",
    help="How long a simulated step takes, e.g. 'load=800ms'. 'none=0' takes all to nothing.",
)
@click.option(
    "--fail",
    "failures",
    multiple=True,
    metavar="VERB=P",
    help="The chance 0..1 that a simulated step fails, e.g. 'load=0.1'.",
)
@click.option("--seed", default=0, show_default=True, help="Of simulated jitter and failures.")
@ttl_option
@where_options
def agent_run(
    driver: str,
    name: str,
    places: tuple[str, ...],
    delays: tuple[str, ...],
    failures: tuple[str, ...],
    seed: int,
    ttl_seconds: int | None,
    where: Where,
) -> int:
    """Carry out orders until SIGTERM or Ctrl-C."""
    from flowos.runtime.clock import SystemClock
    from flowos.runtime.processes import Supervisor, agent_process

    devices = _driver(driver, where, delays, failures, seed)
    # With roles on, an agent has no right to a session of another name than its place's.
    process = name or (places[0] if places else "agent-0")
    log_to_stderr(process)
    store = where.store()
    _places(store, places)  # a wrong name is said before anything runs
    lock = _only_one(where, places)
    supervisor = Supervisor(store, SystemClock())
    supervisor.stop_on_signals()
    hands = devices()

    def life(s: "Supervisor") -> None:
        while not store.read([keys.INFO]).records:  # a cell that is just being replaced
            if s.stopping.wait(0.2):
                return
        served = _places(store, places)
        agent_process(
            s, process, hands, served, policy=driver, ready=_say(process), **_ttl(ttl_seconds)
        )

    try:
        supervisor.run(life)
    finally:
        hands.close()
    store.close()
    os.close(lock)
    return 0


def _driver(
    driver: str, where: Where, delays: tuple[str, ...], failures: tuple[str, ...], seed: int
) -> "Callable[[], Driver]":
    """Return what makes the driver, once nobody else drives these devices; options are looked at now."""
    if driver == "sim":
        from flowos.drivers.sim import SimDriver, SimSettings

        settings = SimSettings(_delays(delays), jitter=0.2, failures=_chances(failures))
        return lambda: SimDriver(settings, seed)
    if delays or failures:
        raise SpecError("--delay and --fail are of simulated devices", hint="leave them out")
    from flowos.drivers.local.devices import cache_folder, this_machine
    from flowos.drivers.local.driver import LocalDriver

    machine = this_machine(cache_folder())
    return lambda: LocalDriver(where.folder(), {d.engine: d for d in machine.devices})


def _delays(texts: tuple[str, ...]) -> dict[Any, float]:
    from flowos.documents.quantities import seconds_of
    from flowos.drivers.sim import DEMO_SECONDS

    found: dict[Any, float] = dict(DEMO_SECONDS)
    for text in texts:
        if text.startswith("none"):
            found.clear()
            continue
        word, _, value = text.partition("=")
        found[_verb(word)] = seconds_of(value)
    return found


def _chances(texts: tuple[str, ...]) -> dict[Any, float]:
    found: dict[Any, float] = {}
    for text in texts:
        word, _, value = text.partition("=")
        try:
            chance = float(value)
        except ValueError:
            chance = -1.0
        if not 0 <= chance <= 1:
            raise SpecError(f"'{value}' is no chance", where=f"--fail {word}", hint="0 to 1")
        found[_verb(word)] = chance
    return found


def _verb(word: str) -> object:
    from flowos.drivers.step import Verb

    try:
        return Verb(word.replace("-", " "))
    except ValueError:
        words = ", ".join(str(verb).replace(" ", "-") for verb in Verb)
        raise SpecError(f"'{word}' is no step of a driver", hint=f"one of {words}") from None


def _places(store: Any, wanted: tuple[str, ...]) -> list[str]:  # any store
    known = [r.key.partition("/")[2] for r in store.read(["node/", "switch/"]).records]
    if not known:
        raise UnknownName("the store holds no cell: load one with 'flowos cell init'")
    for place in wanted:
        if place not in known:
            raise UnknownName(f"there is no node or switch '{place}': 'flowos engine ls' shows all")
    return list(wanted) or known


def _only_one(where: Where, places: tuple[str, ...]) -> int:
    """Take the machine's lock for these places; wait for a predecessor that is just ending.

    Two agents for one device would each undo what the other builds.
    """
    folder = where.folder()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"agent-{where.cell_name or 'main'}-{'+'.join(places)[:80] or 'all'}.lock"
    lock = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(50):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
        else:
            return lock
    raise SpecError(
        f"another agent acts for {', '.join(places) or 'all places'} already",
        hint=f"stop it first (lock {folder / name})",
    )
