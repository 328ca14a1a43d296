"""Audits from Python: a generator of rows."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from treering_verify.audit.engine import run_audit
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.judge import AuditJudge
from treering_verify.audit.options import Options
from treering_verify.audit.output.rows import Row
from treering_verify.audit.output.store import read_shard
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.detection.screening import Screening
from treering_verify.detection.search.settings import AUTO, Search
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel, ModelSource, loaded_model

if TYPE_CHECKING:
    from treering_verify.detection.identification import Keys

_FEW = 16  # rows of a temporary shard, so that they are yielded soon


def audit_folder(
    paths: str | Path | Sequence[str | Path] | Inputs,
    keys: Keys,
    *,
    model: str | Path | ModelSource | LatentModel | None = None,
    alpha: float = DEFAULT_ALPHA,
    inversion: InversionOptions | None = None,
    screening: Screening | Literal["auto"] | None = "auto",
    search: Search | str | float | None = AUTO,
    output: str | Path | None = None,
    options: Options | None = None,
) -> Iterator[Row]:
    """Audit folders and files, and yield one row for every input, whatever is in it.

    Parameters
    ----------
    paths : path, sequence of paths, or Inputs
        Folders are walked, glob patterns matched, URLs opened as `Options.limits.access` allows; `Inputs` can name
        lists and manifests too.
    keys : Key, KeyIndex, or sequence of both
        All are tried; p-values are Holm-corrected over them.
    model : str, Path, ModelSource or LatentModel, optional
        A loaded model, or what `load_model` takes, which is then loaded in each call; the embedded model when left out.
    alpha : float
        False-positive rate per image, over all keys together, 0 < alpha < 1.
    inversion : InversionOptions, optional
    screening : Screening, "auto" or None
        A screening pass that decides most images; None inverts every image in full. With "auto",
        `screening.default_screening` chooses by the model, `inversion` and the count of keys.
    search : {"auto", "off", "quick", "fast", "thorough"}, seconds, Search or None
        As in `verify_many`; "auto" is "quick".
    output : path, optional
        Folder for Parquet shards and the summary; an interrupted audit there is continued. Without it, nothing is stored.
    options : Options, optional

    Yields
    ------
    Row
        In the order of the inputs, shard by shard as they are finished, those of an earlier run included. `q_value` is in
        the shards only, because it is computed last.

    Raises
    ------
    UsageError, ModelError
        As `engine.run_audit`.
    """
    inputs = paths if isinstance(paths, Inputs) else Inputs(_texts(paths))
    judge = AuditJudge.of(keys, loaded_model(model), alpha, inversion or InversionOptions(), screening, search)
    options = options or Options()
    if output is not None:
        yield from _in_order(Path(output), run_audit(inputs, judge, Path(output), options))
        return
    with tempfile.TemporaryDirectory(prefix="treering-audit-") as folder:
        run = run_audit(inputs, judge, Path(folder), replace(options, shard_rows=_FEW), with_chance=False)
        yield from _in_order(Path(folder), run)


def _in_order(folder: Path, finished: Generator[int, None, None]) -> Iterator[Row]:
    """Yield the rows of shards in their order; shards that are finished early wait on disk."""
    early: set[int] = set()
    following = 0
    with contextlib.closing(finished):  # a caller who stops early stops the audit
        for number in finished:
            early.add(number)
            while following in early:
                early.remove(following)
                yield from read_shard(folder, following)
                following += 1


def _texts(paths: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    return tuple(os.fspath(path) for path in given)
