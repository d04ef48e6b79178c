"""The tree is the architecture: laws about the source itself, which no reviewer should have to hold."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
import typing
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowos
from tests.conftest import require

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "flowos": ROOT / "flowos",
    "flowos_store": ROOT / "store/flowos_store",
    "flowos_schedulers": ROOT / "schedulers/flowos_schedulers",
    "flowos_cli": ROOT / "cli/flowos_cli",
}
PURE = ("model", "protocol", "planning")  # parts of flowos without clock, randomness or I/O
LINES_MAX = 900  # the largest file that a newcomer still reads to its end
SEAM_MAX = 5  # methods that a third party must write before anything runs
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


# ------------------------------------------------------------------------------ reading sources


def sources(*folders: Path) -> list[Path]:
    """All written modules below the folders, generated ones left out."""
    found = (path for folder in folders for path in sorted(folder.rglob("*.py")))
    return [path for path in found if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))]


def product() -> list[Path]:
    return sources(*PACKAGES.values())


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def at(path: Path, node: ast.AST | None = None) -> str:
    """Where an offence is, in the form that terminals and editors can open."""
    where = str(path.relative_to(ROOT))
    return f"{where}:{getattr(node, 'lineno', 1)}" if node else where


def module_name(path: Path) -> str:
    package, folder = next((p, f) for p, f in PACKAGES.items() if path.is_relative_to(f))
    parts = (package, *path.relative_to(folder).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


def dotted(node: ast.AST) -> str:
    """`time.time` of an attribute chain that starts with a name, else nothing."""
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def require_written(*modules: str) -> None:
    """A law about a module that is still to come is no failure yet, except in CI."""
    coming = [name for name in modules if importlib.util.find_spec(name) is None]
    require("modules", not coming, f"still to be written: {', '.join(coming)}")


# ------------------------------------------------------------------------------------- sources


def test_every_module_opens_with_a_sentence():
    def opening(path: Path) -> str:
        return (ast.get_docstring(parsed(path)) or "").split("\n", 1)[0]

    mute = [
        f"{at(path)} opens with {opening(path)!r}"
        for path in [*product(), *sources(ROOT / "scripts", ROOT / "tests")]
        if not opening(path).endswith((".", "?", ":")) or len(opening(path).split()) < 3
    ]
    assert mute == []


def test_no_file_is_too_long_to_read():
    everything = sources(*(ROOT / folder for folder in ("scripts", "tests", "benchmarks")))
    long = {
        at(path): lines
        for path in [*product(), *everything]
        if (lines := path.read_text().count("\n")) > LINES_MAX
    }
    assert long == {}


def test_only_the_command_and_scripts_print():
    prints = [
        at(path, node)
        for path in product()
        if not path.is_relative_to(PACKAGES["flowos_cli"])
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
    ]
    assert prints == []


def test_pure_parts_ask_no_clock_and_no_dice():
    # Import contracts forbid the modules; this sees what comes in under another name.
    refused = ("time.", "random.", "secrets.", "uuid.uuid", "os.urandom", "datetime.now")
    allowed = {"random.Random"}  # as a type: the generator is an argument
    asked = [
        f"{at(path, node)} uses {name}"
        for part in PURE
        for path in sources(ROOT / "flowos" / part)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and (name := dotted(node)) not in allowed
        if name.startswith(refused) or name.endswith(("datetime.now", "datetime.utcnow"))
    ]
    assert asked == []


def test_imports_for_types_alone_do_not_go_upwards():
    # import-linter leaves these out, so that planning can name random.Random.
    layers = next(c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["id"] == "core")
    height = {
        name.strip(" ()"): -row
        for row, line in enumerate(layers["layers"])
        for name in line.replace("|", ":").split(":")
    }
    upward = [
        f"{at(path, node)} names {target}"
        for path in sources(ROOT / "flowos")
        if (own := (*module_name(path).split("."), "")[1]) in height
        for node, target in type_only_imports(parsed(path))
        if target.startswith("flowos.")
        if height.get(target.split(".")[1], 0) > height[own]
    ]
    assert upward == []


def type_only_imports(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """The modules imported below `if TYPE_CHECKING:`, each with where."""
    for block in ast.walk(tree):
        if isinstance(block, ast.If) and dotted(block.test).endswith("TYPE_CHECKING"):
            for node in ast.walk(block):
                if isinstance(node, ast.ImportFrom) and node.module:
                    yield node, node.module
                elif isinstance(node, ast.Import):
                    yield from ((node, alias.name) for alias in node.names)


def test_every_ignored_rule_of_ruff_has_its_reason():
    lines = iter((ROOT / "pyproject.toml").read_text().splitlines())
    next(line for line in lines if line == "ignore = [")
    bare = [line.strip() for line in iter(lambda: next(lines), "]") if "# " not in line]
    assert bare == []


# ------------------------------------------------------------------------------------- modules

IMPORT_ALL = """
import importlib, json, sys
missing = {}
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    lost = [public for public in getattr(module, "__all__", ()) if not hasattr(module, public)]
    if lost:
        missing[name] = lost
print(json.dumps({"loaded": sorted(sys.modules), "missing": missing}))
"""


@pytest.fixture(scope="module")
def imported():
    """What a fresh interpreter says after importing every module, each warning an error."""
    names = [module_name(path) for path in product() if path.stem != "__main__"]
    command = [sys.executable, "-W", "error", "-c", IMPORT_ALL, *names]
    done = subprocess.run(command, cwd=ROOT, env=with_paths(ROOT), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def with_paths(root: Path) -> dict[str, str]:
    """An environment in which the four packages are those below `root`."""
    paths = [str(root / folder) for folder in (".", "store", "schedulers", "cli")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def test_every_module_imports_without_a_warning(imported):
    assert set(PACKAGES) <= set(imported["loaded"])


def test_no_loaded_module_is_named_by_its_folder(imported):
    folders = ("store", "schedulers", "cli")
    twice = [name for name in imported["loaded"] if name.split(".")[0] in folders]
    here = [name for name in sys.modules if name.split(".")[0] in folders]
    assert (twice, here) == ([], [])


def test_every_public_name_exists(imported):
    assert imported["missing"] == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_marked_as_shipped(package):
    assert (PACKAGES[package] / "py.typed").is_file()


def test_seams_are_small():
    protocols = importlib.import_module("flowos.model.protocols")
    seams = {
        name: [method for method in dir(seam) if not method.startswith("_")]
        for name, seam in vars(protocols).items()
        if isinstance(seam, type)
        and getattr(seam, "_is_protocol", False)
        and seam.__module__ == protocols.__name__
    }
    assert seams, "no seam found: have they moved?"
    assert {name: methods for name, methods in seams.items() if len(methods) > SEAM_MAX} == {}
    assert typing.Protocol.__name__ not in seams


def test_every_entry_point_leads_somewhere():
    groups = {"scripts": PROJECT["project"]["scripts"], **PROJECT["project"]["entry-points"]}
    for group, entries in groups.items():
        for name, target in entries.items():
            module, _, attribute = target.partition(":")
            require_written(module)
            found = importlib.import_module(module)
            assert callable(getattr(found, attribute, None)), f"{group}: {name} = {target}"


# ------------------------------------------------------------------------------ import contracts


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).parent / "lint-imports"
    require("lint-imports", command.is_file(), "run make setup")
    return subprocess.run(
        [command, "--no-cache"],
        cwd=root,
        env={**with_paths(root), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )


def test_import_contracts_hold():
    require_written(*(f"flowos.{part}" for part in PURE))
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("into", "line", "contract"),
    [
        ("flowos/planning", "import time", "no clock, randomness or I/O of their own"),
        ("flowos/model", "import flowos.planning", "loops over planning over protocol over model"),
        ("flowos/model", "import grpc", "neither the store's wire nor the terminal"),
        ("flowos/newcomer", "", "loops over planning over protocol over model"),
        ("store/flowos_store", "import flowos_schedulers", "these two know only the core"),
        ("flowos/model", "import flowos_store", "these two know only the core"),
        ("cli/flowos_cli", "import rich", "Only flowos_cli.render draws with rich"),
    ],
)
def test_a_planted_import_is_reported(tmp_path, into, line, contract):
    # A law is trusted once it was seen to fail.
    for folder in ("flowos", "store", "schedulers", "cli"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in (into, *(f"flowos/{part}" for part in PURE)):
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / into / "planted.py").write_text(f"{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in done.stdout


# ------------------------------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built by the tools that are here, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    how = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run([*pip, *how], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        yield archive


@pytest.mark.slow
def test_wheel_holds_the_four_packages_and_nothing_else(wheel):
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    written = {
        str(Path(package, path.relative_to(folder)))
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == written


@pytest.mark.slow
def test_wheel_carries_the_version_of_the_package(wheel):
    metadata = wheel.read(f"flowos-{flowos.__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {flowos.__version__}\n" in metadata
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "flowos/__init__.py"
