"""The forgery benchmark: counts by hand, and attacks on a model on which they succeed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models.white_model import WhiteModel
from helpers.progress import silent
from helpers.stored import check_storing
from treering_detectors import Rate

from treering_verify.attacks.averaging import estimate_trace
from treering_verify.attacks.imprinting import average_carrier, estimate_noise
from treering_verify.benchmark import Scope
from treering_verify.benchmark.robustness import forgery
from treering_verify.benchmark.robustness.forgery import FORGES, AttackedKey, Attacker
from treering_verify.benchmark.robustness.forgery_tables import figure, safe_count, safe_table
from treering_verify.media.conversion import to_tensor


@pytest.fixture(scope="module")
def attacked() -> AttackedKey:
    return AttackedKey(Attacker(WhiteModel(), 4), "random", 0, 3)


def test_a_count_is_safe_up_to_the_first_that_is_not() -> None:
    rates = {0: Rate(0, 100), 1: Rate(1, 100), 2: Rate(4, 100), 5: Rate(5, 100), 10: Rate(0, 100)}
    assert safe_count(rates) == 2
    assert safe_count(rates, proven=True) == 0  # the upper ends are 3.6, 5.4 and more per cent
    assert safe_count({0: Rate(5, 10), 1: Rate(0, 10)}) is None


def test_the_safe_count_against_all_forgeries_is_the_least_and_removals_do_not_count() -> None:
    forges = {"a": True, "b": True, "c": False}
    rates = {"a": (0, 0, 50), "b": (0, 60, 90), "c": (100, 100, 100)}
    succeeded = {
        ("random", name, count): Rate(hits, 100)
        for name, row in rates.items()
        for count, hits in zip((0, 1, 2), row, strict=True)
    }
    a, b, c, total = safe_table(succeeded, ["random"], forges).rows
    assert a[3:7] == ("1", Rate(0, 100), "2", Rate(50, 100))
    assert b[3:7] == ("0", Rate(0, 100), "1", Rate(60, 100))
    assert c[2:7] == ("removal", "not even 0", None, "0", Rate(100, 100))
    assert total[1] == "any of them" and total[3] == total[7] == "0"
    panel = figure(succeeded, ["random"], list(forges)).panels[0]
    assert panel.curves[0].x == (1.0, 2.0) and panel.curves[0].y == (0.0, 0.5)  # type: ignore[union-attr]


def test_an_attacker_has_other_images_in_each_trial_and_never_one_twice(attacked: AttackedKey) -> None:
    assert [attacked.sample(trial, 2) for trial in range(3)] == [[0, 1], [2, 3], [0, 1]]
    assert all(len(set(attacked.sample(trial, 4))) == 4 for trial in range(5))
    assert attacked.sample(7, 0) == []


def test_carriers_and_traces_are_those_of_the_attacks(attacked: AttackedKey) -> None:
    marked, plain = (torch.cat([to_tensor(p) for p in images]) for images in (attacked.marked, attacked.attacker.plain))
    expected = average_carrier(attacked.model, marked[:2], plain[:4])
    torch.testing.assert_close(attacked.carrier(0, 2), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        attacked.carrier(1, 1), estimate_noise(attacked.model, marked[1:2])[0], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(attacked.trace(0, 2), estimate_trace(attacked.marked[:2], attacked.attacker.plain[:4]))
    # Without marked images nothing of the key is in either.
    torch.testing.assert_close(attacked.carrier(0, 0), attacked.attacker.plain_noise[4])
    np.testing.assert_allclose(
        attacked.trace(0, 0), estimate_trace(attacked.attacker.plain[4:], attacked.attacker.plain[:4])
    )


def test_leaked_images_targets_and_the_attackers_own_are_different_images(attacked: AttackedKey) -> None:
    mixed = attacked.attacker.mixed("random")
    images = [*attacked.marked, *attacked.attacker.plain, *attacked.targets, *attacked.foreign, *mixed]
    assert len({p.tobytes() for p in images}) == len(images) == 4 + 8 + 3 + 3 + 4


def test_on_the_white_model_one_image_forges_and_none_does_not(tmp_path: Path) -> None:
    findings = forgery.measure(WhiteModel(), Scope(silent, quick=True, folder=tmp_path))
    lines = {(line[1], line[3]): line[4] for line in findings.tables[1].rows}
    assert lines["imprint", 0] == lines["add trace", 0] == Rate(0, 4)
    assert lines["imprint", 1] == lines["imprint", 2] == Rate(4, 4)
    # A trace takes the mark away that it is of, and no other: with a key per image there is nothing to average.
    assert lines["subtract trace", 2] == Rate(4, 4)
    assert lines["subtract trace, a key per image", 2] == Rate(0, 4)
    assert lines["subtract trace", 0] == Rate(0, 4)  # marked images stay marked where another trace is taken away
    imprinted = next(line for line in findings.tables[0].rows if line[1] == "imprint")
    assert imprinted[3] == "0" and imprinted[5] == "1"
    assert {row["attack"] for row in findings.rows} <= FORGES.keys()
    # By kind: the same trials, each counted under what its image is; removals begin with no foreign image.
    by_kind = findings.tables[2]
    assert {line[1] for line in by_kind.rows} == {"imprint", "add trace"}
    for line in by_kind.rows:
        rates = [rate for rate in line[3:] if isinstance(rate, Rate)]
        assert Rate(sum(r.successes for r in rates), sum(r.trials for r in rates)) == lines[line[1], line[2]]
    images = {row["image"] for row in findings.rows if row["forges"]}
    assert images == set(by_kind.header[3:]) and len(images) > 1
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert forgery.measure(WhiteModel(), Scope(silent, quick=True, folder=tmp_path)) == findings
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    check_storing(findings, tmp_path / "stored")
