"""Reports of an audit: counts and samples agree with the rows, and no format runs or breaks on what a file is called."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers.audit_rows import KEYS, row, unjudged, write_audit
from helpers.images import encoded, smooth

from treering_verify.cli.main import main
from treering_verify.errors import UsageError
from treering_verify.report.audit import digest, write_report
from treering_verify.report.audit.audit_reader import open_audit
from treering_verify.report.audit.digest import gather, uniform_pvalue
from treering_verify.report.audit.exports import harmless
from treering_verify.report.audit.gallery import Sources, make_tiles

NASTY = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2",
    "@SUM(A1)",
    "\uff1d1",
    "  =1",
    "a\x1b[31m\u202egnp.exe\r\n=x",
    "<script>alert(1)</script>",
    "quote\"'&amp;]]>.png",
    "\u0001\ufffe\u2028.png",
    "s3://bucket/a b/\u00e9.png",
    "/srv/100%/#?.png",
    "folder:with/colon.png",
]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    """Return an audit of files with nasty names: detected, errors, skipped, and one of each other verdict."""
    rows = [row(name, "detected", -9.0, key=name, reason=name) for name in NASTY]
    rows += [unjudged(name, code="corrupt", reason=name) for name in NASTY]
    rows += [unjudged("in/fifo", "skipped", "not_a_file", "a FIFO"), row("plain.png")]
    rows += [
        row("cut.png", "inconclusive", -0.1, code="size", reason="cropped", residual=float("nan"), sha256="ab" * 32)
    ]
    return write_audit(tmp_path / "audit", [rows[:5], [], rows[5:]])


def mixed(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows of all kinds, in a random order."""
    generator = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        path, kind = f"d{i % 7}/e{i % 3}/{i:05d}.png", generator.integers(10)
        if kind == 0:
            rows.append(row(path, "detected", -7 - float(generator.uniform(0, 200))))
        elif kind == 1:
            rows.append(unjudged(path, code=("corrupt", "empty", "too_small")[i % 3]))
        elif kind == 2:
            rows.append(unjudged(path, "skipped", "not_a_file"))
        else:
            verdict = "inconclusive" if kind == 3 else "no evidence"
            rows.append(row(path, verdict, float(np.log10(generator.uniform()))))
    return rows


def label_of(found: dict[str, Any]) -> str:
    return found["verdict"] if found["status"] == "ok" else found["status"]


# --- what is gathered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_shard", [37, 1000])
def test_counts_agree_with_the_rows_however_they_are_split(tmp_path: Path, per_shard: int) -> None:
    rows = mixed(1000)
    write_audit(tmp_path, [rows[i : i + per_shard] for i in range(0, 1000, per_shard)])
    found = gather(open_audit(tmp_path))
    assert found.labels == Counter(map(label_of, rows)) and found.count == 1000
    assert found.causes == Counter((label_of(r), r["code"]) for r in rows if r["code"])
    assert found.folders == {
        f"d{a}/e{b}": Counter(label_of(r) for r in rows if r["path"].startswith(f"d{a}/e{b}/"))
        for a in range(7)
        for b in range(3)
    }
    assert found.keys == {("first", KEYS[0]["fingerprint"]): found.labels["detected"]}
    assert found.pvalue_counts["judged"].sum() == sum(r["status"] == "ok" for r in rows)
    assert not found.sampled and {r["path"] for s in found.rows.values() for r in s} == {r["path"] for r in rows}


def test_the_sample_is_the_strongest_and_weakest_detected_and_the_first_errors_of_each_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled = {"detected": 10, "inconclusive": 5, "error": 6, "no evidence": 8, "skipped": 2}
    monkeypatch.setattr(digest, "SAMPLED", sampled)
    monkeypatch.setattr(digest, "_PER_CODE", 2)
    rows = mixed(1000)
    found = gather(open_audit(write_audit(tmp_path, [rows[:300], rows[300:]])))
    assert found.sampled
    ordered = {
        label: sorted((r for r in rows if label_of(r) == label), key=lambda r: r["log10_adjusted"])
        for label in ("detected", "inconclusive", "no evidence")
    }
    names = {label: [r["path"] for r in kept] for label, kept in found.rows.items()}
    strongest = [r["path"] for r in ordered["detected"]]
    assert names["detected"] == strongest[:5] + strongest[-5:]
    assert names["inconclusive"] == [r["path"] for r in ordered["inconclusive"][:5]]
    assert names["no evidence"] == [r["path"] for r in ordered["no evidence"][:8]]
    first = {
        code: [r["path"] for r in rows if (r["status"], r["code"]) == ("error", code)][:2]
        for code in ("corrupt", "empty", "too_small")
    }
    assert sorted(names["error"]) == sorted(path for paths in first.values() for path in paths)
    assert len(names["skipped"]) == 2


def test_too_many_folders_are_folded_from_below_and_lose_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "MAX_FOLDERS", 10)
    rows = [row(f"a/{i % 5}/{i}/x.png") for i in range(100)] + [row("b/y.png", "detected", -9.0), row("top.png")]
    found = gather(open_audit(write_audit(tmp_path, [rows[:50], rows[50:]])))
    expected = {f"a/{i}/...": Counter({"no evidence": 20}) for i in range(5)}
    assert found.folders == expected | {"b": Counter(detected=1), "": Counter({"no evidence": 1})}


@pytest.mark.parametrize("keys_tried", [1, 7, 10_000])
def test_the_p_of_the_histogram_is_uniform_however_many_keys_were_tried(keys_tried: int) -> None:
    generator = np.random.default_rng(4)
    # The smallest of m uniform numbers is 1 - (1 - u)^(1/m): drawn so, it needs no m numbers.
    smallest = -np.expm1(np.log1p(-generator.uniform(size=20_000)) / keys_tried)
    counts = np.histogram(uniform_pvalue(np.log10(smallest), keys_tried), 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 45.3  # chi-square of 19 degrees of freedom, at 0.0006
    assert uniform_pvalue(np.array([-300.0, 0.0]), keys_tried).tolist() == pytest.approx([keys_tried * 1e-300, 1.0])


def test_the_histogram_of_two_passes_shows_the_first_and_says_so(tmp_path: Path) -> None:
    first = np.log10((np.arange(1000) + 0.5) / 1000).tolist()
    rows = [row(f"{i}.png") | {"log10_pvalue": -0.01, "log10_first": one} for i, one in enumerate(first)]
    rows.append(row("text") | {"status": "skipped", "log10_pvalue": None, "log10_first": None})
    folder = write_audit(tmp_path / "two", [rows], decided_by={"first": 1000})
    assert set(gather(open_audit(folder)).pvalue_counts["judged"].tolist()) == {1000 // digest.PVALUE_BINS}
    assert "p of the screening pass is uniform" in write_report(folder).read_text()
    alone = write_audit(tmp_path / "one", [[line | {"log10_first": None} for line in rows]])
    assert gather(open_audit(alone)).pvalue_counts["judged"].tolist()[-1] == 1000
    text = write_report(alone).read_text()
    assert "p is uniform" in text and "screening pass" not in text


def test_an_empty_and_an_unfinished_audit_have_a_page_too(tmp_path: Path) -> None:
    empty = write_report(write_audit(tmp_path / "none", []))
    assert "0 files." in empty.read_text()
    (write_audit(tmp_path / "cut", [[row("a.png")]]) / "summary.json").unlink()
    text = write_report(tmp_path / "cut").read_text()
    assert "not finished" in text and "a.png" in text and "not finished" not in empty.read_text()


def test_what_is_no_audit_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        with pytest.raises(UsageError, match="treering audit --output"):
            write_report(tmp_path / folder)
    assert not (tmp_path / "missing").exists()
    folder = write_audit(tmp_path / "damaged", [[row("a.png")], [row("b.png")]])
    shard = folder / "rows-000001.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(UsageError, match=r"rows-000001\.parquet.*run the same audit again"):
        write_report(folder)
    newer = write_audit(tmp_path / "newer", [[row("a.png")]], schema_version=3)
    with pytest.raises(UsageError, match="schema version 3, this release reads 1 to 2"):
        write_report(newer)
    assert not list(newer.glob("report*")) and not list(newer.glob(".*"))


# --- formats for machines ---------------------------------------------------------------------------------------------


def test_jsonl_gives_every_row_as_it_is(nasty: Path, tmp_path: Path) -> None:
    lines = write_report(nasty, tmp_path / "out.jsonl").read_bytes()
    assert lines.isascii()
    records = [json.loads(line) for line in lines.splitlines()]
    assert [r["path"] for r in records] == [*NASTY, *NASTY, "in/fifo", "plain.png", "cut.png"]
    assert (
        records[0]["log10_adjusted"] == -9.0 and records[-1]["residual"] is None and records[-1]["schema_version"] == 2
    )


def test_what_was_not_judged_has_no_verdict_whatever_the_schema_version(tmp_path: Path) -> None:
    rows = [row("a.png", "inconclusive", code="size", reason="cropped"), unjudged("b.png"), unjudged("c", "skipped")]
    old = [{**one, "schema_version": 1, "verdict": one["verdict"] or "inconclusive"} for one in rows]
    for name, version, written in (("new", 2, rows), ("old", 1, old)):
        folder = write_audit(tmp_path / name, [written], schema_version=version)
        lines = write_report(folder, tmp_path / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(line)["verdict"] for line in lines] == ["inconclusive", None, None]
        table = list(csv.DictReader(io.StringIO(write_report(folder, tmp_path / f"{name}.csv").read_text())))
        assert [line["verdict"] for line in table] == ["inconclusive", "", ""]
        found = gather(open_audit(folder))
        assert found.labels == {"inconclusive": 1, "error": 1, "skipped": 1}


def test_csv_runs_nowhere_and_keeps_its_shape(nasty: Path, tmp_path: Path) -> None:
    text = write_report(nasty, tmp_path / "out.csv").read_text("utf-8")
    assert all(c.isprintable() for c in text.replace("\n", ""))
    lines = list(csv.reader(io.StringIO(text)))
    assert text.count("\n") == len(lines) == 2 * len(NASTY) + 4 and len({len(line) for line in lines}) == 1
    header, *rows = lines
    for name in ("path", "reason", "key", "code", "verdict", "sha256"):
        for line in rows:
            assert not line[header.index(name)].lstrip().startswith(("=", "+", "-", "@", "\uff1d"))
    assert rows[0][header.index("path")] == "'=cmd|' /C calc'!A0"
    assert float(rows[0][header.index("log10_adjusted")]) == -9.0  # a number may be negative
    assert harmless("a=b.png") == "a=b.png" and harmless(None) == "" and harmless("图.png") == "图.png"


URI = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*\Z")


def check_sarif(log: dict[str, Any]) -> list[dict[str, Any]]:
    """Check what SARIF 2.1.0 requires of the parts that are used here, and return the results."""
    assert log["version"] == "2.1.0" and log["$schema"].startswith("https://") and len(log["runs"]) == 1
    (run,) = log["runs"]
    driver = run["tool"]["driver"]  # section 3.18, 3.19
    assert driver["name"] and re.fullmatch(r"\d+\.\d+\.\d+", driver["semanticVersion"])
    rules = [rule["id"] for rule in driver["rules"]]
    assert len(set(rules)) == len(rules) and all(rule["shortDescription"]["text"] for rule in driver["rules"])
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    assert all(isinstance(invocation["executionSuccessful"], bool) for invocation in run["invocations"])
    for result in run["results"]:  # section 3.27
        assert result["ruleId"] in rules and result["message"]["text"].isprintable()
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["kind"] in ("notApplicable", "pass", "fail", "review", "open", "informational")
        assert result["kind"] == "fail" or result["level"] == "none"
        for location in result["locations"]:
            assert URI.match(location["physicalLocation"]["artifactLocation"]["uri"])
    return run["results"]


def test_sarif_is_valid_and_has_a_result_for_each_file_that_matters(nasty: Path, tmp_path: Path) -> None:
    results = check_sarif(json.loads(write_report(nasty, tmp_path / "out.sarif").read_bytes()))
    assert Counter(r["ruleId"] for r in results) == {
        "treering/detected": len(NASTY),
        "treering/error": len(NASTY),
        "treering/inconclusive": 1,
    }
    uris = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in results]
    assert uris[-4:-1] == ["s3://bucket/a%20b/%C3%A9.png", "file:///srv/100%25/%23%3F.png", "folder%3Awith/colon.png"]
    assert results[-1]["fingerprints"] == {"sha256/v1": "ab" * 32} and results[-1]["kind"] == "open"
    assert "p 1.0e-09" in results[0]["message"]["text"]
    other = run("report", nasty, "--output", tmp_path / "o.sarif", "--fail-on", "no-evidence")
    assert other.exit_code == 0
    rules = Counter(r["ruleId"] for r in check_sarif(json.loads((tmp_path / "o.sarif").read_bytes())))
    assert rules["treering/no-evidence"] == 1 and rules["treering/detected"] == 0
    check_sarif(json.loads(write_report(write_audit(tmp_path / "none", []), tmp_path / "none.sarif").read_bytes()))


@pytest.mark.parametrize(("origin", "shown"), [("free numbers", True), ("derived", False)])
def test_every_form_says_of_free_numbers_that_they_are(origin: str, shown: bool, tmp_path: Path) -> None:
    rows = [row("a.png", "detected", -40, key_origin=origin), row("b.png", key_origin=None)]
    audit = write_audit(tmp_path / "audit", [rows])
    words = f"00aa11bb22cc33dd{', ' if shown else ''}"
    for form in ("html", "sarif", "xml", "csv", "jsonl"):
        text = write_report(audit, tmp_path / f"out.{form}").read_bytes().decode()
        assert (origin in text) == (shown or form in ("sarif", "csv", "jsonl")), form
    (result,) = json.loads((tmp_path / "out.sarif").read_bytes())["runs"][0]["results"]
    assert result["properties"]["key_origin"] == origin
    assert f"{words}{origin if shown else ''})" in result["message"]["text"]


def test_junit_counts_its_cases(nasty: Path, tmp_path: Path) -> None:
    suites = ElementTree.fromstring(write_report(nasty, tmp_path / "out.xml").read_bytes())
    (suite,) = suites
    cases = list(suite)
    for element in (suites, suite):
        assert int(element.get("tests", "")) == len(cases) == 2 * len(NASTY) + 3
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(element.get(attribute, "")) == sum(case.find(tag) is not None for case in cases)
    assert suite.get("failures") == suite.get("errors") == str(len(NASTY)) and suite.get("skipped") == "1"
    assert {case.get("classname") for case in cases} >= {"in", ".", "/srv/100%"}
    passing = write_report(nasty, tmp_path / "p.xml", fail_on=["no evidence"])
    assert ElementTree.fromstring(passing.read_bytes()).get("failures") == "1"


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_and_holds_no_markup_of_a_name(nasty: Path) -> None:
    text = write_report(nasty).read_text("utf-8")
    assert text.count("<script") == 1 and "alert(1)" in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert not re.search(r"url\((?!#)|@import", text)
    assert all(c.isprintable() or c == "\n" for c in text)


def test_images_come_from_the_very_bytes_that_were_judged(tmp_path: Path) -> None:
    smooth(300, 200).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    known, other = hashlib.sha256(data).hexdigest(), hashlib.sha256(b"").hexdigest()
    rows = [row("a.png", "detected", -9.0, sha256=s) for s in (known, other)]
    rows += [row(path, "detected", -9.0, sha256=known) for path in ("gone.png", "https://example.org/a.png")]
    tiles, _ = make_tiles(rows, Sources(tmp_path / "state", tmp_path))
    assert tiles[0].thumbnail.startswith("data:image/jpeg;base64,") and tiles[0].note == ""
    assert [bool(tile.thumbnail) for tile in tiles] == [True, False, False, False]
    assert "changed" in tiles[1].note and "no such file" in tiles[2].note and "network" in tiles[3].note


def test_a_name_that_is_no_text_is_found_by_its_bytes_and_q_values_are_shown(tmp_path: Path) -> None:
    import os

    name = os.fsencode(tmp_path) + b"/\xff.png"
    Path(os.fsdecode(name)).write_bytes(encoded(smooth(), "PNG"))
    known = hashlib.sha256(encoded(smooth(), "PNG")).hexdigest()
    rows = [
        row("shown\\xff.png", "detected", -9.0, path_bytes=name, q_value=0.125, sha256=known),
        row("a.png", path_bytes=None, q_value=0.5),
    ]
    folder = write_audit(tmp_path / "audit", [rows])
    page = write_report(folder, root=tmp_path).read_text()
    assert "data:image/jpeg" in page and ">0.125<" in page
    records = [json.loads(line) for line in write_report(folder, tmp_path / "o.jsonl").read_text().splitlines()]
    assert [r["path_bytes"] for r in records] == [name.hex(), None] and records[0]["q_value"] == 0.125
    lines = list(csv.DictReader(io.StringIO(write_report(folder, tmp_path / "o.csv").read_text())))
    assert [line["path_bytes"] for line in lines] == [name.hex(), ""]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_chooses_the_format_by_the_suffix_and_prints_data_on_request(nasty: Path, tmp_path: Path) -> None:
    for suffix, start in (("html", b"<!doctype"), ("csv", b"schema_"), ("jsonl", b'{"schema'), ("sarif", b'{"$schema')):
        made = run("report", nasty, "--output", tmp_path / f"r.{suffix}", "--no-spectra")
        assert made.exit_code == 0 and made.stdout == "", made.output
        assert (tmp_path / f"r.{suffix}").read_bytes().startswith(start)
    printed = run("report", nasty, "--output", "-", "--format", "jsonl")
    assert printed.stdout_bytes == (tmp_path / "r.jsonl").read_bytes()
    for refused in (["-"], ["-", "--format", "html"], [tmp_path / "r.txt"], [tmp_path / "no" / "r.csv"], [tmp_path]):
        result = run("report", nasty, "--output", *refused)
        assert result.exit_code == 2 and "Error: " in result.stderr, result.output
    assert run("report", tmp_path, "--output", tmp_path / "x.csv").exit_code == 2
    assert not (tmp_path / "x.csv").exists()


def test_a_model_that_is_gone_costs_the_spectra_only(tmp_path: Path) -> None:
    folder = write_audit(tmp_path / "audit", [[row("a.png", "detected", -9.0)]], model="/gone/model")
    made = run("report", folder, "--output", tmp_path / "r.html")
    assert made.exit_code == 0 and "No spectra" in made.stderr
    assert "No spectra" in (tmp_path / "r.html").read_text()
    assert run("report", folder, "--output", tmp_path / "s.html", "--model", "/gone/model").exit_code == 2
