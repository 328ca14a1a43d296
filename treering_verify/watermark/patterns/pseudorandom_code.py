"""`pseudorandom-code`: signs that satisfy secret parity checks, different in every image (Gunn et al., ICLR 2025).

After arXiv 2410.07369 and Christ and Gunn, arXiv 2402.09370. With n values of noise, the first n / 8 positions of a secret
order hold fair bits, drawn anew for every image; each later one is the XOR of two earlier ones, which the key names. The
codeword is XORed with a secret pad of n bits and becomes the signs of the noise. So each image of a key has other signs, and
all satisfy the same n - n / 8 checks of three signs. A key's numbers are the 32 bytes that order, checks and pad come from.

The test. Let e_i in (-1, 1) be the expected sign of value i, given the image. Check j finds the product of its three e_i;
the published statistic adds w_j = atanh |product| where the check holds and subtracts it where it does not, and bounds its
tail by Hoeffding (`published_log10_pvalue`). More is true: the checks are linearly independent, because each has a position
that no earlier one has, so under a fresh pad their outcomes are independent fair coins, whatever the image and the checks.
The statistic, its weights rounded, then has the law of `treering_detectors.sign_tests`, and the p-value is exact.

Only detection is here: the code's free bits are random, and carry no message.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from treering_verify.watermark.patterns import sign_embedding as whole
from treering_verify.watermark.patterns.base import BYTES, Layout, Numbers, Pattern, sign_reach, sign_test

if TYPE_CHECKING:
    import torch
    from treering_detectors import Evidence

SEED_BYTES = 32
_LEAST = 256
_ORDER, _CHECKS, _PAD, _FREE = range(4)  # nonces of the seed's streams; those of images lie above
# Cosine between noise and its estimate for which the weights are best; the test is exact for any.
_COSINE = 0.7


class Code(NamedTuple):
    """A secret code over n positions.

    Attributes
    ----------
    order : (n,)
        Position in the noise of each position of the code.
    pairs : (r, 2)
        Earlier positions of the code, of which position n - r + j is the XOR.
    pad : (n,) of 0 or 1
        By position of the code.
    """

    order: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.int64]
    pad: npt.NDArray[np.uint8]


@lru_cache(maxsize=4)
def code_of(seed: bytes, n: int) -> Code:
    """Derive order, checks and pad from a key's 32 bytes, by ChaCha20 under a nonce for each."""
    words = np.frombuffer(whole.stream(seed, _ORDER, 8 * n), dtype=">u8")
    order = np.argsort(words, kind="stable")
    free = _free_bits(n)
    drawn = np.frombuffer(whole.stream(seed, _CHECKS, 16 * (n - free)), dtype=">u8").reshape(-1, 2)
    earlier = np.arange(free, n, dtype=np.uint64)
    first = drawn[:, 0] % earlier
    second = (first + 1 + drawn[:, 1] % (earlier - 1)) % earlier  # another one
    pad = whole.bits_of(whole.stream(seed, _PAD, -(-n // 8)), n)
    return Code(order, np.stack([first, second], axis=1).astype(np.int64), pad)


def codeword_signs(code: Code, free_bits: npt.NDArray[np.uint8]) -> Numbers:
    """Signs, (n,), of the codeword with these free bits, in the order of the noise."""
    bits = free_bits.tolist()
    for first, second in code.pairs.tolist():
        bits.append(bits[first] ^ bits[second])
    signs = np.empty(len(code.order))
    signs[code.order] = 1.0 - 2.0 * (np.array(bits, dtype=np.uint8) ^ code.pad)
    return signs


def check_products(features: Numbers, code: Code) -> tuple[Numbers, Numbers]:
    """Evidence of each check, (B, r), from the image and the checks alone; and what the pad makes of it, +1 or -1."""
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
    """log10 of the published bound of p (Hoeffding), (B,); at least the exact p but for the rounding of weights."""
    from treering_detectors import hoeffding_log10_pvalue

    weights, signs = check_products(features, code_of(_seed(numbers), features.shape[1]))
    return hoeffding_log10_pvalue(weights @ signs, weights)


def _count(layout: Layout) -> int:
    if whole.count_values(layout) < _LEAST:
        raise ValueError(f"pseudorandom-code needs {_LEAST} values of noise: use more channels or a larger model")
    return SEED_BYTES


def _write(noise: torch.Tensor, layout: Layout, numbers: Numbers) -> torch.Tensor:
    size, seed = whole.count_values(layout), _seed(numbers)
    code, free = code_of(seed, size), _free_bits(size)
    signs = []
    for found in whole.digest(noise):
        nonce = (_FREE << 94) + (int.from_bytes(found[:12], "big") >> 2)  # two bits keep it apart from those above
        signs.append(codeword_signs(code, whole.bits_of(whole.stream(seed, nonce, -(-free // 8)), free)))
    return whole.write_signs(noise, layout, np.stack(signs))


def _test(features: Numbers, numbers: Numbers) -> list[Evidence]:
    return sign_test(*check_products(features, code_of(_seed(numbers), features.shape[1])))


def _compared(layout: Layout) -> int:
    size = whole.count_values(layout)
    return size - _free_bits(size)


def _free_bits(n: int) -> int:
    return n // 8


def _seed(numbers: Numbers) -> bytes:
    return numbers.astype(np.uint8).tobytes()


PSEUDORANDOM_CODE = Pattern(
    radii=whole.RADII,
    law=BYTES,
    count=_count,
    write=_write,
    read=whole.read_values,
    features=whole.features,
    test=_test,
    compared=_compared,
    counts="parity checks",
    # 0.29 on clean images, but by checks that weigh more unequally than Gaussian features, so that p is that of 0.22;
    # nothing is left after JPEG 25 (docs/patterns.md).
    realistic=0.22,
    reach=sign_reach,
    cosine=False,
)
