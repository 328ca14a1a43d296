"""The exceptions of the package, all of one base class, with messages that say what to do next."""

from __future__ import annotations

from collections.abc import Iterable


class TreeringError(Exception):
    """Base class of all errors that the package raises on purpose. The message tells the user what to do next."""


class KeyFileError(TreeringError):
    """A key file is missing, unreadable, malformed or of an unknown version."""


class ModelError(TreeringError):
    """A model cannot be loaded, does not fit the request, or gave unusable numbers."""


class UsageError(TreeringError):
    """An argument names something that does not exist or lies outside its range."""


class UnknownNameError(UsageError, KeyError):
    """A name that nothing has; also a `KeyError`, since registries are mappings."""

    def __str__(self) -> str:
        """Return the message; a KeyError would quote it."""
        return str(self.args[0])


class LimitedModelWarning(UserWarning):
    """A model works, but a mark in its images is detected less surely; the message says why and what to do."""


class ImageError(TreeringError):
    """One image cannot be tested; a batch records the error and goes on.

    Parameters
    ----------
    code
        Stable machine-readable cause, one of `treering_verify.media.images.CODES`.
    reason
        The cause in words, without the file's name (records carry the path in a field of its own).
    source
        Where the image came from, printable; it precedes the reason in the message. Empty for images in memory.
    """

    def __init__(self, code: str, reason: str, source: str = "") -> None:
        super().__init__(code, reason, source)  # all three in args, so that the error survives pickling
        self.code = code
        self.reason = reason
        self.source = source

    def __str__(self) -> str:
        """Return the message: the source, where there is one, and the reason."""
        return f"{self.source}: {self.reason}" if self.source else self.reason


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a name that does not exist: the name that was probably meant, and all that exist.

    Parameters
    ----------
    kind : str
        Kind of thing that is named, such as "attack".
    name : str
        The name that does not exist.
    known : iterable of str
        Names that exist.
    """
    from difflib import get_close_matches

    choices = list(known)
    close = get_close_matches(name, choices, n=1)
    meant = f"did you mean {close[0]}? Choose" if close else "choose"
    return f"no {kind} {name!r}: {meant} one of {', '.join(choices)}"
