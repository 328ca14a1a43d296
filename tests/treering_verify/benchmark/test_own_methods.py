"""Methods and images that users bring: they stand beside the built-in ones, and a table row is an image and a method."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet
import pytest
from click.testing import CliRunner
from helpers.progress import silent
from helpers.stored import check_stored
from torch import Tensor

from treering_verify.benchmark import BENCHMARKS, BY_DEFAULT, BY_METHOD, OwnImages, Scope, run
from treering_verify.benchmark.harness import laboratory
from treering_verify.benchmark.harness.inversion_methods import pipelines
from treering_verify.benchmark.harness.inversion_paths import Path as Path_
from treering_verify.benchmark.harness.inversion_paths import follow
from treering_verify.benchmark.harness.memory import Peak
from treering_verify.benchmark.paper import classification, heldout
from treering_verify.benchmark.robustness import robustness
from treering_verify.benchmark.robustness.measurements import Task
from treering_verify.benchmark.speed import precision, sizes
from treering_verify.cli.main import main
from treering_verify.errors import UsageError
from treering_verify.files import write_atomic
from treering_verify.generation import generate
from treering_verify.inversion.decoder import DEFAULTS, METHODS
from treering_verify.inversion.decoder.loop import solve
from treering_verify.inversion.decoder.problem import Problem, Settings
from treering_verify.inversion.decoder.solution import Solution
from treering_verify.inversion.recovery import InversionOptions, inverting_by
from treering_verify.media.conversion import encode_png
from treering_verify.models import LatentModel, load_model
from treering_verify.watermark.keys.key import Key


def halved(problem: Problem, settings: Settings = Settings(iterations=2, step=0.5)) -> Solution:  # noqa: B008
    """Take two forward steps of half length."""
    return solve(problem, settings, lambda k, z, residual, state: (z - settings.step * residual, state))


@pytest.fixture
def method() -> Iterator[str]:
    METHODS["halved"] = halved
    yield "halved"
    del METHODS["halved"]


LONG = ("classification", "inversion", "robustness")
"""Benchmarks that take long; tests below look at an own method's images in the second, and at its plan in the third."""

SHORT = ("uniformity",)
"""Benchmarks of the default inversion that take seconds."""


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no memory: each peak comes from a fresh process, which takes its time."""
    monkeypatch.setattr(classification, "_peaks", lambda *_: ())
    monkeypatch.setattr(sizes, "_peak", lambda *_: 1.0)
    for module in (laboratory, precision):
        monkeypatch.setattr(module, "peak_memory", lambda *_, **__: Peak(1.0, 1.0))


@pytest.mark.usefixtures("no_processes")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in sorted(BY_METHOD)]
)
def test_a_method_of_ones_own_is_measured_on_the_same_images_as_the_others(
    name: str, method: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(laboratory, "QUICK_STEPS", 2)
    model = load_model(tiny_folder)
    count = 4 if name == "classification" else 2
    summary = run(name, model, tmp_path, Scope(silent, quick=True, count=count, methods=(method,)))
    assert method in summary and f" --method {method} " in summary
    check_stored(name, tmp_path)
    rows = pyarrow.parquet.read_table(tmp_path / f"{name}.parquet").to_pylist()
    images: dict[str, list[object]] = {}
    for row in rows:
        images.setdefault(row["method"], []).append(row.get("image"))
    assert method in images and len(images) > 1
    others = [found for other, found in images.items() if other != method]
    assert images[method] in others  # the very same images, in the same order: statistics are paired


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in SHORT)) for name in BY_DEFAULT]
)
def test_a_benchmark_of_the_default_is_measured_again_with_a_method_in_its_place(
    name: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[int] = []

    def counted(problem: Problem, settings: Settings = Settings(iterations=2, step=0.5)) -> Solution:  # noqa: B008
        called.append(len(problem.image))
        return halved(problem, settings)

    monkeypatch.setitem(METHODS, "counted", counted)  # type: ignore[misc]
    count = 1 if name == "shared" else 2
    summary = run(name, load_model(tiny_folder), tmp_path, Scope(silent, quick=True, count=count, methods=("counted",)))
    assert called, "the method was never used"
    assert " --method counted " in summary and "inversion" in summary
    check_stored(name, tmp_path)
    rows = pyarrow.parquet.read_table(tmp_path / f"{name}.parquet").to_pylist()
    texts = [
        [
            {key: value for key, value in row.items() if key != "inversion" and not isinstance(value, float)}
            for row in rows
            if row["inversion"] == by
        ]
        for by in ("default", "counted")
    ]
    seen = ("image", "seed", "chain", "condition", "pattern", "attack", "truth", "key")
    default, own = ([{key: row[key] for key in seen if key in row} for row in some] for some in texts)
    assert default and default == own  # the very same images, in the same order: statistics are paired


def test_a_noise_inversion_takes_the_place_of_the_default_and_leaves_no_trace(tiny_model: LatentModel) -> None:
    before = InversionOptions()
    with inverting_by(noise_method="naive"):
        assert InversionOptions() == replace(before, noise_method="naive")
    assert InversionOptions() == before
    rows = BENCHMARKS["uniformity"].measure(tiny_model, Scope(silent, quick=True, count=2, methods=("naive",))).rows
    assert {row["inversion"] for row in rows} == {"default", "naive"}


@pytest.mark.usefixtures("no_processes")
@pytest.mark.parametrize(("name", "module"), [("inversion", laboratory), ("heldout", heldout)])
def test_an_own_method_has_its_line_on_clean_and_attacked_images(
    name: str, module: ModuleType, method: str, tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def short(model: LatentModel, pixels: Tensor, known: Tensor, by: str, settings: Settings, **options: Any) -> Path_:
        """Follow the own method, and the encoder in the place of all others."""
        if by != method:
            by, settings = "encoder", DEFAULTS["encoder"]
        path = follow(model, pixels, known, by, settings, **options)
        return replace(path, error=path.error[[0, *range(len(path.error))]])  # an iterative method has two points

    monkeypatch.setattr(module, "follow", short)
    scope = Scope(silent, quick=True, count=2, folder=tmp_path, methods=(method,))
    rows = BENCHMARKS[name].measure(tiny_model, scope).rows
    found = {(row["attack"], row["image"]) for row in rows if row["method"] == method}
    assert found == {(row["attack"], row["image"]) for row in rows if row["method"] == "encoder"} and len(found) == 4


def test_robustness_plans_an_own_method_under_the_conditions_of_the_others(
    method: str, tiny_model: LatentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Planned(Exception):
        pass

    def planned(model: LatentModel, scope: Scope, tasks: list[Task], *_: int) -> None:
        raise Planned(tasks)

    monkeypatch.setattr(robustness, "measure_tasks", planned)
    with pytest.raises(Planned) as caught:
        robustness.measure(tiny_model, Scope(silent, quick=True, count=2, methods=(method,)))
    tasks = {name: [t for t in caught.value.args[0] if t.method == name] for name in (method, "encoder")}
    assert [(t.condition, t.marked) for t in tasks[method]] == [(t.condition, t.marked) for t in tasks["encoder"]] != []
    assert {t.inversion.method for t in tasks[method]} == {method}


def test_benchmarks_that_compare_no_inversions_refuse_a_method(tmp_path: Path) -> None:
    assert {*BY_METHOD, *BY_DEFAULT} < set(BENCHMARKS) and not {*BY_METHOD} & {*BY_DEFAULT}
    result = CliRunner().invoke(main, ["benchmark", "quality", "--method", "adam", "--output", str(tmp_path)])
    assert result.exit_code == 2 and "quality takes no --method" in result.output
    assert all(name in result.output for name in (*BY_METHOD, *BY_DEFAULT))
    result = CliRunner().invoke(main, ["benchmark", "detection", "--method", "naive", "--output", str(tmp_path)])
    assert result.exit_code == 2 and "naive is a noise inversion" in result.output
    result = CliRunner().invoke(main, ["benchmark", "detection", "--method", "adamm", "--output", str(tmp_path)])
    assert result.exit_code == 2 and "did you mean adam?" in result.output


# --- images of one's own ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tiny_model: LatentModel, tmp_path: Path) -> tuple[Path, list[Key]]:
    """Write four images of two keys, with sidecars, and two unmarked ones in a folder called none."""
    keys = [Key.generate(tiny_model.latent_shape, name=name, seed=i) for i, name in enumerate(("ann", "bob"))]
    images = tmp_path / "images"
    for i in range(4):
        (made,) = generate(tiny_model, keys[i % 2], seeds=[i], steps=2)
        (images / "any").mkdir(parents=True, exist_ok=True)
        write_atomic(images / "any" / f"{i}.png", encode_png(made.image))
        write_atomic(images / "any" / f"{i}.json", json.dumps(made.sidecar).encode())
    (images / "none").mkdir()
    for i, made in enumerate(generate(tiny_model, None, seeds=[8, 9], steps=2)):
        write_atomic(images / "none" / f"{i}.png", encode_png(made.image))
    return images, keys


def test_own_images_are_classified_by_each_inversion(
    folder: tuple[Path, list[Key]], tiny_model: LatentModel, tmp_path: Path
) -> None:
    images, keys = folder
    scope = Scope(silent, quick=True, own=OwnImages(images, keys))
    summary = run("classification", tiny_model, tmp_path / "out", scope)
    assert " --images DIR --key KEYS --model " in summary and summary.startswith("The default inversion names ")
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "classification.parquet").to_pylist()
    methods = list(pipelines(tiny_model, scope))
    assert [(row["path"], row["actual"]) for row in rows if row["method"] == methods[0]] == [
        ("any/0.png", "ann"), ("any/1.png", "bob"), ("any/2.png", "ann"), ("any/3.png", "bob"),
        ("none/0.png", "none"), ("none/1.png", "none"),
    ]  # fmt: skip
    assert len(rows) == 6 * len(methods)
    for row in rows:
        assert row["nearest"] in ("ann", "bob")
        assert row["predicted"] == (row["nearest"] if row["log10_pvalue"] <= -6 else "none")
    counts = (tmp_path / "out" / "classification.confusion.csv").read_text().splitlines()
    assert '"Your images, open set",ours,none,none,2' in counts
    closed = [int(line.rpartition(",")[2]) for line in counts if "closed set" in line]
    assert sum(closed) == 4 * len(methods)


def test_the_command_takes_own_images_and_says_what_it_misses(
    folder: tuple[Path, list[Key]], tiny_folder: Path, tmp_path: Path
) -> None:
    images, keys = folder
    for key in keys:
        key.save(tmp_path / f"{key.name}.key.json")
    table = tmp_path / "truth.csv"
    table.write_text("path,key\nany/0.png,ann\nany/1.png,bob\nany/2.png,ann\nnone/0.png,\n")
    key_options = [f"--key={tmp_path / 'ann.key.json'}", f"--key={tmp_path / 'bob.key.json'}"]
    base = ["benchmark", "classification", "--quick", "--model", str(tiny_folder), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(main, [*base, f"--images={images}", *key_options, f"--labels={table}"])
    assert done.exit_code == 0, done.output
    assert "closed set" in done.output and "/3 =" in done.output and "/4 =" in done.output
    for options, message in (
        ([f"--images={images}"], "--images needs the keys"),
        (key_options, "name their folder with --images"),
        ([f"--images={images}", f"--key={tmp_path / 'ann.key.json'}"], "bob|fingerprint|no key"),
    ):
        refused = CliRunner().invoke(main, [*base, *options])
        assert refused.exit_code == 2 and any(part in refused.output for part in message.split("|")), refused.output
    base[1] = "detection"
    refused = CliRunner().invoke(main, [*base, f"--images={images}", *key_options])
    assert refused.exit_code == 2 and "belong to classification" in refused.output


def test_an_image_that_cannot_be_read_is_named(tiny_model: LatentModel, tmp_path: Path) -> None:
    key = Key.generate(tiny_model.latent_shape, name="ann", seed=0)
    (tmp_path / "ann").mkdir()
    data = encode_png(next(iter(generate(tiny_model, key, seeds=[0], steps=2))).image)
    (tmp_path / "ann" / "cut.png").write_bytes(data[: len(data) // 3])
    with pytest.raises(UsageError, match="take the file out of the folder"):
        BENCHMARKS["classification"].measure(tiny_model, Scope(silent, quick=True, own=OwnImages(tmp_path, [key])))
