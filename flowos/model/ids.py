"""Names as types: the checker then refuses a node where a switch is meant."""

from typing import NewType

NodeName = NewType("NodeName", str)
EngineId = NewType("EngineId", str)  # "<node>/<engine>"
SwitchName = NewType("SwitchName", str)
LinkName = NewType("LinkName", str)
DomainName = NewType("DomainName", str)
TenantName = NewType("TenantName", str)
SliceId = NewType("SliceId", str)  # "<tenant>/<name>", or "~off/<unit>" and so on
AttemptId = NewType("AttemptId", str)
SessionId = NewType("SessionId", str)
UnitId = NewType("UnitId", str)  # see units.py
Place = NewType("Place", str)  # a node or a switch: who carries out an order
Revision = NewType("Revision", int)
