"""How amounts are written in files and options: "32GiB", "1h30m", "500m" of a CPU, "20kW".

Everything is exact: an amount that is not a whole number of the model's unit is refused, never
rounded. Each `..._text` is the reverse: what it returns is read back as the same amount.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Final, TypeAlias

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.errors import SpecError

Written: TypeAlias = object  # text, or a number as a document holds it; anything else is refused

DIGITS_MAX: Final = 40  # far beyond any amount, and short enough that arithmetic on it is free
BYTES_MAX: Final = 2**60  # one exbibyte: the largest clusters hold less memory in all
SECONDS_MAX: Final = 10**10  # three centuries
NANOSECONDS_MAX: Final = 10**12  # a quarter of an hour: no light takes longer
CPUS_MAX: Final = 10**6
DEVICES_MAX: Final = 65_535  # attached to one host at once
WATTS_MAX: Final = 10**12  # a thousand large power stations
GBPS_MAX: Final = 10**6

_BYTES: Final[Mapping[str, int]] = {
    "PiB": 2**50,
    "TiB": 2**40,
    "GiB": 2**30,
    "MiB": 2**20,
    "KiB": 2**10,
    "PB": 10**15,
    "TB": 10**12,
    "GB": 10**9,
    "MB": 10**6,
    "kB": 10**3,
    "B": 1,
}
_SECONDS: Final[Mapping[str, Fraction]] = {
    "d": Fraction(86_400),
    "h": Fraction(3_600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 10**3),
    "us": Fraction(1, 10**6),
    "ns": Fraction(1, 10**9),
}
_WATTS: Final[Mapping[str, int]] = {"MW": 10**6, "kW": 10**3, "W": 1, "": 1}

_AMOUNT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s?([A-Za-z]*)")
_DURATION: Final = re.compile(r"(?:[0-9.]+[a-z]+)+")
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-z]+)")

_MEMORY_FORMS: Final = "write a number with its unit, such as 512MiB, 32GiB or 24GB"
_DURATION_FORMS: Final = "write seconds, or such as 50ns, 10s, 90m, 1h30m or 2d"
_LATENCY_FORMS: Final = "write such as 50ns or 2us"
_CPU_FORMS: Final = "write whole CPUs, such as 4 or 0.5, or thousandths, such as 500m"
_WATTS_FORMS: Final = "write watts, or such as 400W or 20kW"
_GBPS_FORMS: Final = "write the Gb/s of one lane as a number above 0, such as 100"
_SHARE_FORMS: Final = "write a number between 0 and 1 in steps of 0.001, such as 0.5"


def shown(value: Written) -> str:
    """Return a value as its writer would recognise it, cut short where it is long."""
    if value is None:
        text = "nothing"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, int | float | Decimal):
        # Python refuses to write out an integer of thousands of digits.
        text = str(value) if not isinstance(value, int) or abs(value) < 10**DIGITS_MAX else "…"
    else:
        text = "a list" if isinstance(value, list | tuple) else "a mapping"
    text = "".join(sign if sign.isprintable() else "�" for sign in text[:61])
    return text if len(text) <= 60 else f"{text[:57]}..."


def number_of(value: Written) -> Fraction | None:
    """Return what a number of a document is, exactly; None if it is no finite, sane number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Fraction(value) if abs(value) < 10**DIGITS_MAX else None
    if isinstance(value, float):
        value = Decimal(repr(value))
    if not isinstance(value, Decimal) or not value.is_finite():
        return None
    # The exponent first: 1e999999999 is a short text and a number that fills the memory.
    return Fraction(value) if -DIGITS_MAX < value.adjusted() < DIGITS_MAX else None


def bytes_of(value: Written) -> int:
    """Return an amount of memory in bytes; a bare number has no unit and is refused."""
    amount, unit = _amount(value, "an amount of memory", _MEMORY_FORMS)
    if unit not in _BYTES:
        if unit == "" and amount == 0:
            return 0
        what = f"has the unit {unit}" if unit else "has no unit"
        raise SpecError(f"{shown(value)} {what}, which is no unit of memory", hint=_MEMORY_FORMS)
    return _whole(value, amount * _BYTES[unit], "bytes", BYTES_MAX, _MEMORY_FORMS)


def seconds_of(value: Written) -> float:
    """Return a duration in seconds; a bare number is seconds."""
    return float(_duration(value, _DURATION_FORMS))


def nanoseconds_of(value: Written) -> int:
    """Return a latency in nanoseconds; a bare number other than 0 is refused, it could be seconds."""
    exact = _duration(value, _LATENCY_FORMS) * 10**9
    if exact and not (isinstance(value, str) and value.rstrip().endswith("s")):
        raise SpecError(f"latency {shown(value)} has no unit", hint=_LATENCY_FORMS)
    return _whole(value, exact, "nanoseconds", NANOSECONDS_MAX, _LATENCY_FORMS)


def cpu_millis_of(value: Written) -> int:
    """Return an amount of CPU in thousandths: "4" is 4000, "500m" is 500."""
    amount, unit = _amount(value, "an amount of CPU", _CPU_FORMS)
    if unit not in ("", "m"):
        raise SpecError(f"{shown(value)} has the unit {unit}", hint=_CPU_FORMS)
    millis = amount if unit else amount * 1000
    return _whole(value, millis, "thousandths of a CPU", CPUS_MAX * 1000, _CPU_FORMS)


def watts_of(value: Written) -> int:
    """Return a power in watts; a bare number is watts."""
    amount, unit = _amount(value, "a power", _WATTS_FORMS)
    if unit not in _WATTS:
        raise SpecError(f"{shown(value)} has the unit {unit}", hint=_WATTS_FORMS)
    return _whole(value, amount * _WATTS[unit], "watts", WATTS_MAX, _WATTS_FORMS)


def gbps_of(value: Written) -> float:
    """Return the rate of a lane in Gb/s, above 0."""
    amount, unit = _amount(value, "a rate", _GBPS_FORMS)
    if unit or not 0 < amount <= GBPS_MAX:
        raise SpecError(f"{shown(value)} is not a rate", hint=_GBPS_FORMS)
    return float(amount)


def share_millis_of(value: Written) -> int:
    """Return a share of one engine in thousandths, 1..999."""
    amount, unit = _amount(value, "a share of an engine", _SHARE_FORMS)
    millis = amount * WHOLE_MILLIS
    if unit or millis.denominator != 1 or not 0 < millis < WHOLE_MILLIS:
        raise SpecError(f"{shown(value)} is no share of one engine", hint=_SHARE_FORMS)
    return int(millis)


def bytes_text(amount: int) -> str:
    """Return bytes in the largest binary unit that needs at most three decimals: "1.5GiB"."""
    for unit in ("PiB", "TiB", "GiB", "MiB", "KiB"):
        exact = Fraction(amount * 1000, _BYTES[unit])
        if amount >= _BYTES[unit] and exact.denominator == 1:
            return f"{_thousandths(int(exact))}{unit}"
    return f"{amount}B"


def seconds_text(seconds: float) -> str:
    """Return a duration in seconds as "1h30m", "10s" or "2.5ms"."""
    exact = Fraction(Decimal(repr(seconds)))
    for unit in ("ms", "us", "ns"):
        parts = exact / _SECONDS[unit]
        if 0 < exact < 1 and parts.denominator == 1:
            return f"{parts}{unit}"
    text = ""
    for unit in ("d", "h", "m"):
        count = exact // _SECONDS[unit]
        exact -= count * _SECONDS[unit]
        text += f"{count}{unit}" if count else ""
    # What is left has the decimals of the whole, so it is written out without an exponent.
    rest = f"{Decimal(exact.numerator) / Decimal(exact.denominator):f}"
    return text if text and not exact else f"{text}{rest}s"


def nanoseconds_text(nanoseconds: int) -> str:
    """Return a latency as "50ns", "2us" or "1.5us"."""
    if nanoseconds < 1000:
        return f"{nanoseconds}ns"
    return f"{_thousandths(nanoseconds)}us"


def cpu_text(millis: int) -> str:
    """Return thousandths of a CPU as "4" or "2.5", below one CPU as "500m"."""
    return f"{millis}m" if 0 < millis < 1000 else _thousandths(millis)


def watts_text(watts: int) -> str:
    """Return watts as "400W", or in kilo- or megawatts from ten of them on."""
    for unit in ("MW", "kW"):
        exact = Fraction(watts * 1000, _WATTS[unit])
        if exact >= 10_000 and exact.denominator == 1:
            return f"{_thousandths(int(exact))}{unit}"
    return f"{watts}W"


def share_text(millis: int) -> str:
    """Return thousandths of an engine as "0.5"; a whole engine is "1"."""
    return _thousandths(millis)


def _thousandths(amount: int) -> str:
    whole, rest = divmod(amount, 1000)
    return f"{whole}.{rest:03d}".rstrip("0") if rest else str(whole)


def _amount(value: Written, what: str, forms: str) -> tuple[Fraction, str]:
    number = number_of(value)
    if number is not None and number >= 0:
        return number, ""
    found = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or len(found[1]) > DIGITS_MAX:
        raise SpecError(f"{shown(value)} is not {what}", hint=forms)
    return Fraction(found[1]), found[2]


def _whole(value: Written, exact: Fraction, unit: str, most: int, forms: str) -> int:
    if exact.denominator != 1:
        raise SpecError(f"{shown(value)} is not a whole number of {unit}", hint=forms)
    if exact > most:
        raise SpecError(f"{shown(value)} is above {most} {unit}, the most there is", hint=forms)
    return int(exact)


def _duration(value: Written, forms: str) -> Fraction:
    refused = SpecError(f"{shown(value)} is not a duration", hint=forms)
    text = value.strip().replace(" ", "") if isinstance(value, str) else ""
    if _DURATION.fullmatch(text) is None:
        total, unit = _amount(value, "a duration", forms)
        if unit:
            raise refused
    elif len(text) > 3 * DIGITS_MAX:
        raise refused
    else:
        total = Fraction(0)
        below = list(_SECONDS)
        parts = _DURATION_PART.findall(text)
        if "".join(map("".join, parts)) != text:
            raise refused
        for number, unit in parts:
            # Each unit once and the larger ones first: 30m1h is more likely a slip than a wish.
            if unit not in below:
                raise refused
            below = below[below.index(unit) + 1 :]
            total += Fraction(number) * _SECONDS[unit]
    if total > SECONDS_MAX:
        raise SpecError(f"{shown(value)} is above {SECONDS_MAX} seconds", hint=forms)
    return total
