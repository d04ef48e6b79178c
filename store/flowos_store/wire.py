"""Which messages does etcd speak? Loads them, and an unmodified etcd3 that works with them.

etcd3 0.12.0 ships generated code that protobuf 4 and later refuse to import. Its descriptors are
sound, so `messages.bin` (made by scripts/make_messages.py) holds these, with the fields of later
servers. They go into a pool of their own, so that no other package's copy of etcd's messages can
clash with them, and under the names of etcd3's generated modules into `sys.modules` before etcd3 is
imported. Its stubs and its client then run as they are.

Import etcd3 through this module only.
"""

import sys
from importlib.resources import files
from types import ModuleType
from typing import Any, Final

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass


def _module_of(file: FileDescriptor) -> ModuleType:
    """Return what protoc's generated module would hold: messages, enums and the enums' values."""
    module = ModuleType(f"etcd3.etcdrpc.{file.name.removesuffix('.proto')}_pb2")
    vars(module)["DESCRIPTOR"] = file
    for name, message in file.message_types_by_name.items():
        vars(module)[name] = GetMessageClass(message)
    for name, enum in file.enum_types_by_name.items():
        vars(module)[name] = EnumTypeWrapper(enum)
        vars(module).update({value.name: value.number for value in enum.values})
    return module


def _load() -> dict[str, ModuleType]:
    pool = DescriptorPool()
    content = files("flowos_store").joinpath("messages.bin").read_bytes()
    modules = {}
    for file in FileDescriptorSet.FromString(content).file:
        pool.Add(file)
        module = _module_of(pool.FindFileByName(file.name))
        modules[module.__name__] = module
    return modules


_modules: Final = _load()
sys.modules.update(_modules)

import etcd3  # noqa: E402  only now are the messages there that it needs
from etcd3 import etcdrpc  # noqa: E402

# Messages by name, as attributes: `rpc.TxnRequest`. Made at run time, so no checker knows them.
rpc: Final[Any] = _modules["etcd3.etcdrpc.rpc_pb2"]
kv: Final[Any] = _modules["etcd3.etcdrpc.kv_pb2"]
auth: Final[Any] = _modules["etcd3.etcdrpc.auth_pb2"]

__all__ = ["auth", "etcd3", "etcdrpc", "kv", "rpc"]
