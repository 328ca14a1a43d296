"""The page of an audit: one HTML file without external parts, small whatever the audit's size."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from treering_verify.files import printable
from treering_verify.media.images import CODES
from treering_verify.models.provenance import utc_now
from treering_verify.report.audit.audit_reader import AuditRows
from treering_verify.report.audit.digest import ERROR, LABELS, PVALUE_BINS, SAMPLED, SKIPPED, Digest
from treering_verify.report.audit.gallery import Tile, found_words, placement_of
from treering_verify.report.audit.guidance import FURTHER_TERMS, GROUPS, SCREENED, TERMS
from treering_verify.report.chance import chance_sentence, finding_lines
from treering_verify.report.text import format_cell, format_pvalue, words_of_key
from treering_verify.results import DETECTED, INCONCLUSIVE, NO_EVIDENCE

MOST_FOLDERS = 500
REFRESH = 30
_FEW = 400  # judged files under which the histogram has half as many bars
_NAMES = {ERROR: "errors"}


def render(audit: AuditRows, digest: Digest, tiles: Sequence[Tile], note: str = "", live: bool = False) -> str:
    """Return the page as HTML; all text from files is escaped, and the page's only script is allowed by its hash.

    Parameters
    ----------
    audit, digest
        The audit, and the digest of its rows.
    tiles : sequence of Tile
        Images of detected files.
    note : str
        Text above the images, such as why there are no spectra.
    live : bool
        Whether browsers load the page again every `REFRESH` seconds.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("treering_verify.report", "audit"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, style = (
        files("treering_verify.report").joinpath(f"audit/page.{kind}").read_text("utf-8") for kind in ("js", "css")
    )
    panels, verdict = _histogram(digest)
    with_q, two_passes = "q_value" in audit.columns, "decided_by" in audit.summary
    images = [_image(tile, number) for number, tile in enumerate(tiles) if tile.thumbnail]
    numbers = {image["tile"].row["path"]: image["number"] for image in images}
    return environment.get_template("page.html.jinja").render(
        audit=audit,
        digest=digest,
        script=script,
        style=style,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        title=printable(str(audit.folder.resolve().name)),
        cards=_cards(digest),
        chance=_chance(audit),
        findings=list(finding_lines(audit.summary)),
        tiles=tiles,
        images=images,
        groups=GROUPS,
        terms=[
            *((name, says) for name, says in TERMS.items() if name != "q" or with_q),
            *((name, says) for name, says in FURTHER_TERMS.items() if name != SCREENED or two_passes),
        ],
        says=TERMS,
        missing=_missing(tiles),
        note=note,
        refresh=REFRESH if live else 0,
        written=utc_now(),
        rows=[_file_cells(row, label, numbers) for label in LABELS for row in digest.rows.get(label, [])],
        with_q=with_q,
        sample=_sample_sentence(digest),
        folders=_folder_lines(digest),
        labels=LABELS,
        names=_NAMES,
        causes=_cause_lines(digest),
        keys=_key_lines(audit, digest),
        panels=panels,
        histogram_note=verdict,
        two_passes=two_passes,
        facts=_facts(audit),
    )


def _cards(digest: Digest) -> list[dict[str, Any]]:
    """Return for each label its count, and where its part of the bar begins and how wide it is, in per cent."""
    cards, start = [], 0.0
    for label in LABELS:
        count = digest.labels[label]
        share = 100 * count / digest.count if digest.count else 0.0
        text = f"{share:.2g} %" if share < 10 else f"{share:.1f} %"
        cards.append({"label": label, "count": count, "share": text, "start": start, "width": share})
        start += share
    return cards


def _chance(audit: AuditRows) -> str:
    """Return a sentence on how many detections chance alone would give."""
    sentence = chance_sentence(audit.summary)
    return f"Detections that chance alone would give: {sentence}." if sentence else ""


def _key(row: dict[str, Any]) -> str:
    """Return name and fingerprint of a row's key, its origin unless derived, and since when it is retired, if it is."""
    if not row["key"]:
        return ""
    words = words_of_key(row["key"], row["fingerprint"] or "", row.get("key_retired"), row.get("key_origin"))
    return printable(words.removeprefix(" key ").strip())


def _image(tile: Tile, number: int) -> dict[str, Any]:
    row, rings = tile.row, tile.agreement.rings if tile.agreement else ()
    return {
        "tile": tile,
        "number": number,
        "path": printable(row["path"]),
        "key": _key(row),
        "p": _p(row["log10_adjusted"]),
        "words": printable(found_words(row)),
        "points": " ".join(f"{x:.4f},{y:.4f}" for x, y in tile.outline),
        "bars": [
            {
                "ring": ring,
                "x": 318 * i / len(rings),
                "width": 250 / len(rings),
                "height": 34 * abs(cosine),
                "up": cosine >= 0,
                "cosine": f"{cosine:.2f}",
            }
            for i, (ring, cosine) in enumerate(rings)
        ],
    }


def _missing(tiles: Sequence[Tile]) -> list[dict[str, Any]]:
    """Return the count of files without an image for each reason, with the first of them."""
    lines: dict[str, dict[str, Any]] = {}
    for tile in tiles:
        if not tile.thumbnail:
            line = lines.setdefault(
                tile.note, {"reason": printable(tile.note), "path": printable(tile.row["path"]), "count": 0}
            )
            line["count"] += 1
    return list(lines.values())


def _file_cells(row: dict[str, Any], label: str, images: Mapping[str, int]) -> dict[str, Any]:
    """Return the cells of one file as text, with numbers to sort by if the text sorts otherwise."""
    size = f"{row['width']} x {row['height']}" if row["width"] and row["height"] else ""
    cause = f"{row['code']}: {row['reason']}" if row["code"] and row["reason"] else row["code"] or row["reason"] or ""
    return {
        "label": label,
        "rank": LABELS.index(label),
        "path": printable(row["path"]),
        "evidence": _evidence(row) if row["status"] == "ok" else [],
        "image": images.get(row["path"]) if label == DETECTED else None,
        "key": _key(row) if label == DETECTED else "",
        "p": _p(row["log10_adjusted"]),
        "log10": row["log10_adjusted"],
        "q": format_cell(row.get("q_value")),
        "cosine": f"{row['statistic']:.3f}" if row["statistic"] is not None else "",
        "residual": format_cell(row["residual"]),
        "size": size,
        "pixels": (row["width"] or 0) * (row["height"] or 0),
        "cause": printable(cause),
    }


def _evidence(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of a judged file beyond its cells, as pairs of a name and a text."""
    found, placement = row["verdict"] == DETECTED, placement_of(row)
    passes = {"first": "the screening pass", "full": "the full inversion"}
    facts = {
        "p of this key alone": _p(row["log10_pvalue"]) if found else "",
        "numbers compared": format_cell(row["degrees_of_freedom"]) if found else "",
        "found": found_words(row),
        "box": ", ".join(f"{n:g}" for n in placement["box"]) if placement else "",
        "searched": row.get("search") or "",
        "decided by": passes.get(row.get("decided_by") or "", ""),
        "p of the screening pass": _p(row.get("log10_first")),
        "inversion": "" if row["residual"] is None or row["converged"] else "did not converge",
        "SHA-256": row["sha256"] or "",
    }
    return [(name, printable(text)) for name, text in facts.items() if text]


def _p(log10_pvalue: float | None) -> str:
    return "" if log10_pvalue is None else format_pvalue(log10_pvalue)


def _sample_sentence(digest: Digest) -> str:
    """Return a sentence on which of all rows are on the page."""
    if not digest.sampled:
        return f"All {digest.count:,} files."
    rules = {
        DETECTED: "half of them those with the smallest p and half those with the largest",
        INCONCLUSIVE: "those with the smallest p",
        NO_EVIDENCE: "those with the smallest p",
        ERROR: "the first of each code",
        SKIPPED: "the first of each code",
    }
    parts = [
        f"{len(digest.rows[label]):,} of {digest.labels[label]:,} {_NAMES.get(label, label)} ({rules[label]})"
        for label in SAMPLED
        if len(digest.rows[label]) < digest.labels[label]
    ]
    return (
        f"A sample of the {digest.count:,} files: {'; '.join(parts)}; all of the others. "
        "Counts, folders and figures are of all files; treering report --format csv writes every row."
    )


def _folder_lines(digest: Digest) -> dict[str, Any]:
    """Return the folders, ordered by detected files, then errors, then files."""
    lines = sorted(
        digest.folders.items(),
        key=lambda item: (-item[1][DETECTED], -item[1][ERROR], -item[1].total(), item[0]),
    )
    return {
        "all": len(lines),
        "folded": any(name.endswith("/...") for name in digest.folders),
        "lines": [
            {"folder": printable(name) or ".", "total": counts.total(), "counts": [counts[label] for label in LABELS]}
            for name, counts in lines[:MOST_FOLDERS]
        ],
    }


def _cause_lines(digest: Digest) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "code": printable(code),
            "count": count,
            "meaning": CODES.get(code, ""),
            "example": printable(digest.cause_example[label, code]),
        }
        for (label, code), count in sorted(digest.causes.items(), key=lambda item: (-item[1], item[0]))
    ]


def _key_lines(audit: AuditRows, digest: Digest) -> list[dict[str, Any]]:
    """Return every detected key with its count, and if the keys are few, those that were not detected."""
    counts = dict(digest.keys)
    listed = audit.summary.get("keys")
    if isinstance(listed, list) and len(listed) <= MOST_FOLDERS:
        for key in listed:
            counts.setdefault((str(key.get("name", "")), str(key.get("fingerprint", ""))), 0)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_FOLDERS]
    return [{"name": printable(name), "fingerprint": printable(f), "count": n} for (name, f), n in ordered]


def _histogram(digest: Digest) -> tuple[list[dict[str, Any]], str]:
    """Return drawings of the p-values against the uniform distribution, and a sentence on how they fit."""
    panels, sentence = [], ""
    if not digest.pvalue_counts["judged"].any():
        return [], ""
    for name, title in (("judged", "all judged files"), (NO_EVIDENCE, "no evidence")):
        counts = digest.pvalue_counts[name]
        total = int(counts.sum())
        if total < _FEW:
            counts = counts.reshape(PVALUE_BINS // 2, 2).sum(axis=1)
        many = len(counts)
        low, high = _band(total, many)
        panels.append(_panel(f"{title}: {total:,}", [int(n) for n in counts], total / many, low, high))
        if name == NO_EVIDENCE and total:
            outside = int(((counts < low) | (counts > high)).sum())
            sentence = (
                f"Of the {many} bars of 'no evidence', {outside} {'is' if outside == 1 else 'are'} outside the 95 % band "
                f"({0.05 * many:.1g} expected by chance). A heap at small p hints at marks that were nearly removed; "
                "copies of one image share their p and make single bars high."
            )
    return panels, sentence


def _panel(title: str, counts: Sequence[int], expected: float, low: float, high: float) -> dict[str, Any]:
    """Return a histogram's parts in a frame of 340 x 180, y downwards."""
    top = max(*counts, math.ceil(high), 1)

    def y(count: float) -> float:
        return round(180 - 172 * count / top, 2)

    step = 340 / len(counts)
    return {
        "title": title,
        "bars": [
            {"x": round(step * i + 1, 2), "y": y(n), "width": round(step - 2, 2), "height": 180 - y(n), "count": n}
            for i, n in enumerate(counts)
        ],
        "expected": y(expected),
        "low": y(low),
        "high": y(high),
        "top": {"y": y(top) + 4, "count": top},
    }


def _band(total: int, bins: int) -> tuple[float, float]:
    """Return the quantiles 0.025 and 0.975 of a bar's count, which is binomial."""
    import numpy as np
    from scipy.special import (
        bdtrik,
    )  # the number of which the distribution function is given; scipy.stats takes seconds

    if not total:
        return 0.0, 0.0
    low, high = np.ceil(np.maximum(bdtrik(np.array([0.025, 0.975]), total, 1 / bins), 0.0))
    return float(low), float(high)


def _facts(audit: AuditRows) -> dict[str, str]:
    """Return the summary's settings and versions, flat, as text."""
    facts: dict[str, str] = {}
    for name in ("finished", "model", "alpha", "settings_id", "settings", "versions", "seconds", "schema_version"):
        value = audit.summary.get(name)
        if isinstance(value, dict):
            listed = {inner: v for inner, v in sorted(value.items()) if inner != "keys"}  # they have a table
            facts |= {printable(f"{name}: {inner}"): printable(str(v)) for inner, v in listed.items()}
        elif value is not None:
            facts[name] = printable(format_cell(value) if isinstance(value, float) else str(value))
    return facts
