"""The secret key: what it is made of, how its numbers are derived, and its file.

Key numbers are i.i.d. N(0, 1). They are derived from a secret by a fixed construction (version 1):

    block i  = HKDF-SHA256(secret, salt="treering-verify key v1", info=f"{pattern}|{channels}|{inner}-{outer}|{shape}|{i}")
    uniforms = each 8 bytes, big-endian, top 53 bits: u = (n + 1/2) / 2^53
    numbers  = inverse normal CDF of u (Wichura's AS 241, which Python's `statistics` implements), rounded to 9 decimals

so the same secret and parameters give the same key anywhere, and nobody can have chosen the numbers to fit an image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from treering_verify.errors import KeyFileError, UsageError
from treering_verify.files import open_descriptor, printable, write_atomic
from treering_verify.spectrum import annulus

SCHEMA_VERSION = 1
PATTERNS = ("rings", "random")
MIN_SECRET_BYTES = 16
# The pattern and the annuli that measured best for detection and for the diversity of images (README, "Keys").
DEFAULT_PATTERN = "random"
DEFAULT_RADII = {"random": (4, 9), "rings": (3, 12)}
# Cosine that `keygen` takes for realistic. Measured means over 200 images: random 0.33 after JPEG 25; rings 0.65 on
# clean images, so 0.7 is a good image, and a default rings key reaches 1e-6 on fewer than half of them.
REALISTIC_COSINE = {"random": 0.3, "rings": 0.7}
_SALT = b"treering-verify key v1"
_NUMBERS_PER_BLOCK = 1020  # 8160 bytes: the most that one HKDF-SHA256 expansion gives
_MAX_FILE_BYTES = 64 * 1024**2  # what is longer ends mid-JSON, and is refused for it
_MAX_SIDE = 1024  # so that the shape in a damaged file cannot fill the memory
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, eq=False)
class Key:
    """A watermark key. Its numbers are the secret: they appear in no `repr`, message or record.

    Attributes
    ----------
    name : str
        What verdicts call it; 1 to 64 letters, digits, '.', '_' or '-'.
    pattern : {"rings", "random"}
        `rings`: one real number per ring and channel. `random`: one complex number per half-plane bin and channel.
    channels : tuple of int
        Latent channels that carry it.
    inner_radius, outer_radius : int
        First and last ring of the annulus, in bins from DC.
    latent_shape : (C, h, w)
        Shape of the noise that it is made for.
    numbers : (d,) float64
        Channel by channel; for `random` first the real, then the imaginary parts, each N(0, 1); for `rings` from the
        inner ring outwards.
    """

    name: str
    pattern: str
    channels: tuple[int, ...]
    inner_radius: int
    outer_radius: int
    latent_shape: tuple[int, int, int]
    numbers: npt.NDArray[np.float64] = field(repr=False)

    def __post_init__(self) -> None:
        count = count_numbers(self.pattern, self.channels, self.inner_radius, self.outer_radius, self.latent_shape)
        if not _NAME.fullmatch(self.name):
            raise UsageError("a key's name has 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit")
        numbers = np.array(self.numbers, dtype=np.float64)
        if numbers.shape != (count,) or not np.isfinite(numbers).all():
            raise UsageError(f"key {self.name!r} needs {count} finite numbers; it has shape {numbers.shape}")
        numbers.setflags(write=False)
        object.__setattr__(self, "numbers", numbers)

    @property
    def degrees_of_freedom(self) -> int:
        """Number of independent N(0, 1) numbers, d."""
        return len(self.numbers)

    @property
    def fingerprint(self) -> str:
        """Public name of the content: 16 hexadecimal digits of a SHA-256; tells keys apart, reveals no number."""
        content = {k: v for k, v in self._content().items() if k != "name"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def generate(
        cls,
        latent_shape: tuple[int, int, int],
        *,
        pattern: str = DEFAULT_PATTERN,
        channels: tuple[int, ...] | None = None,
        inner_radius: int | None = None,
        outer_radius: int | None = None,
        name: str = "key",
        seed: int | None = None,
    ) -> Key:
        """Make a new key, from the system's randomness or, for experiments, from a seed.

        Parameters
        ----------
        latent_shape : (C, h, w)
            The model's `latent_shape`.
        pattern : {"random", "rings"}
        channels : tuple of int, optional
            All channels when left out.
        inner_radius, outer_radius : int, optional
            Annulus in bins; `DEFAULT_RADII` of the pattern when left out.
        name : str
        seed : int, optional
            A seeded key is reproducible and therefore *guessable*: for experiments only.

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
        name: str = "key",
    ) -> Key:
        """Derive the key that belongs to a secret of at least 16 random bytes (construction: module docstring)."""
        if len(secret) < MIN_SECRET_BYTES:
            raise UsageError(
                f"the secret has {len(secret)} bytes: use at least {MIN_SECRET_BYTES} random ones, "
                "for example from: head -c 32 /dev/urandom"
            )
        if pattern not in PATTERNS:
            raise UsageError(f"unknown pattern {pattern!r}: choose one of {', '.join(PATTERNS)}")
        channels = tuple(range(latent_shape[0])) if channels is None else tuple(channels)
        inner = DEFAULT_RADII[pattern][0] if inner_radius is None else inner_radius
        outer = DEFAULT_RADII[pattern][1] if outer_radius is None else outer_radius
        count = count_numbers(pattern, channels, inner, outer, latent_shape)
        info = f"{pattern}|{','.join(map(str, channels))}|{inner}-{outer}|{'x'.join(map(str, latent_shape))}"
        return cls(name, pattern, channels, inner, outer, latent_shape, _derive(secret, info, count))

    def save(self, path: str | Path) -> None:
        """Write the key file, readable by its owner only, never over an existing file.

        Raises
        ------
        KeyFileError
            If the file exists or cannot be written.
        """
        text = json.dumps(self._content(), indent=1) + "\n"
        try:
            write_atomic(path, text.encode(), mode=0o600, exclusive=True)
        except FileExistsError as error:
            raise KeyFileError(
                f"{printable(str(path))} exists: a key is never overwritten; name another file"
            ) from error
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
        try:
            descriptor = open_descriptor(path)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise KeyFileError(f"{shown} is not a regular file: name a key file made by treering keygen")
                if os.name == "posix" and status.st_mode & 0o077:
                    raise KeyFileError(
                        f"others can read the key in {shown}: run chmod 600 on it, and consider a new key"
                    )
                with open(descriptor, "rb", closefd=False) as file:
                    data = file.read(_MAX_FILE_BYTES)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise KeyFileError(f"cannot read the key file {shown}: {getattr(error, 'strerror', error)}") from error
        try:
            content = json.loads(data)
            if content["type"] != "treering key" or content["schema_version"] != SCHEMA_VERSION:
                raise ValueError
            key = cls(
                name=str(content["name"]),
                pattern=str(content["pattern"]),
                channels=tuple(index(c) for c in content["channels"]),
                inner_radius=index(content["inner_radius"]),
                outer_radius=index(content["outer_radius"]),
                latent_shape=tuple(index(n) for n in content["latent_shape"]),  # type: ignore[arg-type]
                numbers=np.array(content["numbers"], dtype=np.float64),
            )
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
            "numbers": self.numbers.tolist(),
        }


def count_numbers(
    pattern: str, channels: tuple[int, ...], inner_radius: int, outer_radius: int, latent_shape: tuple[int, int, int]
) -> int:
    """Degrees of freedom of such a key; UsageError says which parameter does not fit."""
    if pattern not in PATTERNS:
        raise UsageError(f"unknown pattern {pattern!r}: choose one of {', '.join(PATTERNS)}")
    if len(latent_shape) != 3 or max(latent_shape) > _MAX_SIDE:
        raise UsageError(f"latent_shape is {latent_shape}: give (channels, height, width), at most {_MAX_SIDE} each")
    if not channels or len(set(channels)) < len(channels) or not all(0 <= c < latent_shape[0] for c in channels):
        raise UsageError(f"channels {channels} do not fit: name distinct ones from 0 to {latent_shape[0] - 1}")
    try:
        bins = annulus(latent_shape[1], latent_shape[2], inner_radius, outer_radius)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return len(channels) * (outer_radius - inner_radius + 1 if pattern == "rings" else 2 * len(bins))


def _derive(secret: bytes, info: str, count: int) -> npt.NDArray[np.float64]:
    from statistics import NormalDist

    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    words: list[int] = []
    for block in range(-(-count // _NUMBERS_PER_BLOCK)):
        size = 8 * min(_NUMBERS_PER_BLOCK, count - len(words))
        stream = HKDF(SHA256(), length=size, salt=_SALT, info=f"{info}|{block}".encode()).derive(secret)
        words += [int.from_bytes(stream[i : i + 8], "big") >> 11 for i in range(0, size, 8)]
    normal = NormalDist()
    return np.array([round(normal.inv_cdf((word + 0.5) / 2**53), 9) for word in words])
