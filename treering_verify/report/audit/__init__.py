"""Reports of an audit: rows on disk -> HTML page, CSV, JSONL, SARIF or JUnit XML. All stream; none holds the rows in memory.

`audit_reader` reads the folder of an audit, its shards by `shard_reader`, and `exports` writes its rows in other formats.
For the page, `digest` counts and samples the rows in one pass, `gallery` makes the images with their `agreement` with the
key, `guidance` says what groups and numbers mean, and `page` renders the template.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from treering_verify.errors import UsageError, unknown
from treering_verify.files import printable, written_whole
from treering_verify.report.audit.audit_reader import AuditRows, open_audit
from treering_verify.report.audit.gallery import Sources
from treering_verify.results import DETECTED, INCONCLUSIVE, NO_EVIDENCE

if TYPE_CHECKING:
    from treering_verify.inversion.recovery import InversionOptions
    from treering_verify.models import LatentModel
    from treering_verify.watermark.keys.index import KeyIndex
    from treering_verify.watermark.keys.key import Key

AUDIT_FORMATS = ("html", "csv", "jsonl", "sarif", "junit")
PAGE = "report.html"
DEFAULT_IMAGES = 24

_SUFFIXES = {".html": "html", ".htm": "html", ".csv": "csv", ".jsonl": "jsonl", ".sarif": "sarif", ".xml": "junit"}


def write_report(
    folder: str | Path,
    output: str | Path | None = None,
    style: str | None = None,
    *,
    model: LatentModel | None = None,
    inversion: InversionOptions | None = None,
    keys: Sequence[Key | KeyIndex] = (),
    images: int = DEFAULT_IMAGES,
    root: str | Path | None = ".",
    fail_on: Sequence[str] = (DETECTED,),
    load: Callable[[], LatentModel | str] | None = None,
    spectra: bool = True,
    live: bool = False,
) -> Path:
    """Write a report of an audit's rows; the file appears whole or not at all.

    Parameters
    ----------
    folder : str or Path
        Folder of the audit: rows-*.parquet and summary.json. The report of an unfinished audit says that it is unfinished.
    output : str or Path, optional
        File to write, replaced if it exists; report.html in the folder when left out.
    style : {"html", "csv", "jsonl", "sarif", "junit"}, optional
        Format; by the output's suffix when left out (.xml is junit).
    model, inversion : optional
        HTML: as in the audit, for detected files of which the audit kept no noise estimate.
    keys : sequence of Key and KeyIndex
        HTML: shows the agreement of image and key. Numbers of keys are never written.
    images : int
        HTML: most detected files that are put on the page as images. The audit keeps 24; others are read again.
    root : str or Path, optional
        HTML: folder where relative paths begin and that images come from, because rows may name any file. None: the current
        folder, and images from anywhere; for rows that this process wrote itself.
    fail_on : sequence of str
        SARIF and JUnit: verdicts that count as failures.
    load : callable, optional
        HTML: in place of `model`; called if there is such a file. It returns the model, or why there is none.
    spectra : bool
        HTML: whether noise estimates are drawn.
    live : bool
        HTML: whether an audit at work will soon write the page again; browsers then load it again.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    UsageError
        If there is no audit in the folder, it cannot be read, or the format is unknown.
    """
    folder = Path(folder)
    target = Path(output) if output is not None else folder / PAGE
    style = style or style_of(target)
    audit = open_audit(folder)
    with written_whole(target) as file:
        if style == "html":
            sources = Sources(
                folder / "state",
                None if root is None else Path(root),
                load or (lambda: model or ""),
                inversion,
                spectra=spectra,
                again=not live,
            )
            file.write(_page(audit, sources, keys, images, live).encode())
        else:
            export(audit, file, style, fail_on)
    return target


def style_of(path: Path) -> str:
    """Return the format that a file's suffix stands for; UsageError if it stands for none."""
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"{printable(path.name)!r} does not say which format to write: "
            f"end it with {', '.join(_SUFFIXES)}, or give --format {'|'.join(AUDIT_FORMATS)}"
        )
    return _SUFFIXES[path.suffix.lower()]


def export(audit: AuditRows, file: BinaryIO, style: str, fail_on: Sequence[str] = (DETECTED,)) -> None:
    """Write every row as "csv", "jsonl", "sarif" or "junit"."""
    from treering_verify.report.audit import exports

    verdicts = (DETECTED, NO_EVIDENCE, INCONCLUSIVE)
    for verdict in fail_on:
        if verdict not in verdicts:
            raise UsageError(unknown("verdict", verdict, verdicts))
    if style == "csv":
        exports.write_csv(audit, file)
    elif style == "jsonl":
        exports.write_jsonl(audit, file)
    elif style == "sarif":
        exports.write_sarif(audit, file, fail_on)
    elif style == "junit":
        exports.write_junit(audit, file, fail_on)
    else:
        raise UsageError(unknown("report format", style, AUDIT_FORMATS))


def _page(audit: AuditRows, sources: Sources, keys: Sequence[Key | KeyIndex], images: int, live: bool) -> str:
    from treering_verify.report.audit.digest import gather
    from treering_verify.report.audit.gallery import make_tiles
    from treering_verify.report.audit.page import render
    from treering_verify.watermark.keys.index import named_keys

    digest = gather(audit)
    found = digest.rows[DETECTED]
    if len(found) > images:  # half of them the strongest, half the weakest, which are most in doubt
        found = found[: images - images // 2] + found[len(found) - images // 2 :]
    fingerprints = {row["fingerprint"] for row in found if row["fingerprint"]}
    tiles, note = make_tiles(found, replace(sources, keys=named_keys(keys, fingerprints)))
    return render(audit, digest, tiles, note, live)
