"""Derive N(0, 1) numbers from a secret, the same on every machine.

`treering_verify.watermark.keys.key` states the construction. It is HKDF-SHA256 (RFC 5869) in its two steps: the first makes
a pseudorandom key (PRK) of the secret, the second expands that to the bytes of numbers. A key file holds the PRK, so whoever
reads it can derive the numbers again; it does not hold the secret.
"""

from __future__ import annotations

import hmac

import numpy as np
import numpy.typing as npt

PRK_BYTES = 32
"""Length of a pseudorandom key."""

_SALT = b"treering-verify key v1"
_INDEX_KEY_SALT = b"treering-verify member v1"  # part of the format: another salt would give other keys
_BYTES_PER_BLOCK = 8160  # 1020 numbers: the most that one HKDF-SHA256 expansion gives
_INDEX_KEY_BYTES = 32
_DECIMALS = 9
# Two good implementations of the inverse normal CDF differ by less than 1e-13 between -8.3 and 8.3. Where a value lies
# within 1e-12 of a rounding boundary, that could change the ninth decimal, and the reference decides.
_DOUBT = 1e-3  # in units of the ninth decimal


def pseudorandom_key(secret: bytes) -> bytes:
    """Return the pseudorandom key of a secret, 32 bytes: HKDF's first step."""
    return hmac.digest(_SALT, secret, "sha256")


def derive_numbers(prk: bytes, info: str, count: int) -> npt.NDArray[np.float64]:
    """Derive numbers, (count,), from a pseudorandom key and an info string: N(0, 1), rounded to 9 decimals."""
    return normal_numbers(np.frombuffer(derive_bytes(prk, info, 8 * count), dtype=">u8") >> np.uint64(11))


def derive_bytes(prk: bytes, info: str, count: int) -> bytes:
    """Derive bytes from a pseudorandom key and an info string: the blocks that numbers are made of."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

    stream = b""
    for block in range(-(-count // _BYTES_PER_BLOCK)):
        size = min(_BYTES_PER_BLOCK, count - block * _BYTES_PER_BLOCK)
        stream += HKDFExpand(SHA256(), length=size, info=f"{info}|{block}".encode()).derive(prk)
    return stream


def index_key_secret(secret: bytes, name: str) -> bytes:
    """Return the secret of one key of an index, 32 bytes.

    HKDF-SHA256(secret, salt="treering-verify member v1", info=name).
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length=_INDEX_KEY_BYTES, salt=_INDEX_KEY_SALT, info=name.encode()).derive(secret)


def normal_numbers(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Return the inverse normal CDF of (n + 1/2) / 2^53, rounded to 9 decimals, for integers n below 2^53.

    The result equals `round(statistics.NormalDist().inv_cdf(u), 9)` bit for bit and is many times faster. SciPy computes
    all numbers. The few whose ninth decimal could depend on its rounding errors are computed again by Python's function.
    """
    from statistics import NormalDist

    from scipy import special

    uniforms = (words.astype(np.float64) + 0.5) / 2**53
    scaled = special.ndtri(uniforms) * 10**_DECIMALS
    nearest = np.rint(scaled)
    numbers: npt.NDArray[np.float64] = nearest / 10**_DECIMALS  # a correctly rounded quotient, as Python's round gives
    normal = NormalDist()
    for i in np.flatnonzero(np.abs(np.abs(scaled - nearest) - 0.5) < _DOUBT):
        numbers[i] = round(normal.inv_cdf(float(uniforms[i])), _DECIMALS)
    return numbers
