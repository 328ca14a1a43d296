"""Overhead of an audit: throughput compared with the bare model loop, memory by number of files, time to resume.

Where Ray is installed, its engine is compared with the local one too.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from treering_verify.audit.engine import run_audit
from treering_verify.audit.inputs.reading import read_path
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.judge import AuditJudge, judge_batch
from treering_verify.audit.options import Options
from treering_verify.benchmark.catalogue import BENCHMARKS
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
_IMAGES = 64  # different images in the audits under a model without weights; the last bytes of each file are unique
_ROUNDS = 3


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Audit a folder in turns with the bare model loop, in one pass and in two, then folders of two sizes.

    The latter are audited under a model without weights, which takes almost no time. Last, Ray audits what the local engine
    has audited: a folder under a model without weights and, unless quick, images of the model.
    """
    count, rounds = scope.images(_BATCH, 4 * _BATCH), 1 if scope.quick else _ROUNDS
    large = scope.images(2000, 100_000)
    small = max(2, large // 100)
    with scope.progress("Throughput", rounds) as advance:
        turns = _throughput(model, count, rounds, advance)
    with scope.progress("Audits under a model without weights", 2) as advance:
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
            ("throughput of the audit, relative to the bare loop", _spread(shares)),
            ("the same after the start of the first batch", _spread(started)),
            ("audit in two passes, per image", f"{statistics.median(turn['two'] for turn in turns) / count:.3f} s"),
            (
                "images per second in two passes, relative to one",
                _spread([turn["audit"] / turn["two"] for turn in turns]),
            ),
            (f"model without weights, peak memory at {small} files", f"{folders[0]['peak']:.0f} MiB"),
            (f"model without weights, peak memory at {large} files", f"{folders[1]['peak']:.0f} MiB"),
            ("growth of the main process", f"{100 * growth:+.1f} %"),
            (f"model without weights, first run over {large} files", f"{folders[1]['first']:.1f} s"),
            ("second run, which finds everything done", f"{folders[1]['again']:.2f} s = {_share(folders[1])}"),
            *engine_lines(engines),
        ),
        note="The images are unmarked, as most images of a folder are. Times under a model without weights are those of "
        "listing, reading, decoding and writing files.",
    )
    rows = [{"part": "throughput", **turn} for turn in turns] + [
        {"part": "model without weights", **folder} for folder in folders
    ]
    rows += [{"part": "engines", **record} for record in engines]
    fields = sorted({name for row in rows for name in row})
    return Findings(
        "audit",
        BENCHMARKS["audit"].question,
        tuple({name: row.get(name) for name in fields} for row in rows),
        (table,),
        seeds=f"{SEEDS['audit']} onwards",
        count=f"{count}, {rounds} rounds; {small} and {large} files under a model without weights",
    )


def _engines(model: LatentModel, scope: Scope) -> list[dict[str, Any]]:
    """Measure both engines, under a model without weights, which shows their own overhead, and with the given model."""
    weightless, key = NullModel(), SEEDS["audit"]
    judges = {
        "model without weights": AuditJudge.of(
            Key.generate(weightless.latent_shape, seed=key), weightless, 1e-6, NULL_INVERSION
        )
    }
    if not scope.quick:
        judges["model"] = AuditJudge.of(Key.generate(model.latent_shape, seed=key), model, 1e-6, InversionOptions())
    counts = {"model without weights": scope.images(200, 4000), "model": scope.images(_BATCH, 4 * _BATCH)}
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
    """A model that records when it was first used."""

    def __init__(self, model: LatentModel) -> None:
        self._model = model
        self.first = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, *args: Any) -> Any:
        self.first = self.first or time.perf_counter()
        return self._model.encode(*args)


def _in_a_fresh_process(count: int) -> dict[str, float]:
    """Audit a folder of `count` small files under a model without weights, twice, in a fresh process."""
    with tempfile.TemporaryDirectory() as folder, fresh_process() as pool:
        _fill(Path(folder) / "images", count)
        return pool.apply(_audit_without_model, (folder, count))


def _fill(folder: Path, count: int) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir()
    encoded = []
    for seed in range(min(count, _IMAGES)):
        coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)).save(buffer, format="PNG")
        encoded.append(buffer.getvalue())
    for i in range(count):
        (folder / f"{i:08d}.png").write_bytes(encoded[i % len(encoded)] + i.to_bytes(8, "big"))


def _audit_without_model(folder: str, count: int) -> dict[str, float]:
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
