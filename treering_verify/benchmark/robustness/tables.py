"""Tables of `robustness`: mean over the conditions, each condition, inversion methods, published results beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from treering_detectors import Rate

from treering_verify.benchmark import published_figures as published
from treering_verify.benchmark.harness.conditions import STAND_INS, Condition
from treering_verify.benchmark.harness.image_quality import COST_HEADER, COST_NOTE
from treering_verify.benchmark.harness.rates import (
    ALPHAS,
    STRICT,
    Scores,
    Series,
    calibrated_limits,
    exact_limits,
    mean_of,
    pooled,
)
from treering_verify.benchmark.harness.trials import BLANK, EXACT, KEYS, SEARCHED
from treering_verify.benchmark.robustness.measurements import DEFAULT, UNMARKED, Measurements
from treering_verify.detection.calibration.registry import DETECTORS, DISTANCE
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Cell, Table
from treering_verify.watermark.patterns import PATTERNS

LEFT = "exact, blank images left out"
_NOTHING: Scores = np.empty(0)
_PERCENT = {0.01: "1 %", 0.001: "0.1 %"}


def series_of(
    found: Measurements, pattern: str, attack: str, detector: str = EXACT, method: str = DEFAULT
) -> Series | None:
    """Return the scores of a detector under one condition; None where it was not measured."""
    marked = found.marked.get((pattern, method, attack), {})
    if detector not in marked:
        return None
    unmarked = found.unmarked.get((pattern, attack), {}) if method == DEFAULT else {}
    unmarked_scores, rivals = unmarked.get(detector, _NOTHING), marked.get(f"rival {detector}")
    if detector in (EXACT, SEARCHED):
        return Series(-marked[detector], -unmarked_scores, exact_limits(), None if rivals is None else -rivals, KEYS)
    return Series(
        marked[detector], unmarked_scores, calibrated_limits(found.calibration[pattern][detector]), rivals, KEYS
    )


def of_what_is_left(found: Measurements, pattern: str, attack: str, detector: str = EXACT) -> Series | None:
    """Return the scores of a detector without the marked images that the attack made blank."""
    one = series_of(found, pattern, attack, detector)
    if one is None:
        return None
    left = found.marked[pattern, DEFAULT, attack].get(BLANK, np.zeros(len(one.marked))) == 0
    return replace(one, marked=one.marked[left], rivals=None if one.rivals is None else one.rivals[left])


def as_verified(pattern: str) -> str:
    """Return the detector that `verify` is by default: with search, where the pattern can be searched."""
    return SEARCHED if PATTERNS[pattern].searched else EXACT


def summary_table(
    found: Measurements, conditions: Sequence[Condition], patterns: Sequence[str], left_out: Sequence[str]
) -> Table:
    """Return the mean over the conditions by pattern and detector, and the cost of each pattern to the image."""
    lines: list[tuple[Cell, ...]] = []
    for pattern in patterns:
        for detector in (EXACT, LEFT, SEARCHED, *DETECTORS):
            some = [_summarised(found, pattern, condition.attack, detector) for condition in conditions]
            known = [one for one in some if one is not None]
            blank = any(blank_share(found, [pattern], condition.attack).successes for condition in conditions)
            if not known or len(known) < len(some) or (detector == LEFT and not blank):
                continue
            exact = detector == EXACT
            lines.append(
                (
                    pattern,
                    detector,
                    *(pooled([one.tpr(alpha) for one in known]) for alpha in (*ALPHAS, STRICT)),
                    mean_of([one.auc for one in known]),
                    pooled([one.named for one in known]),
                    pooled([one.named_at(STRICT) for one in known]) if exact else None,
                    *(pooled([one.fpr(alpha) for one in known]) for alpha in ALPHAS),
                    _worst(conditions, known),
                    *(found.costs[pattern].cells() if exact else ("",) * len(COST_HEADER)),
                )
            )
    lines.append((UNMARKED, *[None] * 10, *found.costs[UNMARKED].cells()))
    note = (
        f"{len(conditions)} conditions: {', '.join(condition.name for condition in conditions)}. {STAND_INS} Thresholds are "
        "fixed beforehand: exact p <= alpha; for published statistics from other clean unmarked images, and none where "
        "these are too few for the rate. FPR: on unmarked images, processed alike. Rates count all conditions together, "
        "with 95 % Clopper-Pearson intervals, which are slightly too narrow since the images are the same under each. "
        f"Named: the own key is the nearest of {KEYS}; not measured for patterns of keystreams and codes. With search: the "
        f"default of verification; unmarked images are searched under one pattern only. {COST_NOTE}"
    )
    shares = {condition.name: blank_share(found, patterns, condition.attack) for condition in conditions}
    if lost := [f"{name} {rate}" for name, rate in shares.items() if rate.successes]:
        note += f" Marked images with one colour on 95 % or more of their area after the attack: {'; '.join(lost)}."
    if left_out:
        note += f" Left out: {'; '.join(left_out)}."
    return Table(
        "Mean over the conditions",
        (
            "pattern",
            "detector",
            *_tpr_header(),
            "AUC",
            f"named among {KEYS}",
            "named, p <= 1e-6",
            *(f"FPR at {_PERCENT[alpha]}" for alpha in ALPHAS),
            "worst FPR at 1 %",
            *COST_HEADER,
        ),
        tuple(lines),
        note,
    )


def _summarised(found: Measurements, pattern: str, attack: str, detector: str) -> Series | None:
    if detector == LEFT:
        return of_what_is_left(found, pattern, attack)
    return series_of(found, pattern, attack, detector)


def blank_share(found: Measurements, patterns: Sequence[str], attack: str) -> Rate:
    """Return the rate of marked images, of all these patterns, that an attack made nearly uniform in colour."""
    said = [found.marked.get((pattern, DEFAULT, attack), {}).get(BLANK, np.empty(0)) for pattern in patterns]
    return Rate(int(sum(one.sum() for one in said)), sum(map(len, said)))


def conditions_table(found: Measurements, conditions: Sequence[Condition], patterns: Sequence[str]) -> Table:
    """Return the rates of every pattern, condition and detector."""
    lines = [
        (pattern, condition.name, detector, *cells(one, detector))
        for pattern in patterns
        for condition in conditions
        for detector in (EXACT, SEARCHED, *DETECTORS)
        for one in [series_of(found, pattern, condition.attack, detector)]
        if one is not None
    ]
    return Table(
        "By pattern and condition",
        ("pattern", "condition", "detector", *CELLS),
        tuple(lines),
        "'with search': the default of verification, with p corrected for the search, where the pattern can be searched. "
        "Median p: of marked images. 'Refitted': TPR at a threshold fitted to the same unmarked images, as published.",
    )


CELLS = (
    "TPR at 1 %",
    "TPR at 0.1 %",
    "TPR at p <= 1e-6",
    "AUC",
    "median p",
    f"named among {KEYS}",
    "FPR at 1 %",
    "FPR at 0.1 %",
    "TPR at 1 %, refitted",
)


def cells(one: Series, detector: str) -> tuple[Cell, ...]:
    """Return the cells of one line, for the columns `CELLS`."""
    return (
        *(one.tpr(alpha) for alpha in (*ALPHAS, STRICT)),
        one.auc,
        median_p(one) if detector in (EXACT, SEARCHED) else "",
        one.named,
        *(one.fpr(alpha) for alpha in ALPHAS),
        one.refitted(0.01),
    )


def median_p(one: Series) -> str:
    """Return the median p of the marked images, for scores that are -log10 p."""
    return format_pvalue(-float(np.median(one.marked)))


def methods_table(found: Measurements, conditions: Sequence[Condition], methods: Sequence[str], pattern: str) -> Table:
    """Return the rates of the exact test after other inversions; the mean over the conditions comes first."""
    lines: list[tuple[Cell, ...]] = []
    for method in methods:
        known = {
            condition.name: one
            for condition in conditions
            for one in [series_of(found, pattern, condition.attack, EXACT, method)]
            if one is not None
        }
        for name, some in {"mean": list(known.values()), **{name: [one] for name, one in known.items()}}.items():
            if some:
                rates = (pooled([one.tpr(alpha) for one in some]) for alpha in (*ALPHAS, STRICT))
                medians = [float(np.median(one.marked)) for one in some]
                named = pooled([one.named for one in some])
                lines.append((method, name, *rates, format_pvalue(-float(np.mean(medians))), named))
    return Table(
        f"By inversion method, pattern {pattern}",
        ("inversion", "condition", *_tpr_header(), "median p", f"named among {KEYS}"),
        tuple(lines),
        "The exact test, whose p-value is exact after any inversion. Unless it is named, the noise inversion is the "
        "default. In rows 'mean', the median p is the geometric mean of the medians.",
    )


def tree_ring_table(found: Measurements, compared: Sequence[Condition], patterns: Sequence[str]) -> Table:
    """Return our AUC beside Tree-Ring's."""
    lines: list[tuple[Cell, ...]] = []
    if len(compared) == len(published.TREE_RING_AUC["Tree-Ring rings"]) - 1:
        theirs = published.TREE_RING_AUC.items()
        lines += [(f"{name} (published)", *map(_three_digits, values)) for name, values in theirs]
    for pattern in patterns:
        for detector in (EXACT, SEARCHED):
            if detector == SEARCHED and not PATTERNS[pattern].searched:
                continue
            series = [series_of(found, pattern, condition.attack, detector) for condition in compared]
            some = [one.auc if one is not None else None for one in series]
            lines.append((f"{pattern}, {detector}", *map(_three_digits, [*some, mean_of(some)])))
    return Table(
        "AUC beside Tree-Ring's",
        ("scheme", *(condition.name for condition in compared), "mean"),
        tuple(lines),
        f"Published: {published.TREE_RING}, on another model, against unmarked generated images. Ours: against unmarked "
        "photographs and other images, processed alike. Our crop keeps .75 of each side, theirs .75 of the area; our noise "
        "is clipped, theirs wraps around.",
    )


def _three_digits(auc: float | None) -> str | None:
    return None if auc is None else f"{auc:.3f}"


def sfwmark_table(found: Measurements, conditions: Sequence[Condition], patterns: Sequence[str]) -> Table:
    """Return our means over the conditions beside SFWMark's, by their convention: thresholds refitted under each."""
    lines: list[tuple[Cell, ...]] = [
        (f"{name} (published)", tpr, None, named, None) for name, (tpr, named) in published.SFWMARK_MEANS.items()
    ]
    for pattern in patterns:
        for detector in (EXACT, DISTANCE):
            some = [series_of(found, pattern, condition.attack, detector) for condition in conditions]
            known = [one for one in some if one is not None]
            if known and len(known) == len(some):
                lines.append(
                    (
                        f"{pattern}, {detector}",
                        pooled([one.refitted(0.01) for one in known]),
                        pooled([one.tpr(0.01) for one in known]),
                        pooled([one.named for one in known]),
                        _worst(conditions, known),
                    )
                )
    shares = ", ".join(
        f"{scheme} {what} {100 * low:.0f} to {100 * high:.0f} %"
        for (scheme, what), (low, high) in published.SFWMARK_FALSE.items()
    )
    return Table(
        "Means beside SFWMark's",
        ("scheme", "TPR at 1 %, refitted", "TPR at 1 %, fixed", f"named among {KEYS}", "worst FPR at 1 %, fixed"),
        tuple(lines),
        f"Published: {published.SFWMARK}, refitted under each condition. With one threshold from clean images, the false "
        f"positives of their scores on processed unmarked images are: {shares}. {STAND_INS}",
    )


def _worst(conditions: Sequence[Condition], known: Sequence[Series]) -> str:
    """Return the condition with the highest false-positive rate at 1 %, and the rate."""
    rates: list[tuple[Rate, str]] = [
        (rate, condition.name)
        for condition, one in zip(conditions, known, strict=True)
        for rate in [one.fpr(0.01)]
        if rate is not None
    ]
    if not rates:
        return ""
    rate, name = max(rates, key=lambda item: item[0].value)
    return f"{name}: {rate}"


def _tpr_header() -> tuple[str, ...]:
    return (*(f"TPR at {_PERCENT[alpha]}" for alpha in ALPHAS), "TPR at p <= 1e-6")
