"""What do processes that are started for a simulation do about a terminal's Ctrl-C?"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Have processes that are started meanwhile ignore a terminal's Ctrl-C from their first moment.

    It reaches all of them; the first one decides what becomes of it. One that were torn down half
    way through its start would leave the others waiting.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may, and only it is ever interrupted
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
