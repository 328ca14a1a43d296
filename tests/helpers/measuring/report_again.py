"""`PYTHONPATH=.:tests python tests/helpers/measuring/report_again.py MODEL FOLDER IMAGES OUTPUT [PROMPTS]`
measures the held-out report of a fitted folder again, on IMAGES marked images, and writes the folder with it to OUTPUT.

Nothing is fitted: filters and networks are those of FOLDER. PROMPTS is a text file with one prompt a line. The first report
is that of `treering models fit`; a further one is due when the seeds, the attacks or the inversion have changed.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import treering_verify as tv
from treering_verify.models.inverter import Inverter
from treering_verify.report.fits import card_of, format_fit
from treering_verify.training.examples import FitOptions
from treering_verify.training.fit_report import conclusion, held_out_report, summary_rows, ways_of


def main(name: str, folder: str, images: str, output: str, prompts: str | None = None) -> None:
    """Measure the report and save the folder anew."""
    inverter = Inverter.load(Path(folder))
    report = held_out_report(
        tv.load_model(name),
        inverter,
        images=int(images),
        prompts=Path(prompts).read_text(encoding="utf-8").splitlines() if prompts else None,
        options=FitOptions(generation_steps=inverter.facts.get("generation_steps", FitOptions().generation_steps)),
        progress=lambda what, done, total: print(f"{what}: {done} of {total}", file=sys.stderr, flush=True),
    )
    facts = {**inverter.facts, "report": report}
    summary, lines = conclusion(report), list(format_fit(facts, summary_rows(report), ways_of(report)))
    replace(inverter, facts=facts).save(Path(output), card_of(facts, summary, lines))
    print("\n".join([summary, *lines]))


if __name__ == "__main__":
    main(*sys.argv[1:])
