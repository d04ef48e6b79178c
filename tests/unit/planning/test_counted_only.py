"""In a cell too large to try everything, what counting cannot prove is not said."""

from flowos.model.cell import Cell, Engine, Link, Node, Switch
from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, Reason, Shape, SliceSpec
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan


def islands(count: int) -> CellView:
    """Return switches with four engines each, that no link joins."""
    cell = Cell()
    for number in range(count):
        cell.add(Switch(f"s{number}", ports=4))
        for port in range(4):
            node = f"n{4 * number + port}"
            cell.add(Node(node))
            cell.add(Engine(node, "gpu0", "gpu"))
            cell.add(Link(f"l{node}", a=f"{node}/gpu0:0", b=f"s{number}:{port}"))
    return CellView(cell=cell)


def ring(count: int) -> SliceSpec:
    roles = {"workers": EngineRole((EngineChoice(kind="gpu", count=count),))}
    return SliceSpec("t", engines=roles, circuits=(CircuitWish(Shape.RING, ("workers",)),))


def test_200_engines_that_suffice_by_number_but_are_not_joined():
    pool = Pool(islands(50))
    assert isinstance(plan(pool, ring(4)), Decision)
    found = plan(pool, ring(5))
    assert isinstance(found, Unplaceable)
    assert found.reason is Reason.NO_CIRCUIT
    assert "no way with a free lane" in found.sentence


def test_what_counting_proves_is_said_in_a_cell_of_any_size():
    found = plan(Pool(islands(50)), ring(201))
    assert isinstance(found, Unplaceable)
    assert found.reason is Reason.INFEASIBLE
    assert "the cell has 200" in found.sentence
