"""Options of how an audit is run; none of them changes a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec

from treering_verify.audit.inputs.reader_pool import Limits
from treering_verify.errors import UsageError, unknown

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Options:
    """How an audit is run: limits, batches, files and machines. None of it changes a verdict.

    Attributes
    ----------
    limits : Limits
    batch_size : int, optional
        Images that are judged together; found by trying if None.
    shard_rows : int
        Rows in a shard; must be the same when an audit is continued.
    q_values : bool
        Compute Benjamini-Hochberg q-values over files at the end.
    overwrite : bool
        Delete the results of an earlier audit in the output.
    engine : {"local", "ray"}
        This machine, or a Ray cluster (`cluster`).
    worker_cpus : int
        Processors for each worker of a cluster.
    retry_errors : bool
        Judge inputs again whose row of an earlier run has the status "error"; other rows stay.

    Raises
    ------
    UsageError
        If a value is out of range, or the engine is not installed.
    """

    limits: Limits = field(default_factory=Limits)
    batch_size: int | None = None
    shard_rows: int = 1000
    q_values: bool = False
    overwrite: bool = False
    engine: str = "local"
    worker_cpus: int = 1
    retry_errors: bool = False

    def __post_init__(self) -> None:
        if self.shard_rows < 1 or (self.batch_size is not None and self.batch_size < 1) or self.worker_cpus < 1:
            raise UsageError("give shards 1 row or more, batches 1 image or more, and workers 1 processor or more")
        if self.engine not in ENGINES:
            raise UsageError(unknown("engine", self.engine, ENGINES))
        if self.engine == "ray" and find_spec("ray") is None:
            raise UsageError("the engine ray is not installed: pip install 'treering-verify[ray]'")
