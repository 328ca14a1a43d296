"""Search for the numbers of a key in a text, to nine digits, since shorter ones may match by chance."""

from __future__ import annotations

from collections.abc import Iterable


def shows_any(text: str, numbers: Iterable[float]) -> bool:
    return any(f"{abs(number):.12f}"[:11] in text for number in numbers)
