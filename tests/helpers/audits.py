"""Folders to audit, and audits of them under the null engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from PIL import Image

from treering_verify.audit.folder import audit_folder
from treering_verify.audit.inputs.reader_pool import Limits
from treering_verify.audit.options import Options
from treering_verify.audit.output import store as shards
from treering_verify.audit.output.rows import Row, from_table
from treering_verify.benchmark.speed.null_model import NULL_INVERSION, NullModel
from treering_verify.watermark.keys.key import Key

KEY = Key.generate((4, 32, 32), name="canary", seed=5)


def noisy_image(seed: int) -> Image.Image:
    """Return a 128-pixel image of coarse noise, another one for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    return Image.fromarray(coarse.repeat(8, 0).repeat(8, 1))


def fill(folder: Path, count: int, first: int = 0) -> list[str]:
    """Write images, and return their paths in the order of a listing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{first + i:06d}.png" for i in range(count)]
    for i, path in enumerate(paths):
        noisy_image(first + i).save(path)
    return [str(path) for path in paths]


def audited(paths: Any, output: Path | None = None, seconds: float = 30.0, **options: Any) -> list[Row]:
    """Audit with one reader under the null engine."""
    chosen = Options(**{"batch_size": 4, "limits": Limits(time_limit=seconds, readers=1), **options})
    return list(audit_folder(paths, KEY, model=NullModel(), inversion=NULL_INVERSION, output=output, options=chosen))


def stored(output: Path) -> list[Row]:
    """Return the rows of a folder of results, in order."""
    return [row for path in shards.shard_files(output) for row in from_table(pyarrow.parquet.read_table(path))]


def essence(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return the fields of rows that may not depend on how an audit ran: all but times; numbers to 4 digits."""
    return [
        {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in asdict(row).items() if k != "seconds"} for row in rows
    ]


def run_to_the_end(folder: str, output: str) -> None:
    """Audit in a separate process, which the tests kill."""
    import torch

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    audited(folder, Path(output), shard_rows=10)


def summary(output: Path) -> dict[str, Any]:
    return json.loads((output / "summary.json").read_text())


PROGRAM = """
import sys
import treering_verify.models
from treering_verify.benchmark.speed.null_model import NullModel
treering_verify.models.load_model = lambda name: NullModel()
from treering_verify.cli.main import main
main(["audit", *sys.argv[1:], "--inversion", "encoder", "--steps", "0", "--readers", "1"])
"""


def command(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Run `treering audit` under the null engine, in a separate process."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *map(str, arguments)], **pipes)
