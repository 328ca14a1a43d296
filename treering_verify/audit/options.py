"""How an audit is run; none of it changes a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec

from treering_verify.audit.inputs.reader_pool import Limits
from treering_verify.errors import UsageError, unknown

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Options:
    """How an audit is run; none of it changes a verdict.

    Attributes
    ----------
    limits : Limits
    batch_size : int, optional
        Found by trying where it is None.
    shard_rows : int
        Rows in a shard; must be the same when an audit goes on.
    q_values : bool
        Benjamini-Hochberg over files, as a second pass at the end.
    overwrite : bool
        Throw away what an earlier audit left in the output.
    engine : {"local", "ray"}
        This machine, or a cluster's (`cluster`).
    worker_cpus : int
        Processors that a worker of a cluster takes.
    retry_errors : bool
        Try inputs again that an earlier run of the audit has a row of status "error" for; other rows stay.

    Raises
    ------
    UsageError
        If one is out of range, or the engine is not installed.
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
            raise UsageError("a shard has 1 row or more, a batch 1 image or more, a worker 1 processor or more")
        if self.engine not in ENGINES:
            raise UsageError(unknown("engine", self.engine, ENGINES))
        if self.engine == "ray" and find_spec("ray") is None:
            raise UsageError("the engine ray is not installed: pip install 'treering-verify[ray]'")
