"""The secret key: its numbers, how they are derived, and its file.

A key's numbers are i.i.d. N(0, 1) or, in some patterns, random signs or bytes. They are derived from a secret by a fixed
construction (version 1):

    block i  = HKDF-SHA256(secret, salt="treering-verify key v1", info=f"{pattern}|{channels}|{inner}-{outer}|{shape}|{i}")
    uniforms = each 8 bytes, big-endian, top 53 bits: u = (n + 1/2) / 2^53
    numbers  = inverse normal CDF of u (Wichura's AS 241, which Python's `statistics` implements), rounded to 9 decimals

    signs    = the signs of such numbers, +1 where a number is 0
    bytes    = the blocks themselves, 8160 bytes each

so the same secret and parameters give the same key on every machine. A key file also holds the pseudorandom key (PRK) of
HKDF, its first step. A reader derives the numbers from it again: a key whose numbers differ is refused, and one without a
PRK is told apart (`Key.origin`), since its numbers could have been chosen to fit an image.

Many keys, such as one per user, can be derived from one secret and put into an index. Such a key of an index is the key of
the secret

    HKDF-SHA256(secret, salt="treering-verify member v1", info=name), 32 bytes

so whoever has the secret can derive any of these keys again from its name, and no key reveals another.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass, field, fields, replace
from datetime import date
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from treering_verify.errors import KeyFileError, UsageError
from treering_verify.files import opened_secret, parsed_json, printable, write_atomic
from treering_verify.watermark.key_derivation import index_key_secret
from treering_verify.watermark.keys.key_dates import check_dates, read_date, state_of, today
from treering_verify.watermark.keys.key_family import DEFAULT_PATTERN, Family, count_numbers
from treering_verify.watermark.keys.key_origin import (
    MIN_SECRET_BYTES,
    NotDerived,
    check_secret,
    derived,
    origin_of,
    prk_of,
)
from treering_verify.watermark.patterns import PATTERNS

__all__ = [
    "DEFAULT_PATTERN",
    "MIN_SECRET_BYTES",
    "PATTERNS",
    "SCHEMA_VERSION",
    "Family",
    "Key",
    "count_numbers",
    "is_name",
]

SCHEMA_VERSION = 1
_MAX_FILE_BYTES = 64 * 1024**2  # a longer file is cut off, and refused as damaged JSON
_NAME_DIGITS = 8  # of the fingerprint, where no name is given
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, eq=False)
class Key:
    """A watermark key. Its numbers are the secret: they appear in no `repr`, message or record.

    Attributes
    ----------
    name : str
        Its name in verdicts; 1 to 64 letters, digits, '.', '_' or '-'.
    pattern : str
        One of `PATTERNS`. `rings`: one real number per ring and channel. `random`: one complex number per half-plane bin and
        channel. The others: docs/patterns.md.
    channels : tuple of int
        Latent channels that carry the key.
    inner_radius, outer_radius : int
        First and last ring of the annulus, in bins from DC; 0 if the pattern has none.
    latent_shape : (C, h, w)
        Shape of the noise that the key is made for.
    numbers : (d,) float64
        Channel by channel, each N(0, 1). For `random` the real parts come first, then the imaginary parts; for `rings` the
        order is from the inner ring outwards. The modules in `treering_verify.watermark.patterns` define the others.
    not_before, retired : date, optional
        First day (UTC) on which it marks images, and the day from which on it marks no more. It verifies on every day.
    note : str
        Remark of the owner, at most 1000 characters.
    prk : bytes
        HKDF's pseudorandom key, from which the numbers are derived, as secret as they are; b"" if they were given.

    Notes
    -----
    Keys are equal if their fingerprints are: name, dates and note play no part.
    """

    name: str
    pattern: str
    channels: tuple[int, ...]
    inner_radius: int
    outer_radius: int
    latent_shape: tuple[int, int, int]
    numbers: npt.NDArray[np.float64] = field(repr=False)
    not_before: date | None = None
    retired: date | None = None
    note: str = ""
    prk: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        count = count_numbers(self.pattern, self.channels, self.inner_radius, self.outer_radius, self.latent_shape)
        if not is_name(self.name):
            raise UsageError("a key's name has 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit")
        numbers = np.array(self.numbers, dtype=np.float64)
        if numbers.shape != (count,) or not np.isfinite(numbers).all():
            raise UsageError(
                f"key {self.name!r} needs {count} finite numbers and has shape {numbers.shape}: pass shape ({count},)"
            )
        distribution = PATTERNS[self.pattern].distribution
        if not distribution.fits(numbers):
            raise UsageError(
                f"key {self.name!r} of pattern {self.pattern} needs {distribution.words}: derive it with Key.from_secret"
            )
        numbers.setflags(write=False)
        object.__setattr__(self, "numbers", numbers)
        for name in ("not_before", "retired"):
            object.__setattr__(self, name, read_date(getattr(self, name), name))
        if not isinstance(self.note, str):
            raise UsageError(f"note is {type(self.note).__name__}: give text")
        check_dates(self.not_before, self.retired, self.note)
        origin_of(self.family, numbers, self.prk)

    def __eq__(self, other: object) -> bool:
        """Whether the other is a key of the same fingerprint."""
        return self.fingerprint == other.fingerprint if isinstance(other, Key) else NotImplemented

    def __hash__(self) -> int:
        """Return the hash of the fingerprint."""
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields, so that what is unpickled is checked, and its numbers are read-only."""
        return type(self), tuple(getattr(self, each.name) for each in fields(self))

    @property
    def degrees_of_freedom(self) -> int:
        """Number of independent numbers of the key, d."""
        return len(self.numbers)

    @property
    def family(self) -> Family:
        """All but name and numbers, which other keys may share."""
        return Family(self.pattern, self.channels, self.inner_radius, self.outer_radius, self.latent_shape)

    @cached_property
    def origin(self) -> str:
        """How its numbers came about: "derived", "chosen message" or "free numbers" (docs/exact-test.md)."""
        return origin_of(self.family, self.numbers, self.prk)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of a SHA-256 of family and numbers: public, tells keys apart, reveals no number."""
        content = {k: v for k, v in self._content().items() if k not in ("name", "hkdf_prk", *_ABOUT)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def state(self) -> str:
        """Its state today (UTC): "in use", "retired since 2026-11-29" or "not in use before 2026-11-29"."""
        return state_of(self.not_before, self.retired)

    @property
    def is_retired(self) -> bool:
        """Whether it is retired today (UTC)."""
        return self.retired is not None and self.retired <= today()

    def check_in_use(self) -> None:
        """Raise UsageError if it marks no images today, because it is retired or its first day has not come."""
        if not self.state.startswith("in use"):
            raise UsageError(f"key {self.name!r} is {self.state}: mark images with another key")

    @classmethod
    def generate(
        cls,
        latent_shape: tuple[int, int, int],
        *,
        pattern: str = DEFAULT_PATTERN,
        channels: tuple[int, ...] | None = None,
        inner_radius: int | None = None,
        outer_radius: int | None = None,
        name: str | None = None,
        seed: int | None = None,
    ) -> Key:
        """Create a new key from the system's randomness or, for experiments, from a seed.

        Parameters
        ----------
        latent_shape : (C, h, w)
            The model's `latent_shape`.
        pattern : str
            One of `PATTERNS`.
        channels : tuple of int, optional
            Default: all channels.
        inner_radius, outer_radius : int, optional
            Annulus in bins. Default: the pattern's own.
        name : str, optional
            Its name in verdicts. Default: the first eight digits of its fingerprint.
        seed : int, optional
            A key from a seed is reproducible and therefore *guessable*: for experiments only.

        Raises
        ------
        UsageError
            If pattern, channels, radii or name do not fit.
        """
        secret = secrets.token_bytes(32) if seed is None else f"public seed {seed}".encode().ljust(MIN_SECRET_BYTES)
        return cls.from_secret(
            secret,
            latent_shape,
            pattern=pattern,
            channels=channels,
            inner_radius=inner_radius,
            outer_radius=outer_radius,
            name=name,
        )

    @classmethod
    def from_secret(
        cls,
        secret: bytes,
        latent_shape: tuple[int, int, int],
        *,
        pattern: str = DEFAULT_PATTERN,
        channels: tuple[int, ...] | None = None,
        inner_radius: int | None = None,
        outer_radius: int | None = None,
        name: str | None = None,
    ) -> Key:
        """Derive a key from a secret of at least 16 random bytes; the module's docstring has the construction."""
        prk = prk_of(secret)
        family = Family.choose(
            latent_shape, pattern=pattern, channels=channels, inner_radius=inner_radius, outer_radius=outer_radius
        )
        return cls.of(family, name, derived(family, prk), prk)

    @classmethod
    def of_index(cls, secret: bytes, family: Family, name: str) -> Key:
        """Derive one key of an index, such as the key of one user, from the secret of the whole index.

        Parameters
        ----------
        secret : bytes
            At least 16 random bytes. Whoever has them has every key of the index.
        family : Family
        name : str
            The key's name in the index.

        Raises
        ------
        UsageError
            If the secret is short or the name does not fit.
        """
        check_secret(secret)
        prk = prk_of(index_key_secret(secret, name))
        return cls.of(family, name, derived(family, prk), prk)

    @classmethod
    def of(cls, family: Family, name: str | None, numbers: npt.NDArray[np.float64], prk: bytes = b"") -> Key:
        """Return the key of a family with given numbers, (d,); without a name its fingerprint's first digits name it."""
        key = cls(
            "unnamed" if name is None else name,
            family.pattern,
            family.channels,
            family.inner_radius,
            family.outer_radius,
            family.latent_shape,
            numbers,
            prk=prk,
        )
        return replace(key, name=key.fingerprint[:_NAME_DIGITS]) if name is None else key

    def save(self, path: str | Path) -> None:
        """Write the key file, readable by its owner only, never over an existing file.

        Raises
        ------
        KeyFileError
            If the file exists or cannot be written.
        """
        try:
            write_atomic(path, self._encoded(), mode=0o600, exclusive=True)
        except FileExistsError as error:
            raise KeyFileError(
                f"{printable(str(path))} exists, and keys are never overwritten: name another file"
            ) from error
        except OSError as error:
            raise KeyFileError(f"cannot write {printable(str(path))}: {error.strerror}") from error

    def rewrite(self, path: str | Path) -> None:
        """Write the key in place of a file that holds the same key, such as after a change of its dates or note.

        Raises
        ------
        KeyFileError
            If the file does not hold this key, or cannot be written.
        """
        if Key.load(path) != self:
            raise KeyFileError(
                f"{printable(str(path))} contains another key, and keys are never overwritten: name another file"
            )
        try:
            write_atomic(path, self._encoded(), mode=0o600)
        except OSError as error:
            raise KeyFileError(f"cannot write {printable(str(path))}: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | Path) -> Key:
        """Read a key file.

        Raises
        ------
        KeyFileError
            If it is missing, readable by others, or not a key file of a known version.
        """
        shown = printable(str(path))
        with opened_secret(path, "key file", "treering keygen", (b"{",)) as file:
            data = file.read(_MAX_FILE_BYTES)
        try:
            content = parsed_json(data)
            if content["type"] != "treering key" or content["schema_version"] != SCHEMA_VERSION:
                raise ValueError
            _check_installed(content["pattern"], shown)
            key = cls(
                name=str(content["name"]),
                pattern=str(content["pattern"]),
                channels=tuple(index(c) for c in content["channels"]),
                inner_radius=index(content["inner_radius"]),
                outer_radius=index(content["outer_radius"]),
                latent_shape=tuple(index(n) for n in content["latent_shape"]),  # type: ignore[arg-type]
                numbers=np.array(content["numbers"], dtype=np.float64),
                **{name: content[name] for name in _ABOUT if name in content},
                prk=bytes.fromhex(content.get("hkdf_prk", "")),
            )
        except NotDerived:
            raise KeyFileError(
                f"the numbers in {shown} are not those of its hkdf_prk, so the file was changed: restore it, or derive the "
                "key again from its secret"
            ) from None
        except (ValueError, TypeError, KeyError, OverflowError, UsageError, RecursionError):
            # `from None`: the cause could quote the file, and a key is never printed.
            raise KeyFileError(
                f"{shown} is not a key file of version {SCHEMA_VERSION}: make one with treering keygen"
            ) from None
        return key

    def _content(self) -> dict[str, Any]:
        return {
            "type": "treering key",
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "pattern": self.pattern,
            "channels": list(self.channels),
            "inner_radius": self.inner_radius,
            "outer_radius": self.outer_radius,
            "latent_shape": list(self.latent_shape),
            **{name: value if isinstance(value, str) else value.isoformat() for name, value in self._about.items()},
            **({"hkdf_prk": self.prk.hex()} if self.prk else {}),
            "numbers": self.numbers.tolist(),
        }

    @property
    def _about(self) -> dict[str, Any]:
        """Dates and note, where there are any."""
        return {name: value for name in _ABOUT if (value := getattr(self, name))}

    def _encoded(self) -> bytes:
        return (json.dumps(self._content(), indent=1) + "\n").encode()


_ABOUT = ("not_before", "retired", "note")  # fields of the file that say nothing of the numbers, and may be missing


def is_name(text: str) -> bool:
    """Return whether a text is a name for keys: 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit."""
    return _NAME.fullmatch(text) is not None


def _check_installed(pattern: Any, shown: str) -> None:
    """KeyFileError if a key file's pattern could be that of a package which is not installed here."""
    if isinstance(pattern, str) and is_name(pattern) and pattern not in PATTERNS:
        raise KeyFileError(
            f"{shown} is a key of pattern {pattern!r}, which is not known here: install the package that brings it"
        )
