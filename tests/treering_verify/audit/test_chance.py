"""What an audit says of chance: counts by simulated keys, detections that are one finding, and a sample that lasts."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.audits import KEY, audited, fill, noisy_image, stored, summary
from treering_detectors import cosine_tests

from treering_verify.audit import engine
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.judge import AuditJudge, judge_batch
from treering_verify.audit.options import Options
from treering_verify.audit.output.feature_sample import NAME, Bounds, FeatureSample, Sketch, rank_of
from treering_verify.audit.sketches import Sketcher
from treering_verify.benchmark.speed.null_model import NULL_INVERSION, NullModel
from treering_verify.errors import UsageError
from treering_verify.report import format_summary
from treering_verify.watermark.embedding import embed, extract, features
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.key import Key

INDEX = KeyIndex.from_keys([KEY])


def numbers(sketches: list[Sketch]) -> np.ndarray:
    return np.stack([np.frombuffer(sketch.vector, np.float16) for sketch in sketches]).astype(float)


def sketches_of(output: Path) -> list[Sketch]:
    with FeatureSample(output / "state", Sketcher.of([INDEX]).digest) as sample:
        return sample.read()[0]


def test_sketches_keep_cosines_and_hide_the_key() -> None:
    noise = torch.randn(6, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    noise[1] = noise[0] + 0.5 * noise[1]
    marked = embed(noise[4:], KEY)
    sketcher = Sketcher.of([INDEX])
    true = features(extract(noise, KEY), KEY)
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    found = sketcher.sketch(noise, [""] * 6).astype(float)
    assert np.abs(found @ found.T - true @ true.T).max() < 2e-3
    # Of marked images the part along the key is gone: two of them share nothing more than unmarked ones do.
    assert cosine_tests(features(extract(marked, KEY), KEY), KEY.numbers)[0].statistic > 0.99
    one, other = sketcher.sketch(marked + 0.2 * noise[2:4], [KEY.fingerprint] * 2).astype(float)
    assert abs(one @ other) < 0.2
    # Without the turn, a sketch agrees with the key no better than chance; and other keys turn otherwise.
    plain = sketcher.sketch(marked, ["", ""]).astype(float)
    assert np.abs(plain @ KEY.numbers / np.linalg.norm(KEY.numbers)).max() < 0.2
    another = Sketcher.of([KeyIndex.from_keys([Key.generate((4, 32, 32), seed=6)])])
    assert another.digest != sketcher.digest
    assert np.abs(np.sum(another.sketch(marked, ["", ""]).astype(float) * plain, axis=1)).max() < 0.2


def test_the_turn_does_not_depend_on_the_order_of_keys() -> None:
    keys = [KEY, *(Key.generate((4, 32, 32), name=f"k{i}", seed=i) for i in range(3))]
    one = Sketcher.of([KeyIndex.from_keys(keys)])
    other = Sketcher.of([KeyIndex.from_keys(keys[2:]), KeyIndex.from_keys(keys[:2][::-1])])
    assert one.digest == other.digest


def test_a_sample_holds_the_smallest_ranks_and_the_detected(tmp_path: Path) -> None:
    contents = [f"{i:064x}" for i in range(3000)]
    sketches = [
        Sketch(rank_of(c, "s"), bytes.fromhex(c), "key" if i % 10 == 0 else "", b"\0\0") for i, c in enumerate(contents)
    ]
    with FeatureSample(tmp_path, "made", most=50) as sample:
        for start in range(0, 3000, 30):
            bounds = sample.add(sketches[start : start + 30])
        assert bounds < Bounds()
        found, bounds = sample.read()
    ordered = sorted(sketches)
    assert [s for s in found if s.rank <= bounds.all] == ordered[:50]
    assert [s for s in found if s.fingerprint] == [s for s in ordered if s.fingerprint][:50]
    with FeatureSample(tmp_path, "made", most=50) as sample:  # adding again, in another order, changes nothing
        sample.add(sketches[::-1])
        assert sample.read()[0] == found
    with FeatureSample(tmp_path, "made otherwise", most=50) as sample:
        assert sample.read()[0] == []


def test_a_damaged_sample_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"no database" * 1000)
    with FeatureSample(tmp_path, "made") as sample:
        assert sample.read() == ([], Bounds())


def test_a_sample_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FeatureSample(tmp_path, "made") as sample:
        other = sqlite3.connect(tmp_path / NAME)
        other.execute("DROP TABLE sketches")
        other.commit()
        with pytest.raises(UsageError, match="cannot write"):
            sample.add([Sketch(b"0" * 16, b"1" * 32, "", b"")])


def test_the_summary_says_what_chance_detects_and_copies_make_clumps(tmp_path: Path) -> None:
    paths = fill(tmp_path / "in", 8)
    for i in range(8):
        shutil.copy(paths[0], tmp_path / "in" / f"copy-{i}.png")
    rows = audited(tmp_path / "in", tmp_path / "out", shard_rows=3)
    found = summary(tmp_path / "out")
    chance = found["chance"]
    assert (chance["files"], chance["sample"], chance["simulated"]) == (len(rows), len(rows), True) == (16, 16, True)
    assert chance["mean"] == pytest.approx(16e-6)
    assert chance["any"] == pytest.approx(8e-6, rel=0.05)  # nine files are detected together, or not
    assert chance["together"] == pytest.approx(2.0, rel=0.05)
    assert chance["deviation"] == pytest.approx(np.sqrt((81 + 7) * 1e-6), rel=0.05)
    assert found["findings"] == {"files": 0, "compared": 0, "count": 0, "groups": []}
    (line,) = [line for line in format_summary(found) if "chance" in line]
    assert line == (
        "false positives by chance: 1.6e-05 on average (16 images, alpha 1e-06 each); "
        f"1 key in {round(1 / chance['any'], -4):,.0f} gives any, and then {chance['together']:.2g} on average"
    )


def test_an_audit_that_was_interrupted_says_what_an_undisturbed_one_says(tmp_path: Path) -> None:
    fill(tmp_path / "in", 12)
    audited(tmp_path / "in", tmp_path / "whole", shard_rows=5)
    judge = AuditJudge.of(KEY, NullModel(), 1e-6, NULL_INVERSION, "auto", "auto")
    calls = 0

    def failing(judge: AuditJudge, readings: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise SystemExit
        return judge_batch(judge, readings)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("treering_verify.audit.judge.judge_batch", failing)
        with pytest.raises(SystemExit):
            audited(tmp_path / "in", tmp_path / "torn", shard_rows=5)
    assert "chance" not in summary(tmp_path / "torn")
    audited(tmp_path / "in", tmp_path / "torn", shard_rows=5)
    assert summary(tmp_path / "torn")["chance"] == summary(tmp_path / "whole")["chance"]
    assert (
        sketches_of(tmp_path / "torn") == sketches_of(tmp_path / "whole") and len(sketches_of(tmp_path / "torn")) == 12
    )
    list(engine.run_audit(Inputs((str(tmp_path / "in"),)), judge, tmp_path / "whole", Options(shard_rows=5)))
    assert summary(tmp_path / "whole")["chance"] == summary(tmp_path / "torn")["chance"]  # kept, as nothing was judged


def test_detections_that_share_features_are_one_finding(tmp_path: Path) -> None:
    """At alpha .3 chance detects many; the variants of an image go together, whatever their number."""
    folder = tmp_path / "in"
    paths = fill(folder, 12)
    for source in (0, 1, 2, 3):
        for quality in (95, 90, 85):
            noisy_image(source).save(folder / f"variant-{source}-{quality}.jpg", quality=quality)
    shutil.copy(paths[0], folder / "variant-0-copy.png")
    judge = AuditJudge.of(KEY, NullModel(), 0.3, NULL_INVERSION, None, "off")
    list(engine.run_audit(Inputs((str(folder),)), judge, tmp_path / "out", Options(shard_rows=7)))
    rows = [row for row in stored(tmp_path / "out") if row.verdict == "detected"]
    found = summary(tmp_path / "out")["findings"]
    sources = [
        int(Path(row.path).name.split("-")[1]) if "variant" in row.path else int(Path(row.path).stem) for row in rows
    ]
    assert len(set(sources)) > 1 and len(rows) > len(set(sources))
    assert (found["files"], found["compared"], found["count"]) == (len(rows), len(rows), len(set(sources)))
    expected = sorted((sources.count(s) for s in set(sources) if sources.count(s) > 1), reverse=True)
    assert [group["files"] for group in found["groups"]] == expected
    for group in found["groups"]:
        assert len({p.split("variant-")[1][0] if "variant" in p else p[-5] for p in group["paths"]}) == 1
    text = "\n".join(format_summary(summary(tmp_path / "out")))
    assert f"{len(rows)} detected files are {len(set(sources))} findings" in text and "95 % of keys give" in text
