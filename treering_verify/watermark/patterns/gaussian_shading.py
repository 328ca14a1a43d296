"""`gaussian-shading`: a message of up to 256 bits, repeated over all of the noise and encrypted (Yang et al., CVPR 2024).

After arXiv 2404.04956. Value i of the noise gets the sign of bit i mod m of the message's m bits, XOR bit i of a ChaCha20
keystream. A key's numbers are 64 bytes: 32 of the cipher's key, 32 of the message, filled up with zeros, which are no part
of it: a short message is repeated more often, and read more surely.

A keystream that is used twice leaks: two images of one key and nonce have the *same signs everywhere*, so whoever
has several can average the key out, and they look alike. So each image has its own nonce, one of 256, by a hash of the noise
that it is written into. The verifier cannot know which, tries all and multiplies the p-value by 256.

The test for the key's own message is exact: the keystream's bits are fair coins to whoever made the image without the key,
so the signs agree with the key's as coins do, weighted by the sizes that the image shows (`treering_detectors.sign_tests`).
`read_message` finds the likeliest message, whatever it is, and its p-value, exact too for each nonce
(`treering_detectors.vote_test`), says whether there is any.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from treering_verify.watermark.patterns import sign_embedding as whole
from treering_verify.watermark.patterns.base import BYTES, Layout, Numbers, Pattern, sign_reach

if TYPE_CHECKING:
    import torch
    from treering_detectors import Evidence

CIPHER_BYTES, MESSAGE_BYTES = 32, 32
BITS = 8 * MESSAGE_BYTES
NONCES = 256


def _count(layout: Layout) -> int:
    if whole.count_values(layout) < BITS:
        raise ValueError(f"gaussian-shading needs {BITS} values of noise: use more channels or a larger model")
    return CIPHER_BYTES + MESSAGE_BYTES


def _write(noise: torch.Tensor, layout: Layout, numbers: Numbers) -> torch.Tensor:
    cipher, message = _split(numbers)
    nonces = [int.from_bytes(found[:8], "big") % NONCES for found in whole.digest(noise)]
    size = whole.count_values(layout)
    return whole.write_signs(
        noise, layout, (_keystreams(cipher, size)[nonces] * _repeat(message, size)).astype(np.float64)
    )


def _test(features: Numbers, numbers: Numbers) -> list[Evidence]:
    """Test for the key's own message under every nonce; the best p-value times their number."""
    from treering_detectors import Evidence, sign_tests

    cipher, message = _split(numbers)
    signs = _keystreams(cipher, features.shape[1]) * _repeat(message, features.shape[1])
    found = []
    for row in features:
        best = _best(row, signs)
        (evidence,) = sign_tests(row, signs[best])
        corrected = min(0.0, evidence.log10_pvalue + np.log10(NONCES))
        found.append(Evidence.from_log10(evidence.detector, evidence.statistic, corrected, evidence.degrees_of_freedom))
    return found


def _best(row: Numbers, signs: npt.NDArray[np.int8]) -> int:
    """Nonce whose test statistic is the largest; all share one law, so it has the smallest p-value too."""
    from treering_detectors import sign_weights

    weights = sign_weights(row[None])[0] * np.where(row >= 0, 1, -1)
    return int(np.argmax(signs.astype(np.float64) @ weights))


def read_message(features: Numbers, numbers: Numbers) -> tuple[bytes, Evidence]:
    """Likeliest message under a key whose own message plays no part.

    Parameters
    ----------
    features : (n,)
        Of one image.
    numbers : (64,)
        The key's: the cipher's half is used, and of the message how long it is.

    Returns
    -------
    message : bytes
        As long as the key's.
    evidence : Evidence
        Whether there is any message; the best p-value over the nonces times their number.
    """
    from treering_detectors import Evidence, sign_weights, vote_test

    cipher, message = _split(numbers)
    bits = 8 * len(message)
    signs, groups = _keystreams(cipher, len(features)), np.arange(len(features)) % bits
    weights = sign_weights(features[None])[0] * np.where(features >= 0, 1, -1)
    padded = np.zeros((NONCES, -(-len(features) // bits) * bits))
    padded[:, : len(features)] = signs * weights
    votes = padded.reshape(NONCES, -1, bits).sum(axis=1)
    evidence, found = vote_test(features, signs[np.argmax(np.abs(votes).sum(axis=1))], groups)
    corrected = min(0.0, evidence.log10_pvalue + np.log10(NONCES))
    return np.packbits(found < 0).tobytes(), Evidence.from_log10(
        evidence.detector, evidence.statistic, corrected, evidence.degrees_of_freedom
    )


def _split(numbers: Numbers) -> tuple[bytes, bytes]:
    data = numbers.astype(np.uint8).tobytes()
    return data[:CIPHER_BYTES], data[CIPHER_BYTES:].rstrip(b"\0") or b"\0"


def _repeat(message: bytes, size: int) -> npt.NDArray[np.int8]:
    signs: npt.NDArray[np.int8] = 1 - 2 * whole.bits_of(message, 8 * len(message)).astype(np.int8)
    return np.resize(signs, size)


@lru_cache(maxsize=4)
def _keystreams(cipher: bytes, size: int) -> npt.NDArray[np.int8]:
    """Signs of every nonce's keystream, (NONCES, size)."""
    rows = [whole.bits_of(whole.stream(cipher, nonce, -(-size // 8)), size) for nonce in range(NONCES)]
    signs: npt.NDArray[np.int8] = 1 - 2 * np.stack(rows).astype(np.int8)
    return signs


GAUSSIAN_SHADING = Pattern(
    radii=whole.RADII,
    law=BYTES,
    count=_count,
    write=_write,
    read=whole.read_values,
    features=whole.features,
    test=_test,
    compared=whole.count_values,
    counts="signs",
    realistic=0.2,  # 0.19 after JPEG 25 on sixteen images (docs/patterns.md)
    reach=lambda agreement, n: min(0.0, sign_reach(agreement, n) + float(np.log10(NONCES))),
    cosine=False,
)
