"""After which failures is a call made again, and what does each failure mean?"""

import grpc
import pytest

from flowos.model.errors import (
    Forbidden,
    LoginRefused,
    OutcomeUnknown,
    StoreFull,
    StoreRefused,
    StoreUnreachable,
)
from flowos_store.attempts import LOGINS_MAX, READS_AGAIN, Attempts, Then
from flowos_store.failures import TooManyOperations, is_answer, meaning

Code = grpc.StatusCode
NO_CONNECTION = "connections to all backends failing; last error: UNKNOWN: ipv4:127.0.0.1:1: "


class Failed(grpc.RpcError):
    """What grpc raises."""

    def __init__(self, code, details):
        self._code, self._details = code, details

    def code(self):
        return self._code

    def details(self):
        return self._details


UNSENT = Failed(Code.UNAVAILABLE, NO_CONNECTION + "Connection refused")
NO_LEADER = Failed(Code.UNAVAILABLE, "etcdserver: no leader")
TORN = Failed(Code.UNAVAILABLE, "Stream removed (Socket closed)")
LATE = Failed(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
GIVEN_UP = Failed(Code.CANCELLED, "Stream removed (Channel closed!)")
STALE = Failed(Code.UNAUTHENTICATED, "etcdserver: invalid auth token")
FULL = Failed(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")


def attempts(*, members=3, wrote=True, has_user=False):
    return Attempts(members, wrote=wrote, has_user=has_user)


@pytest.mark.parametrize("lost", [TORN, LATE, GIVEN_UP])
def test_a_write_that_may_have_landed_is_never_made_again(lost):
    assert attempts().failed(lost) is Then.RAISE
    assert isinstance(meaning(lost, wrote=True, endpoints="e"), OutcomeUnknown)


@pytest.mark.parametrize(
    "undone",
    [
        UNSENT,
        NO_LEADER,
        Failed(Code.UNKNOWN, "raft proposal dropped"),
        Failed(Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests"),
        Failed(Code.UNAVAILABLE, "errors resolving a:1: [field:hostname lookup error:]"),
    ],
)
def test_a_write_that_nobody_took_goes_to_each_member_and_then_waits_once(undone):
    trying = attempts()
    said = [trying.failed(undone) for _ in range(4)]
    assert said == [Then.ELSEWHERE, Then.ELSEWHERE, Then.WHEN_THERE, Then.RAISE]
    assert isinstance(meaning(undone, wrote=True, endpoints="e"), StoreUnreachable)


def test_a_write_that_nobody_took_and_then_somebody_lost_is_not_made_again():
    trying = attempts()
    assert trying.failed(UNSENT) is Then.ELSEWHERE
    assert trying.failed(TORN) is Then.RAISE


def test_a_read_is_made_again_where_its_connection_broke_but_not_after_its_time():
    trying = attempts(wrote=False)
    said = [trying.failed(TORN) for _ in range(READS_AGAIN + 1)]
    assert said == [*[Then.WHEN_THERE] * READS_AGAIN, Then.RAISE]
    assert attempts(wrote=False).failed(GIVEN_UP) is Then.WHEN_THERE
    assert attempts(wrote=False).failed(LATE) is Then.RAISE


def test_a_stale_token_is_renewed_for_whoever_has_a_password_and_not_for_ever():
    trying = attempts(has_user=True)
    assert [trying.failed(STALE) for _ in range(LOGINS_MAX)] == [Then.LOG_IN] * LOGINS_MAX
    assert trying.failed(STALE) is Then.RAISE
    assert attempts().failed(STALE) is Then.RAISE


def test_a_call_on_a_channel_that_was_just_left_goes_to_the_new_one():
    closed = ValueError("Cannot invoke RPC on closed channel!")
    assert attempts().failed(closed) is Then.ELSEWHERE
    assert attempts().failed(closed, closed=True) is Then.RAISE


def test_a_closed_store_asks_nobody_any_more():
    assert attempts(wrote=False).failed(GIVEN_UP, closed=True) is Then.RAISE


def test_an_error_of_ours_is_not_tried_again():
    assert attempts(wrote=False).failed(ValueError("Value out of range")) is Then.RAISE


@pytest.mark.parametrize(
    ("code", "said", "kind", "way"),
    [
        (FULL.code(), FULL.details(), StoreFull, "compact, defragment and disarm"),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", Forbidden, "roles do not cover"),
        (
            Code.INVALID_ARGUMENT,
            "etcdserver: authentication failed, invalid user ID or password",
            LoginRefused,
            "check user and password",
        ),
        (Code.INVALID_ARGUMENT, "etcdserver: user name is empty", LoginRefused, "log in with"),
        (Code.FAILED_PRECONDITION, "etcdserver: user name not found", LoginRefused, "the name"),
        (
            Code.FAILED_PRECONDITION,
            "etcdserver: authentication is not enabled",
            LoginRefused,
            "leave user and password away",
        ),
        (STALE.code(), STALE.details(), LoginRefused, "log in anew"),
        (Code.DATA_LOSS, "etcdserver: corrupt cluster", StoreRefused, "restore"),
        (
            Code.INVALID_ARGUMENT,
            "etcdserver: request is too large",
            StoreRefused,
            "--max-request-bytes",
        ),
        (
            Code.INVALID_ARGUMENT,
            "etcdserver: too many operations in txn request",
            TooManyOperations,
            "too many",
        ),
    ],
)
def test_what_etcd_refuses_has_a_name_and_a_way_out(code, said, kind, way):
    error = meaning(Failed(code, said), wrote=True, endpoints="10.0.0.1:2379")
    assert type(error) is kind
    assert way in str(error)


@pytest.mark.parametrize(
    ("code", "said", "way"),
    [
        (Code.UNAVAILABLE, UNSENT.details(), "nobody listens there"),
        (
            Code.UNAVAILABLE,
            NO_CONNECTION + "Tls handshake failed: CERTIFICATE_VERIFY_FAILED: unable to get",
            "give the right CA file",
        ),
        (
            Code.UNAVAILABLE,
            NO_CONNECTION + "Hostname Verification Check failed.",
            "certificate is for another name",
        ),
        (Code.UNAVAILABLE, NO_CONNECTION + "Unwrap failed (TSI_DATA_CORRUPTED)", "certificate"),
        (Code.UNAVAILABLE, NO_CONNECTION + "Handshake read failed (Socket closed)", "no TLS"),
        (Code.UNAVAILABLE, NO_CONNECTION + "Socket closed", "does it want TLS"),
        (
            Code.UNAVAILABLE,
            "errors resolving etcd1:1: [address lookup failed for etcd1:1: Domain name not found]",
            "etcd1:1 cannot be resolved",
        ),
        (Code.UNAVAILABLE, "etcdserver: no leader", "it has no leader"),
        (Code.UNIMPLEMENTED, "Received http2 header with status: 404", "something else than etcd"),
        (Code.DEADLINE_EXCEEDED, "Stream removed (Deadline Exceeded)", "no answer in time"),
    ],
)
def test_what_grpc_says_of_a_connection_is_told_in_one_clear_line(code, said, way):
    error = meaning(Failed(code, said), wrote=False, endpoints="10.0.0.1:2379")
    assert type(error) is StoreUnreachable
    assert way in str(error)
    assert "last error" not in str(error)
    assert "\n" not in str(error)


def test_a_no_is_an_answer_and_a_broken_connection_is_none():
    denied = Failed(Code.PERMISSION_DENIED, "etcdserver: permission denied")
    assert is_answer(denied)
    assert not any(map(is_answer, (UNSENT, NO_LEADER, TORN, LATE, GIVEN_UP)))
