"""
Quantities with units, as a document writes them ("989 TFLOP/s", "400 Gb/s"), in base units inside.

Strict: one number, one blank, one unit; never a bare number, which would leave its unit to be guessed. Bits
become bytes here, so that "400 Gb/s" and "50 GB/s" are the same 5e10.
"""

import re
from typing import Annotated

from pydantic import BeforeValidator

WRITTEN = re.compile(r"(\d+(?:\.\d+)?) (\S+)")
TENS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
TWOS = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
BITS = 1 / 8

# What may be written for each base unit, and how many of the base unit it is.
UNITS = {
    "FLOP/s": {f"{prefix}FLOP/s": size for prefix, size in TENS.items()},
    "B": {f"{prefix}B": size for prefix, size in (TENS | TWOS).items()},
    "B/s": {f"{prefix}B/s": size for prefix, size in (TENS | TWOS).items()}
    | {f"{prefix}b/s": size * BITS for prefix, size in TENS.items()},
    "W": {f"{prefix}W": TENS[prefix] for prefix in ("", "k", "M", "G")},
    "Hz": {f"{prefix}Hz": TENS[prefix] for prefix in ("", "k", "M", "G")},
    "s": {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0},
    "m": {"m": 1.0, "mm": 1e-3},
    "kg": {"kg": 1.0},
    "USD": {"USD": 1.0, "kUSD": 1e3, "MUSD": 1e6},
    "USD/s": {"USD/h": 1 / 3600, "USD/s": 1.0},
}
EXAMPLES = {
    "FLOP/s": "989 TFLOP/s",
    "B": "80 GB",
    "B/s": "400 Gb/s",
    "W": "700 W",
    "Hz": "1755 MHz",
    "s": "90 s",
    "m": "30 m",
    "kg": "130 kg",
    "USD": "300 kUSD",
    "USD/s": "2 USD/h",
}


def quantity(text: object, base: str) -> float:
    """The value of `text` [base], a key of UNITS. ValueError says in one line what to write instead."""
    found = WRITTEN.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f'{text!r}: give a number and a unit, as "{EXAMPLES[base]}"')
    number, unit = found.groups()
    if unit not in UNITS[base]:
        raise ValueError(f'{text!r}: {unit} is no unit for this, give it as "{EXAMPLES[base]}"')
    return float(number) * UNITS[base][unit]


def _reader(base: str) -> BeforeValidator:
    return BeforeValidator(lambda text: quantity(text, base))


FlopPerSecond = Annotated[float, _reader("FLOP/s")]
Bytes = Annotated[float, _reader("B")]
BytesPerSecond = Annotated[float, _reader("B/s")]
Watts = Annotated[float, _reader("W")]
Hertz = Annotated[float, _reader("Hz")]
Seconds = Annotated[float, _reader("s")]
Metres = Annotated[float, _reader("m")]
Kilograms = Annotated[float, _reader("kg")]
Dollars = Annotated[float, _reader("USD")]
DollarsPerSecond = Annotated[float, _reader("USD/s")]
