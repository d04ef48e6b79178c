"""Certificates for tests, made without any tool: an authority, and those that it signs.

Elliptic curve P-256 and X.509 by the book, in the few lines that tests need. Not for anything else:
the keys are as good as `secrets`, but nothing here is safe from who measures time.
"""

import base64
import hashlib
import ipaddress
import secrets
from pathlib import Path

# The curve: y² = x³ - 3x + b over the field of P elements; N points, beginning at G.
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Point = tuple[int, int] | None


def _add(one: Point, other: Point) -> Point:
    if one is None or other is None:
        return one or other
    (x1, y1), (x2, y2) = one, other
    if x1 == x2 and (y1 + y2) % P == 0:
        return None
    slope = (
        (3 * x1 * x1 - 3) * pow(2 * y1, -1, P) if one == other else (y2 - y1) * pow(x2 - x1, -1, P)
    )
    x = (slope * slope - x1 - x2) % P
    return x, (slope * (x1 - x) - y1) % P


def _times(factor: int, point: Point) -> Point:
    found: Point = None
    while factor:
        if factor & 1:
            found = _add(found, point)
        point = _add(point, point)
        factor >>= 1
    return found


# ------------------------------------------------------------------------------------------- DER


def _tag(number: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes((number, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((number, 128 + len(length))) + length + content


def _sequence(*parts: bytes) -> bytes:
    return _tag(0x30, *parts)


def _number(value: int) -> bytes:
    return _tag(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _bits(content: bytes) -> bytes:
    return _tag(0x03, b"\0", content)


def _oid(*numbers: int) -> bytes:
    content = bytes((40 * numbers[0] + numbers[1],))
    for number in numbers[2:]:
        part = [number & 127]
        while number := number >> 7:
            part.insert(0, 128 | number & 127)
        content += bytes(part)
    return _tag(0x06, content)


CURVE = _oid(1, 2, 840, 10045, 3, 1, 7)
KEY = _sequence(_oid(1, 2, 840, 10045, 2, 1), CURVE)
SIGNED = _sequence(_oid(1, 2, 840, 10045, 4, 3, 2))  # ECDSA with SHA-256
YEARS = _sequence(_tag(0x17, b"250101000000Z"), _tag(0x17, b"491231235959Z"))
TRUE = _tag(0x01, b"\xff")


def _name(common: str) -> bytes:
    return _sequence(_tag(0x31, _sequence(_oid(2, 5, 4, 3), _tag(0x0C, common.encode()))))


def _extension(number: int, content: bytes, *, critical: bool = False) -> bytes:
    parts = [_oid(2, 5, 29, number), *([TRUE] if critical else []), _tag(0x04, content)]
    return _sequence(*parts)


def _pem(label: str, content: bytes) -> str:
    text = base64.encodebytes(content).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n"


class Authority:
    """Signs certificates for 127.0.0.1, localhost and whatever common name is asked for.

    Attributes:
        ca: Its own certificate.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        """Make a key, and a certificate that it signs for itself."""
        self.folder, self._authority = folder, name
        folder.mkdir(parents=True, exist_ok=True)
        self._secret, self._public = self._new_key()
        limits = _extension(19, _sequence(TRUE), critical=True)
        signs = _extension(15, _tag(0x03, b"\x02\x04"), critical=True)
        made = self._signed(name, self._public, limits + signs)
        self.ca = folder / "ca.pem"
        self.ca.write_text(made)

    def certificate(self, name: str) -> tuple[Path, Path]:
        """Return the files of a certificate of this common name, and of its key."""
        secret, public = self._new_key()
        address = _tag(0x87, ipaddress.ip_address("127.0.0.1").packed)
        names = _extension(17, _sequence(address, _tag(0x82, b"localhost")))
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_text(self._signed(name, public, names))
        content = _sequence(
            _number(1),
            _tag(0x04, secret.to_bytes(32, "big")),
            _tag(0xA0, CURVE),
            _tag(0xA1, _bits(public)),
        )
        key.write_text(_pem("EC PRIVATE KEY", content))
        return cert, key

    def _new_key(self) -> tuple[int, bytes]:
        secret = 1 + secrets.randbelow(N - 1)
        point = _times(secret, G)
        assert point is not None
        return secret, b"\x04" + point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")

    def _signed(self, name: str, public: bytes, extensions: bytes) -> str:
        content = _sequence(
            _tag(0xA0, _number(2)),
            _number(secrets.randbits(120)),
            SIGNED,
            _name(self._authority),
            YEARS,
            _name(name),
            _sequence(KEY, _bits(public)),
            _tag(0xA3, _sequence(extensions)),
        )
        digest = int.from_bytes(hashlib.sha256(content).digest(), "big")
        while True:
            nonce = 1 + secrets.randbelow(N - 1)
            point = _times(nonce, G)
            assert point is not None
            r = point[0] % N
            s = pow(nonce, -1, N) * (digest + r * self._secret) % N
            if r and s:
                break
        signature = _bits(_sequence(_number(r), _number(s)))
        return _pem("CERTIFICATE", _sequence(content, SIGNED, signature))
