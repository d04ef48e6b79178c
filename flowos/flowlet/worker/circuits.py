"""Between which engines does a circuit of this slice go? Without one, nothing is sent."""

import json
from pathlib import Path

from flowos.model.errors import FlowosError


class CircuitMissing(FlowosError):
    """The slice holds no circuit from one engine to another."""


class Circuits:
    """The circuits of a slice, as its driver writes them down; looked at before each send."""

    def __init__(self, circuits: str, peers: str) -> None:
        """Name the two files: circuits by engine, and engines by rank."""
        self._path = circuits
        self._read_at = -1
        self._pairs: set[tuple[str, str]] = set()
        known = json.loads(Path(peers).read_text()) if peers else []
        self._engines: dict[int, str] = {peer["rank"]: peer["engine"] for peer in known}

    def check(self, source: int, target: int, name: str) -> None:
        """See that a circuit goes from one rank to another.

        Raises:
            CircuitMissing: None does.
        """
        self._renew()
        ends = self._engines.get(source, f"rank {source}"), self._engines.get(target, f"{target}")
        if ends not in self._pairs:
            raise CircuitMissing(
                f"{name} is not sent: the slice holds no circuit from {ends[0]} to {ends[1]}"
            )

    def _renew(self) -> None:
        if not self._path:
            return
        try:
            changed_at = Path(self._path).stat().st_mtime_ns
        except OSError:
            self._pairs = set()
            return
        if changed_at == self._read_at:
            return
        self._read_at = changed_at
        self._pairs = set()
        for circuit in json.loads(Path(self._path).read_text()):
            reducer = circuit.get("reducer", "")
            for source in circuit["sources"]:
                self._pairs |= {
                    (source, end) for end in ([reducer] if reducer else circuit["targets"])
                }
            if reducer:
                self._pairs |= {(reducer, target) for target in circuit["targets"]}
