"""What do schedulers by others look like on disk? Packages as pip leaves them, good and bad."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples/tidy-scheduler"

BAD = '''"""Bad: it does what the slice's name says."""

import time

from flowos.model.placement import Decision
from flowos.planning.policy import Policy


class Bad(Policy):
    """Does what the slice's name says."""

    name = "bad"
    reorders = True

    def order(self, waits):
        if waits.spec.name.startswith("unordered"):
            time.sleep(3600)
        return super().order(waits)

    def feasible(self, spec, pool):
        if spec.name.startswith("dozes"):
            time.sleep(3600)
        return None

    def plan(self, pool, spec, *, seed, avoid):
        what = spec.name.partition("-")[0]
        while what == "loops":
            pass
        if what == "sleeps":
            time.sleep(3600)
        if what == "raises":
            raise ValueError("I do not like it")
        if what == "none":
            return None
        if what == "word":
            return "n0/gpu0"
        if what == "nowhere":
            return Decision({"w": ("moon/gpu0",)}, {"engine/moon/gpu0": ()})
        if what == "thief":
            unit = next(u for u in sorted(pool.view.holders) if u.startswith("engine/"))
            return Decision({"w": (unit.removeprefix("engine/"),)}, {unit: ()})
        found = super().plan(pool, spec, seed=seed, avoid=avoid)
        if what == "greedy" and isinstance(found, Decision):
            more = next(
                name
                for name, engine in pool.view.cell.engines.items()
                if engine.kind == "gpu" and f"engine/{name}" not in pool.view.holders
                and f"engine/{name}" not in found.units
            )
            return Decision(
                {"w": (*found.engines["w"], more)}, {**found.units, f"engine/{more}": ()}
            )
        return found
'''


def package(folder: Path, name: str, source: str, *points: str, version: str = "1.0") -> None:
    """Put a package where it counts as installed: one module, and its entry points."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("\n".join(["[flowos.schedulers]", *points, ""]))


def install_example(folder: Path) -> None:
    """Install the example of this project, as its README says, without a network."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--no-index", "--disable-pip-version-check"),
            *("--target", str(folder), str(EXAMPLE)),
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "PIP_NO_CACHE_DIR": "1"},
    )
