"""Models that cause damage when they are unpickled, in a cluster's workers and not in the tests' own process."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from treering_verify.audit.inputs import reader_pool as readers
from treering_verify.benchmark.speed.null_model import NullModel


class Hostile(NullModel):
    """The null engine, which dies of a black image; files do to its worker's readers what their names say."""

    def __init__(self) -> None:
        self.is_at_home = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.is_at_home = False
        readers._MODULE = "helpers.hostile.reader"

    def encode(self, image: Any) -> Any:
        if not self.is_at_home and bool((image == -1).flatten(1).all(1).any()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(image)


class Slow(NullModel):
    """The null engine, but for the time it takes: seconds for each image.

    Parameters
    ----------
    seconds : float
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def encode(self, image: Any) -> Any:
        time.sleep(self._seconds * len(image))
        return super().encode(image)
