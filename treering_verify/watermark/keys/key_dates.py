"""The dates and the note of a key: from when it marks images, since when it is retired, and why."""

from __future__ import annotations

from datetime import UTC, date, datetime

from treering_verify.errors import UsageError

MAX_NOTE = 1000
"""Characters that a note may have."""


def today() -> date:
    """Return today's date in UTC."""
    return datetime.now(UTC).date()


def read_date(value: object, name: str) -> date | None:
    """Return a date from text such as 2026-11-29, from a date, or None from None; `name` is for the message.

    Raises
    ------
    UsageError
        If it is anything else.
    """
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    try:
        if isinstance(value, str) and len(value) == len("2026-11-29"):  # ISO 8601 also has weeks and days of the year
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise UsageError(f"{name} is not a date: write it as 2026-11-29 (UTC)")


def check_dates(not_before: date | None, retired: date | None, note: str) -> None:
    """Raise UsageError if a key is retired before it is used, or its note is too long."""
    if not_before and retired and retired < not_before:
        raise UsageError(f"retired is {retired}, before not_before, {not_before}: give a later date")
    if len(note) > MAX_NOTE:
        raise UsageError(f"the note has {len(note)} characters: use at most {MAX_NOTE}")


def state_of(not_before: date | None, retired: date | None, day: date | None = None) -> str:
    """Return a key's state on a day, today unless given: "in use", "retired since ..." or "not in use before ..."."""
    day = day or today()
    if retired and retired <= day:
        return f"retired since {retired}"
    if not_before and day < not_before:
        return f"not in use before {not_before}"
    return f"in use until {retired}" if retired else "in use"
