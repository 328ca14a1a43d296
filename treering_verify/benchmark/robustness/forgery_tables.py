"""Tables and figure of `forgery`: success by the number of marked images, and how many are safe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treering_detectors import Rate

from treering_verify.report import format_pvalue
from treering_verify.report.findings import Cell, Curve, Curves, Figure, Table

Line = tuple[str, str, int]  # pattern, attack, marked images

SAFE = 0.05
"""Rate of success below which a number of marked images is safe."""


def safe_count(rates: Mapping[int, Rate], *, proven: bool = False) -> int | None:
    """Return the largest number of marked images up to which an attack succeeds in less than 5 % of trials.

    Parameters
    ----------
    rates : mapping
        Success by the number of marked images that the attacker has.
    proven : bool
        Take the upper end of the 95 % Clopper-Pearson interval instead of the rate itself.

    Returns
    -------
    int or None
        None where even the smallest number is not safe.
    """
    safe = None
    for count in sorted(rates):
        if (rates[count].interval()[1] if proven else rates[count].value) >= SAFE:
            break
        safe = count
    return safe


def safe_table(succeeded: Mapping[Line, Rate], patterns: Sequence[str], forges: Mapping[str, bool]) -> Table:
    """Return how many images a key may mark, by pattern and attack, and against all forgeries together."""
    lines: list[tuple[Cell, ...]] = []
    for pattern in patterns:
        least: list[tuple[int | None, int | None]] = []
        for attack, forgery in forges.items():
            rates = {count: rate for (p, a, count), rate in succeeded.items() if (p, a) == (pattern, attack)}
            safe, proven = safe_count(rates), safe_count(rates, proven=True)
            broken = next((count for count in sorted(rates) if safe is None or count > safe), None)
            if forgery:
                least.append((safe, proven))
            lines.append(
                (
                    pattern,
                    attack,
                    _what(forgery),
                    _said(safe),
                    rates[safe] if safe is not None else None,
                    "beyond what was tested" if broken is None else str(broken),
                    rates[broken] if broken is not None else None,
                    _said(proven),
                )
            )
        smallest = [min(-1 if value is None else value for value in column) for column in zip(*least, strict=True)]
        safe, proven = (None if value < 0 else value for value in smallest)
        lines.append((pattern, "any of them", _what(True), _said(safe), None, "", None, _said(proven)))
    return Table(
        "How many images a key may mark",
        ("pattern", "attack", "against", "safe", "success there", "no longer safe", "success there", "safe, proven"),
        tuple(lines),
        f"Safe: with this number of marked images, and with fewer, the attack succeeds in less than {100 * SAFE:.0f} % of "
        "trials. Proven: the upper end of the interval is below that too. 'not even 0': not so even without any marked "
        "image. Replace a key before it has marked more images. Only numbers that were tested are named.",
    )


def success_table(
    succeeded: Mapping[Line, Rate], medians: Mapping[Line, tuple[float, float]], forges: Mapping[str, bool]
) -> Table:
    """Return the success of every attack with every number of marked images."""
    return Table(
        "Success by the number of marked images that the attacker has",
        ("pattern", "attack", "against", "marked images", "succeeds", "median p under the key", "PSNR (dB)"),
        tuple(
            (pattern, attack, _what(forges[attack]), count, rate, *_medians(medians[pattern, attack, count]))
            for (pattern, attack, count), rate in succeeded.items()
        ),
        "Forgery succeeds at p <= 1e-6, removal at p > 1e-6, without search. Intervals: 95 % Clopper-Pearson; trials with "
        "the same leaked images are not independent. PSNR: median, relative to the image before the attack; a reprompted "
        "image is a new image. With 0 marked images the attacker uses unmarked ones, as a control.",
    )


def kinds_table(succeeded: Mapping[tuple[str, str, int, str], Rate]) -> Table:
    """Return the success of forgeries by the kind of the foreign image."""
    kinds = sorted({kind for *_, kind in succeeded})
    lines = dict.fromkeys((pattern, attack, count) for pattern, attack, count, _ in succeeded)
    return Table(
        "Forgeries by the kind of the foreign image",
        ("pattern", "attack", "marked images", *kinds),
        tuple((*line, *(succeeded.get((*line, kind)) for kind in kinds)) for line in lines),
        "A forgery works on images that the model could have generated; it changes photographs and textures visibly.",
    )


def figure(succeeded: Mapping[Line, Rate], patterns: Sequence[str], attacks: Sequence[str]) -> Figure:
    """Return a figure of success against the number of marked images, a panel for each pattern."""
    panels = []
    for pattern in patterns:
        curves = []
        for attack in attacks:
            points = sorted((n, r.value) for (p, a, n), r in succeeded.items() if (p, a) == (pattern, attack) and n > 0)
            curves.append(Curve(attack, tuple(float(n) for n, _ in points), tuple(share for _, share in points)))
        panels.append(Curves(f"Pattern {pattern}", "marked images", "share of successes", tuple(curves), log_x=True))
    return Figure(
        "Success of attacks on a key",
        tuple(panels),
        f"A number of marked images is safe where the share is below {SAFE:g}.",
    )


def _medians(values: tuple[float, float]) -> tuple[str, str]:
    return format_pvalue(values[0]), f"{values[1]:.1f}"


def _what(forgery: bool) -> str:
    return "forgery" if forgery else "removal"


def _said(count: int | None) -> str:
    return "not even 0" if count is None else str(count)
