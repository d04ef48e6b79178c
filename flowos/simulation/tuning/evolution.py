"""Which point to try next, when all that is known of a function are noisy values at some points?"""

import math
import random
from collections.abc import Sequence
from typing import Final, NamedTuple

Vector = list[float]
Matrix = list[Vector]

_SWEEPS_MAX: Final = 30  # of Jacobi's method; a dozen numbers need some six
_CONDITION_MAX: Final = 1e14  # beyond it the smallest axis is lost to rounding


class Axes(NamedTuple):
    """A symmetric matrix taken apart: `values[i]` belongs to column i of `vectors`."""

    values: Vector
    vectors: Matrix


class Evolution:
    """CMA-ES with a full covariance: ask for points, tell what they cost, again and again.

    The same seed and the same costs give the same points. Small problems only: some ten numbers.

    Source: Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772, figure 6 and
    table 1, with positive weights only. Points outside the bounds are moved onto them.
    """

    def __init__(
        self,
        start: Sequence[float],
        step: float,
        *,
        seed: int,
        bounds: tuple[float, float] = (-math.inf, math.inf),
        population: int = 0,
    ) -> None:
        """Start around a point.

        Args:
            start: The first mean, shape (n,) with n >= 1.
            step: The first standard deviation in each direction, > 0.
            seed: Of the normal deviates.
            bounds: Of every number of a point.
            population: Points a generation; 0 = the tutorial's 4 + floor(3 ln n).
        """
        n = len(start)
        self.mean: Vector = list(start)
        self.step = step
        self.generation = 0
        self.population = max(population or 4 + int(3 * math.log(n)), 2)
        self._bounds = bounds
        self._random = random.Random(seed)
        parents = self.population // 2
        raw = [math.log((self.population + 1) / 2) - math.log(rank + 1) for rank in range(parents)]
        self._shares = [share / sum(raw) for share in raw]
        mass = self._mass = 1 / sum(share * share for share in self._shares)
        self._c_step = (mass + 2) / (n + mass + 5)
        self._damping = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (n + 1)) - 1) + self._c_step
        self._c_path = (4 + mass / n) / (n + 4 + 2 * mass / n)
        self._c_one = 2 / ((n + 1.3) ** 2 + mass)
        self._c_many = min(1 - self._c_one, 2 * (mass - 2 + 1 / mass) / ((n + 2) ** 2 + mass))
        self._length = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))  # of a normal vector
        self._path_step: Vector = [0.0] * n
        self._path: Vector = [0.0] * n
        self._covariance: Matrix = [[float(i == j) for j in range(n)] for i in range(n)]
        self._axes = axes_of(self._covariance)
        self._asked: list[Vector] = []

    def ask(self) -> list[Vector]:
        """Return a generation of points to be tried, shape (population, n)."""
        low, high = self._bounds
        roots = [math.sqrt(value) for value in self._axes.values]
        self._asked = []
        for _ in range(self.population):
            normal = [root * self._random.gauss(0.0, 1.0) for root in roots]
            turned = _times(self._axes.vectors, normal)
            point = [m + self.step * t for m, t in zip(self.mean, turned, strict=True)]
            self._asked.append([min(max(x, low), high) for x in point])
        return [list(point) for point in self._asked]

    def tell(self, costs: Sequence[float]) -> None:
        """Move on, given what the points last asked for cost, in their order; less is better."""
        assert len(costs) == len(self._asked) == self.population, "a cost for each point asked for"
        n, old = len(self.mean), self.mean
        order = sorted(range(self.population), key=lambda i: costs[i])[: len(self._shares)]
        moves = [
            [(x - m) / self.step for x, m in zip(self._asked[i], old, strict=True)] for i in order
        ]
        move = [
            sum(share * y[k] for share, y in zip(self._shares, moves, strict=True))
            for k in range(n)
        ]
        self.mean = [m + self.step * y for m, y in zip(old, move, strict=True)]
        self.generation += 1
        self._asked = []

        keep = 1 - self._c_step
        add = math.sqrt(self._c_step * (2 - self._c_step) * self._mass)
        white = self._whitened(move)
        self._path_step = [keep * p + add * w for p, w in zip(self._path_step, white, strict=True)]
        length = math.hypot(*self._path_step)
        settled = math.sqrt(1 - keep ** (2 * self.generation))
        # A path that is long because the step is too short must not stretch the covariance too.
        grows = length / settled / self._length < 1.4 + 2 / (n + 1)
        keep = 1 - self._c_path
        add = grows * math.sqrt(self._c_path * (2 - self._c_path) * self._mass)
        self._path = [keep * p + add * y for p, y in zip(self._path, move, strict=True)]

        lost = 0.0 if grows else self._c_one * self._c_path * (2 - self._c_path)
        kept = 1 - self._c_one - self._c_many + lost
        self._covariance = [
            [
                kept * self._covariance[i][j]
                + self._c_one * self._path[i] * self._path[j]
                + self._c_many
                * sum(share * y[i] * y[j] for share, y in zip(self._shares, moves, strict=True))
                for j in range(n)
            ]
            for i in range(n)
        ]
        self.step *= math.exp(self._c_step / self._damping * (length / self._length - 1))
        axes = axes_of(self._covariance)
        least = max(max(axes.values), 1e-300) / _CONDITION_MAX
        self._axes = Axes([max(value, least) for value in axes.values], axes.vectors)

    def _whitened(self, vector: Vector) -> Vector:
        """Return C^-1/2 times a vector."""
        values, vectors = self._axes
        n = len(vector)
        along = [sum(vectors[i][k] * vector[i] for i in range(n)) for k in range(n)]
        return _times(
            vectors, [a / math.sqrt(value) for a, value in zip(along, values, strict=True)]
        )


def axes_of(matrix: Sequence[Sequence[float]]) -> Axes:
    """Return the eigenvalues and eigenvectors of a symmetric matrix, shape (n, n).

    Source: Jacobi's cyclic method, Golub and Van Loan, "Matrix Computations", section 8.5.
    """
    n = len(matrix)
    a = [list(row) for row in matrix]
    turned = [[float(i == j) for j in range(n)] for i in range(n)]
    for _ in range(_SWEEPS_MAX):
        off = sum(a[i][j] ** 2 for i in range(n) for j in range(i))
        if off <= 1e-24 * sum(a[i][i] ** 2 for i in range(n)):
            break
        for p in range(n):
            for q in range(p + 1, n):
                if a[p][q]:
                    _turn(a, turned, p, q)
    return Axes([a[i][i] for i in range(n)], turned)


def _turn(a: Matrix, turned: Matrix, p: int, q: int) -> None:
    """Turn a symmetric matrix in the plane of two axes so that nothing is left between them."""
    half = (a[q][q] - a[p][p]) / (2 * a[p][q])
    tangent = math.copysign(1.0, half) / (abs(half) + math.hypot(1.0, half))
    cosine = 1 / math.hypot(1.0, tangent)
    sine = tangent * cosine
    for row in a:
        row[p], row[q] = cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]
    a[p], a[q] = (
        [cosine * x - sine * y for x, y in zip(a[p], a[q], strict=True)],
        [sine * x + cosine * y for x, y in zip(a[p], a[q], strict=True)],
    )
    for row in turned:
        row[p], row[q] = cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]


def _times(matrix: Matrix, vector: Vector) -> Vector:
    return [sum(x * y for x, y in zip(row, vector, strict=True)) for row in matrix]
