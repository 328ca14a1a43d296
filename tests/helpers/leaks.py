"""Whether a text shows numbers of a key, to more digits than chance would give: of thousands, six digits of some recur."""

from __future__ import annotations

from collections.abc import Iterable


def shows_any(text: str, numbers: Iterable[float]) -> bool:
    return any(f"{abs(number):.12f}"[:11] in text for number in numbers)
