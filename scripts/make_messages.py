"""Write store/flowos_store/messages.bin: etcd's messages, as descriptors that any protobuf can load.

    python scripts/make_messages.py [--check]

The package etcd3 carries etcd 3.3's descriptors in generated code that current protobuf refuses to
import. This takes the descriptors out of that code's text, adds what later servers learnt, and
writes them as one FileDescriptorSet. The same etcd3 gives the same bytes; a test holds them equal.
"""

import argparse
import ast
import importlib.util
import re
import sys
from pathlib import Path
from typing import Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

MESSAGES: Final = Path(__file__).parent.parent / "store/flowos_store/messages.bin"

BOOL, INT64, UINT64, STRING, MESSAGE = (
    FieldDescriptorProto.TYPE_BOOL,
    FieldDescriptorProto.TYPE_INT64,
    FieldDescriptorProto.TYPE_UINT64,
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_MESSAGE,
)
ONE, MANY = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED

# What etcd 3.4 and 3.5 added, as far as Flow OS uses it: (message, field, number, type, label,
# type name, oneof). Names and numbers are those of etcd's api/etcdserverpb/rpc.proto.
FIELDS_ADDED: Final = (
    ("WatchRequest", "progress_request", 3, MESSAGE, ONE, "WatchProgressRequest", "request_union"),
    ("WatchCreateRequest", "watch_id", 7, INT64, ONE, "", ""),
    ("WatchCreateRequest", "fragment", 8, BOOL, ONE, "", ""),
    ("WatchResponse", "fragment", 7, BOOL, ONE, "", ""),
    ("StatusResponse", "raftAppliedIndex", 7, UINT64, ONE, "", ""),
    ("StatusResponse", "errors", 8, STRING, MANY, "", ""),
    ("StatusResponse", "dbSizeInUse", 9, INT64, ONE, "", ""),
    ("StatusResponse", "isLearner", 10, BOOL, ONE, "", ""),
    ("AuthUserAddRequest", "options", 3, MESSAGE, ONE, ".authpb.UserAddOptions", ""),
    ("AuthStatusResponse", "header", 1, MESSAGE, ONE, "ResponseHeader", ""),
    ("AuthStatusResponse", "enabled", 2, BOOL, ONE, "", ""),
    ("AuthStatusResponse", "authRevision", 3, UINT64, ONE, "", ""),
)


def descriptors_of_etcd3() -> dict[str, FileDescriptorProto]:
    """Return etcd3's own descriptors by module, read from its source without importing it.

    Raises:
        SystemExit: etcd3 is not installed.
    """
    spec = importlib.util.find_spec("etcd3")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("etcd3 is not installed: run make setup")
    folder = Path(spec.submodule_search_locations[0]) / "etcdrpc"
    files = {}
    for name in ("kv", "auth", "rpc"):
        source = (folder / f"{name}_pb2.py").read_text()
        literal = re.search(r"serialized_pb=_b\(('(?:[^'\\]|\\.)*')\)", source)
        assert literal is not None, f"{name}_pb2.py of etcd3 has no descriptor where 0.12.0 has it"
        text: str = ast.literal_eval(literal[1])
        files[name] = FileDescriptorProto.FromString(text.encode("latin1"))
    return files


def with_additions(files: dict[str, FileDescriptorProto]) -> FileDescriptorSet:
    """Return the descriptors, in the order of their imports, with the fields of later servers."""
    options = files["auth"].message_type.add(name="UserAddOptions")
    options.field.add(name="no_password", number=1, type=BOOL, label=ONE)
    for name in ("WatchProgressRequest", "AuthStatusRequest", "AuthStatusResponse"):
        files["rpc"].message_type.add(name=name)
    messages: dict[str, DescriptorProto] = {m.name: m for m in files["rpc"].message_type}
    for message, name, number, kind, label, type_name, oneof in FIELDS_ADDED:
        field = messages[message].field.add(name=name, number=number, type=kind, label=label)
        if type_name:
            package = files["rpc"].package
            field.type_name = type_name if "." in type_name else f".{package}.{type_name}"
        if oneof:
            field.oneof_index = [o.name for o in messages[message].oneof_decl].index(oneof)
    return FileDescriptorSet(file=[files["kv"], files["auth"], files["rpc"]])


def made() -> bytes:
    """Return what messages.bin should hold."""
    return with_additions(descriptors_of_etcd3()).SerializeToString(deterministic=True)


def main() -> None:
    """Write the file, or with --check say whether it is what it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if parser.parse_args().check:
        if MESSAGES.read_bytes() != made():
            sys.exit(f"{MESSAGES} is not what this script makes: run it without --check")
    else:
        MESSAGES.write_bytes(made())


if __name__ == "__main__":
    main()
