r"""Find the keys nearest to an image among millions: one pass over a matrix of numbers, in bounded memory.

The cosine test's p-value falls with the cosine, so the strongest of N keys of d numbers are those of the largest
:math:`\langle a, k \rangle / |k|`, one matrix product. It is taken block by block in float32, only the best rows are kept,
and those are tested again in float64. So the pass chooses which keys are tested, and changes no p-value.

Stored numbers may be rounded ones, s for k. Then :math:`|\cos(a, k) - \cos(a, s)| \le \delta`, the length of
k/|k| - s/|s|, by Cauchy and Schwarz, whatever a is. `bounded_cosine_tests` tests cos(a, s) - :math:`\delta`, so its
p-value is valid: it is never smaller than that of the exact key.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from treering_detectors.arrays import real_array, unit_rows
from treering_detectors.evidence import Evidence
from treering_detectors.exact import COSINE, cosine_log10_pvalue, cosine_tests

# Numbers in a block: 2 MiB in float32, so that a block stays in a core's cache from its conversion to its product.
BLOCK_NUMBERS = 1 << 19
_IMPOSSIBLE = 1.5  # rounding makes no cosine as large as this
_HALF_BITS = np.int32(-0x70002000)  # sign, and the fifteen bits of a half where a float's exponent and mantissa begin
_HALF_SCALE = 2.0**112  # the difference of the exponents' biases, 127 - 15


def nearest_rows(
    features: ArrayLike, numbers: NDArray[np.floating], lengths: ArrayLike, keep: int, threads: int = 1
) -> NDArray[np.int64]:
    """Return the rows of a matrix with the largest cosine to each image's features.

    Parameters
    ----------
    features : array_like, shape (B, d)
        One row per image, finite; rows of zeros have cosine 0 with everything.
    numbers : ndarray of float16, float32 or float64, shape (N, d)
        One row per key; may be a memory map, of which one block at a time is touched.
    lengths : array_like, shape (N,)
        Euclidean length of each row, > 0.
    keep : int
        Rows to return, at least 1.
    threads : int
        Threads that share the rows; fewer run if there are few blocks of rows.

    Returns
    -------
    ndarray of int64, shape (B, min(keep, N))
        Per image, in ascending order of the row.

    Raises
    ------
    ValueError
        If shapes or types do not match, or a cosine is NaN or far beyond 1 (the numbers are damaged).

    Notes
    -----
    Products are summed in float32 (in float64 for float64 numbers), so a cosine is wrong by at most d 2^-24, and two
    rows closer than twice that may be ranked either way. Keep more rows than you need, and rank them again. Memory
    does not grow with N: each thread takes about 6 bytes for each of `BLOCK_NUMBERS` numbers, and `keep` rows.
    """
    a = real_array("features", features, (2,))
    length = np.asarray(lengths)
    if numbers.ndim != 2 or a.shape[1] != numbers.shape[1] or length.shape != numbers.shape[:1]:
        raise ValueError(
            f"features {a.shape}, numbers {numbers.shape} and lengths {length.shape} do not match; "
            "pass (B, d), (N, d) and (N,)"
        )
    if numbers.dtype not in (np.float16, np.float32, np.float64):
        raise ValueError(f"numbers has type {numbers.dtype}; pass float16, float32 or float64")
    if keep < 1:
        raise ValueError(f"keep is {keep}; keep at least 1 row")
    directions = unit_rows(a).T
    if numbers.dtype == np.float16:
        directions = directions * _HALF_SCALE
    directions = np.ascontiguousarray(directions, dtype=np.float64 if numbers.dtype == np.float64 else np.float32)
    size = max(1, BLOCK_NUMBERS // max(1, numbers.shape[1]))
    shares = max(1, min(threads, len(numbers) // size))
    bounds = [len(numbers) * i // shares for i in range(shares + 1)]
    # BLAS on one thread each: its own threads would wait for each other at every block.
    with threadpool_limits(1, "blas") if shares > 1 else nullcontext(), ThreadPoolExecutor(shares) as pool:
        parts = list(
            pool.map(
                lambda start, stop: _best_of(directions, numbers, length, keep, range(start, stop), size),
                bounds[:-1],
                bounds[1:],
            )
        )
    if not len(a):
        return np.empty((0, min(keep, len(numbers))), np.int64)
    return np.stack([np.sort(_joined(list(of_image), keep)[1]) for of_image in zip(*parts, strict=True)])


def bounded_cosine_tests(features: ArrayLike, numbers: ArrayLike, drifts: ArrayLike) -> list[Evidence]:
    """Run `treering_detectors.cosine_tests` on one image and rounded keys, with p-values that stay valid.

    Parameters
    ----------
    features : array_like, shape (d,)
        As those of `treering_detectors.cosine_test`.
    numbers : array_like, shape (n, d)
        Rounded numbers of n keys.
    drifts : array_like, shape (n,)
        `direction_drift` of each key; 0 where nothing was rounded.

    Returns
    -------
    list of Evidence
        n of them. The statistic is a lower bound of the exact key's cosine and the p-value an upper bound of its
        p-value; both are exact where the drift is 0.

    Raises
    ------
    ValueError
        As `cosine_test`, or if a drift is negative or not finite.
    """
    drift = np.asarray(drifts, dtype=np.float64)
    if not np.all((drift >= 0) & np.isfinite(drift)):
        raise ValueError(
            f"drifts (shape {drift.shape}) holds NaN, infinity or a negative value; pass those of direction_drift"
        )
    found = cosine_tests(features, np.asarray(numbers, dtype=np.float64))
    if not drift.any() or not np.any(features):
        return found
    cosines = np.clip(np.array([e.statistic for e in found]) - drift, -1.0, 1.0)
    degrees = found[0].degrees_of_freedom
    pairs = zip(cosines.tolist(), cosine_log10_pvalue(cosines, degrees).tolist(), strict=True)
    return [Evidence.from_log10(COSINE, c, p, degrees) for c, p in pairs]


def direction_drift(numbers: ArrayLike, stored: ArrayLike) -> NDArray[np.float64]:
    """Return how far rounding turns each key: |k/|k| - s/|s||, which bounds the change of any cosine with it.

    Parameters
    ----------
    numbers, stored : array_like, shape (n, d)
        Exact and rounded numbers; no row all zero.

    Returns
    -------
    ndarray of float64, shape (n,)
        0 where nothing was rounded, else rounded up. About 2e-4 for float16 and 3e-8 for float32, whatever d is.
    """
    k, s = np.asarray(numbers, dtype=np.float64), np.asarray(stored, dtype=np.float64)
    turn = k / np.linalg.norm(k, axis=1, keepdims=True) - s / np.linalg.norm(s, axis=1, keepdims=True)
    drift = np.linalg.norm(turn, axis=1)
    rounded: NDArray[np.float64] = np.where((k == s).all(axis=1), 0.0, drift * (1 + 1e-6) + 1e-15)
    return rounded


def holm_leading(log10_pvalues: ArrayLike, hypotheses: int) -> NDArray[np.float64]:
    """Return Holm-adjusted logarithms of the smallest p-values of many hypotheses.

    Holm's adjusted p-value of rank i needs the ranks before it only, so the smallest few can be adjusted exactly
    without the others: max over j <= i of (m - j + 1) p_(j), at most 1.

    Parameters
    ----------
    log10_pvalues : array_like, shape (n,)
        Base-10 logarithms of the n smallest p-values, ascending, <= 0.
    hypotheses : int
        Count m >= n of all hypotheses tested.

    Returns
    -------
    ndarray of float64, shape (n,)
        Logarithms of the adjusted p-values, ascending, <= 0.

    Raises
    ------
    ValueError
        If the p-values are not ascending, or m < n.

    References
    ----------
    S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979.
    """
    log10 = np.asarray(log10_pvalues, dtype=np.float64)
    if log10.ndim != 1 or hypotheses < len(log10):
        raise ValueError(
            f"log10_pvalues has shape {log10.shape} for {hypotheses} hypotheses; pass (n,) with n <= hypotheses"
        )
    if np.any(log10[1:] < log10[:-1]) or np.any(log10 > 0) or np.isnan(log10).any():
        raise ValueError("log10_pvalues must be ascending logarithms of p-values, at most 0; sort them, and drop NaN")
    factors = hypotheses - np.arange(len(log10))
    adjusted: NDArray[np.float64] = np.maximum.accumulate(log10 + np.log10(factors)).clip(max=0)
    return adjusted


_Best = tuple[NDArray[np.floating], NDArray[np.int64]]  # the largest cosines, descending, and their rows


def _best_of(
    directions: NDArray[np.floating],
    numbers: NDArray[np.floating],
    length: NDArray[np.floating],
    keep: int,
    rows: range,
    size: int,
) -> list[_Best]:
    """Return the `keep` best of some rows for each column of `directions`, (d, B), reading `size` rows at a time."""
    spare = np.empty((min(size, len(rows)), numbers.shape[1]), dtype=np.int32)
    best: list[_Best] = [(np.empty(0), np.empty(0, dtype=np.int64))] * directions.shape[1]
    for start in range(rows.start, rows.stop, size):
        stop = min(start + size, rows.stop)
        cosines = _widen(numbers[start:stop], spare) @ directions
        cosines /= length[start:stop, None]
        if not (np.abs(cosines) < _IMPOSSIBLE).all():  # also false for NaN
            raise ValueError(f"numbers (rows {start} to {stop - 1}) give a cosine beyond 1 or NaN: they are damaged")
        highest = cosines.max(axis=0)
        for image, leading in enumerate(best):
            floor = leading[0][-1] if len(leading[0]) == keep else -np.inf
            if highest[image] > floor:
                new = np.flatnonzero(cosines[:, image] > floor)
                best[image] = _joined([leading, (cosines[new, image], new + start)], keep)
    return best


def _joined(parts: list[_Best], keep: int) -> _Best:
    """Return the `keep` largest of several lists."""
    values, rows = (np.concatenate(some) for some in zip(*parts, strict=True))
    order = np.argsort(-values, kind="stable")[:keep]  # the earlier row first among equals
    return values[order], rows[order]


def _widen(block: NDArray[np.floating], spare: NDArray[np.int32]) -> NDArray[np.floating]:
    """Return float16 numbers as float32, exactly 2^-112 times as large, and other types unchanged.

    NumPy's own conversion takes 3 ns a number on processors whose half-precision unit it does not use. Here the bits of
    a float16 are moved to their places in a float32, which gives the same number except for the exponent's bias.
    Numbers below 2^-14 become floats below 2^-126, which are exact too. Infinity and NaN become large finite numbers,
    which the caller takes for damage.
    """
    if block.dtype != np.float16:
        return block
    bits = spare[: len(block)]
    np.copyto(bits, block.view(np.int16))  # extends the sign to the upper bits, of which the mask leaves the highest
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _HALF_BITS, out=bits)
    return bits.view(np.float32)
