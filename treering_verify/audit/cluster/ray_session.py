"""A connection to Ray, calls to actors, a stream that can be left, and less output."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from treering_verify.errors import ModelError, TreeringError, UsageError
from treering_verify.files import printable

LOG = logging.getLogger("treering_verify.audit")
_TICK = 0.2
_STARTS = 3
_PATIENCE = 60.0  # for workers to end the batches in work


class Remote:
    """A proxy of an actor: it calls, waits for the result, and raises the actor's errors as they were raised."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            import ray

            try:
                return ray.get(getattr(self._actor, name).remote(*arguments))
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, TreeringError) else error) from None

        return call


class Stream:
    """Batches of a dataset, fetched by a thread, so that the caller can be interrupted; a context that ends it.

    Parameters
    ----------
    start : callable
        Returns the iterator.
    halt : callable
        Makes the iterator end soon; called if the context is left before its end.
    """

    def __init__(self, start: Callable[[], Any], halt: Callable[[], None]) -> None:
        self._start, self._halt, self._stopped = start, halt, threading.Event()
        self._queue: queue.Queue[Any] = queue.Queue(4)
        self._thread = threading.Thread(target=self._take, name="audit cluster", daemon=True)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            with contextlib.suppress(Exception):  # an earlier error may be why the context is left
                self._halt()
            self._thread.join(_PATIENCE)

    def batches(self, tick: Callable[[], None]) -> Iterator[Any]:
        """Yield batches as they arrive; `tick` is called meanwhile, and may raise."""
        while True:
            tick()
            try:
                item = self._queue.get(timeout=_TICK)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _take(self) -> None:
        try:
            for batch in self._start():  # to its end, also if the batches are unused, so that Ray shuts down in order
                self._put(batch)
            self._put(None)
        except BaseException as error:  # for the caller's thread
            self._put(error)

    def _put(self, item: Any) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_TICK)
                return


@contextlib.contextmanager
def connected(processors: int | None = None) -> Iterator[None]:
    """Connect to the cluster that RAY_ADDRESS names, or one on this machine, or start one on this machine's processors.

    An existing connection is used, and not closed.

    Parameters
    ----------
    processors : int, optional
        Start a new cluster of that many, on this machine.

    Raises
    ------
    UsageError
        If there is no such cluster, or this machine is not part of it.
    """
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # calls after the shutdown must not start another cluster
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    if "://" in address and not processors:
        raise UsageError(
            f"RAY_ADDRESS is {printable(address)}: run on a machine of the cluster, or by ray job submit, and leave it out"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        where: dict[str, Any] = {"address": "local", "num_cpus": processors} if processors else {}
        _begin(**where, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"cannot connect to the cluster {printable(address)} ({printable(str(error))[:300]}): check RAY_ADDRESS, "
            "or unset it to use this machine"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # Ray replaces them by its own, which would lose the checkpoint
                signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _begin(**options: Any) -> None:
    """Start or join a cluster, in several attempts: Ray's processes may take longer than its limit on a busy machine."""
    import ray

    for left in reversed(range(_STARTS)):
        try:
            ray.init(**options)
            return
        except (ConnectionError, ValueError):
            raise
        except Exception as error:
            if not left:
                raise
            LOG.warning("Ray did not start, and is started again: %s", printable(str(error)))


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn an error of Ray into a ModelError that says what to do.

    Raises
    ------
    ModelError
    """
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        last = printable(str(error).strip().rpartition("\n")[2])[:200]
        raise ModelError(
            f"a worker of the cluster failed ({type(error).__name__}: {last}); finished results are on disk: see Ray's "
            "logs, and run the same command again"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress Ray Data's progress bars and plans on the terminal."""
    import ray.data

    context, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before, level = context.enable_progress_bars, log.level
    context.enable_progress_bars = False
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before
        log.setLevel(level)
