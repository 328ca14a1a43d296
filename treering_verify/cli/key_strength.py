"""How sure a key could ever be, and secrets that keys are derived from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.watermark.keys.key_family import Family


_MAX_SECRET_BYTES = 1024**2


def reach_of(family: Family) -> tuple[float, str]:
    """Return the smallest log10 p that a key of the family can reach at a realistic statistic, and a sentence for it."""
    from treering_verify.report import format_pvalue
    from treering_verify.watermark.patterns import PATTERNS

    pattern = PATTERNS[family.pattern]
    compared, measure = pattern.compared(family), "cosine" if pattern.cosine else "agreement"
    reach = pattern.reach(pattern.realistic, compared)
    return reach, (
        f"{compared} {pattern.counts}; p could reach {format_pvalue(reach)} "
        f"at a realistic {measure} of {pattern.realistic}"
    )


def refuse_weak(family: Family, otherwise: str = "") -> str:
    """Return how sure keys of the family could ever be, a sentence; raise UsageError where that is too little.

    `otherwise` ends the error's advice.
    """
    reach, sentence = reach_of(family)
    if reach > -6:
        raise UsageError(
            f"{family.degrees_of_freedom} numbers are too few for 1e-6 ({sentence}): "
            f"use more channels or rings, or the random pattern{otherwise}"
        )
    return sentence


def read_secret(path: Path, private: bool = False) -> bytes:
    """Return the bytes of a secret's file; with `private`, refuse one that others can read: it stands for many keys."""
    from treering_verify.files import opened_secret, printable

    if private:
        with opened_secret(path, "secret", "head -c 32 /dev/urandom") as file:
            return file.read(_MAX_SECRET_BYTES)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {printable(str(path))}: {error.strerror}") from error


def read_message(path: Path) -> bytes:
    """Return the bytes of a message's file, or of standard input for -, without the end of the line."""
    from treering_verify.files import printable

    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(_MAX_SECRET_BYTES)
        else:
            with open(path, "rb") as file:
                data = file.read(_MAX_SECRET_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read {printable(str(path))}: {error.strerror}") from error
    return data.removesuffix(b"\n").removesuffix(b"\r")
