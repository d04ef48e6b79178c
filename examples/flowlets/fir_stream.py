"""Filter a signal that is longer than memory need be: a pipeline of stages that see it in chunks.

    python fir_stream.py [CHUNKS]

A source makes a slow wave with noise on it; a low-pass filter (FIR) takes the noise away; what is
left is thinned out, and its power is measured. All stages run at the same time.
"""

import sys
from collections.abc import Iterator

import numpy as np

from flowos.flowlet import Sink, StreamTask, Task, execute

CHUNK = 1 << 14
TAPS = 101
EVERY = 16


class Signal(StreamTask):
    """A wave with noise, in chunks; the same for the same seed."""

    def __init__(self, chunks: int, seed: int = 1) -> None:
        super().__init__()
        self.chunks, self.seed = chunks, seed

    def run(self) -> Iterator[np.ndarray]:
        dice = np.random.default_rng(self.seed)
        for number in range(self.chunks):
            at = np.arange(number * CHUNK, (number + 1) * CHUNK)
            yield np.sin(2 * np.pi * at / 1024) + dice.normal(scale=0.5, size=CHUNK)


class LowPass(StreamTask):
    """A windowed-sinc filter; what one chunk leaves over is added to the next."""

    def __init__(self, source: Task, cutoff: float = 0.01) -> None:
        super().__init__(source)
        at = np.arange(TAPS) - TAPS // 2
        taps = np.sinc(2 * cutoff * at) * np.hamming(TAPS)
        self.taps = taps / taps.sum()

    def run(self, chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        tail = np.zeros(TAPS - 1)
        for chunk in chunks:
            whole = np.convolve(chunk, self.taps)
            whole[: TAPS - 1] += tail
            tail = whole[len(chunk) :].copy()
            yield whole[: len(chunk)]


class Thin(StreamTask):
    """Every n-th sample."""

    def run(self, chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for chunk in chunks:
            yield np.ascontiguousarray(chunk[::EVERY])


class Power(StreamTask):
    """The mean of the squares of all samples."""

    def run(self, chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        total, count = 0.0, 0
        for chunk in chunks:
            total += float(np.sum(chunk * chunk))
            count += chunk.size
        yield np.array([total / count])


def program(chunks: int) -> tuple[Sink, Sink]:
    """Return the sinks of the powers before and after the filter."""
    signal = Signal(chunks)
    return Sink(Power(signal)), Sink(Power(Thin(LowPass(signal))))


def main() -> None:
    """Filter, and print the power before and after."""
    chunks = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    before, after = program(chunks)
    result = execute(before, after)
    print(f"{chunks * CHUNK:,} samples in {result.seconds:.2f} s")
    print(f"power {before.result[0]:.4f} -> {after.result[0]:.4f} (the wave alone has 0.5)")


if __name__ == "__main__":
    main()
