"""Compare what an audit costs with what it costs in another checkout: `audit_cost.py OTHER FOLDER [ROUNDS]`.

FOLDER is made, if it does not exist, with 24 generated images of each kind and a key. The two checkouts audit each kind by
turns, at their defaults, all images and then one, in processes of their own with one thread. Printed are processor seconds
of the whole command, children included, the ratio with a 95 % interval of the rounds' log ratios (Student), and an image's
own cost: what all files take more than one, over the rest. `git worktree add --detach OTHER 6ac0df2` makes OTHER.
"""

from __future__ import annotations

import math
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

from PIL import Image
from scipy.stats import t

HERE = Path(__file__).resolve().parents[3]
COUNT = 24
BICUBIC = Image.Resampling.BICUBIC
KINDS: dict[str, tuple[str, str, Callable[[Image.Image], Image.Image]]] = {
    "marked": ("marked", "png", lambda image: image),
    "unmarked": ("unmarked", "png", lambda image: image),
    "marked, resized to 192": ("marked", "png", lambda image: image.resize((192, 192), BICUBIC)),
    "unmarked, resized to 192": ("unmarked", "png", lambda image: image.resize((192, 192), BICUBIC)),
    "marked, JPEG 50": ("marked", "jpg", lambda image: image),
    "marked, cropped to .9": ("marked", "png", lambda image: image.crop((6, 6, 122, 122)).resize((128, 128), BICUBIC)),
}
"""Kinds of images: which were generated, suffix, and what was done to them."""


def run(checkout: Path, *arguments: object) -> float:
    """Run a command of a checkout, and return its processor seconds."""
    path = os.pathsep.join([str(checkout), str(checkout / "detectors")])
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "treering_verify", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, cwd="/", env={**os.environ, **threads, "PYTHONPATH": path})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make(folder: Path, other: Path) -> None:
    """Make the key and the images by the other checkout, whose keys both can read."""
    folder.mkdir(parents=True)
    run(other, "keygen", "--output", folder / "key.json", "--name", "mark")
    for name, given, seed in (("marked", ["--key", folder / "key.json"], 7000), ("unmarked", ["--unmarked"], 8000)):
        run(other, "generate", *given, "--count", COUNT, "--seed", seed, "--output", folder / "made" / name)
    for kind, (source, suffix, changed) in KINDS.items():
        (folder / kind).mkdir()
        for path in (folder / "made" / source).glob("*.png"):
            options = {"quality": 50} if suffix == "jpg" else {}
            changed(Image.open(path).convert("RGB")).save(folder / kind / f"{path.stem}.{suffix}", **options)


def audit(checkout: Path, option: str, folder: Path, paths: list[Path]) -> float:
    """Audit paths at the defaults, and return processor seconds."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    return run(checkout, "audit", *paths, option, folder / "key.json", "--output", folder / "out", "--quiet")


def main(other: Path, folder: Path, rounds: int) -> None:
    if not folder.exists():
        make(folder, other)
    sides = ((other, "--keys"), (HERE, "--key"))
    for kind in KINDS:
        seconds: dict[tuple[Path, bool], list[float]] = {}
        for number in range(rounds):
            for all_of_them in (True, False):
                paths = sorted((folder / kind).iterdir()) if all_of_them else sorted((folder / kind).iterdir())[:1]
                for checkout, option in sides if number % 2 == 0 else sides[::-1]:
                    seconds.setdefault((checkout, all_of_them), []).append(audit(checkout, option, folder, paths))
        before, now = seconds[other, True], seconds[HERE, True]
        logs = [math.log(b / a) for a, b in zip(before, now, strict=True)]
        half = t.ppf(0.975, rounds - 1) * stdev(logs) / math.sqrt(rounds) if rounds > 1 else math.nan
        low, ratio, high = (math.exp(mean(logs) + by) for by in (-half, 0, half))
        own = [(mean(seconds[one, True]) - mean(seconds[one, False])) / (COUNT - 1) for one in (other, HERE)]
        print(
            f"{kind}: {mean(before):.1f} s before, {mean(now):.1f} s now, ratio {ratio:.2f} [{low:.2f}, {high:.2f}]; "
            f"an image: {own[0]:.2f} and {own[1]:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), int(sys.argv[3]) if len(sys.argv) > 3 else 3)
