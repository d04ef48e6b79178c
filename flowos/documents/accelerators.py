"""What well-known engine models have: memory and watts, where a cell file does not say.

Memory and the busy watts are the vendors' own board figures (data sheets; thermal design power).
The idle watts are 15 % of them, as few vendors publish any: measured boards lie between 8 and 20 %.
Whoever plans by watts writes measured figures into the cell file; these only have to be sane.
"""

from typing import Final, NamedTuple

from flowos.model.cell import Watts

GIB: Final = 2**30
IDLE_PERCENT: Final = 15


class Known(NamedTuple):
    """An engine model's own memory and its draw by power state."""

    memory_bytes: int
    watts: Watts


def _known(memory_gib: int, busy_watts: int) -> Known:
    idle = (busy_watts * IDLE_PERCENT + 50) // 100
    return Known(memory_gib * GIB, Watts(off=0, idle=idle, busy=busy_watts))


NOTHING_KNOWN: Final = Known(0, Watts())

# A model that is sold with several memories or in several forms stands for its first one.
_MODELS: Final = {
    # NVIDIA: Kepler to Turing. A K80 is one of the two dies of a board of 24 GB and 300 W.
    "K80": _known(12, 150),
    "P4": _known(8, 75),
    "P100": _known(16, 250),  # PCIe; 300 W as a module
    "V100": _known(16, 300),  # as a module; 250 W on PCIe
    "V100M16": _known(16, 300),
    "V100M32": _known(32, 300),
    "T4": _known(16, 70),
    # Ampere and Ada.
    "A2": _known(16, 60),
    "A10": _known(24, 150),
    "A30": _known(24, 165),
    "A40": _known(48, 300),
    "A100": _known(40, 400),  # as a module
    "A100-40GB": _known(40, 400),
    "A100-80GB": _known(80, 400),
    "L4": _known(24, 72),
    "L40S": _known(48, 350),
    # Hopper and Blackwell, as modules.
    "H100": _known(80, 700),
    "H200": _known(141, 700),
    "B200": _known(180, 1000),
    # AMD.
    "MI250": _known(128, 560),
    "MI300X": _known(192, 750),
    # FPGA boards: DDR and HBM together.
    "U50": _known(8, 75),
    "U55C": _known(16, 150),
    "U200": _known(64, 225),
    "U250": _known(64, 225),
    "U280": _known(40, 225),
    # Inference ASICs.
    "AI100": _known(16, 75),
}


def known_model(model: str) -> Known:
    """Return what is known of an engine model; nothing and 0 W for one that is not known."""
    return _MODELS.get(model, NOTHING_KNOWN)
