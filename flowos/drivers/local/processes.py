"""How is a process started that outlives who started it, and whose end is told all the same?

Its shell writes the exit code into a file; so an agent that begins anew, whose child it is not,
knows how it ended. It is known by its pid and the tick of its start: pids are used again.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

# The trap keeps the shell for the exit code when the whole group is told to end; `exec` takes only
# programs, so a command that is called `exit` or `set` does nothing to the shell.
_SHELL: Final = (
    'trap : TERM INT HUP; exit_file=$1; shift; (exec "$@"); code=$?; '
    'echo $code > "$exit_file.part"; mv "$exit_file.part" "$exit_file"; exit $code'
)
LOST: Final = 137  # as by SIGKILL: who ended without a word
ATTEMPT: Final = "FLOWOS_ATTEMPT="
LOOKS_MAX: Final = 20  # for processes that an attempt has left


@dataclass(frozen=True, slots=True)
class Process:
    """One task of a command.

    Attributes:
        rank: In the slice.
        pid: Of its shell, the leader of its group.
        started: The tick at which it began, as the kernel counts.
        exit_file: Where its exit code will be.
    """

    rank: int
    pid: int
    started: int
    exit_file: str

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return started_at(self.pid) == self.started and self.started > 0

    @property
    def has_left_some(self) -> bool:
        """Whether others of its group live, though it has ended."""
        ours = self.pid > 0 and started_at(self.pid) == 0  # else it lives, or its pid is another's
        return ours and _group_lives(self.pid)

    def exit_code(self) -> int | None:
        """Return its exit code; None = it runs."""
        alive = self.alive  # asked first: it may write, and end, in between
        try:
            return int(Path(self.exit_file).read_text())
        except (OSError, ValueError):
            return None if alive else LOST

    def ended_at(self) -> float:
        """Return when it wrote its exit code, as files have it; inf = it has not."""
        try:
            return Path(self.exit_file).stat().st_mtime
        except OSError:
            return inf

    def tell(self, number: int) -> None:
        """Send a signal to it, and all that it has started in its group."""
        if self.pid <= 0:  # it was never started; and group 0 is our own
            return
        if started_at(self.pid) in (0, self.started):  # else its pid is another's by now
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


def start(
    command: Sequence[str],
    *,
    rank: int,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    exit_file: Path,
    cores: Iterable[int] = (),
) -> tuple[Process, "subprocess.Popen[bytes]"]:
    """Start a command in a group of its own, its output going to a log.

    Raises:
        OSError: Not even its shell could be started.
    """
    exit_file.unlink(missing_ok=True)
    pinned = ["taskset", "-c", ",".join(map(str, cores))] if [*cores] and _can_pin() else []
    with log.open("ab") as output, open(os.devnull, "rb") as nothing:  # noqa: PTH123
        child = subprocess.Popen(
            ["/bin/sh", "-c", _SHELL, "flowos", str(exit_file), *pinned, *command],
            stdin=nothing,
            stdout=output,
            stderr=output,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
            close_fds=True,
        )
    return Process(rank, child.pid, started_at(child.pid), str(exit_file)), child


def started_at(pid: int) -> int:
    """Return the tick at which a process began; 0 = there is none, or just its remains."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()  # a name may have blanks and brackets
    return 0 if fields[0] in "ZX" else int(fields[19])


def kill_leftovers(attempt: str) -> int:
    """Kill whatever was started for an attempt and has left its group; return how many."""
    wanted = f"{ATTEMPT}{attempt}".encode()
    killed = set[int]()
    for _ in range(LOOKS_MAX):  # what is looked at may start others that are not
        before = len(killed)
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in (os.getpid(), *killed):
                continue
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
                    killed.add(int(entry.name))
            except OSError:
                continue
        if len(killed) == before:
            break
    return len(killed)


_pins: list[bool] = []


def _group_lives(group: int) -> bool:
    """Whether any process of a group lives; what is left of one until it is waited for does not."""
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            return True
    return False


def _can_pin() -> bool:
    if not _pins:
        _pins.append(any(Path(p, "taskset").exists() for p in ("/usr/bin", "/bin")))
    return _pins[0]
