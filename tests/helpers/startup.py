"""Measure start-up: `python tests/helpers/startup.py [REPEATS]` prints processor seconds, and how many times `import torch`.

Whole processes are measured, one thread each, in turns, so that what slows the machine slows all of them. What comes before
the work is the time of a `treering verify` of one image less the time that one more image takes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
MORE = 4  # images of the longer run; the more, the less the difference's noise matters


def processor_seconds(*arguments: str) -> float:
    """Run Python on arguments and return the processor seconds, user and system, that the process took."""
    paths = [str(ROOT), str(ROOT / "detectors"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=environment, cwd=ROOT)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {child.returncode}")
    return used.ru_utime + used.ru_stime


def measure(repeats: int) -> dict[str, np.ndarray]:
    """Return processor seconds of each round: importing torch, verifying one image, and all of that before the work."""
    rounds: dict[str, list[float]] = {"import torch": [], "verify one image": [], "before it works": []}
    with tempfile.TemporaryDirectory() as folder:
        key = shutil.copyfile(ROOT / "samples" / "sample.key.json", Path(folder) / "key.json")
        key.chmod(0o600)
        image = str(ROOT / "samples" / "marked-0.png")

        def verify(images: int) -> float:
            return processor_seconds("-m", "treering_verify", "verify", *[image] * images, "--key", str(key))

        for warm in (True, *[False] * repeats):  # the first round reads files that later ones find in memory
            torch, one, more = processor_seconds("-c", "import torch"), verify(1), verify(1 + MORE)
            if not warm:
                found = (torch, one, one - (more - one) / MORE)
                for seconds, value in zip(rounds.values(), found, strict=True):
                    seconds.append(value)
    return {name: np.array(seconds) for name, seconds in rounds.items()}


def interval(values: np.ndarray) -> str:
    """Return mean and 95 % confidence interval (Student's t)."""
    from scipy.stats import sem, t

    half = float(sem(values) * t.ppf(0.975, len(values) - 1)) if len(values) > 1 else float("nan")
    return f"{values.mean():.2f} ± {half:.2f}"


if __name__ == "__main__":
    measured = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    print(f"{'':18} {'seconds':>13} {'times torch':>13}")
    for name, seconds in measured.items():
        print(f"{name:18} {interval(seconds):>13} {interval(seconds / measured['import torch']):>13}")
