"""`gaussian-shading`: a message of up to 256 bits, repeated over all of the noise and encrypted (Yang et al., CVPR 2024).

After arXiv 2404.04956. Value i of the noise gets the sign of bit i mod m of the message's m bits, XOR bit i of a ChaCha20
keystream. A key's numbers are 64 bytes: 32 of the cipher's key, and 32 of the message, padded with zeros that are not part
of it. A short message is repeated more often, so it is read more reliably.

A keystream that is used twice leaks. Two images of one key and nonce have the *same signs everywhere*: they look alike, and
several of them give the key away by averaging. So each image has one of 256 nonces, chosen by a hash of the noise that the
key is written into. The verifier cannot know which one, so it tries all and multiplies the p-value by 256.

The test for the key's own message is exact. To whoever made the image without the key, the bits of the keystream are
random, so the signs of the image agree with them by chance only (`treering_detectors.sign_tests`). `read_message` finds the
likeliest message, whatever it is. Its p-value, which is exact too for each nonce (`treering_detectors.vote_test`), says
whether there is any message.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from treering_verify.watermark.patterns import sign_embedding
from treering_verify.watermark.patterns.base import BYTES, Layout, Numbers, Pattern, sign_reach

if TYPE_CHECKING:
    import torch
    from treering_detectors import Evidence

CIPHER_BYTES, MESSAGE_BYTES = 32, 32
BITS = 8 * MESSAGE_BYTES
NONCES = 256


def _count(layout: Layout) -> int:
    if sign_embedding.count_values(layout) < BITS:
        raise ValueError(
            f"gaussian-shading needs {BITS} values of noise: use more channels or a model with a larger latent"
        )
    return CIPHER_BYTES + MESSAGE_BYTES


def _write(noise: torch.Tensor, layout: Layout, numbers: Numbers) -> torch.Tensor:
    cipher, message = _split(numbers)
    nonces = [int.from_bytes(found[:8], "big") % NONCES for found in sign_embedding.digest(noise)]
    size = sign_embedding.count_values(layout)
    return sign_embedding.write_signs(
        noise, layout, (_keystreams(cipher, size)[nonces] * _repeat(message, size)).astype(np.float64)
    )


def _test(features: Numbers, numbers: Numbers) -> list[Evidence]:
    """Test for the key's own message under every nonce; the smallest p-value is multiplied by their number."""
    from treering_detectors import sign_tests

    cipher, message = _split(numbers)
    signs = _keystreams(cipher, features.shape[1]) * _repeat(message, features.shape[1])
    found = []
    for row in features:
        best = _best_nonce(row, signs)
        (evidence,) = sign_tests(row, signs[best])
        found.append(_corrected(evidence))
    return found


def _corrected(evidence: Evidence) -> Evidence:
    """Multiply the p-value by the number of nonces that were tried."""
    from treering_detectors import Evidence

    log10_p = min(0.0, evidence.log10_pvalue + np.log10(NONCES))
    return Evidence.from_log10(evidence.detector, evidence.statistic, log10_p, evidence.degrees_of_freedom)


def _best_nonce(row: Numbers, signs: npt.NDArray[np.int8]) -> int:
    """Return the nonce with the largest test statistic; all have one null distribution, so its p-value is the smallest."""
    from treering_detectors import sign_weights

    weights = sign_weights(row[None])[0] * np.where(row >= 0, 1, -1)
    return int(np.argmax(signs.astype(np.float64) @ weights))


def read_message(features: Numbers, numbers: Numbers) -> tuple[bytes, Evidence]:
    """Return the likeliest message under a key, whatever the key's own message is.

    Parameters
    ----------
    features : (n,)
        Features of one image.
    numbers : (64,)
        The key's numbers; of the message in them only its length is used.

    Returns
    -------
    message : bytes
        As long as the key's own.
    evidence : Evidence
        Whether there is any message: the smallest p-value over the nonces times their number.
    """
    from treering_detectors import sign_weights, vote_test

    cipher, message = _split(numbers)
    bits = 8 * len(message)
    signs, groups = _keystreams(cipher, len(features)), np.arange(len(features)) % bits
    weights = sign_weights(features[None])[0] * np.where(features >= 0, 1, -1)
    padded = np.zeros((NONCES, -(-len(features) // bits) * bits))
    padded[:, : len(features)] = signs * weights
    votes = padded.reshape(NONCES, -1, bits).sum(axis=1)
    best = np.argmax(np.abs(votes).sum(axis=1))
    evidence, found = vote_test(features, signs[best], groups)
    return np.packbits(found < 0).tobytes(), _corrected(evidence)


def _split(numbers: Numbers) -> tuple[bytes, bytes]:
    data = numbers.astype(np.uint8).tobytes()
    return data[:CIPHER_BYTES], data[CIPHER_BYTES:].rstrip(b"\0") or b"\0"


def _repeat(message: bytes, size: int) -> npt.NDArray[np.int8]:
    signs: npt.NDArray[np.int8] = 1 - 2 * sign_embedding.bits_of(message, 8 * len(message)).astype(np.int8)
    return np.resize(signs, size)


@lru_cache(maxsize=4)
def _keystreams(cipher: bytes, size: int) -> npt.NDArray[np.int8]:
    """Return the signs of every nonce's keystream, (NONCES, size)."""
    rows = [
        sign_embedding.bits_of(sign_embedding.stream(cipher, nonce, -(-size // 8)), size) for nonce in range(NONCES)
    ]
    signs: npt.NDArray[np.int8] = 1 - 2 * np.stack(rows).astype(np.int8)
    return signs


GAUSSIAN_SHADING = Pattern(
    radii=sign_embedding.RADII,
    distribution=BYTES,
    count=_count,
    write=_write,
    read=sign_embedding.read_values,
    features=sign_embedding.features,
    test=_test,
    compared=sign_embedding.count_values,
    counts="signs",
    realistic=0.2,  # mean .32 after JPEG 25, sixteen images (docs/patterns.md)
    reach=lambda agreement, n: min(0.0, sign_reach(agreement, n) + float(np.log10(NONCES))),
    cosine=False,
    chosen=MESSAGE_BYTES,
)
