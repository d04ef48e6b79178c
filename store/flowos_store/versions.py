"""Which etcd servers may hold a cell, and which are known to lose what they acknowledged?"""

import re
from typing import Final, NamedTuple, TypeAlias

Version: TypeAlias = tuple[int, int, int]

# The first releases without a bug that an optimistic scheduler falls over: acknowledged writes lost
# (etcd#13766), watch events lost (etcd#17610, etcd#19179), watches that begin too early (3.5.22).
SAFE_SINCE: Final[Version] = (3, 5, 22)
UNSAFE_RELEASES: Final = frozenset({(3, 6, 0)})
# Before these, a nested transaction goes past the key ranges of roles (CVE-2026-33343).
SAFE_WITH_AUTH_SINCE: Final[Version] = (3, 5, 28)
SAFE_WITH_AUTH_SINCE_3_6: Final[Version] = (3, 6, 9)
# Before these, the right to watch one key shows all that follow it.
ADVISED_SINCE: Final[Version] = (3, 5, 33)
ADVISED_SINCE_3_6: Final[Version] = (3, 6, 14)


class Verdict(NamedTuple):
    """What is to be said about a server; both empty = nothing.

    Attributes:
        refusal: Why it must not hold a cell, as a clause that follows "etcd 3.4.23".
        advice: What a newer one does better, in the same form.
    """

    refusal: str = ""
    advice: str = ""


def parse(text: str) -> Version:
    """Return the first version in the text, "etcd Version: 3.5.30" for example.

    Raises:
        ValueError: There is none.
    """
    found = re.search(r"\b(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        raise ValueError(f"no version in {text!r}")
    major, minor, patch = (int(part) for part in found.groups())
    return major, minor, patch


def shown(version: Version) -> str:
    """Return it as people write it."""
    return ".".join(map(str, version))


def judge(version: Version, *, auth: bool = False) -> Verdict:
    """Say whether a server of this version may hold a cell.

    Args:
        version: Of the server, or the lowest of its members.
        auth: Whether users and roles are in force there.
    """
    on_3_6 = version >= (3, 6, 0)
    if version < SAFE_SINCE:
        return Verdict(f"loses writes or events: {shown(SAFE_SINCE)} or newer is needed")
    if version in UNSAFE_RELEASES:
        return Verdict(f"is known to lose data: take {shown(ADVISED_SINCE_3_6)} or newer")
    since = SAFE_WITH_AUTH_SINCE_3_6 if on_3_6 else SAFE_WITH_AUTH_SINCE
    if auth and version < since:
        return Verdict(
            f"lets nested transactions past its roles: {shown(since)} or newer is needed"
        )
    advised = ADVISED_SINCE_3_6 if on_3_6 else ADVISED_SINCE
    if version < advised:
        return Verdict(
            advice=f"shows who may watch one key all that follow: {shown(advised)} or newer is better"
        )
    return Verdict()
