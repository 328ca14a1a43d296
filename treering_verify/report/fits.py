"""What a fit brought, as lines of text and as the card of its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def format_fit(facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], ways: Sequence[str]) -> Iterator[str]:
    """Yield a Markdown table of a held-out report, a line an attack.

    Parameters
    ----------
    facts : mapping
        The filters' `Inverter.facts`, among which is the "report".
    rows : sequence of mapping
        As `fit_report.summary_rows` returns them.
    ways : sequence of str
        Ways of inversion, the fitted one last.
    """
    report, others, marked = facts["report"], ways[:-1], f"gain over {ways[0]}" in rows[0]
    header = ["attack"]
    if marked:
        header += (
            [f"log10 p, {way}" for way in ways] + [f"gain over {way} (95 %)" for way in others] + ["found at 1e-6"]
        )
    header += [
        "latent error, encoder",
        "change by the default",
        "by filters (95 %)",
        "worst image",
        "worse by > 0.1 dB",
    ]
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        cells = [row["attack"]]
        if marked:
            cells += [f"{row[f'median {way}']:.1f}" for way in ways]
            cells += [f"{row[f'gain over {way}']:+.1f} {_range(row[f'interval over {way}'])}" for way in others]
            cells.append(", ".join(str(row[f"found {way}"]) for way in ways) + f" of {report['images']}")
        cells += [
            f"{row['latent']:.2f} dB",
            f"{row['latent default']:+.2f}",
            f"{row['latent change']:+.2f} {_range(row['interval of latent change'], 2)}",
            f"{row['worst latent change']:+.2f}",
            f"{row['latents worse']} of {report['images']}",
        ]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    seconds = ", ".join(f"{way} {spent:.2f} s" for way, spent in report["seconds"].items())
    images = (
        "marked images, each under a key of its own, none fitted to; median log10 p, and the median of the paired gains"
    )
    if not marked:
        images = "crops of photographs, none fitted to, coded by the autoencoder"
    times = (facts.get("processor_seconds"), report.get("processor_seconds"))
    took = "" if None in times else f" The fit took {times[0]:.0f} s of a processor, this report {times[1]:.0f} s."
    yield f"{report['images']} {images}. An image takes: {seconds}.{took} {report['machine']}, {report['date']}."


def _range(interval: Sequence[float], digits: int = 1) -> str:
    return f"({interval[0]:+.{digits}f} to {interval[1]:+.{digits}f})"


def card_of(facts: Mapping[str, Any], conclusion: str, lines: Sequence[str]) -> str:
    """Return the card (README.md) of a fit's folder."""
    experts = "\n".join(f"- {name}: {', '.join(some)}" for name, some in facts["attacks"].items())
    warned = f"\n**Warning**: {facts['warning']}.\n" if "warning" in facts else ""
    reported = "\n".join(["", "## Held-out report", "", conclusion + ".", "", *lines]) if lines else ""
    return f"""# Inverter of {facts["model"]}

Linear filters that invert this one model, fitted in closed form by `treering models fit` (treering-verify
{facts["version"]}) to {facts["images"]} {facts.get("source", "images that the model generated")}, seeds from
{facts["seed"]}. No key was read. Use them with `--inverter DIR`; beside a local model, in `DIR/inverter`,
they are found. They belong to the weights, the image size and the tiles that config.json names, and are refused elsewhere.
{warned}
## Experts

{experts}
{reported}
"""
