"""What the filters of an autoencoder alone bring: fits one to photographs, and judges it on other photographs.

    PYTHONPATH=.:detectors:tests python tests/helpers/measuring/autoencoder_gain.py AUTOENCODER [--image-size 128]

Photographs are those that scikit-image, scikit-learn and matplotlib bring, two of five of them to be judged on, or those of
folders: --photographs and --held-out-photographs. No photograph is on both sides. Prints a Markdown table: by how much the
latent's error changes against E(x) after each attack, the worst image, and how many end more than .1 dB above E(x).
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from treering_detectors import Rate

import treering_verify as tv
from treering_verify.inversion.recovery import InversionOptions, recover_latent
from treering_verify.media.images import open_image
from treering_verify.models import LatentModel
from treering_verify.models.inverter import Inverter, carrying
from treering_verify.training.attack_table import REPORTED
from treering_verify.training.closed_form import fit
from treering_verify.training.examples import FitOptions, attacked, photographed
from treering_verify.training.fit_report import TOLERANCE
from treering_verify.training.memory import Memory, remembering

MAIN = ("clean", "jpeg:quality=50", "jpeg:quality=25")
MORE = (*(one for one in REPORTED if one not in (*MAIN, "jpeg:quality=45")), "screenshot")
NAMES = (
    "astronaut brick camera cell chelsea clock_motion coffee coins grass gravel hubble_deep_field ihc moon motorcycle_left "
    "page retina rocket text china flower grace_hopper"
)
FOLDERS = (("skimage", "data"), ("sklearn", "datasets/images"), ("matplotlib", "mpl-data/sample_data"))
SEED = 1000


def packaged() -> list[Path]:
    """Return the photographs and scans that packages of this project's environment bring, one of each scene."""
    from importlib import import_module

    folders = [Path(str(import_module(package).__file__)).parent / folder for package, folder in FOLDERS]
    found = {file.stem: file for folder in folders for file in sorted(folder.iterdir())}
    return [found[name] for name in NAMES.split()]


def judged(
    model: LatentModel, inverter: Inverter, photographs: Sequence[Any], counts: Sequence[tuple[str, int]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield attacks, and by how many dB the error of each latent changes against E(x)."""
    made, memory = photographed(model, photographs, max(count for _, count in counts), SEED), Memory()
    kept = remembering(model, memory)
    carrier = carrying(kept, inverter)

    def decibels(latent: torch.Tensor, row: int) -> float:
        return float(20 * torch.log10((latent - made.latents[row]).norm()))

    for attack, count in counts:
        change = []
        for row in range(count):
            memory.clear()
            image = attacked(made.images[row : row + 1], [attack], SEED, row)
            latent = recover_latent(carrier, image, InversionOptions(method="filtered")).latent[0]
            change.append(decibels(latent, row) - decibels(kept.encode(image)[0], row))
        yield attack, np.array(change)


def main() -> None:
    """Parse the command line, fit, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("autoencoder")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--held-out-photographs", type=Path)
    parser.add_argument("--images", type=int, default=FitOptions.images)
    parser.add_argument("--kernel", type=int, default=FitOptions.kernel)
    parser.add_argument("--count", type=int, default=64, help="held-out crops, clean and after JPEG 50 and 25")
    parser.add_argument("--more", type=int, default=20, help="held-out crops after each other attack")
    parser.add_argument("--filters", type=Path, help="folder for the filters; filters that lie there are judged")
    chosen = parser.parse_args()

    model = tv.load_model(chosen.autoencoder, image_size=(chosen.image_size,) * 2)
    files = sorted(chosen.photographs.iterdir()) if chosen.photographs else packaged()
    order = [files[i] for i in np.random.default_rng(SEED).permutation(len(files))]
    held = 2 * len(order) // 5
    others = order[:held]
    if chosen.held_out_photographs:
        held, others = 0, sorted(chosen.held_out_photographs.iterdir())
    for file in (*order, *others):
        open_image(file)
    started = time.process_time()
    options = FitOptions(images=chosen.images, kernel=chosen.kernel, stages=1)
    if chosen.filters and (chosen.filters / "config.json").exists():
        inverter = Inverter.load(chosen.filters)
    else:
        inverter = fit(model, options=options, photographs=order[held:])
        if chosen.filters:
            inverter = inverter.save(chosen.filters)
    spent = time.process_time() - started

    print("| attack | change (mean) | worst image | more than .1 dB above E(x) |\n|---|---|---|---|")
    counts = [*((attack, chosen.count) for attack in MAIN), *((attack, chosen.more) for attack in MORE)]
    worse = trials = 0
    for attack, change in judged(model, inverter, others, [each for each in counts if each[1]]):
        above = int((change > TOLERANCE).sum())
        worse, trials = worse + above, trials + len(change)
        print(
            f"| {attack} | {change.mean():+.2f} dB | {change.max():+.2f} dB | {Rate(above, len(change))} |", flush=True
        )
    print(f"| all | | | {Rate(worse, trials)} |\n")
    print(
        f"{inverter.facts['source']}; {inverter.facts['images']} crops of {chosen.image_size} pixels a side; judged on "
        f"crops of {len(others)} others; fit {spent:.0f} s of a processor; {datetime.datetime.now(datetime.UTC).date()}"
    )


if __name__ == "__main__":
    main()
