"""What do tests of drivers share? Drivers of this machine, of which nothing is left at the end."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from flowos.drivers.local.devices import Device
from tests.drivers.local import DEVICES, Local


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[Callable[[Mapping[str, Device]], Local]]:
    """Gives a driver of some devices that has begun with an empty folder."""
    there: list[Local] = []

    def make(devices: Mapping[str, Device]) -> Local:
        there.append(Local(tmp_path / f"cell-{len(there)}", devices))
        return there[-1]

    yield make
    for local in there:
        local.close()


@pytest.fixture
def local(driven: Callable[[Mapping[str, Device]], Local]) -> Local:
    """A driver of four CPUs."""
    return driven(DEVICES)
