"""Find the edges of a picture: each band of it is blurred, then differentiated, on OpenCL or not.

    python image_pipeline.py [OUT.pgm]

`Blur` and `Edges` have two implementations each. Where the cell has an OpenCL device, they run
there; else on CPUs, with numpy. Bands overlap by a few lines, so that no seam is seen.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from flowos.flowlet import Sink, Source, Task, on
from flowos.flowlet import map as flow_map

BANDS, MARGIN = 4, 4
KEPT: dict[str, Any] = {}  # of a worker, from one task to the next

BLUR = """
__kernel void blur(__global const float *from, __global float *to, int height, int width) {
    int x = get_global_id(1), y = get_global_id(0);
    float sum = 0;
    for (int i = -1; i <= 1; i++)
        for (int j = -1; j <= 1; j++)
            sum += from[clamp(y + i, 0, height - 1) * width + clamp(x + j, 0, width - 1)];
    to[y * width + x] = sum / 9;
}
"""
EDGES = """
__kernel void edges(__global const float *from, __global float *to, int height, int width) {
    int x = get_global_id(1), y = get_global_id(0);
    int up = max(y - 1, 0), down = min(y + 1, height - 1);
    int left = max(x - 1, 0), right = min(x + 1, width - 1);
    float dy = from[down * width + x] - from[up * width + x];
    float dx = from[y * width + right] - from[y * width + left];
    to[y * width + x] = sqrt(dx * dx + dy * dy);
}
"""


def context() -> Any:
    """Return this engine's OpenCL context and queue; FLOWOS_OPENCL says which device it is."""
    if "context" not in KEPT:
        import pyopencl as cl

        platform, device = map(int, os.environ["FLOWOS_OPENCL"].split(":"))
        there = cl.Context([cl.get_platforms()[platform].get_devices()[device]])
        KEPT["context"] = there, cl.CommandQueue(there)
    return KEPT["context"]


def kernel(source: str, name: str) -> Any:
    """Return a kernel, built once on each engine."""
    if name not in KEPT:
        import pyopencl as cl

        KEPT[name] = cl.Kernel(cl.Program(context()[0], source).build(), name)
    return KEPT[name]


def on_device(source: str, name: str, image: np.ndarray) -> np.ndarray:
    """Run a kernel on each pixel of an image."""
    import pyopencl as cl

    there, queue = context()
    flags = cl.mem_flags
    given = cl.Buffer(there, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=image)
    made = cl.Buffer(there, flags.WRITE_ONLY, image.nbytes)
    height, width = image.shape
    kernel(source, name)(queue, image.shape, None, given, made, np.int32(height), np.int32(width))
    out = np.empty_like(image)
    cl.enqueue_copy(queue, out, made)
    return out


class Blur(Task):
    """The mean of each pixel and its neighbours."""

    @on("opencl")
    def run_opencl(self, image: np.ndarray) -> np.ndarray:
        return on_device(BLUR, "blur", image)

    @on("cpu")
    def run(self, image: np.ndarray) -> np.ndarray:
        padded = np.pad(image, 1, mode="edge")
        height, width = image.shape
        shifted = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
        return (np.sum(shifted, axis=0) / 9).astype(np.float32)


class Edges(Task):
    """How steeply the image changes at each pixel."""

    @on("opencl")
    def run_opencl(self, image: np.ndarray) -> np.ndarray:
        return on_device(EDGES, "edges", image)

    @on("cpu")
    def run(self, image: np.ndarray) -> np.ndarray:
        padded = np.pad(image, 1, mode="edge")
        dy = padded[2:, 1:-1] - padded[:-2, 1:-1]
        dx = padded[1:-1, 2:] - padded[1:-1, :-2]
        return np.sqrt(dx * dx + dy * dy).astype(np.float32)


def cut(image: np.ndarray, *, band: int, bands: int) -> np.ndarray:
    """Return one band of an image, with a margin."""
    height = len(image) // bands
    return np.ascontiguousarray(
        image[max(0, band * height - MARGIN) : (band + 1) * height + MARGIN]
    )


def trimmed(part: np.ndarray, *, band: int, height: int) -> np.ndarray:
    """Return a band without its margin."""
    first = MARGIN if band else 0
    return part[first : first + height]


def stacked(*parts: np.ndarray) -> np.ndarray:
    """Return bands as one image."""
    return np.concatenate(parts)


def picture(size: int = 256) -> np.ndarray:
    """Return something to look at: rings and a square."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    rings = np.sin(np.hypot(x - size / 2, y - size / 2) / 6)
    rings[size // 4 : size // 2, size // 4 : size // 2] = 1
    return rings.astype(np.float32)


def program(image: np.ndarray) -> Sink:
    """Return the sink that the edges of an image come to."""
    source = Source(image)
    height = len(image) // BANDS
    bands = []
    for band in range(BANDS):
        (part,) = flow_map(cut, [source], band=band, bands=BANDS)
        bands += flow_map(trimmed, [Edges(Blur(part))], band=band, height=height)
    (whole,) = flow_map(stacked, *[[band] for band in bands])
    return Sink(whole)


def main() -> None:
    """Find the edges, and write them as a picture."""
    sink = program(picture())
    result = sink.execute()
    edges = sink.result
    if len(sys.argv) > 1:
        grey = (255 * edges / edges.max()).astype(np.uint8)
        head = f"P5 {grey.shape[1]} {grey.shape[0]} 255\n".encode()
        Path(sys.argv[1]).write_bytes(head + grey.tobytes())
    kinds = sorted({ran.engine for name, ran in result.tasks.items() if name.startswith("Blur")})
    print(f"edges of {edges.shape[1]} x {edges.shape[0]} pixels, blurred on {', '.join(kinds)}")
    print(f"mean {edges.mean():.4f}, steepest {edges.max():.4f}")


if __name__ == "__main__":
    main()
