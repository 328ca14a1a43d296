"""Training of one network: optimiser, learning rate, moving average of the weights, checkpoints and log, with resume."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from treering_verify.training.example_store import facts_of, read_tensors, write_tensors

if TYPE_CHECKING:
    from treering_verify.training.examples import Progress

LOG = "log.jsonl"
_SAVED_EVERY = 300  # seconds
_LEAST_STEPS = 20  # of a training that is given a time


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step: warm-up over 2 % of the steps, the peak until half, a cosine down to 1 % of it."""
    warmup, hold = max(1, steps // 50), steps // 2
    if step < warmup:
        return peak * (step + 1) / warmup
    if step < hold:
        return peak
    share = (step - hold) / max(1, steps - hold)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


class Trainer:
    """Training of one network, which goes on where it was stopped, also by kill -9.

    Parameters
    ----------
    name : str
        Name of the checkpoint and in the log.
    model : torch.nn.Module
    work : Path
        Folder of the checkpoint, which is loaded if it exists, and of the log, `log.jsonl`, one object a line.
    steps : int, optional
        Left out: as many as fit into the time that `run` is given.
    peak, decay : float
        Largest learning rate, and weight decay.
    label : str
        What the training depends on: a checkpoint with another label is left aside.
    progress : callable, optional
        Told of what is logged, in place of standard output.
    """

    def __init__(
        self,
        name: str,
        model: torch.nn.Module,
        work: Path,
        *,
        steps: int | None = None,
        peak: float,
        decay: float,
        label: str = "",
        progress: Progress | None = None,
    ) -> None:
        self.name, self.model, self.peak, self.label, self.progress = name, model, peak, label, progress
        self.ema = copy.deepcopy(model).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=decay)
        work.mkdir(parents=True, exist_ok=True)
        self.checkpoint, self.log = work / f"{name}.safetensors", work / LOG
        self.step, self.steps = 0, steps or 0
        self.processor_seconds = 0.0  # of all runs
        if self.checkpoint.exists() and facts_of(self.checkpoint)["label"] == label:
            self._load()

    def run(
        self,
        loss_of: Callable[[int], Mapping[str, torch.Tensor]],
        *,
        seconds: float = 0.0,
        checks: int = 20,
        held_out: Callable[[torch.nn.Module], Mapping[str, torch.Tensor]] | None = None,
    ) -> None:
        """Train up to the last step, and load the moving average of the weights into the model.

        Parameters
        ----------
        loss_of : callable
            step -> the loss under "loss", and what else is to be logged.
        seconds : float
            What a training without a number of steps may take.
        checks : int
            Log lines and checkpoints of the whole training; checkpoints are also written every five minutes.
        held_out : callable, optional
            Judges the moving average at each check: what it returns is logged.
        """
        self.model.train()
        if not self.steps:
            spent = _seconds_of(lambda: loss_of(0)["loss"].backward())
            self.steps = max(_LEAST_STEPS, int(seconds / spent))
        every, sums, since = max(1, self.steps // checks), dict[str, float](), self.step
        saved, worked = time.monotonic(), time.process_time() - self.processor_seconds
        while self.step < self.steps:
            for name, value in self._take(loss_of).items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            self.processor_seconds = time.process_time() - worked
            checked = self.step % every == 0 or self.step == self.steps
            if checked:
                with torch.no_grad():
                    judged = held_out(self.ema.eval()) if held_out else {}
                means = {name: value / (self.step - since) for name, value in sums.items()}
                self._tell(means | {f"held-out {name}": float(value) for name, value in judged.items()})
                sums, since = {}, self.step
            if checked or time.monotonic() - saved > _SAVED_EVERY:
                self._save()
                saved = time.monotonic()
        self.model.load_state_dict(self.ema.state_dict())
        self.model.eval()

    def _take(self, loss_of: Callable[[int], Mapping[str, torch.Tensor]]) -> Mapping[str, torch.Tensor]:
        """Take a step, and return its losses."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, self.peak)
        losses = loss_of(self.step)
        self.optimiser.zero_grad()
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        decay = min(0.999, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, parameter in zip(self.ema.parameters(), self.model.parameters(), strict=True):
                average.lerp_(parameter, 1 - decay)
        return losses

    def _tell(self, numbers: dict[str, float]) -> None:
        """Show the numbers of a check, and append them to the log."""
        said = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        if self.progress:
            self.progress(f"steps trained ({said})", self.step, self.steps)
        else:
            left = self.processor_seconds * (self.steps / self.step - 1) / 60
            print(f"{self.name} {self.step}/{self.steps}  {said}  {left:.0f} processor min left", flush=True)
        line = {"part": self.name, "step": self.step, "steps": self.steps, **numbers}
        line["processor seconds"] = round(self.processor_seconds, 1)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        """Write the checkpoint."""
        networks = {"model": self.model.state_dict(), "ema": self.ema.state_dict()}
        state = {f"{kind}.{name}": one for kind, parts in networks.items() for name, one in parts.items()}
        for number, moments in self.optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{number}.{name}": one for name, one in moments.items()}
        facts = {"label": self.label, "step": self.step, "steps": self.steps, "seconds": self.processor_seconds}
        write_tensors(self.checkpoint, state, {name: str(value) for name, value in facts.items()})

    def _load(self) -> None:
        """Read the checkpoint."""
        state, facts = read_tensors(self.checkpoint)
        for kind, network in (("model", self.model), ("ema", self.ema)):
            network.load_state_dict({name: state.pop(f"{kind}.{name}") for name in network.state_dict()})
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for label, one in state.items():
            _, number, name = label.split(".")
            moments.setdefault(int(number), {})[name] = one
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.step, self.processor_seconds = int(facts["step"]), float(facts["seconds"])
        self.steps = self.steps or int(facts["steps"])
        if not self.progress:
            print(f"{self.name}: resuming at step {self.step}", flush=True)


def _seconds_of(work: Callable[[], object], times: int = 3) -> float:
    """Return how long some work takes, after once."""
    work()
    started = time.monotonic()
    for _ in range(times):
        work()
    return (time.monotonic() - started) / times
