"""A cell of this very process, of four engines, for programs that really run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flowos.drivers.local.devices import Device, Machine
from flowos.flowlet import cell as cells
from flowos.flowlet.cell import OwnCell

SHARED_MEMORY = Path("/dev/shm")
MEMORY_BYTES = 1 << 30


def machine_of(count: int, lanes: int) -> Machine:
    """This machine, as if it had so many engines with so many lanes."""
    devices = tuple(Device(f"box/cpu{n}", "cpu", "test", MEMORY_BYTES, ()) for n in range(count))
    return Machine("box", 1000 * count, MEMORY_BYTES * count, devices, lanes)


def segments(own: OwnCell) -> set[str]:
    """What is in shared memory of a cell's slices; others' tests run beside these."""
    attempts = [path.name for path in own.folder.glob("slices/*/*/*")]
    return {p.name for a in attempts for p in SHARED_MEMORY.glob(f"flowos-{a}-*")}


def _own(machine: Machine) -> Iterator[OwnCell]:
    own = OwnCell(machine=machine)
    try:
        yield own
        view = own.client.view(["placement/", "slice/"])
        held = [n for n, p in view.placements.items() if not n.startswith("~")]
        assert held == [], "a slice was not given back"
        assert segments(own) == set(), "shared memory was left behind"
    finally:
        own.close()


@pytest.fixture(scope="module")
def cell(monkeypatch_module) -> Iterator[OwnCell]:
    """Four engines, as many circuits as anybody wants."""
    for own in _own(machine_of(4, 64)):
        cells._OWN.append(own)
        yield own
        cells._OWN.clear()


@pytest.fixture(scope="module")
def narrow() -> Iterator[OwnCell]:
    """Four engines with one lane each, in and out."""
    yield from _own(machine_of(4, 1))


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    """No cell but the one of the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FLOWOS_ENDPOINTS", raising=False)
        yield patch
