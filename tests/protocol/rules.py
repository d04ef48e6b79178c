"""Which rules are under test: the real ones, or copies of them with a mistake planted."""

import ast
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import flowos

ROOT = Path(flowos.__file__).parent
# The rules live in flowos.protocol; these two modules of the model carry a part of them.
PARTS = (
    "model.units",
    "model.view",
    *(f"protocol.{p.stem}" for p in ROOT.glob("protocol/[a-z]*.py")),
)


class Rules:
    """One set of modules that know only each other: `rules.commit`, `rules.view` and so on."""

    def __init__(self, modules: dict[str, ModuleType]) -> None:
        for name, module in modules.items():
            setattr(self, name.rpartition(".")[2], module)

    def __getattr__(self, name: str) -> ModuleType:
        raise AttributeError(f"there is no module of rules named {name}")


@dataclass(frozen=True)
class Mistake:
    """A place in the rules' source, and what a careless change would make of it.

    Attributes:
        module: "protocol.commit" and so on.
        right: Source text that must occur there exactly once.
        wrong: What stands there instead.
    """

    module: str
    right: str
    wrong: str


def source(part: str) -> str:
    """Return a module's text."""
    return (ROOT / f"{part.replace('.', '/')}.py").read_text()


def in_order() -> list[str]:
    """Return the parts, each after those that it imports."""
    names = {f"flowos.{part}": part for part in PARTS}
    needs = {
        part: {
            names[node.module]
            for node in ast.walk(ast.parse(source(part)))
            if isinstance(node, ast.ImportFrom) and node.module in names
        }
        for part in PARTS
    }
    found: list[str] = []
    while len(found) < len(PARTS):
        found.append(next(p for p in sorted(needs) if p not in found and needs[p] <= {*found}))
    return found


ORDER = in_order()


def real() -> Rules:
    """Return the rules as they are."""
    return Rules({part: __import__(f"flowos.{part}", fromlist=["_"]) for part in ORDER})


def planted(mistakes: Iterable[Mistake]) -> Rules:
    """Return fresh copies of all modules of the rules, with these mistakes in them."""
    texts = {part: source(part) for part in ORDER}
    for mistake in mistakes:
        count = texts[mistake.module].count(mistake.right)
        assert count == 1, f"{mistake.right!r} stands {count} times in {mistake.module}, not once"
        texts[mistake.module] = texts[mistake.module].replace(mistake.right, mistake.wrong)
    names = {part: f"flowos.{part}" for part in ORDER}
    kept = {name: sys.modules[name] for name in names.values() if name in sys.modules}
    modules: dict[str, ModuleType] = {}
    try:
        # Whoever of them imports another one finds the copy.
        for part, name in names.items():
            modules[part] = sys.modules[name] = ModuleType(name)
            exec(compile(texts[part], f"{name} with a mistake", "exec"), modules[part].__dict__)
    finally:
        for name in names.values():
            sys.modules.pop(name, None)
        sys.modules.update(kept)
    return Rules(modules)
