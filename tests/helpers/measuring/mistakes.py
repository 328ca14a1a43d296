"""Processor seconds of twelve commands that cannot work, beside `treering --help`.

`python tests/helpers/measuring/mistakes.py` prints a row for each: user and system seconds.
The hub of models is an address where nothing answers.
"""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from treering_verify.watermark.keys.key import Key

HUB = "http://127.0.0.1:9"
ABSENT = "cuda" if sys.platform == "darwin" else "mps"  # no machine has both
COMMANDS = (
    "--help",
    "verify nothing.png --key my.key.json",
    "verify image.png --key my.key.json --alpha 2",
    f"verify image.png --key my.key.json --device {ABSENT}",
    "verify image.png --key my.key.json --model somebody/model",
    "verify image.png --key image.png",
    "verify many --key my.key.json",
    "audit nodir --key my.key.json --output out",
    "audit . --key my.key.json --output image.png",
    "generate --unmarked --output image.png/out",
    "generate --unmarked --class lakes --output out",
    "attack image.png --attack jpgg:quality=25 --output out",
    "keygen --pattern ring --output new",
)


def seconds_of(command: str, folder: Path) -> tuple[float, int]:
    """Run a command in a folder; return its processor seconds and its exit code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-m", "treering_verify", *shlex.split(command)],
        cwd=folder,
        env=environment
        | {
            "HF_ENDPOINT": HUB,
            "HF_HOME": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path))),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.returncode


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        Image.new("RGB", (16, 16)).save(folder / "image.png")
        (folder / "many").mkdir()
        for number in range(51):
            (folder / "many" / f"{number}.png").write_bytes((folder / "image.png").read_bytes())
        Key.generate((4, 32, 32), seed=1).save(folder / "my.key.json")
        for command in COMMANDS:
            seconds, code = min(seconds_of(command, folder) for _ in range(3))
            print(
                f"| `{command}` | {seconds:.2f} |"
                + ("" if code == (command != "--help") * 2 else f" exit code {code}!")
            )


if __name__ == "__main__":
    main()
