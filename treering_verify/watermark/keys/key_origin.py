"""The origin of a key: whether its numbers are shown to be derived, or could have been chosen after an image was seen."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from treering_verify.errors import UsageError
from treering_verify.results import CHOSEN_MESSAGE, DERIVED, FREE_NUMBERS
from treering_verify.watermark.key_derivation import PRK_BYTES, pseudorandom_key
from treering_verify.watermark.keys.key_family import Family
from treering_verify.watermark.patterns import PATTERNS

MIN_SECRET_BYTES = 16
"""Length of the shortest secret that keys are derived from."""


class NotDerived(UsageError):
    """A key's numbers are not those that its pseudorandom key gives."""


def prk_of(secret: bytes) -> bytes:
    """Return the pseudorandom key of a secret; UsageError if the secret is short."""
    check_secret(secret)
    return pseudorandom_key(secret)


def check_secret(secret: bytes) -> None:
    """Raise UsageError if a secret is short; it is not quoted."""
    if len(secret) < MIN_SECRET_BYTES:
        raise UsageError(
            f"the secret has {len(secret)} bytes: use at least {MIN_SECRET_BYTES} random ones, "
            "for example from: head -c 32 /dev/urandom"
        )


@lru_cache(maxsize=8)  # a key that was just derived is checked when it is made, and again with each change of its dates
def derived(family: Family, prk: bytes) -> npt.NDArray[np.float64]:
    """Return the numbers that a pseudorandom key gives the key of a family, (d,), read-only.

    Raises
    ------
    UsageError
        If the pseudorandom key has another length than 32.
    """
    if len(prk) != PRK_BYTES:
        raise UsageError(f"a pseudorandom key has {PRK_BYTES} bytes: derive the key with Key.from_secret")
    info = (
        f"{family.pattern}|{','.join(map(str, family.channels))}|{family.inner_radius}-{family.outer_radius}|"
        f"{'x'.join(map(str, family.latent_shape))}"
    )
    numbers = PATTERNS[family.pattern].distribution.draw(prk, info, family.degrees_of_freedom)
    numbers.setflags(write=False)
    return numbers


def origin_of(family: Family, numbers: npt.NDArray[np.floating], prk: bytes) -> str:
    """Return the origin of numbers, (d,), that are stored with a pseudorandom key; without one, b"", they are free.

    Numbers that are stored with fewer digits are compared with those of the derived ones.

    Raises
    ------
    NotDerived
        If they are not those that the pseudorandom key gives.
    """
    if not prk:
        return FREE_NUMBERS
    same = derived(family, prk).astype(numbers.dtype) == numbers
    if same.all():
        return DERIVED
    chosen = PATTERNS[family.pattern].chosen
    if not chosen or not same[:-chosen].all():
        raise NotDerived("the key's numbers are not those of its pseudorandom key: derive it again from its secret")
    return CHOSEN_MESSAGE
