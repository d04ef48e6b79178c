"""What a failed call means: refused only if etcd itself says so, else unknown or unreachable."""

import grpc
import pytest

from flowos.model.errors import OutcomeUnknown, StoreRefused, StoreUnreachable
from flowos_store.failures import TooManyOperations, is_stale_token, meaning


class Failure(grpc.RpcError):
    """A failed call, as grpc raises it."""

    def __init__(self, code, said):
        self.said = said
        self.status = code

    def code(self):
        return self.status

    def details(self):
        return self.said


def meant(code, said, *, wrote):
    return meaning(Failure(code, said), wrote=wrote, endpoints="h:1")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: request timed out"),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: leader changed"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        (grpc.StatusCode.CANCELLED, "Channel closed!"),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        # These codes are refusals only in etcd's own words.
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received RST_STREAM with error code 11"),
        (grpc.StatusCode.PERMISSION_DENIED, "a proxy on the way says no"),
    ],
)
def test_a_write_without_etcds_own_answer_is_unknown(code, said):
    assert type(meant(code, said, wrote=True)) is OutcomeUnknown
    assert type(meant(code, said, wrote=False)) is StoreUnreachable


@pytest.mark.parametrize(
    "said",
    ["failed to connect to all addresses; last error: x", "connections to all backends failing"],
)
def test_a_write_that_found_no_connection_was_not_sent(said):
    assert type(meant(grpc.StatusCode.UNAVAILABLE, said, wrote=True)) is StoreUnreachable


def test_a_write_on_a_channel_that_was_closed_was_not_sent():
    closed = ValueError("Cannot invoke RPC on closed channel!")
    assert type(meaning(closed, wrote=True, endpoints="h:1")) is StoreUnreachable


@pytest.mark.parametrize(
    ("code", "said", "way_out"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", "roles"),
        (grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found", "session"),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "etcdserver: mvcc: database space exceeded",
            "defragment",
        ),
        (
            grpc.StatusCode.INVALID_ARGUMENT,
            "etcdserver: request is too large",
            "--max-request-bytes",
        ),
    ],
)
def test_what_etcd_refuses_is_refused_and_says_the_way_out(code, said, way_out):
    refused = meant(code, said, wrote=True)
    assert isinstance(refused, StoreRefused)
    assert said in str(refused)
    assert way_out in str(refused)


def test_too_many_operations_is_told_apart():
    said = "etcdserver: too many operations in txn request"
    assert type(meant(grpc.StatusCode.INVALID_ARGUMENT, said, wrote=True)) is TooManyOperations


def test_a_token_is_stale_where_logging_in_again_helps():
    stale = Failure(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
    older = Failure(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: revision of auth store is old")
    denied = Failure(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
    assert [is_stale_token(error) for error in (stale, older, denied)] == [True, True, False]
