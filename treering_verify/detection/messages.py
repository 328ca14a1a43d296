"""Messages in images: write one into a key of pattern `gaussian-shading`, and read the one that an image carries.

`verify` tests for the key's own message. Reading tests for *any* message under the key's cipher, and so needs more evidence:
the exact p-value is that of the likeliest of all messages of that length (`patterns.gaussian_shading.read_message`). A
message that is not significant is noise, and is not returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from treering_verify.detection.evidence import rank
from treering_verify.detection.judge import DEFAULT_ALPHA, Judge
from treering_verify.errors import UsageError
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel, load_model
from treering_verify.results import DETECTED, KeyEvidence, Verdict
from treering_verify.watermark.embedding import extract, features
from treering_verify.watermark.keys.checks import check_fit
from treering_verify.watermark.keys.key import Key
from treering_verify.watermark.patterns.gaussian_shading import CIPHER_BYTES, MESSAGE_BYTES, read_message

if TYPE_CHECKING:
    import torch

    from treering_verify.detection.judge import Source

_PATTERN = "gaussian-shading"


def with_message(key: Key, message: str | bytes) -> Key:
    """Return the key with another message, which images marked with it then carry.

    Parameters
    ----------
    key : Key
        A key of pattern `gaussian-shading`. It carries 32 random bytes until it is given a message.
    message : str or bytes
        1 to 32 bytes, text as UTF-8; the last byte is not zero. A shorter message is repeated more often.

    Raises
    ------
    UsageError
        If the key carries no message, or the message is empty, too long or ends in a zero byte.
    """
    check_pattern(key)
    data = message.encode() if isinstance(message, str) else message
    if len(data) > MESSAGE_BYTES:
        raise UsageError(
            f"the message has {len(data)} bytes: use at most {MESSAGE_BYTES}, such as an identifier of a longer one"
        )
    if not data or data.endswith(b"\0"):
        raise UsageError(
            "the message is empty or ends in a zero byte, which is the padding: give one that ends in another"
        )
    written = np.frombuffer(data.ljust(MESSAGE_BYTES, b"\0"), dtype=np.uint8)
    return replace(key, numbers=np.concatenate([key.numbers[:CIPHER_BYTES], written]))


def decode_many(
    sources: Iterable[Source],
    key: Key,
    *,
    model: LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    inversion: InversionOptions | None = None,
) -> Iterator[Verdict]:
    """Read the message of each image: one verdict per source, with the message that was found, in order, batch by batch.

    Parameters
    ----------
    sources : iterable of paths, bytes or PIL images
    key : Key
        A key of pattern `gaussian-shading`. Only the length of its own message matters.
    model, alpha, inversion
        As `verify_many`.

    Yields
    ------
    Verdict
        `message` is text, or hexadecimal digits if the bytes are not printable, and "" if no message is significant at
        `alpha`. Single bits of a significant message can still be wrong.

    Raises
    ------
    UsageError
        If the key carries no message or does not fit the model, or alpha is out of range.
    """
    check_pattern(key)
    model = model or load_model()
    check_fit([key], model.latent_shape, model.name)
    yield from map(worded, Judge.of(model, MessageTest(key), alpha=alpha, inversion=inversion).verdicts(sources))


def worded(verdict: Verdict) -> Verdict:
    """Return a verdict of a `MessageTest` with its message as text, which is "" if none is significant."""
    found = verdict.best.message if verdict.best and verdict.verdict == DETECTED else b""
    return replace(verdict, message=_text(found))


@dataclass(frozen=True, eq=False)
class MessageTest:
    """The test of any message under a key; its evidence holds the likeliest message."""

    key: Key
    keys_tried: int = 1

    @property
    def tried(self) -> Sequence[Key]:
        """The keys that are looked for."""
        return [self.key]

    def evidence(self, noise_hat: torch.Tensor) -> list[tuple[KeyEvidence, ...]]:
        """Test noise estimates; see `judge.EvidenceTest`."""
        found: list[tuple[KeyEvidence, ...]] = []
        for row in features(extract(noise_hat, self.key), self.key):
            message, evidence = read_message(row, self.key.numbers)
            (strongest,) = rank([(self.key.name, self.key.fingerprint, evidence)], 1)
            found.append((replace(strongest, message=message),))
        return found


def _text(message: bytes) -> str:
    try:
        text = message.decode()
    except UnicodeDecodeError:
        return message.hex()
    return text if text.isprintable() else message.hex()


def check_pattern(key: Key) -> None:
    """Raise UsageError if a key's pattern carries no message."""
    if key.pattern != _PATTERN:
        raise UsageError(
            f"key {key.name!r} of pattern {key.pattern} carries no message: make one with "
            f"treering keygen --pattern {_PATTERN} --message-from FILE"
        )
