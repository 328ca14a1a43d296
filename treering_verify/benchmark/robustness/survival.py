"""What the default of `verify`, with its search, finds after each of twelve attacks."""

from __future__ import annotations

from collections.abc import Sequence

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.conditions import QUICK, STAND_INS, TWELVE, Condition, available
from treering_verify.benchmark.harness.rates import ALPHAS, STRICT, Series, pooled
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.harness.trials import EXACT, KEYS
from treering_verify.benchmark.robustness.measurements import Measurements, Task, measure_tasks
from treering_verify.benchmark.robustness.robustness import rows_of
from treering_verify.benchmark.robustness.tables import as_verified, blank_share, median_p, of_what_is_left, series_of
from treering_verify.models import LatentModel
from treering_verify.report.findings import Cell, Findings, Table

MAIN = "random"
"""Pattern under whose keys unmarked images are judged."""
_PATTERNS = (MAIN, "rings", "centre-signs")


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Judge marked images, each under its own key, and as many unmarked ones, each under a new key, all attacked alike."""
    count = scope.images(4, 96)
    patterns = _PATTERNS[:2] if scope.quick else _PATTERNS
    conditions, left_out = available(QUICK if scope.quick else TWELVE, model)
    marked = dict.fromkeys(patterns, count)
    tasks = [Task(condition, marked, count, searched_unmarked=(MAIN,)) for condition in conditions]
    found = measure_tasks(model, scope, tasks)
    return Findings(
        "survival",
        BENCHMARKS["survival"].question,
        tuple(rows_of(found)),
        (_mean(found, conditions, patterns, left_out), _by_condition(found, conditions, patterns)),
        seeds=f"{SEEDS['robustness']} onwards, keys likewise; each image under its own key",
        count=f"{count} marked by each pattern and {count} unmarked, under each condition",
        answer=_answer(found, conditions),
    )


def _answer(found: Measurements, conditions: Sequence[Condition]) -> str:
    every, seen = (
        [_verified(found, MAIN, condition.attack, blanks=blanks) for condition in conditions]
        for blanks in (True, False)
    )
    return (
        f"Over {len(conditions)} conditions {pooled([one.tpr(STRICT) for one in every])} of the images marked by {MAIN} are "
        f"found at {STRICT:g}, without blank ones {pooled([one.tpr(STRICT) for one in seen])}. Of unmarked images "
        f"{pooled([one.fpr(ALPHAS[0]) for one in every])} reach p <= {ALPHAS[0]:g}."
    )


def _mean(
    found: Measurements, conditions: Sequence[Condition], patterns: Sequence[str], left_out: Sequence[str]
) -> Table:
    lines: list[tuple[Cell, ...]] = []
    for pattern in patterns:
        for blanks in (True, False):
            some = [_verified(found, pattern, condition.attack, blanks=blanks) for condition in conditions]
            named = [_as_it_is(found, pattern, condition.attack, blanks=blanks).named for condition in conditions]
            rates = (pooled([one.tpr(alpha) for one in some]) for alpha in (*ALPHAS, STRICT))
            accused = (
                pooled([one.fpr(alpha) for one in some]) if blanks and pattern == MAIN else None
                for alpha in (*ALPHAS, STRICT)
            )
            lines.append((pattern, "all" if blanks else "without blank ones", *rates, pooled(named), *accused))
    lost = [
        f"{condition.name} {share}"
        for condition in conditions
        for share in [blank_share(found, patterns, condition.attack)]
        if share.successes
    ]
    return Table(
        "Mean over the conditions",
        (
            "pattern",
            "marked images",
            *(f"found at p <= {alpha:g}" for alpha in (*ALPHAS, STRICT)),
            f"named among {KEYS}",
            *(f"unmarked, p <= {alpha:g}" for alpha in (*ALPHAS, STRICT)),
        ),
        tuple(lines),
        f"{len(conditions)} conditions: {', '.join(condition.name for condition in conditions)}. {STAND_INS} As `verify` "
        "judges by default: with its search, where the pattern can be searched; p is corrected for it. Unmarked images "
        f"are judged under {MAIN} alone. Named: the own key is the nearest of {KEYS} on the image as it is, since so many "
        "keys are not searched. Rates count all conditions together, with 95 % Clopper-Pearson intervals, a little too "
        "narrow since the images are the same under each. "
        f"Blank: of one colour on 95 % or more of its area after the attack ({'; '.join(lost) or 'none'})."
        + "".join(f" Left out: {reason}." for reason in left_out),
    )


def _by_condition(found: Measurements, conditions: Sequence[Condition], patterns: Sequence[str]) -> Table:
    lines: list[tuple[Cell, ...]] = []
    for condition in conditions:
        for pattern in patterns:
            one = _verified(found, pattern, condition.attack)
            bare = _as_it_is(found, pattern, condition.attack)
            lines.append(
                (
                    condition.name,
                    pattern,
                    one.tpr(STRICT),
                    bare.tpr(STRICT),
                    one.tpr(ALPHAS[0]),
                    median_p(one),
                    bare.named,
                )
            )
    return Table(
        "By condition",
        (
            "condition",
            "pattern",
            f"found at p <= {STRICT:g}",
            "the same without search",
            f"found at p <= {ALPHAS[0]:g}",
            "median p",
            f"named among {KEYS}",
        ),
        tuple(lines),
    )


def _verified(found: Measurements, pattern: str, attack: str, *, blanks: bool = True) -> Series:
    return _series(found, pattern, attack, as_verified(pattern), blanks)


def _as_it_is(found: Measurements, pattern: str, attack: str, *, blanks: bool = True) -> Series:
    return _series(found, pattern, attack, EXACT, blanks)


def _series(found: Measurements, pattern: str, attack: str, detector: str, blanks: bool) -> Series:
    one = (series_of if blanks else of_what_is_left)(found, pattern, attack, detector)
    assert one is not None  # every pattern is judged under every condition
    return one
