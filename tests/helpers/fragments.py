"""Tables and figures of README.md and docs/ that are results of benchmarks: renew them, and check them.

A page includes a table of NAME.json, which lies in docs/results, between two comments:

    <!-- fragment NAME TABLE [columns: A; B] [rows: X; Y] [as: a; b] [no note] [no origin] -->
    <!-- end -->

TABLE is the beginning of the table's title in lower case, with dashes, or `figure-` and the beginning of a figure's title,
or `answer` for what the result says, or `answer-` and the beginning of a part's title for what that part says.
`rows` chooses by the first column, `as` names the columns anew. Above another table a comment says where its numbers are
from:

    <!-- from NAME NAME -->             each number is in a table of these results
    <!-- published: SOURCE -->          the numbers are those of another paper
    <!-- tested: FILE::TEST -->         nothing was measured: the test compares the numbers with the code

Tables that define something, such as options and codes, are known by their headers. Above a paragraph or a list the same
comments say where the figures of its sentences are from, and one more:

    <!-- defined: FILE FILE -->         these files have them: constants of code, or the report in the card of a model

Of `from`, every number of the paragraph is compared; of `defined`, those that look measured: counts, rates, decibels,
decades, times, sizes, p-values and dates. A paragraph with such figures needs a comment, or several, one a line.

`python tests/helpers/fragments.py ...`

    renew DIR... [--ending E]   copies results from the folders of runs, and renews the pages; with an ending, NAME.json is
                                stored as NAME.E.json: a second result of a benchmark, of another model or other parts
    measure NAME COMMAND --on MODULES   runs a command of this repository that is no benchmark, such as a script of
                                `measuring`, and stores what it printed as the result NAME, with the digests of the script
                                and of the modules (or those of a benchmark); `--output FILE` has what it printed already
    accept NAME --reason TEXT   says that a change of code leaves the numbers of NAME as they are
    check                       prints what is wrong, and which changes of code were accepted
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script, too

from helpers.measuring import result
from helpers.measuring.sentences import DATE, FRAGMENT, constants, numbers_of
from helpers.measuring.sentences import passages as passages_of
from treering_verify.benchmark import BENCHMARKS
from treering_verify.report import leading_zeros
from treering_verify.report.markdown import markdown_table, origin_line, slug

ROOT = Path(__file__).resolve().parents[2]
RESULTS = "docs/results"
_HEADERS = """is,means,does,rule,limit,when,said where,the answer is,why,section,score,says,assumes,lives on,
pipelines,differs,contents,where,one step,normalisation,what you write,why it fails,what the file shows,
sizes of the image,versions"""
DEFINING = {header.strip() for header in _HEADERS.split(",")}
"""Headers of tables that define something and report nothing that was measured."""
_OPTION = re.compile(r"\[(columns|rows|as): ([^\]]*)\]|\[(no note|no origin)\]")


@dataclass(frozen=True)
class Table:
    """A table of a page: its lines, and the comment directly above it."""

    page: str
    line: int
    lines: tuple[str, ...]
    source: str

    @property
    def numbers(self) -> set[float]:
        """The numbers that were measured."""
        if DEFINING & set(cells(self.lines[0])):
            return set()
        return {number for line in self.lines[2:] for cell in cells(line) for number in numbers_of(cell)}


def cells(line: str) -> list[str]:
    """Return the cells of a line of a Markdown table."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def pages(root: Path) -> list[Path]:
    """Return the pages whose figures are checked."""
    here = [path for name in ("README.md", "CONTRIBUTING.md") if (path := root / name).exists()]
    return [*here, *sorted((root / "docs").glob("*.md"))]


def records(root: Path) -> dict[str, dict[str, Any]]:
    """Return the stored results by name; numbers are written as results of today have them."""
    return {path.stem: json.loads(leading_zeros(path.read_text())) for path in sorted((root / RESULTS).glob("*.json"))}


# --- what a page includes ---------------------------------------------------------------------------------------------


def rendered(record: Mapping[str, Any], what: str, options: str, to_results: str) -> str:
    """Return the Markdown of a table or figure of a result; `to_results` is the way from the page to the folder."""
    chosen = {
        one or flag: [part.strip() for part in values.split(";")] for one, values, flag in _OPTION.findall(options)
    }
    everything = [record, *record.get("parts", [])]
    if what.startswith("answer"):
        part = what.removeprefix("answer").removeprefix("-")
        body, note = [_chosen(record["parts"], part)["answer"] if part else record["answer"]], ""
        if record["facts"].get("measured"):
            body = [f"```text\n$ {record['facts']['repeat']}\n{record['answer']}\n```"]
    elif what.startswith("figure-"):
        figure = _chosen([f for part in everything for f in part["figures"]], what.removeprefix("figure-"))
        body = [f"![{figure['title']}]({to_results}/{figure['file']}.png)"]
        note = figure["note"]
    else:
        table = _chosen([t for part in everything for t in part["tables"]], what)
        header, rows, note = table["header"], table["rows"], table["note"]
        named = chosen.get("columns")
        columns = [header.index(name) for name in named] if named else list(range(len(header)))  # names may recur
        wanted = chosen.get("rows") or [row[0] for row in rows]
        if missing := set(wanted) - {row[0] for row in rows}:
            raise LookupError(f"{table['title']!r} has no rows {sorted(missing)}")
        lines = [[row[i] for i in columns] for row in rows if row[0] in wanted]
        body = [markdown_table(chosen.get("as") or [header[i] for i in columns], lines)]
    if note and "no note" not in chosen:
        body.append(note)
    if "no origin" not in chosen:
        body.append(origin_line(record["facts"]))
    return "\n\n".join(body) + "\n"


def _chosen(among: list[dict[str, Any]], beginning: str) -> dict[str, Any]:
    found = [one for one in among if slug(one["title"]) == beginning]
    found = found or [one for one in among if slug(one["title"]).startswith(beginning)]
    if len(found) != 1:
        raise LookupError(f"{beginning} is the beginning of {len(found)} titles: {[slug(o['title']) for o in among]}")
    return found[0]


def renewed(text: str, found: Mapping[str, dict[str, Any]], to_results: str) -> str:
    """Return a page with every fragment as its result says it now."""

    def replace(match: re.Match[str]) -> str:
        name, what, options, _ = match.groups()
        if name not in found:
            raise LookupError(f"no result {name} in {RESULTS}")
        return (
            f"<!-- fragment {name} {what}{options} -->\n{rendered(found[name], what, options, to_results)}<!-- end -->"
        )

    return FRAGMENT.sub(replace, text)


def measured_by(name: str, record: Mapping[str, Any]) -> list[str]:
    """Return the modules that a result measured: `shared.common` is a result of the benchmark `shared`."""
    return record["facts"].get("measured") or list(BENCHMARKS[name.partition(".")[0]].measured)


def _way(page: Path, root: Path) -> str:
    return RESULTS if page.parent == root else "results"


def included(root: Path) -> dict[str, set[str]]:
    """Return the names of results that pages include or take numbers from, each with the pages."""
    names: dict[str, set[str]] = {}
    for page in pages(root):
        text = page.read_text()
        mentioned = [match[1] for match in FRAGMENT.finditer(text)]
        mentioned += [name for match in re.findall(r"(?m)^<!-- from ([^>]*?) -->$", text) for name in match.split()]
        for name in mentioned:
            names.setdefault(name, set()).add(page.relative_to(root).as_posix())
    return names


# --- checks -----------------------------------------------------------------------------------------------------------


def different(root: Path) -> Iterator[str]:
    """Yield a sentence for each page whose fragments are not what the stored results say."""
    found = records(root)
    for page in pages(root):
        text = page.read_text()
        if len(re.findall("^<!-- fragment ", text, re.MULTILINE)) != len(FRAGMENT.findall(text)):
            yield f"{page.relative_to(root)}: a fragment has no end"
        elif renewed(text, found, _way(page, root)) != text:
            yield f"{page.relative_to(root)}: a table is not what its result says; run: {_COMMAND} renew"


def outdated(root: Path) -> Iterator[str]:
    """Yield a sentence for each included result that is older than the last change to what it measures."""
    found = records(root)
    for name, where in included(root).items():
        if name not in found:
            yield f"{', '.join(sorted(where))}: no result {name} in {RESULTS}"
            continue
        facts, now = found[name]["facts"], result.digests(measured_by(name, found[name]))
        accepted = {(one["module"], one["digest"]) for one in found[name].get("accepted", [])}
        changed = [m for m, d in now.items() if facts["code"].get(m) != d and (m, d) not in accepted]
        if facts.get("measured") and (unknown := result.known(facts["repeat"])):
            yield f"{name}: {facts['repeat']}: {unknown}"
        if changed:
            then = f"{_COMMAND} measure {name}" if facts.get("measured") else f"{_COMMAND} renew DIR"
            yield (
                f"{', '.join(sorted(where))}: {name} of {facts['date']} is older than the last change to "
                f"{', '.join(changed)}; run: {facts['repeat']}, then {then}"
            )
        if facts["partial"]:
            yield f"{name}: {facts['partial']}"


def tables(root: Path) -> Iterator[Table]:
    """Yield every table of the pages outside of fragments."""
    for page in pages(root):
        text = FRAGMENT.sub(lambda match: "\n" * match[0].count("\n"), page.read_text())
        lines = text.split("\n")
        for number, line in enumerate(lines):
            if re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", line.strip()) and number:
                end = next((i for i in range(number, len(lines)) if not lines[i].startswith("|")), len(lines))
                above = next((one.strip() for one in reversed(lines[: number - 1]) if one.strip()), "")
                source = match[1] if (match := re.fullmatch(r"<!-- (.*) -->", above)) else ""
                yield Table(page.relative_to(root).as_posix(), number, tuple(lines[number - 1 : end]), source)


def passages(root: Path) -> Iterator[str]:
    """Yield a sentence for each paragraph or list with figures that look measured and that its comments do not cover."""
    found = records(root)
    for page in pages(root):
        for passage in passages_of(page.read_text()):
            where = f"{page.relative_to(root)}:{passage.line}"
            from_, defined, tested, published = (
                passage.named(kind) for kind in ("from", "defined:", "tested:", "published:")
            )
            yield from (f"{where}: {problem}" for test in tested if (problem := _no_test(root, test)))
            yield from (f"{where}: no file {file}" for file in defined if not (root / file).is_file())
            if not (from_ or defined or tested or published):
                if passage.measured:
                    yield f"{where}: no comment says where these are from: {'; '.join(passage.measured)}"
                continue
            said = {number for name in from_ if name in found for number in all_numbers(found[name])}
            said |= constants([(root / file).read_text() for file in defined if (root / file).is_file()])
            figures = [passage.text] if from_ else passage.measured
            rest = {number for figure in figures for number in numbers_of(DATE.sub("", figure))} - said
            if rest and not (tested or published):
                names = ", ".join(from_ + defined)
                yield f"{where}: {names} does not say {', '.join(f'{n:g}' for n in sorted(rest))}"


def _no_test(root: Path, named: str) -> str:
    """Return what is wrong with FILE::TEST: "" if there is such a test."""
    file, _, test = named.partition("::")
    there = (root / file).is_file() and f"\ndef {test}(" in (root / file).read_text()
    return "" if there else f"no test {test} in {file}"


def all_numbers(record: Mapping[str, Any]) -> set[float]:
    """Return every number that a result says: in its tables, in its answers, and of its images."""
    texts = [record["facts"]["images"], *(part.get("answer", "") for part in (record, *record.get("parts", [])))]
    texts += [cell for t in all_tables(record) for row in (*t["rows"], t["header"]) for cell in row]
    return {number for text in texts for number in numbers_of(text or "")}


def without_source(root: Path) -> Iterator[str]:
    """Yield a sentence for each table with numbers that no result has, and that is neither published nor tested."""
    found = records(root)
    for page in pages(root):
        for number, line in enumerate(page.read_text().split("\n"), 1):
            if line.startswith("Repeat: treering benchmark"):
                yield f"{page.relative_to(root)}:{number}: a result stands in a block of text: include a fragment"
    for table in tables(root):
        if not table.numbers or table.source.startswith("published: "):
            continue
        where = f"{table.page}:{table.line}"
        if table.source.startswith("tested: "):
            if problem := _no_test(root, table.source.removeprefix("tested: ")):
                yield f"{where}: {problem}"
            continue
        if table.source.startswith("from "):
            names = table.source.split()[1:]
            sources = [t for name in names if name in found for t in all_tables(found[name])]
            texts = [cell for t in sources for row in (*t["rows"], t["header"]) for cell in row]
            rest = table.numbers - {number for text in texts for number in numbers_of(text)}
            if rest:
                yield f"{where}: no table of {', '.join(names)} has {', '.join(f'{n:g}' for n in sorted(rest))}"
        else:
            header = " | ".join(cells(table.lines[0]))
            yield f"{where}: no result has the numbers under {header!r}: include a fragment (CONTRIBUTING.md)"


def all_tables(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [table for part in (record, *record.get("parts", [])) for table in part["tables"]]


# --- commands ---------------------------------------------------------------------------------------------------------

_COMMAND = "python tests/helpers/fragments.py"


def renew(root: Path, folders: list[Path], ending: str = "") -> None:
    """Copy the results that pages include from folders of runs, and renew all pages.

    Figures are copied of results without an ending: those with one would overwrite them, having the same names.
    """
    wanted, stored = included(root), root / RESULTS
    stored.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            name = ".".join(filter(None, (path.stem, ending)))
            if name not in wanted or path.stem not in BENCHMARKS:
                continue
            record = json.loads(path.read_text())
            if record["facts"]["partial"]:
                raise SystemExit(f"{path} is partial: {record['facts']['partial']}")
            shutil.copy(path, stored / f"{name}.json")
            print(f"{name}: {origin_line(record['facts'])}")
    found = records(root)
    for page in pages(root):
        text = renewed(before := page.read_text(), found, _way(page, root))
        if text != before:
            page.write_text(text)
            print(f"{page.relative_to(root)} renewed")
        for name in re.findall(rf"\]\({_way(page, root)}/([^)]+\.png)\)", text):
            for folder in () if ending else folders:
                if (folder / name).exists():
                    shutil.copy(folder / name, stored / name)


def store(root: Path, name: str, command: str, on: list[str], output: str) -> None:
    """Store what a command printed as a result, and renew the pages."""
    if name.partition(".")[0] in BENCHMARKS or (problem := result.known(command)):
        raise SystemExit(problem or f"{name} is a benchmark: take another name")
    record = result.measured(name, command, on, output)
    _write(root / RESULTS / f"{name}.json", record)
    renew(root, [])


def _write(path: Path, record: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def accept(root: Path, name: str, reason: str) -> None:
    """Write into a result that the code as it is now gives the same numbers, and why."""
    path = root / RESULTS / f"{name}.json"
    record = json.loads(path.read_text())
    now, then = result.digests(measured_by(name, record)), record["facts"]["code"]
    kept = [one for one in record.get("accepted", []) if now.get(one["module"]) == one["digest"]]
    changed = [m for m, d in now.items() if then.get(m) != d and m not in {one["module"] for one in kept}]
    record["accepted"] = kept + [{"module": m, "digest": now[m], "reason": reason} for m in changed]
    _write(path, record)


def problems(root: Path) -> list[str]:
    """Return all that is wrong with the results on the pages."""
    return [*different(root), *outdated(root), *without_source(root), *passages(root)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    renewing = commands.add_parser("renew")
    renewing.add_argument("folders", nargs="*", type=Path)
    renewing.add_argument("--ending", default="")
    accepting = commands.add_parser("accept")
    accepting.add_argument("name", choices=list(records(ROOT)))
    accepting.add_argument("--reason", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("name")
    measuring.add_argument("line", metavar="COMMAND", help="in quotation marks")
    measuring.add_argument("--on", nargs="+", required=True, metavar="MODULES")
    measuring.add_argument("--output", type=Path)
    commands.add_parser("check")
    chosen = parser.parse_args()
    if chosen.command == "renew":
        renew(ROOT, chosen.folders, chosen.ending)
    elif chosen.command == "accept":
        accept(ROOT, chosen.name, chosen.reason)
    elif chosen.command == "measure":
        said = chosen.output.read_text() if chosen.output else result.printed(chosen.line)
        store(ROOT, chosen.name, chosen.line, chosen.on, said)
    else:
        for name, record in records(ROOT).items():
            for one in record.get("accepted", []):
                print(f"{name}: {one['module']} has changed since: {one['reason']}")
        found = problems(ROOT)
        print(*found, sep="\n")
        sys.exit(bool(found))


if __name__ == "__main__":
    main()
