"""What keys may share: pattern, channels, annulus and the shape of the noise."""

from __future__ import annotations

from dataclasses import dataclass

from treering_verify.errors import UsageError
from treering_verify.watermark.patterns import PATTERNS, Place

DEFAULT_PATTERN = "random"
_MAX_SIDE = 1024  # the shape in a damaged file must not fill the memory


@dataclass(frozen=True)
class Family:
    """The kind of a key: everything about it but its name and its secret numbers.

    The features of an image depend on the family and the image alone.

    Attributes
    ----------
    pattern, channels, inner_radius, outer_radius, latent_shape
        As those of `Key`.

    Raises
    ------
    UsageError
        If the values do not fit each other.
    """

    pattern: str
    channels: tuple[int, ...]
    inner_radius: int
    outer_radius: int
    latent_shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        count_numbers(self.pattern, self.channels, self.inner_radius, self.outer_radius, self.latent_shape)

    def __str__(self) -> str:
        """Return pattern, channels, radii if there are any, and shape, in words."""
        radii = f" radii {self.inner_radius} to {self.outer_radius}," if self.outer_radius else ""
        return (
            f"{self.pattern}, channels {','.join(map(str, self.channels))},{radii} "
            f"noise {'x'.join(map(str, self.latent_shape))}"
        )

    @property
    def degrees_of_freedom(self) -> int:
        """How many numbers each of its keys has, d; if these are bytes, the test compares more (`Pattern.compared`)."""
        return count_numbers(self.pattern, self.channels, self.inner_radius, self.outer_radius, self.latent_shape)

    @classmethod
    def choose(
        cls,
        latent_shape: tuple[int, int, int],
        *,
        pattern: str = DEFAULT_PATTERN,
        channels: tuple[int, ...] | None = None,
        inner_radius: int | None = None,
        outer_radius: int | None = None,
    ) -> Family:
        """Return the family of these choices, with the defaults of `Key.generate`."""
        radii = PATTERNS[pattern].radii
        channels = tuple(range(latent_shape[0])) if channels is None else tuple(channels)
        inner = radii[0] if inner_radius is None else inner_radius
        outer = radii[1] if outer_radius is None else outer_radius
        return cls(pattern, channels, inner, outer, latent_shape)


def count_numbers(
    pattern: str, channels: tuple[int, ...], inner_radius: int, outer_radius: int, latent_shape: tuple[int, int, int]
) -> int:
    """Return how many numbers such a key has; UsageError says which parameter does not fit."""
    PATTERNS.check(pattern)
    if len(latent_shape) != 3 or max(latent_shape) > _MAX_SIDE:
        raise UsageError(f"latent_shape is {latent_shape}: give (channels, height, width), at most {_MAX_SIDE} each")
    if not channels or len(set(channels)) < len(channels) or not all(0 <= c < latent_shape[0] for c in channels):
        raise UsageError(f"channels {channels} do not fit: name distinct ones from 0 to {latent_shape[0] - 1}")
    try:
        return PATTERNS[pattern].count(Place(channels, inner_radius, outer_radius, latent_shape))
    except ValueError as error:
        raise UsageError(str(error)) from None
