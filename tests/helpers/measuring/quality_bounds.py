"""How many marks are found in compressed files inside of the bounds of quality, and outside of them.

    PYTHONPATH=.:detectors:tests python tests/helpers/measuring/quality_bounds.py DIR

DIR is the output of `treering benchmark coverage`. Its compressed pages are made again, since it stores no files.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from treering_detectors import Rate

import treering_verify as tv
from treering_verify.benchmark.harness.keyed_images import generate_each
from treering_verify.benchmark.harness.resized_pages import FILE, PAGES
from treering_verify.benchmark.harness.scope import SEEDS
from treering_verify.detection.decision import decide
from treering_verify.media.compression import compression_of
from treering_verify.results import KeyEvidence
from treering_verify.watermark.keys.key import Key

NOTHING = (KeyEvidence("key", "00", 0.0, 0.0, 0.0, 1024),)


def main() -> None:
    """Print both rates, by the search `quick`."""
    import pyarrow.parquet as pq

    stored = pq.read_table(Path(sys.argv[1]) / "coverage.parquet").to_pylist()
    rows = {(row["change"], row["image"]): row["found"] for row in stored if row["search"] == "quick"}
    count, first, model = max(number for _, number in rows) + 1, SEEDS["coverage"], tv.load_model("landscape")
    keys = [Key.generate(model.latent_shape, seed=first + i) for i in range(count)]
    images = generate_each(model, keys, range(first, first + count), lambda: None)
    found = Counter[tuple[bool, bool]]()
    for chain in PAGES:
        for number in range(count):
            page, _ = chain.apply(images, number)
            if FILE not in page.info or (chain.name, number) not in rows:
                continue
            told = compression_of(page.info[FILE])
            assert told is not None
            side = page.width / model.image_size[1]
            compressed = (told.format, told.bits / (model.latent_shape[1] * model.latent_shape[2]), told.step)
            said = decide(NOTHING, 1e-6, "", "tolerance", sides=(side, side), compressed=compressed)
            found[said.code != "quality", rows[chain.name, number]] += 1
    for inside, words in ((True, "inside of the bounds"), (False, "outside of them")):
        print(f"{words}: {Rate(found[inside, True], found[inside, True] + found[inside, False])}")


if __name__ == "__main__":
    main()
