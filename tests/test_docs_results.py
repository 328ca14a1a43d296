"""Tables of README.md and docs/ say what stored results say, and no result is older than the code that it measures."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from helpers import fragments

from treering_verify.benchmark import BENCHMARKS, DOCS
from treering_verify.benchmark.harness.code_digests import code_digests
from treering_verify.models import EMBEDDED, load_model
from treering_verify.models.weights import fingerprint

MEASURED = BENCHMARKS["noise"].measured


def test_each_included_table_is_what_its_result_says() -> None:
    assert not list(fragments.different(fragments.ROOT))


def test_no_included_result_is_older_than_the_last_change_to_what_it_measures() -> None:
    assert not list(fragments.outdated(fragments.ROOT))


def test_every_number_in_a_table_is_of_a_result_or_published_or_tested() -> None:
    assert not list(fragments.without_source(fragments.ROOT))


def test_figures_in_sentences_are_of_a_result_or_published_or_tested_or_constants() -> None:
    """`tests/helpers/measuring/sentences.py` says what looks measured."""
    assert not list(fragments.passages(fragments.ROOT))


def test_included_results_of_the_embedded_model_are_of_its_weights() -> None:
    facts = [record["facts"] for record in fragments.records(fragments.ROOT).values()]
    for name in {one["model"] for one in facts} & set(EMBEDDED):
        weights = fingerprint(load_model(name), without=())
        said = {one["weights"] for one in facts if one["model"] == name}
        assert said <= {weights, ""}  # a benchmark that chooses its model by itself says no weights: `heldout`


def test_the_preset_for_the_documentation_runs_what_its_pages_include_and_as_they_include_it() -> None:
    """`DOCS` in `treering_verify/benchmark/durations.py` names them."""
    stored = fragments.records(fragments.ROOT)
    assert set(fragments.included(fragments.ROOT)) == set(stored)
    # An ending: of another model, or other parts.
    assert set(DOCS) == {name for name in stored if name in BENCHMARKS}
    for name, how in DOCS.items():
        options = shlex.split(stored[name]["facts"]["repeat"])
        count = int(options[options.index("--count") + 1]) if "--count" in options else None
        assert (count, "--quick" in options) == (how.count, how.quick), name
        assert how.minutes > 0


# --- the check itself -------------------------------------------------------------------------------------------------

PAGE = """# Noise

<!-- fragment noise error-of [columns: method; error] [as: method; dB] [no note] -->
<!-- end -->

Text with 17 numbers.

| option | does |
|---|---|
| `--count` | 3 images |
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A README.md that includes a table of a result."""
    (tmp_path / "docs" / "results").mkdir(parents=True)
    facts: dict[str, Any] = {"date": "2026-01-01", "commit": "abc", "changed": False, "model": "tiny", "weights": "w"}
    facts |= {"hardware": "h", "repeat": "treering benchmark noise", "images": "4", "seeds": "", "partial": ""}
    table = {"title": "Error of z", "header": ["method", "steps", "error"], "note": "A note."}
    table["rows"] = [["naive", "5", "-11.2 +- 0.4"], ["exact", "50", "-24.6 +- 0.5"]]
    record = {"name": "noise", "question": "?", "facts": facts | {"code": code_digests(MEASURED)}, "tables": [table]}
    (tmp_path / "docs" / "results" / "noise.json").write_text(json.dumps(record | {"figures": [], "parts": []}))
    (tmp_path / "README.md").write_text(PAGE)
    fragments.renew(tmp_path, [])
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_page_is_renewed_from_the_stored_result(site: Path) -> None:
    text = (site / "README.md").read_text()
    assert (
        "| method | dB |\n|---|---|\n| naive | -11.2 +- 0.4 |\n| exact | -24.6 +- 0.5 |\n\n*2026-01-01; commit abc;"
        in text
    )
    assert "A note." not in text and fragments.problems(site) == []
    change(site / "docs" / "results" / "noise.json", "-24.6", "-25.1")
    assert "not what its result says" in "".join(fragments.problems(site))
    fragments.renew(site, [])
    assert "-25.1" in (site / "README.md").read_text() and fragments.problems(site) == []


def test_a_fragment_without_an_end_is_named_and_one_in_a_sentence_is_none(site: Path) -> None:
    page = site / "README.md"
    page.write_text(page.read_text() + "Write `<!-- fragment NAME TABLE -->`.\n")
    assert fragments.problems(site) == []
    page.write_text(page.read_text() + "\n<!-- fragment noise error-of -->\n")
    assert fragments.problems(site) == ["README.md: a fragment has no end"]


def test_a_page_includes_what_a_result_and_its_parts_say(site: Path) -> None:
    result, page = site / "docs" / "results" / "noise.json", site / "README.md"
    parts = [{"title": "Table 1: errors", "answer": "Agrees: all.", "tables": [], "figures": []}]
    result.write_text(json.dumps(json.loads(result.read_text()) | {"answer": "The answer.", "parts": parts}))
    page.write_text(
        "<!-- fragment noise answer-table-1 [no origin] -->\n<!-- end -->\n\n<!-- fragment noise answer -->\n<!-- end -->\n"
    )
    fragments.renew(site, [])
    text = page.read_text()
    assert "[no origin] -->\nAgrees: all.\n<!-- end -->" in text and "answer -->\nThe answer.\n\n*2026-01-01;" in text


def test_figures_of_a_second_result_do_not_replace_those_of_the_first(site: Path, tmp_path: Path) -> None:
    stored, page, run = site / "docs" / "results", site / "README.md", tmp_path / "run"
    run.mkdir()
    (run / "noise.json").write_bytes((stored / "noise.json").read_bytes())
    for folder, content in ((stored, b"first"), (run, b"second")):
        (folder / "noise.path.png").write_bytes(content)
    page.write_text(page.read_text() + "\n<!-- fragment noise.other error-of -->\n<!-- end -->\n")
    page.write_text(page.read_text() + "\n![Path](docs/results/noise.path.png)\n")
    fragments.renew(site, [run], ending="other")
    assert (stored / "noise.path.png").read_bytes() == b"first" and (stored / "noise.other.json").exists()
    fragments.renew(site, [run])
    assert (stored / "noise.path.png").read_bytes() == b"second"


def test_columns_of_one_name_are_all_shown(site: Path) -> None:
    change(site / "docs" / "results" / "noise.json", '"steps", "error"', '"dB", "dB"')
    change(site / "README.md", "[columns: method; error] [as: method; dB] ", "")
    fragments.renew(site, [])
    assert "| naive | 5 | -11.2 +- 0.4 |" in (site / "README.md").read_text()


def test_rows_are_chosen_by_their_first_column(site: Path) -> None:
    change(site / "README.md", "[no note]", "[rows: exact]")
    fragments.renew(site, [])
    text = (site / "README.md").read_text()
    assert "| exact |" in text and "| naive |" not in text and "\nA note.\n" in text
    change(site / "README.md", "[rows: exact]", "[rows: no such]")
    with pytest.raises(LookupError, match="no such"):
        fragments.renew(site, [])


def test_a_result_is_old_once_its_code_changes_until_that_is_accepted_with_a_reason(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def later(names: Any) -> dict[str, str]:
        return {**code_digests(names), "inversion.noise": "another"}

    monkeypatch.setattr(fragments.result, "digests", later)
    (said,) = fragments.problems(site)
    assert "README.md: noise of 2026-01-01 is older than the last change to inversion.noise;" in said
    fragments.accept(site, "noise", "a new function that no benchmark calls")
    assert fragments.problems(site) == []
    monkeypatch.setattr(fragments.result, "digests", lambda names: {**later(names), "inversion.noise": "a third"})
    assert len(fragments.problems(site)) == 1


NUMBERS = "\n{}\n| method | error |\n|---|---|\n| naive | {} |\n"


@pytest.mark.parametrize(
    ("above", "number", "wrong"),
    [
        ("", "-11.2", "include a fragment"),
        ("", "low", ""),
        ("<!-- published: Hong et al. 2024, table 1 -->", "-11.3", ""),
        ("<!-- from noise -->", "**-11.2** after 5", ""),
        ("<!-- from noise -->", "-11.20 +- 0.4", ""),
        ("<!-- from noise -->", "-11.3", "no table of noise has -11.3"),
        ("<!-- from detection -->", "-11.2", "no result detection"),
        ("<!-- tested: tests/facts.py::test_numbers -->", "-11.3", ""),
        ("<!-- tested: tests/facts.py::test_number -->", "-11.3", "no test test_number in tests/facts.py"),
    ],
)
def test_a_table_of_ones_own_needs_a_source_for_each_number(site: Path, above: str, number: str, wrong: str) -> None:
    (site / "tests").mkdir()
    (site / "tests" / "facts.py").write_text("\ndef test_numbers() -> None: ...\n")
    (site / "README.md").write_text((site / "README.md").read_text() + NUMBERS.format(above, number))
    found = fragments.problems(site)
    assert wrong in "".join(found) and bool(found) == bool(wrong)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Naive ends at -11.2 dB (2026-01-01),\nexact at -24.6 after 50 steps; `--count 17`.", ""),
        ("Naive ends at -11.2 dB,\nexact at -24.7.", "noise does not say -24.7"),
        ("* Naive: -11.2.\n* Exact: -24.7 of -24.8.", "noise does not say -24.8, -24.7"),
        ("Naive ends at -11.2 dB.\n\nAnother paragraph has 17.", ""),
        ("Naive ends at -11.2 dB.\n\nAnother ends at -11.2 dB.", "no comment says where these are from: -11.2 dB"),
        ("* Naive: -11.2.\n<!-- defined: treering_verify/limits.py -->\n* At most 20 minutes, or 5 %.", ""),
    ],
)
def test_numbers_in_sentences_are_those_of_the_result_that_a_comment_names(site: Path, text: str, wrong: str) -> None:
    page = site / "README.md"
    (site / "treering_verify").mkdir()
    (site / "treering_verify" / "limits.py").write_text("BUDGET = 1_200.0\nSHARE = 0.05\n")
    page.write_text(page.read_text() + f"\n<!-- from noise -->\n{text}\n")
    found = fragments.problems(site)
    assert wrong in "".join(found) and bool(found) == bool(wrong)


FIGURES = """95 of 103
12/20
1,708/1,768
3 %
.5 dB
2 to 5 decades
20 s
3 ms
1.2 processor seconds
5 minutes
3 and 4 GiB
459 MB
p = 2.5e-7
-.1 dB
1.5 times as long
2026-11-30
measured by hand
12 of the 40
log10 p of about -57"""


@pytest.mark.parametrize("figure", FIGURES.splitlines())
def test_a_figure_that_looks_measured_needs_a_source(site: Path, figure: str) -> None:
    page = site / "README.md"
    before = page.read_text()
    for text in (f"It was {figure}.", f"* One.\n* It was **{figure}**,\n  as expected."):
        page.write_text(f"{before}\n{text}\n")
        (said,) = fragments.problems(site)
        assert "no comment says where these are from" in said
        page.write_text(f"{before}\n<!-- published: Hong et al. 2024, table 1 -->\n{text}\n")
        assert fragments.problems(site) == []


@pytest.mark.parametrize(
    "text",
    [
        "Alpha is 1e-6, and 1/16 of it is for other angles of 128 x 128 pixels.",
        "`--budget 20 minutes` and [a link](page.md#12-of-20), with 95 % Clopper-Pearson intervals.",
        "    generating 4.66 s an image",
        "```text\n12 of 20 found in 3 s\n```",
    ],
)
def test_settings_code_and_output_are_not_taken_for_measurements(site: Path, text: str) -> None:
    page = site / "README.md"
    page.write_text(f"{page.read_text()}\n{text}\n")
    assert fragments.problems(site) == []


@pytest.mark.parametrize(
    ("figure", "source", "wrong"),
    [
        ("20 minutes", "limits.py", ""),
        ("30 minutes", "limits.py", "treering_verify/limits.py does not say 30"),
        ("5 % of 64 MiB", "limits.py", ""),
        ("20 minutes", "no_limits.py", "no file treering_verify/no_limits.py"),
    ],
)
def test_a_constant_in_a_sentence_is_in_the_code_that_a_comment_names(
    site: Path, figure: str, source: str, wrong: str
) -> None:
    page, code = site / "README.md", site / "treering_verify"
    code.mkdir()
    (code / "limits.py").write_text("BUDGET = 20 * 60\nSHARE = 0.05\nMEMORY = 64 << 20\n")
    page.write_text(f"{page.read_text()}\n<!-- defined: treering_verify/{source} -->\nIt takes {figure}, by default.\n")
    found = fragments.problems(site)
    assert wrong in "".join(found) and bool(found) == bool(wrong)


def test_what_a_script_printed_is_a_result_until_the_script_or_the_code_changes(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, script = site / "README.md", site / "count.py"
    script.write_text("print('found 7 of 9')\n")
    monkeypatch.setattr(fragments.result, "ROOT", site)
    fragments.store(site, "count", "python count.py", ["inversion.noise"], fragments.result.printed("python count.py"))
    page.write_text(f"{page.read_text()}\n<!-- from count -->\nIt finds 7 of 9.\n")
    assert fragments.problems(site) == []
    page.write_text(f"{page.read_text()}\n<!-- fragment count answer -->\n<!-- end -->\n")
    fragments.renew(site, [])
    assert "```text\n$ python count.py\nfound 7 of 9\n```\n\n*20" in page.read_text() and fragments.problems(site) == []
    change(page, "It finds 7 of 9", "It finds 8 of 9")
    assert "count does not say 8" in "".join(fragments.problems(site))
    change(page, "8 of 9", "7 of 9")
    script.write_text("print('found', 7, 'of 9')\n")
    (said,) = fragments.problems(site)
    assert "is older than the last change to count.py; run: python count.py" in said
    fragments.accept(site, "count", "it prints the same")
    assert fragments.problems(site) == []
    with monkeypatch.context() as patch:
        patch.setattr(fragments.result, "code_digests", lambda names: dict.fromkeys(names, "another"))
        assert "is older than the last change to inversion.noise" in "".join(fragments.problems(site))


@pytest.mark.parametrize(
    "command", ["python no_script.py", "treering nothing", "make", "python -m treering_verify.nothing"]
)
def test_a_result_of_a_command_that_is_not_in_the_repository_is_not_stored(site: Path, command: str) -> None:
    with pytest.raises(SystemExit, match=r"no script|no command|neither|no module|no no_script"):
        fragments.store(site, "count", command, ["inversion.noise"], "7 of 9")


def test_what_a_benchmark_printed_is_no_source(site: Path) -> None:
    page = site / "README.md"
    page.write_text(page.read_text() + "\n```text\nnaive  -11.3\nRepeat: treering benchmark noise\n```\n")
    assert "in a block of text" in "".join(fragments.problems(site))


def test_renewing_copies_whole_results_of_what_pages_include(site: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    stored = site / "docs" / "results"
    record = json.loads((stored / "noise.json").read_text())
    record["tables"][0]["rows"][0][2] = "-12.0"
    (run / "noise.json").write_text(json.dumps(record))
    (run / "editing.json").write_text(json.dumps(record))
    fragments.renew(site, [run])
    assert "-12.0" in (site / "README.md").read_text() and not (stored / "editing.json").exists()
    record["facts"]["partial"] = "interrupted"
    (run / "noise.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit, match="partial"):
        fragments.renew(site, [run])
