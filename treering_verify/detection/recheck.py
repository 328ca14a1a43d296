"""Judge the files of records again, with the settings of the records, and say what came out differently and why."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import index as integer
from pathlib import Path
from typing import Any

from treering_verify.detection.calibration.calibration_file import Calibration
from treering_verify.detection.calibration.verify import CalibratedJudge
from treering_verify.detection.identification import index_test
from treering_verify.detection.judge import EvidenceTest, Judge
from treering_verify.detection.messages import MessageTest, check_pattern, worded
from treering_verify.detection.verification import key_test
from treering_verify.errors import UsageError
from treering_verify.files import opened_regular, parsed_json, printable
from treering_verify.inversion.decoder import Settings
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.media.digests import sha256_of
from treering_verify.models import LatentModel
from treering_verify.results import Verdict
from treering_verify.watermark.keys.checks import check_fit
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.key import Key

EXACT = "exact-cosine"
"""Detector of a record that needs no calibration."""
_NEEDED = ("path", "status", "alpha", "detector", "provenance")
_MOST_BYTES = 256 * 1024**2  # of a file of records
_OF_AUDIT = "is of an audit: run treering audit again, into another folder, and compare their summaries"
_SIDECAR = "describes an image that was made, and judges none: give the image to treering verify"
_LONGEST_P = 10**12  # digits of a p-value: no image has so many
_MOST = 10_000  # iterations and the like that a record may ask for


@dataclass(frozen=True)
class Recheck:
    """A record beside the verdict on the same file now.

    Attributes
    ----------
    record : mapping
        The record as it was read.
    verdict : Verdict
    differences : tuple of str
        Parts of the provenance that differ now, such as "versions.torch", and "sha256" if the file is another.
    """

    record: Mapping[str, Any]
    verdict: Verdict
    differences: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether status, verdict, detected key or message are others than in the record."""
        now = self.verdict.record()
        return any(now.get(name) != self.record.get(name) for name in ("status", "verdict", "fingerprint", "message"))


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """Return the records of verify, identify or decode in a file: an array of JSON, or a record a line.

    Raises
    ------
    UsageError
        If the file cannot be read, or holds anything else, or records that cannot be judged again.
    """
    shown = printable(str(path))
    if Path(path).is_dir():
        raise UsageError(
            f"{shown} {_OF_AUDIT if (Path(path) / 'summary.json').exists() else 'is a folder without records'}"
        )
    try:
        with opened_regular(path) as file:
            data = file.read(_MOST_BYTES + 1)
        if data.startswith(b"PAR1"):
            raise UsageError(f"{shown} {_OF_AUDIT}")
        if len(data) > _MOST_BYTES:
            raise UsageError(f"{shown} is larger than {_MOST_BYTES >> 20} MiB: split it")
        whole = data.startswith((b"[", b"{\n"))  # an array, or one object over several lines
        lines = [data] if whole else [line for line in data.splitlines() if line]
        records = parsed_json(b"[" + b",".join(lines) + b"]")
        records = records[0] if data.startswith(b"[") else records
    except OSError as error:
        raise UsageError(f"cannot read {shown}: {error.strerror}") from error
    except UsageError:
        raise
    except (ValueError, RecursionError):
        raise UsageError(f"{shown} contains no records: write them with verify --format jsonl") from None
    for number, record in enumerate(records, 1):
        if not _is_record(record):
            other = _other_kind(record) or "is none of verify, identify or decode: see docs/records.md"
            raise UsageError(f"record {number} of {shown} {other}")
        if record["status"] != "ok":
            record["verdict"] = None  # schema version 1 had "inconclusive"
    if not records:
        raise UsageError(f"{shown} contains no records: write them with verify --format jsonl")
    return records


def _is_record(record: Any) -> bool:
    """Whether this is a dict with what judging again needs; files of records may come from anyone."""
    if not isinstance(record, dict) or not all(record.get(name) is not None for name in _NEEDED):
        return False
    provenance = record["provenance"]
    has_settings = isinstance(provenance, dict) and isinstance(provenance.get("settings"), dict)
    texts = all(isinstance(record[name], str) for name in ("path", "detector"))
    if record["status"] == "ok" and not isinstance(record.get("verdict"), str):
        return False
    log10 = record.get("log10_pvalue")
    if log10 is not None and not (isinstance(log10, int | float) and -_LONGEST_P < log10 <= 0):  # false for NaN too
        return False
    return has_settings and texts and isinstance(record.get("sha256", ""), str | None)


def _other_kind(record: Any) -> str:
    """Say what a record is that no command judges again, and what to do; "" if that is not known."""
    if not isinstance(record, dict):
        return ""
    if "settings_id" in record:
        return _OF_AUDIT
    return _SIDECAR if {"marked", "attack"} & record.keys() else ""


def recheck(
    records: Sequence[Mapping[str, Any]],
    files: Sequence[str | Path],
    keys: Sequence[Key | KeyIndex],
    model: LatentModel,
    calibrations: Sequence[Calibration] = (),
) -> Iterator[Recheck]:
    """Judge the file of each record again, in order.

    Parameters
    ----------
    records : sequence of dict
        As `read_records` returns them.
    files : sequence of paths
        Files to take in place of the records' paths, found by their SHA-256; none: the records' paths.
    keys : sequence of Key or KeyIndex
        For records of decode the key that the record names, or the only one.
    model : LatentModel
    calibrations : sequence of Calibration
        For records of calibrated detectors: the one that the record names, or the only one.

    Raises
    ------
    UsageError
        If settings of a record cannot be used here, no file has a record's digest, it is unclear which key is to read a
        message, or that carries none, or a calibration is missing or does not fit.
    """
    by_digest = {sha256_of(Path(file)): file for file in files}
    judges: dict[str, Judge | CalibratedJudge] = {}
    for record in records:
        source = by_digest.get(record.get("sha256")) if files else record["path"]
        if source is None:
            raise UsageError(f"none of the files has the SHA-256 of {printable(record['path'])}: name that file too")
        settings, reads = record["provenance"]["settings"], "message" in record
        key = _message_key(record, keys) if reads else None
        calibration = None if _is_exact(record) else _calibration(record, calibrations)
        facts = ["matches" in record, key and key.fingerprint, record["detector"], calibration and calibration.checksum]
        name = json.dumps([settings, *facts], sort_keys=True)
        if name not in judges:
            if calibration is None:
                judges[name] = _judge(settings, _test(record, [key] if key else keys, model), model)
            else:
                judges[name] = _calibrated_judge(record, keys, calibration, model)
        (verdict,) = judges[name].verdicts([Path(source)])
        verdict = worded(verdict) if reads else verdict
        old, new = record["provenance"], json.loads(json.dumps(verdict.provenance))
        others = ["sha256"] if record.get("sha256") != verdict.sha256 else []
        yield Recheck(record, verdict, (*others, *_differences(old, new)))


def _message_key(record: Mapping[str, Any], keys: Sequence[Key | KeyIndex]) -> Key:
    """Return the key by which a record of decode is judged: the one that it names, or the only one."""
    single = [key for key in keys if isinstance(key, Key)]
    listed = record["provenance"].get("keys")
    named = (
        [known.get("fingerprint") for known in listed if isinstance(known, dict)] if isinstance(listed, list) else []
    )
    chosen = [key for key in single if key.fingerprint in named] or single
    if len(chosen) != 1:
        raise UsageError(f"{printable(record['path'])} was judged by decode: give the one key file that reads it")
    return chosen[0]


def _is_exact(record: Mapping[str, Any]) -> bool:
    return bool(record["detector"] == EXACT)


def check_calibrations(records: Sequence[Mapping[str, Any]], calibrations: Sequence[Calibration]) -> None:
    """Check that there is a calibration for each record that needs one, before anything is judged.

    Raises
    ------
    UsageError
        If there is none, or it is unclear which is to be used.
    """
    for record in records:
        if not _is_exact(record):
            _calibration(record, calibrations)


def _calibration(record: Mapping[str, Any], calibrations: Sequence[Calibration]) -> Calibration:
    """Return the calibration by which a record is judged: the one that it names, or the only one."""
    named = record["provenance"].get("calibration")
    chosen = [one for one in calibrations if one.checksum == named] or list(calibrations)
    if len({one.checksum for one in chosen}) != 1:
        judged = (
            f"{printable(record['path'])} was judged by the calibrated detector {printable(str(record['detector']))}"
        )
        raise UsageError(f"{judged}: give its calibration, --calibration FILE")
    return chosen[0]


def _test(record: Mapping[str, Any], keys: Sequence[Key | KeyIndex], model: LatentModel) -> EvidenceTest:
    single = [key for key in keys if isinstance(key, Key)]
    if "message" in record:
        check_pattern(single[0])
        check_fit(single, model.latent_shape, model.name)
        return MessageTest(single[0])
    if "matches" in record or len(single) < len(keys):
        return index_test(list(keys), model)
    return key_test(single, model)


def _judge(settings: Mapping[str, Any], test: EvidenceTest, model: LatentModel) -> Judge:
    inversion, alpha, search = _used(settings)
    return Judge.of(model, test, alpha=alpha, inversion=inversion, search=search)


def _calibrated_judge(
    record: Mapping[str, Any], keys: Sequence[Key | KeyIndex], calibration: Calibration, model: LatentModel
) -> CalibratedJudge:
    single = [key for key in keys if isinstance(key, Key)]
    if len(single) < len(keys):
        raise UsageError("calibrated detectors cannot test an index: name key files")
    inversion, alpha, _ = _used(record["provenance"]["settings"])
    detector = str(record["detector"])
    return CalibratedJudge.of(single, calibration, detector, model=model, alpha=alpha, inversion=inversion)


def _used(settings: Mapping[str, Any]) -> tuple[InversionOptions, float, str]:
    """Return inversion, alpha and search as the settings of a record name them."""
    try:
        inversion = InversionOptions(
            method=settings["method"],
            settings=_checked(Settings(**settings["settings"])) if settings["settings"] else None,
            noise_method=settings["noise_method"],
            steps=integer(settings["steps"]),
            precision=settings["precision"],
        )
        return inversion, float(settings["alpha"]), str(settings["search"]).removesuffix(" s")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"the settings of a record are not of this version ({error}): judge the file anew") from error


def _checked(settings: Settings) -> Settings:
    """Return settings whose values are of the right kind; ValueError for others, and for work without end."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if each.type == "int" and not 0 <= integer(value) <= _MOST:
            raise ValueError(f"{each.name} is {value}")
        if each.type == "float" and not math.isfinite(value):
            raise ValueError(f"{each.name} is {value}")
    return settings


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Return the names of what differs between two trees of dicts."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            found
            for key in sorted({*old, *new})
            for found in _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if old == new else [name]
