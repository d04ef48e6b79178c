"""The collector rests while much is taken in, and is left as it was found."""

import gc

import pytest

from flowos.model import collector


@pytest.fixture(autouse=True)
def as_it_was():
    gc.unfreeze()  # what other tests have frozen
    yield
    gc.unfreeze()
    gc.enable()


def test_what_was_taken_in_is_old_at_once():
    gc.collect()
    with collector.paused():
        taken_in: list[list[int]] = [[] for _ in range(50_000)]
    assert gc.get_count()[0] < len(taken_in)
    assert any(found is taken_in for found in gc.get_objects(generation=2))


def test_what_a_program_has_frozen_stays_so():
    gc.freeze()
    frozen = gc.get_freeze_count()
    with collector.paused():
        pass
    assert gc.get_freeze_count() == frozen > 0


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    with collector.paused():
        pass
    assert not gc.isenabled()
