"""What an audit costs beside the model: throughput against the bare loop, memory by size of folder, time to resume.

Where Ray is installed, its engine beside the local one too.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from treering_verify.audit.engine import run_audit
from treering_verify.audit.inputs.read import read_path
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.judge import AuditJudge, judge_batch
from treering_verify.audit.options import Options
from treering_verify.benchmark.harness.memory import fresh_process
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.speed.engines import clusters_here, engine_lines, has_ray, measure_engines
from treering_verify.benchmark.speed.null_model import NULL_INVERSION, NullModel
from treering_verify.detection.screening import Screening
from treering_verify.generation.generator import generate
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel
from treering_verify.report.findings import Findings, Table
from treering_verify.watermark.keys.key import Key

_BATCH = 16
_PICTURES = 64  # different images of the null audits; each file is one of them, and unlike all others in its last bytes
_ROUNDS = 3


def audit(model: LatentModel, scope: Scope) -> Findings:
    """Audit a folder in turns with the bare loop over its images, in one pass and in two; then folders of two sizes.

    Those are audited under the null engine, which costs next to nothing. Last, by Ray what the local engine has audited:
    a folder under the null engine and, unless quick, images of the model.
    """
    count, rounds = scope.images(_BATCH, 4 * _BATCH), 1 if scope.quick else _ROUNDS
    large = scope.images(2000, 100_000)
    small = max(2, large // 100)
    with scope.progress("Throughput", rounds) as advance:
        turns = _throughput(model, count, rounds, advance)
    with scope.progress("Null audits", 2) as advance:
        folders = []
        for size in (small, large):
            folders.append(_in_a_fresh_process(size))
            advance()
    engines = _engines(model, scope) if has_ray() else []
    shares = [turn["bare"] / turn["audit"] for turn in turns]
    started = [turn["bare"] / (turn["audit"] - turn["start"]) for turn in turns]
    growth = folders[1]["peak"] / folders[0]["peak"] - 1
    table = Table(
        "Audit",
        ("quantity", "value"),
        (
            ("bare model loop, per image", f"{statistics.median(turn['bare'] for turn in turns) / count:.3f} s"),
            ("audit, per image", f"{statistics.median(turn['audit'] for turn in turns) / count:.3f} s"),
            ("throughput of the audit, share of the bare loop's", _spread(shares)),
            ("the same once the first batch has begun", _spread(started)),
            ("audit in two passes, per image", f"{statistics.median(turn['two'] for turn in turns) / count:.3f} s"),
            ("images a second, in two passes over one", _spread([turn["audit"] / turn["two"] for turn in turns])),
            (f"null engine, peak memory at {small} files", f"{folders[0]['peak']:.0f} MiB"),
            (f"null engine, peak memory at {large} files", f"{folders[1]['peak']:.0f} MiB"),
            ("growth of the main process", f"{100 * growth:+.1f} %"),
            (f"null engine, first run over {large} files", f"{folders[1]['first']:.1f} s"),
            ("finding that audit finished", f"{folders[1]['again']:.2f} s = {_share(folders[1])}"),
            *engine_lines(engines),
        ),
        note="The images are unmarked, as nearly all are in a folder. The null engine has no model: its times are those of "
        "walking, reading, decoding and writing.",
    )
    rows = [{"part": "throughput", **turn} for turn in turns] + [{"part": "null", **folder} for folder in folders]
    rows += [{"part": "engines", **record} for record in engines]
    fields = sorted({name for row in rows for name in row})
    return Findings(
        "audit",
        "What does an audit cost beside the model's own time, and does its memory depend on the number of files?",
        tuple({name: row.get(name) for name in fields} for row in rows),
        (table,),
        seeds=f"{SEEDS['audit']} onwards",
        count=f"{count}, {rounds} rounds; {small} and {large} files under the null engine",
    )


def _engines(model: LatentModel, scope: Scope) -> list[dict[str, Any]]:
    """Both engines: under the null engine, where little but their own work is measured; and with the model."""
    null, key = NullModel(), SEEDS["audit"]
    judges = {"null engine": AuditJudge.of(Key.generate(null.latent_shape, seed=key), null, 1e-6, NULL_INVERSION)}
    if not scope.quick:
        judges["model"] = AuditJudge.of(Key.generate(model.latent_shape, seed=key), model, 1e-6, InversionOptions())
    counts = {"null engine": scope.images(200, 4000), "model": scope.images(_BATCH, 4 * _BATCH)}
    found: list[dict[str, Any]] = []
    with scope.progress("Engines", len(judges)) as advance, tempfile.TemporaryDirectory() as folder:
        for what, judge in judges.items():
            images = Path(folder) / f"{what} images"
            _fill(images, counts[what])
            found += measure_engines(what, judge, images, Path(folder), _BATCH, clusters_here(scope.quick))
            advance()
    return found


def _throughput(model: LatentModel, count: int, rounds: int, advance: Any) -> list[dict[str, float]]:
    first = SEEDS["audit"]
    key = Key.generate(model.latent_shape, seed=first)
    judge = AuditJudge.of(key, model, 1e-6, InversionOptions())
    turns = []
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for i, made in enumerate(generate(model, None, seeds=range(first, first + count), steps=20)):
            made.image.save(images / f"{i:06d}.png")
        readings = [read_path(str(path), model.image_size) for path in sorted(images.iterdir())]
        judge_batch(judge, readings[:_BATCH])  # warm-up
        for number in range(rounds):
            begun = time.perf_counter()
            for start in range(0, count, _BATCH):
                judge_batch(judge, readings[start : start + _BATCH])
            bare = time.perf_counter() - begun
            turn: dict[str, float] = {"round": number, "bare": bare}
            for name, screening in (("audit", None), ("two", Screening())):
                watched = _Watched(model)
                begun = time.perf_counter()
                output = Path(folder) / f"{name}-{number}"
                judging = AuditJudge.of(key, watched, 1e-6, InversionOptions(), screening)
                run = run_audit(Inputs((str(images),)), judging, output, Options(batch_size=_BATCH))
                assert len(list(run)) == 1
                turn[name] = time.perf_counter() - begun
                if screening is None:
                    turn["start"] = watched.first - begun
            turns.append(turn)
            advance()
    return turns


class _Watched:
    """A model that remembers when it was first used."""

    def __init__(self, model: LatentModel) -> None:
        self._model = model
        self.first = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, *args: Any) -> Any:
        self.first = self.first or time.perf_counter()
        return self._model.encode(*args)


def _in_a_fresh_process(count: int) -> dict[str, float]:
    """Audit a folder of that many small files under the null engine, twice, where nothing else takes memory."""
    with tempfile.TemporaryDirectory() as folder, fresh_process() as pool:
        _fill(Path(folder) / "images", count)
        return pool.apply(_null_audit, (folder, count))


def _fill(folder: Path, count: int) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir()
    pictures = []
    for seed in range(min(count, _PICTURES)):
        coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)).save(buffer, format="PNG")
        pictures.append(buffer.getvalue())
    for i in range(count):
        (folder / f"{i:08d}.png").write_bytes(pictures[i % len(pictures)] + i.to_bytes(8, "big"))


def _null_audit(folder: str, count: int) -> dict[str, float]:
    import resource

    model = NullModel()
    judge = AuditJudge.of(Key.generate(model.latent_shape, seed=1), model, 1e-6, NULL_INVERSION)
    inputs, output = Inputs((str(Path(folder) / "images"),)), Path(folder) / "audit"
    seconds = []
    for _ in range(2):
        begun = time.perf_counter()
        for _ in run_audit(inputs, judge, output, Options(batch_size=_BATCH)):
            pass
        seconds.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"files": count, "peak": peak, "first": seconds[0], "again": seconds[1]}


def _spread(values: list[float]) -> str:
    spread = f" [{100 * min(values):.0f}, {100 * max(values):.0f}]" if len(values) > 1 else ""
    return f"{100 * statistics.median(values):.0f} %{spread}"


def _share(found: dict[str, float]) -> str:
    return f"{100 * found['again'] / found['first']:.1f} % of the first run"
