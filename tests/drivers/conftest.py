"""What do tests of drivers share? A driver of this machine, of which nothing is left at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.local import Local


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    """A driver that has begun with an empty folder."""
    there = Local(tmp_path / "cell")
    yield there
    there.close()
