"""`pseudorandom-code`: signs that satisfy secret parity checks, different in every image (Gunn et al., ICLR 2025).

After arXiv 2410.07369 and Christ and Gunn, arXiv 2402.09370. With n values of noise, the first n / 8 positions of a secret
order hold random bits, drawn anew for every image. Each later bit is the XOR of two earlier ones, which the key names. The
codeword is XORed with a secret pad of n bits and becomes the signs of the noise. So the signs differ from image to image of
one key, and all satisfy the same n - n / 8 checks of three signs. A key's numbers are the 32 bytes that order, checks and
pad are derived from.

The test: let e_i in (-1, 1) be the expected sign of value i, given the image. Check j is the product of its three e_i. The
published statistic adds w_j = atanh |product| if the check holds and subtracts it if not, and bounds the tail by Hoeffding's
inequality (`published_log10_pvalue`). More is true. The checks are linearly independent, because each has a position that no
earlier one has. So under a fresh pad their outcomes are independent random signs, whatever the image and the checks are. The
statistic with rounded weights is then that of `treering_detectors.sign_tests`, and its p-value is exact.

The pattern is for detection only: the free bits of the code are random and carry no message.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from treering_verify.watermark.patterns import sign_embedding
from treering_verify.watermark.patterns.base import BYTES, Layout, Numbers, Pattern, sign_reach, sign_test

if TYPE_CHECKING:
    import torch
    from treering_detectors import Evidence

SEED_BYTES = 32
_LEAST = 256
_ORDER, _CHECKS, _PAD, _FREE = range(4)  # nonces of the streams of a seed; those of images are larger
# Cosine of noise and estimate for which the weights are best; the test is exact for any value.
_COSINE = 0.7


class Code(NamedTuple):
    """A secret code over n positions.

    Attributes
    ----------
    order : (n,)
        Position in the noise for each position of the code.
    pairs : (r, 2)
        The two earlier positions of the code whose XOR is position n - r + j.
    pad : (n,) of 0 or 1
        The secret pad, by position of the code.
    """

    order: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.int64]
    pad: npt.NDArray[np.uint8]


@lru_cache(maxsize=4)
def code_of(seed: bytes, n: int) -> Code:
    """Derive order, checks and pad from a key's 32 bytes, by ChaCha20 with a nonce for each."""
    words = np.frombuffer(sign_embedding.stream(seed, _ORDER, 8 * n), dtype=">u8")
    order = np.argsort(words, kind="stable")
    free = _free_bits(n)
    drawn = np.frombuffer(sign_embedding.stream(seed, _CHECKS, 16 * (n - free)), dtype=">u8").reshape(-1, 2)
    earlier = np.arange(free, n, dtype=np.uint64)
    first = drawn[:, 0] % earlier
    second = (first + 1 + drawn[:, 1] % (earlier - 1)) % earlier  # never the same as the first
    pad = sign_embedding.bits_of(sign_embedding.stream(seed, _PAD, -(-n // 8)), n)
    return Code(order, np.stack([first, second], axis=1).astype(np.int64), pad)


def codeword_signs(code: Code, free_bits: npt.NDArray[np.uint8]) -> Numbers:
    """Return the signs, (n,), of the codeword with these free bits, in the order of the noise."""
    bits = free_bits.tolist()
    for first, second in code.pairs.tolist():
        bits.append(bits[first] ^ bits[second])
    signs = np.empty(len(code.order))
    signs[code.order] = 1.0 - 2.0 * (np.array(bits, dtype=np.uint8) ^ code.pad)
    return signs


def check_products(features: Numbers, code: Code) -> tuple[Numbers, Numbers]:
    """Return atanh of each check's product, (B, r), from image and checks alone, and the pad's sign of each, (r,)."""
    from scipy.special import erf

    largest = np.abs(features).max(axis=1, keepdims=True)
    scaled = features / np.where(largest > 0, largest, 1.0)
    rms = np.sqrt(np.mean(scaled**2, axis=1, keepdims=True))
    slope = _COSINE / np.sqrt(2 * (1 - _COSINE**2))
    expected = erf(slope * scaled / np.where(rms > 0, rms, 1.0))[:, code.order]
    free = len(code.order) - len(code.pairs)
    product = expected[:, free:] * expected[:, code.pairs[:, 0]] * expected[:, code.pairs[:, 1]]
    pad = 1 - 2 * code.pad.astype(np.float64)
    limit = np.nextafter(1.0, 0.0)
    return np.arctanh(product.clip(-limit, limit)), pad[free:] * pad[code.pairs[:, 0]] * pad[code.pairs[:, 1]]


def published_log10_pvalue(features: Numbers, numbers: Numbers) -> Numbers:
    """Return log10 of the published bound on p (Hoeffding), (B,): at least the exact p, up to the rounding of weights."""
    from treering_detectors import hoeffding_log10_pvalue

    weights, signs = check_products(features, code_of(_seed(numbers), features.shape[1]))
    return hoeffding_log10_pvalue(weights @ signs, weights)


def _count(layout: Layout) -> int:
    if sign_embedding.count_values(layout) < _LEAST:
        raise ValueError(
            f"pseudorandom-code needs {_LEAST} values of noise: use more channels or a model with a larger latent"
        )
    return SEED_BYTES


def _write(noise: torch.Tensor, layout: Layout, numbers: Numbers) -> torch.Tensor:
    size, seed = sign_embedding.count_values(layout), _seed(numbers)
    code, free = code_of(seed, size), _free_bits(size)
    signs = []
    for found in sign_embedding.digest(noise):
        nonce = (_FREE << 94) + (int.from_bytes(found[:12], "big") >> 2)  # two bits tell it from those of the streams
        signs.append(
            codeword_signs(code, sign_embedding.bits_of(sign_embedding.stream(seed, nonce, -(-free // 8)), free))
        )
    return sign_embedding.write_signs(noise, layout, np.stack(signs))


def _test(features: Numbers, numbers: Numbers) -> list[Evidence]:
    return sign_test(*check_products(features, code_of(_seed(numbers), features.shape[1])))


def _compared(layout: Layout) -> int:
    size = sign_embedding.count_values(layout)
    return size - _free_bits(size)


def _free_bits(n: int) -> int:
    return n // 8


def _seed(numbers: Numbers) -> bytes:
    return numbers.astype(np.uint8).tobytes()


PSEUDORANDOM_CODE = Pattern(
    radii=sign_embedding.RADII,
    distribution=BYTES,
    count=_count,
    write=_write,
    read=sign_embedding.read_values,
    features=sign_embedding.features,
    test=_test,
    compared=_compared,
    counts="parity checks",
    # Mean .29 on clean images, but the weights of checks are more unequal than those of Gaussian features, so p is that of
    # .22; nothing is left after JPEG 25 (docs/patterns.md).
    realistic=0.22,
    reach=sign_reach,
    cosine=False,
)
