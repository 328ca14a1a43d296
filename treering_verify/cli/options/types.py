"""Types of values: what is wrong with one is told while the command line is read, before anything is imported or loaded."""

from __future__ import annotations

import abc
import errno
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.errors import UsageError, unknown
from treering_verify.files import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # which older releases of click do not let be subscripted

_INLINE = 48  # characters of choices that still stand beside the flag


class Named(_Type):
    """One of some names, which help lists, the shell completes, and of which one that is mistyped is guessed at.

    Parameters
    ----------
    kind : str
        What the names are names of, such as "pattern".
    names : iterable of str, or callable
        A callable is called when the names are needed, so that a registry's module need not be imported before.
    """

    def __init__(self, kind: str, names: Iterable[str] | Callable[[], Iterable[str]]) -> None:
        self.name = kind
        self._names = names

    @property
    def names(self) -> tuple[str, ...]:
        """The names that exist."""
        return tuple(self._names() if callable(self._names) else self._names)

    @property
    def listed(self) -> tuple[str, ...]:
        """The names, where they are too many to stand beside the flag."""
        return self.names if len("|".join(self.names)) > _INLINE else ()

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str | None:
        """Return the names, or the kind where they are many."""
        return self.name.upper().replace(" ", "-") if self.listed else f"[{'|'.join(self.names)}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name; fail if there is no such one."""
        if value not in self.names:
            self.fail(unknown(self.name, str(value), self.names), param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the names."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in self.names if name.startswith(incomplete)]


class AttackText(_Type):
    """An attack, such as jpeg:quality=25, or several with + between them."""

    name = "attack"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; fail if there is no such attack or parameter."""
        from treering_verify.attacks import parse

        try:
            parse(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the names of attacks, behind a + too."""
        from click.shell_completion import CompletionItem

        from treering_verify.attacks.tables import ATTACKS, MODEL_ATTACKS

        before, plus, last = incomplete.rpartition("+")
        return [CompletionItem(f"{before}{plus}{name}") for name in (*ATTACKS, *MODEL_ATTACKS) if name.startswith(last)]


class SearchText(_Type):
    """A level of the search, or a number of seconds."""

    name = "search"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; fail if it is neither."""
        from treering_verify.detection.search.settings import search_of

        try:
            search_of(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the levels."""
        from click.shell_completion import CompletionItem

        from treering_verify.detection.search.settings import AUTO, LEVELS, OFF

        return [CompletionItem(name) for name in (AUTO, OFF, *LEVELS) if name.startswith(incomplete)]


class ModelName(_Type):
    """An embedded model, a local folder, a .safetensors file, or a hub id."""

    name = "model"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete embedded models and paths."""
        from click.shell_completion import CompletionItem

        from treering_verify.models import EMBEDDED

        found = [CompletionItem(name) for name in EMBEDDED if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]


class Alpha(_Type):
    """A false-positive rate between 0 and 1."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the rate; fail if it is no number between 0 and 1."""
        try:
            rate = float(value)
        except (TypeError, ValueError):
            rate = math.nan
        if not 0 < rate < 1:
            self.fail(f"{value!r}: choose a false-positive rate between 0 and 1, such as 1e-6", param, ctx)
        return rate


class Duration(_Type):
    """A time such as 90s, 20m or 2h, as seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds; fail if the text is no time."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", str(value).strip())
        if not found or not float(found[1]):
            self.fail(f"{value!r} is no time: write it as 90s, 20m or 2h", param, ctx)
        return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


class Date(_Type):
    """A date, such as 2026-11-29."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date | None:
        """Return the date; fail if it is none."""
        from treering_verify.watermark.keys.key_dates import read_date

        try:
            return read_date(value, repr(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


class _PathType(_Type):
    what = "cannot write"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not str(value):  # which would be the current folder
            self.fail(f"{self.what} '': the path is empty", param, ctx)
        path = Path(value if isinstance(value, os.PathLike) else str(value))
        if problem := self.problem(path):
            self.fail(f"{self.what} {printable(str(path))!r}: {problem}", param, ctx)
        return path

    @abc.abstractmethod
    def problem(self, path: Path) -> str:
        """Say what is wrong with a path, or ""."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="dir" if self.name == "directory" else "file")]


class InputPath(_PathType):
    """A file or folder that exists; with `stdin`, also -."""

    name, what = "path", "cannot read"

    def __init__(self, stdin: bool = False) -> None:
        self._stdin = stdin

    def problem(self, path: Path) -> str:
        """Say whether it is missing."""
        if (self._stdin and str(path) == "-") or os.path.lexists(path):
            return ""
        return "there is no such file or folder; check the path"


class ImagePath(InputPath):
    """A regular file or folder that exists."""

    def problem(self, path: Path) -> str:
        """Say whether it is missing, or neither."""
        if problem := super().problem(path):
            if found := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(path)):  # a Path has one slash of two
                local = found[1].lower() == "file"
                return (
                    "give a path, and no URL"
                    if local
                    else "this is a URL: download it, or run treering audit, which opens URLs"
                )
            return problem
        if not os.path.exists(path):
            return "this is a link to a file that does not exist; check where it leads"
        return "" if os.path.isfile(path) or os.path.isdir(path) else "this is no regular file; give an image file"


class OutputFile(_PathType):
    """A file that can be written; with `stdout`, also -."""

    name = "file"

    def __init__(self, stdout: bool = False) -> None:
        self._stdout = stdout

    def problem(self, path: Path) -> str:
        """Say whether it is a folder, or its folder is missing or cannot be written to."""
        if self._stdout and str(path) == "-":
            return ""
        if os.path.isdir(path):
            return "this is a folder; name a file in it"
        if not os.path.isdir(path.parent):
            return f"there is no folder {printable(str(path.parent))}; make it first"
        return _unwritable(path.parent, "its folder")


class OutputFolder(_PathType):
    """A folder that can be written to, or made."""

    name = "directory"

    def problem(self, path: Path) -> str:
        """Say whether it is a file, or cannot be made or written to."""
        if os.path.lexists(path) and not os.path.isdir(path):
            return "this is a file; name a folder"
        there = next(place for place in (path, *path.absolute().parents) if os.path.exists(place))
        if not os.path.isdir(there):
            return f"{printable(str(there))} is a file; name a folder"
        return _unwritable(there, "the folder")


def _unwritable(folder: Path, name: str) -> str:
    """Say that nothing can be made in a folder, or "". It is tried, since an administrator may do so by all permissions."""
    try:
        if os.access(folder, os.W_OK | os.X_OK):
            os.rmdir(tempfile.mkdtemp(prefix=".treering-", dir=folder))
            return ""
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # what is written tells more of it
            return ""
    return f"{name} cannot be written to; choose another"
