"""A machine for each test, of which nothing is left afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """An empty data directory; whatever is started there ends with the test."""
    found = Machine(tmp_path / "data")
    yield found
    found.clean_up()
