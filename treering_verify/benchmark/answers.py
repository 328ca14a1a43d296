"""The answer of a benchmark in a sentence or two, from its rows: the figures that matter most, with their counts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from treering_detectors import Rate

Row = Mapping[str, Any]
Rows = Sequence[Row]


def answer_of(name: str, rows: Rows) -> str:
    """Return the answer of a benchmark; "" where its rows have none, or it has no function here."""
    return _ANSWERS[name](rows) if rows and name in _ANSWERS else ""


def _where(rows: Rows, **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def _rate(flags: Iterable[bool]) -> Rate:
    found = [bool(flag) for flag in flags]
    return Rate(sum(found), len(found))


def _median(rows: Rows, column: str) -> float:
    return statistics.median(row[column] for row in rows)


def _first(rows: Rows, column: str) -> Any:
    return rows[0][column]


def _least(rows: Rows, group: str, column: str) -> tuple[str, float, str, float]:
    """Return the groups with the smallest and the largest median of a column, each with the median."""
    names = dict.fromkeys(row[group] for row in rows)
    medians = {
        name: _median([r for r in _where(rows, **{group: name}) if r[column] is not None], column) for name in names
    }
    low, high = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    return low, medians[low], high, medians[high]


def _detected(rows: Rows) -> Rate:
    import math

    return _rate(row["log10_pvalue"] <= math.log10(row["alpha"]) for row in rows)


def _detection(rows: Rows) -> str:
    some = _where(rows, pattern=_first(rows, "pattern"), method=_first(rows, "method"))
    clean = _where(some, attack="clean")
    hardest = some[-1]["attack"]
    return (
        f"At {some[0]['alpha']:g} and without an attack, {_detected(_where(clean, truth='marked'))} of marked "
        "images are detected; "
        f"after {hardest}, {_detected(_where(some, truth='marked', attack=hardest))}. Of unmarked images, "
        f"{_detected(_where(some, truth='unmarked'))} are."
    )


def _classified(rows: Rows) -> str:
    last = _where(rows, set=rows[-1]["set"], attack=_first(rows, "attack"))
    last = last or _where(rows, set=rows[-1]["set"])
    rates = {
        name: _rate(row["actual"] == row["predicted"] for row in _where(last, method=name))
        for name in ("ours", "encoder")
        if _where(last, method=name)
    }
    said = "; ".join(f"{name}: {rate}" for name, rate in rates.items())
    return f"Right answers in the set '{last[0]['set']}', {last[0]['attack']}: {said}."


def _classifier(rows: Rows) -> str:
    lines = []
    for attack in list(dict.fromkeys(row["attack"] for row in rows))[:1]:
        for method in dict.fromkeys(row["method"] for row in rows):
            found = _where(rows, attack=attack, method=method)
            lines.append(f"{method} {_rate(row['actual'] == row['predicted'] for row in found)}")
    return f"Right answers, {_first(rows, 'attack')}: {'; '.join(lines)}."


def _uniformity(rows: Rows) -> str:
    named = [column for column in rows[0] if column not in ("pattern", "image", "kind", "attack", "key")]
    some = _where(rows, pattern=_first(rows, "pattern"))
    said = [f"{column} {_rate(10 ** row[column] <= 0.01 for row in some)}" for column in named]
    return f"Unmarked images and fresh keys with p <= 0.01, pattern {some[0]['pattern']}: {'; '.join(said)}."


def _chance(rows: Rows) -> str:
    counted = [row for row in rows if row.get("mean_counted") is not None and row.get("deviation_computed")]
    if not counted:
        return ""
    row = max(counted, key=lambda one: one["alpha"])
    return (
        f"At {row['alpha']:g} one key of pattern {row['pattern']} accuses {row['mean_counted']:.3g} images on "
        "average over simulated keys, "
        f"{row['mean_computed']:.3g} as computed; the deviation between keys is {row['deviation_counted']:.3g}, and "
        f"{row['deviation_computed']:.3g} as computed."
    )


def _identification(rows: Rows) -> str:
    most = max(row["keys"] for row in rows)
    some = _where(rows, keys=most, attack=_first(rows, "attack"))
    marked, unmarked = _where(some, truth="marked"), _where(some, truth="unmarked")
    return (
        f"Among {most:,} keys, {_rate(row['detected'] and row['right'] for row in marked)} of marked images get "
        "their key's name, "
        f"and {_rate(row['detected'] for row in unmarked)} of unmarked ones a name. A search takes "
        f"{_median(some, 'seconds'):.3g} s once the image is inverted."
    )


def _agreement(rows: Rows) -> str:
    low, least, high, most = _least(rows, "pattern", "statistic")
    return f"The median agreement of clean marked images is between {least:.3f} ({low}) and {most:.3f} ({high})."


def _readout(rows: Rows) -> str:
    low, least, high, most = _least(_where(rows, truth="marked"), "point", "log10_pvalue")
    return (
        f"Most evidence is read at {low} (median log10 p {least:.1f} over the attacks), least at {high} ({most:.1f})."
    )


def _baseline(rows: Rows) -> str:
    low, least, high, most = _least(rows, "method", "seconds")
    return f"The fastest is {low} ({least:.3g} s), the slowest {high} ({most:.3g} s, {most / least:.1f} times as long)."


def _cocoercivity(rows: Rows) -> str:
    said = []
    for name in dict.fromkeys(row["method"] for row in rows):
        fell = [row["distance_fell"] for row in _where(rows, method=name) if row["distance_fell"] is not None]
        if fell:
            said.append(f"{name} {_rate(fell)}")
    return f"Images whose distance to the limit never grew along the path: {'; '.join(said)}." if said else ""


def _shared(rows: Rows) -> str:
    marked = _where(rows, truth="marked")
    pages = {(row["chain"], row["image"]) for row in marked}
    found = {(row["chain"], row["image"]) for row in marked if row["verdict"] == "detected"}
    plain = {(row["chain"], row["image"]) for row in marked if row["as_it_is"]}
    others = [row["log10_pvalue"] <= -2 for row in rows if row["truth"] == "another key"]
    said = f" Of keys that marked nothing, {_rate(others)} reach p <= 0.01 by the search." if others else ""
    found_rate = Rate(len(found), len(pages))
    return f"Without a search {Rate(len(plain), len(pages))} of the pages are detected, with it {found_rate}.{said}"


def _coverage(rows: Rows) -> str:
    off = _where(rows, search="off")
    changes = list(dict.fromkeys((row["change"], row["image"]) for row in rows))
    found = {(row["change"], row["image"]) for row in rows if row["found"]}
    return (
        f"Without a search {_rate(row['found'] for row in off)} of the marks are found, and with the levels of "
        "the search, one after "
        f"another, {Rate(len(found), len(changes))}."
    )


def _robustness(rows: Rows) -> str:
    some = _where(rows, pattern=_first(rows, "pattern"), method=_first(rows, "method"))
    marked, unmarked = _where(some, truth="marked"), _where(some, truth="unmarked")
    names = dict.fromkeys(row["attack"] for row in marked)
    worst = max(names, key=lambda attack: _median(_where(marked, attack=attack), "log10_pvalue"))
    return (
        f"Over {len(names)} conditions, {_rate(row['log10_pvalue'] <= -6 for row in marked)} of the images "
        f"marked by {some[0]['pattern']} "
        f"are detected at 1e-6, fewest under {worst} "
        f"({_rate(row['log10_pvalue'] <= -6 for row in _where(marked, attack=worst))}). "
        f"Of processed unmarked images {_rate(row['log10_pvalue'] <= -2 for row in unmarked)} reach p <= 0.01."
    )


def _paired(other: str, name: str) -> Callable[[Rows], str]:
    """Return the answer of a benchmark that judges the same marked images in two ways; `other` is a column of log10 p."""

    def answer(rows: Rows) -> str:
        seen = [row for row in rows if not row["blank"]]
        pairs = [(row["log10_pvalue"] <= -6, row[other] <= -6) for row in seen]
        return (
            f"Of images that are not blank {_rate(new for new, _ in pairs)} are found at 1e-6, {name} "
            f"{_rate(old for _, old in pairs)}: {sum(new and not old for new, old in pairs)} only by the default, "
            f"{sum(old and not new for new, old in pairs)} only {name}."
        )

    return answer


def _gain(rows: Rows) -> str:
    ways = [name for name in rows[0] if name not in ("condition", "seed", "blank")]
    found = {way: [row[way] <= -6 for row in rows if not row["blank"]] for way in ways}
    rates = ", ".join(f"by {way} {_rate(some)}" for way, some in reversed(found.items()))

    def only(one: str, other: str) -> str:
        return f"{sum(a > b for a, b in zip(found[one], found[other], strict=True))} only by {one}"

    pairs = [f"{only(new, old)} and {only(old, new)}" for old, new in combinations(ways, 2)]
    return f"Of images that are not blank are found at 1e-6: {rates}. In pairs: {', '.join(pairs)}."


def _patterns(rows: Rows) -> str:
    low, least, high, most = _least(_where(rows, truth="marked"), "pattern", "log10_pvalue")
    return f"Most evidence has {low} (median log10 p {least:.1f} over the attacks), least {high} ({most:.1f})."


def _annulus(rows: Rows) -> str:
    keyed = [row for row in rows if row["pattern"] != "unmarked"]
    best = min(keyed, key=lambda row: row["log10_pvalue"])
    found = Rate(best["detected"], best["judged"])
    return (
        f"Most evidence has {best['pattern']} {best['inner_radius']}-{best['outer_radius']} on "
        f"{best['channels']} channels: mean of the "
        f"attacks' median log10 p {best['log10_pvalue']:.1f}, {found} of judged images detected."
    )


def _forgery(rows: Rows) -> str:
    said = []
    for forges, what in ((True, "forge"), (False, "remove")):
        some = [row for row in rows if row["forges"] is forges]
        for count in sorted({row["marked_images"] for row in some})[:1]:
            few = _where(some, marked_images=count)
            hit = [(row["log10_pvalue"] <= -6) is forges for row in few]
            said.append(
                f"with {count} marked image{'' if count == 1 else 's'} the attacks that {what} a mark do so in "
                f"{_rate(hit)}"
            )
    return f"{'; '.join(said)} of trials, at 1e-6.".capitalize() if said else ""


def _quality(rows: Rows) -> str:
    own = next(row for row in rows if row["variant"] == "unmarked")
    low, least, high, most = _least([row for row in rows if row is not own], "variant", "distance")
    return (
        f"The distance of images of one key from unmarked ones is between {least:.3g} ({low}) and {most:.3g} "
        f"({high}); unmarked images "
        f"of other seeds have {own['distance']:.3g}."
    )


def _throughput(rows: Rows) -> str:
    rounds = [row for row in rows if row.get("round") is not None]
    whole = rows[-1]
    return (
        f"Verification in batches takes {_median(rounds, 'batch'):.3f} s an image, "
        f"{_median(rounds, 'ratio'):.2f} times faster than one by "
        f"one. {100 * (1 - whole['network_seconds'] / whole['profiled_seconds']):.1f} % of the time is spent "
        "outside the networks."
    )


def _audit(rows: Rows) -> str:
    turns = [row for row in rows if row.get("part") == "throughput"]
    folders = [row for row in rows if row.get("part") == "model without weights"]
    share = statistics.median(turn["bare"] / turn["audit"] for turn in turns)
    return (
        f"An audit runs at {100 * share:.0f} % of the speed of the bare model loop. From {folders[0]['files']:,} to "
        f"{folders[-1]['files']:,} files its peak memory grows by "
        f"{100 * (folders[-1]['peak'] / folders[0]['peak'] - 1):.1f} %."
    )


def _screening(rows: Rows) -> str:
    said = []
    for name in list(dict.fromkeys(row["pass"] for row in rows))[:1]:
        some = _where(rows, **{"pass": name})
        found = [row["detected"] for row in some if row["detected_in_full"]]
        said.append(
            f"The pass '{name}' alone decides {_rate(row['decided_by'] == 'first' for row in some)} of the images"
        )
        if found:
            said.append(f"of the images that full inversion detects, two passes detect {_rate(found)}")
    return f"{'; '.join(said)}."


def _precision(rows: Rows) -> str:
    said = []
    decoder = [row for row in rows if row.get("part") == "decoder"]
    method = decoder[-1]["method"]
    for kind in dict.fromkeys(row["precision"] for row in decoder):
        some = _where(decoder, method=method, precision=kind)
        error = statistics.fmean(row["nmse_db"] for row in some)
        said.append(f"{kind} {error:.2f} dB in {_median(some, 'seconds'):.3g} s an image")
    return f"Decoder inversion by {method}: {'; '.join(said)}."


def _sizes(rows: Rows) -> str:
    single = [row for row in rows if row.get("frames") == 1 and row.get("peak_mib")]
    gradient = _where(single, method="gradient", precision="float32", tile=0) or _where(single, method="gradient")
    free = _where(single, method="forward-step", precision="float32", tile=0) or _where(single, method="forward-step")
    if not gradient or not free:
        return ""
    one, other = gradient[0], free[0]
    return (
        f"At {one['height']} x {one['width']} pixels a step of the gradient baseline takes "
        f"{one['seconds_step']:.2f} s and a peak of "
        f"{one['peak_mib']:.0f} MiB, a forward step {other['seconds_step']:.2f} s and {other['peak_mib']:.0f} MiB."
    )


def _videos(rows: Rows) -> str:
    said = [
        f"{row['method']} takes {100 * row['share_of_gradient']:.1f} % ({row['autoencoder']})"
        for row in rows
        if row["method"] == "forward-step"
    ]
    return f"Of the gradient baseline's tensors, {'; '.join(said)}." if said else ""


def _errors(column: str, group: str) -> Callable[[Rows], str]:
    """Return a function that names the methods with the smallest and the largest median error."""

    def answer(rows: Rows) -> str:
        low, least, high, most = _least([row for row in rows if row[column] is not None], group, column)
        return f"The smallest median error has {low} ({least:.1f} dB), the largest {high} ({most:.1f} dB)."

    return answer


_ANSWERS: dict[str, Callable[[Rows], str]] = {
    "ablation": _errors("nmse_db", "optimiser"),
    "agreement": _agreement,
    "annulus-pareto": _annulus,
    "audit": _audit,
    "baseline": _baseline,
    "chance": _chance,
    "classification": _classified,
    "classifier": _classifier,
    "cocoercivity": _cocoercivity,
    "coverage": _coverage,
    "detection": _detection,
    "editing": _errors("background_nmse_db", "method"),
    "forgery": _forgery,
    "gain": _gain,
    "heldout": _errors("nmse_db", "method"),
    "identification": _identification,
    "inversion": _errors("nmse_db", "method"),
    "noise": _errors("error_db", "method"),
    "pareto": _errors("nmse_db", "method"),
    "over-exposure": _paired("unrestored", "without restoration"),
    "patterns": _patterns,
    "precision": _precision,
    "quality": _quality,
    "readout": _readout,
    "robustness": _robustness,
    "screening": _screening,
    "shared": _shared,
    "sizes": _sizes,
    "throughput": _throughput,
    "uniformity": _uniformity,
    "videos": _videos,
}
