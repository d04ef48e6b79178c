"""Does an agent leave nothing of a slice with the driver of this machine, whatever the slice is made of?

The agent, controller and scheduler are the real ones, in virtual time; the driver is asked what is up.
"""

import pytest

from flowos.documents.slice_file import parse_slice
from flowos.drivers.local.devices import Device, Machine
from flowos.drivers.sim import SimDriver
from flowos.model.slice import Phase
from tests.runtime.theatre import CALM, Theatre

MACHINE = Machine(
    "n0", 4000, 2**33, tuple(Device(f"n0/cpu{n}", "cpu", "any", 2**30, (n,)) for n in range(4))
)
SLICES = {
    "engines": "engines: {w: {kind: cpu, count: 2}}",
    "circuits": "engines: {w: {kind: cpu, count: 4}}\ncircuits: [{all: w}]",
    "sums": "engines: {w: {kind: cpu, count: 3}, s: {kind: cpu}}\n"
    "circuits: [{from: w, to: s, aggregate: sum}]",
    "hosts": "hosts: {d: {count: 1, cpu: 1, memory: 1GiB}}",
    "both": "engines: {w: {kind: cpu}}\nhosts: {w: {cpu: 1, memory: 1GiB}}",
}


@pytest.mark.parametrize("made_of", list(SLICES))
@pytest.mark.parametrize("run", ["{command: [work]}", "{for: 2s}"])
def test_nothing_is_up_when_a_slice_has_ended(made_of, run):
    theatre = Theatre(MACHINE.cell())
    theatre.scheduler(alone=True)
    theatre.controller(rules=CALM)
    driver = theatre.agent().bench.inner
    assert isinstance(driver, SimDriver)
    (spec,) = parse_slice(f"name: t\n{SLICES[made_of]}\nrun: {run}", "t.yaml")
    theatre.submit(spec)
    assert theatre.play(60, lambda: theatre.phase(spec.id) is Phase.RUNNING)
    assert driver.standing() != []
    theatre.play_out()
    assert theatre.end(spec.id).phase is Phase.DONE
    assert driver.standing() == []
