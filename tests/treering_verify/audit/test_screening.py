"""Audits of two passes: who goes on, what rows say, and that settings hold them apart from audits of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.audits import KEY, essence, fill, stored, summary
from helpers.models.white_model import WhiteModel

from treering_verify.audit.folder import audit_folder
from treering_verify.audit.inputs.reader_pool import Limits
from treering_verify.audit.inputs.reading import Reading
from treering_verify.audit.judge import AuditJudge, judge_batch
from treering_verify.audit.options import Options
from treering_verify.audit.output.rows import Row
from treering_verify.benchmark.speed.null_model import NULL_INVERSION, NullModel
from treering_verify.cli.main import main
from treering_verify.detection.screening import Screening
from treering_verify.errors import UsageError
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel
from treering_verify.models.protocol import Condition, Timestep
from treering_verify.report.audit.audit_reader import open_audit
from treering_verify.report.text import format_summary
from treering_verify.watermark.embedding import embed
from treering_verify.watermark.keys.key import Key

MARK = Key.generate((3, 32, 32), name="mark", seed=3)


class Counting(WhiteModel):
    """A model that counts the images of each diffusion step: the first pass takes none."""

    def __init__(self) -> None:
        self.stepped: list[int] = []

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.stepped.append(len(z))
        return super().denoise(z, at, conditions, guidance)


def readings(model: WhiteModel, marked: Sequence[bool]) -> list[Reading]:
    found = []
    for seed, is_marked in enumerate(marked):
        noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        image = model.decode(embed(noise, MARK) if is_marked else noise)[0].permute(1, 2, 0)
        pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
        found.append(Reading(f"{seed}", "ok", pixels=np.ascontiguousarray(pixels)))
    return found


def judged(marked: Sequence[bool], screening: Screening | None) -> tuple[list[Row], list[int]]:
    model = Counting()
    judge = AuditJudge.of(MARK, model, 1e-6, InversionOptions("encoder", noise_method="naive", steps=2), screening)
    return judge_batch(judge, readings(model, marked)), model.stepped


def test_only_the_unclear_are_inverted_in_full() -> None:
    marked = [True, False, False, True, False]
    rows, stepped = judged(marked, Screening(gate=1.0))
    assert [row.decided_by for row in rows] == ["first" if mark else "full" for mark in marked]
    assert stepped == [3, 3]  # two steps of the three that showed nothing
    assert [row.verdict for row in rows] == ["detected" if mark else "no evidence" for mark in marked]
    rows, stepped = judged(marked, Screening(gate=1e-4))
    assert {row.decided_by for row in rows} == {"first"} and not stepped
    assert [row.verdict for row in rows] == ["detected" if mark else "no evidence" for mark in marked]


def test_rows_hold_the_numbers_of_the_pass_that_decided_corrected_for_its_share() -> None:
    marked = [True, False, False]
    two, _ = judged(marked, Screening(share=0.25, gate=1.0))
    one, stepped = judged(marked, None)
    assert stepped == [3, 3] and {row.decided_by for row in one} == {None}
    for row, alone in zip(two[1:], one[1:], strict=True):
        assert row.statistic == pytest.approx(alone.statistic) and row.log10_pvalue == pytest.approx(alone.log10_pvalue)
        assert row.log10_adjusted == pytest.approx(min(0.0, alone.log10_adjusted - np.log10(0.75)))  # type: ignore[operator]
    assert two[0].log10_adjusted == pytest.approx(two[0].log10_pvalue - np.log10(0.25))  # type: ignore[operator]
    latent = [row.log10_pvalue for row in judged(marked, Screening(gate=1e-4))[0]]  # all decided by the screening pass
    assert [row.log10_first for row in two] == pytest.approx(latent)
    assert {row.log10_first for row in one} == {None}


def audit(paths: Path, output: Path, screening: Screening | None) -> list[Row]:
    options = Options(batch_size=4, limits=Limits(readers=1))
    run = audit_folder(
        paths, KEY, model=NullModel(), inversion=NULL_INVERSION, screening=screening, output=output, options=options
    )
    return list(run)


def test_an_audit_says_which_pass_decided_and_goes_on_with_the_same_passes_only(tmp_path: Path) -> None:
    fill(tmp_path / "in", 8)
    found = audit(tmp_path / "in", tmp_path / "two", Screening(gate=0.5))
    by = [row.decided_by for row in found]
    assert set(by) == {"first", "full"}
    assert all((by == "first") == (row.log10_pvalue > np.log10(0.5)) for by, row in zip(by, found, strict=True))  # type: ignore[operator]
    assert essence(stored(tmp_path / "two")) == essence(found)
    said = summary(tmp_path / "two")
    assert said["settings"]["screening"] == {"method": "latent", "share": 0.01, "gate": 0.5}
    assert said["decided_by"] == {name: by.count(name) for name in ("first", "full")}
    assert f"decided by the screening pass: {by.count('first')} of 8" in list(format_summary(said))
    assert "decided_by" in open_audit(tmp_path / "two").columns
    for other in (None, Screening(gate=0.4)):
        with pytest.raises(UsageError, match=r"screening(.gate)? was"):
            audit(tmp_path / "in", tmp_path / "two", other)
    assert len(audit(tmp_path / "in", tmp_path / "two", Screening(gate=0.5))) == 8


@pytest.mark.parametrize(("asked", "two"), [([], True), (["--screening", "off"], False), (["--steps", "3"], False)])
def test_the_command_chooses_two_passes_by_itself_where_they_were_measured(
    asked: list[str], two: bool, tiny_model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treering_verify.models.load_model", lambda name: tiny_model)
    fill(tmp_path / "in", 1)
    KEY.save(tmp_path / "k.json")
    options = ["--key", str(tmp_path / "k.json"), "--output", str(tmp_path / "out"), "--readers", "1", *asked]
    run = CliRunner().invoke(main, ["audit", str(tmp_path / "in"), *options])
    assert run.exit_code == 0, run.output
    assert ("decided by the screening pass: " in run.output) == two
    assert ("screening" in summary(tmp_path / "out")["settings"]) == two


def test_from_python_two_passes_are_chosen_likewise(tiny_model: LatentModel, tmp_path: Path) -> None:
    fill(tmp_path / "in", 1)
    for screening, chosen in (({}, {"first", "full"}), ({"screening": None}, {None})):
        (row,) = audit_folder(tmp_path / "in", KEY, model=tiny_model, **screening)  # type: ignore[arg-type]
        assert row.decided_by in chosen


def test_the_command_takes_two_passes_where_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treering_verify.models.load_model", lambda name: NullModel())
    fill(tmp_path / "in", 2)
    KEY.save(tmp_path / "k.json")
    options = [
        "--key",
        str(tmp_path / "k.json"),
        "--output",
        str(tmp_path / "out"),
        "--screening",
        "on",
        "--readers",
        "1",
    ]
    run = CliRunner().invoke(main, ["audit", str(tmp_path / "in"), *options, "--inversion", "encoder", "--steps", "0"])
    assert run.exit_code == 0 and "decided by the screening pass: " in run.output
    assert summary(tmp_path / "out")["settings"]["screening"] == {"method": "latent", "share": 0.01, "gate": 0.1}


def test_an_audit_of_one_pass_is_as_it_was(tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    found = audit(tmp_path / "in", tmp_path / "one", None)
    said = summary(tmp_path / "one")
    assert {row.decided_by for row in found} == {None}
    assert "screening" not in said["settings"] and "decided_by" not in said
