"""Registries: algorithms of one kind by name, whether built in, added in Python, or brought by an installed package.

A registry is a mapping from names to functions, or to values of functions. Names are known without importing anything, so
that a command line can list them; what a name stands for is imported when it is asked for. A package adds to a registry by
an entry point in the registry's group (docs/extending.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from treering_verify.errors import UnknownNameError, UsageError, unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Registry(MutableMapping[str, T], Generic[T]):
    """A mapping of names to algorithms that users can add to.

    Parameters
    ----------
    kind : str
        What the algorithms are, in the singular, for messages.
    group : str
        Group of entry points by which packages add to it.
    built_in : mapping
        Name -> the algorithm, or where it is, as ``package.module:attribute``.
    fits : callable
        Whether a value can be such an algorithm.
    reserved : tuple of str
        Names that stand for something else, such as "auto".

    Notes
    -----
    A name that is built in, or was added in Python, goes before an entry point of that name. An unknown name raises
    `errors.UnknownNameError`, which is a `UsageError` and a `KeyError`.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        built_in: Mapping[str, T | str],
        *,
        fits: Callable[[Any], bool] = callable,
        reserved: tuple[str, ...] = (),
    ) -> None:
        self.kind, self.group, self.built_in = kind, group, tuple(built_in)
        self._values: dict[str, T | str] = dict(built_in)
        self._fits, self._reserved = fits, reserved

    @property
    def added(self) -> tuple[str, ...]:
        """Names that are not built in: those added in Python, then those of installed packages."""
        return tuple(name for name in self if name not in self.built_in)

    @property
    def added_here(self) -> tuple[str, ...]:
        """Names that were added in Python, which other processes do not know."""
        return tuple(name for name in self._values if name not in self.built_in and name not in self._packaged)

    def check(self, name: str, *others: str) -> None:
        """Raise UnknownNameError, with the names that exist, unless `name` is one of them or of `others`."""
        if name not in others and name not in self:
            raise UnknownNameError(unknown(self.kind, name, (*others, *self)))

    def __getitem__(self, name: str) -> T:
        """Return what a name stands for, importing it first where that is due.

        Raises
        ------
        UnknownNameError
            If nothing has the name.
        UsageError
            If a package brings it and it cannot be imported, is of the wrong kind, or two packages bring it.
        """
        self.check(name)
        value = self._values[name] if name in self._values else self._load(name)
        if isinstance(value, str):
            module, _, attribute = value.partition(":")
            value = cast(T, getattr(import_module(module), attribute))
        self._values[name] = value
        return value

    def __setitem__(self, name: str, value: T) -> None:
        """Add an algorithm, or replace one.

        Raises
        ------
        UsageError
            If the name is reserved or has characters that command lines cannot take, or the value is of the wrong kind.
        """
        if not _NAME.fullmatch(name) or name in self._reserved:
            others = "".join(f", and not {word}" for word in self._reserved)
            raise UsageError(
                f"{name!r} is not a name for an algorithm ({self.kind}): use 1 to 64 letters, digits, '.', '_' or '-', the "
                f"first a letter or digit{others}"
            )
        if not self._fits(value):
            kind = type(value).__name__
            raise UsageError(f"{name} is of type {kind}, and no {self.kind}: docs/extending.md says what one is")
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        """Remove an algorithm that was added in Python, or one that is built in."""
        if name not in self._values:
            raise UnknownNameError(unknown(self.kind, name, tuple(self._values)))
        del self._values[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a name; nothing is imported."""
        return name in self._values or name in self._packaged

    def __iter__(self) -> Iterator[str]:
        """Names, those of installed packages last; nothing is imported."""
        yield from self._values
        yield from (name for name in self._packaged if name not in self._values)

    def __len__(self) -> int:
        """Count of names."""
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        """List the names."""
        return f"<registry of {self.kind}: {', '.join(self)}>"

    @cached_property
    def _packaged(self) -> dict[str, list[EntryPoint]]:
        """Entry points of the group by name, in the order of names; several where packages bring the same."""
        from importlib.metadata import entry_points

        found: dict[str, list[EntryPoint]] = {}
        for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
            if _NAME.fullmatch(point.name) and point.name not in self._reserved:
                found.setdefault(point.name, []).append(point)
        return found

    def _load(self, name: str) -> T:
        point, *others = self._packaged[name]
        if others:
            packages = " and ".join(_package_of(one) for one in (point, *others))
            raise UsageError(f"{packages} both bring {name!r} ({self.kind}): uninstall one of them")
        package = _package_of(point)
        try:
            value = point.load()
        except Exception as error:
            first = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UsageError(
                f"the {self.kind} {name!r} of package {package} cannot be loaded ({first}): update or uninstall {package}"
            ) from error
        if not self._fits(value):
            raise UsageError(
                f"{name!r} of package {package} is of type {type(value).__name__}, and no {self.kind}: update or "
                f"uninstall {package}"
            )
        return cast(T, value)


def _package_of(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value
