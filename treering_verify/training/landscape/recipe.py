"""What the recipes share: training with resume, files, losses, and the layout of exported models."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from treering_verify.training.landscape.scenes import CLASSES

_SAVED_EVERY = 300  # seconds


def autocast() -> torch.autocast:
    """Return bfloat16 autocast where the processor has units for it; emulated it would be three times slower.

    AVX-512's dot products suffice: with them convolutions of 16 to 96 channels and their gradients run 1.3 to 1.8 times as
    fast as in float32 (EPYC of 2026-11-30, one core).
    """
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast("cpu", torch.bfloat16, enabled=native)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step: warm-up over 2 % of the steps, the peak until half, a cosine down to 1 % of it."""
    warmup, hold = max(1, steps // 50), steps // 2
    if step < warmup:
        return peak * (step + 1) / warmup
    if step < hold:
        return peak
    share = (step - hold) / max(1, steps - hold)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under its final name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_or_compute(path: Path, compute: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the tensors of a file; compute and write them if it does not exist."""
    if not path.exists():
        tensors = compute()
        write_whole(path, lambda temporary: torch.save(tensors, temporary))
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return found


class Trainer:
    """Training of one network: model, moving average (EMA) of its weights, optimiser and step count, with resume.

    What is printed is also written to `log.jsonl` in the folder of the checkpoints, one object a line.

    Parameters
    ----------
    name : str
        Name of the checkpoint and in the log.
    model : torch.nn.Module
    work : Path
        Folder of the checkpoint, which is loaded if it exists.
    steps : int
    peak, decay : float
        Largest learning rate, and weight decay.
    """

    def __init__(self, name: str, model: torch.nn.Module, work: Path, *, steps: int, peak: float, decay: float):
        self.name, self.model, self.steps, self.peak = name, model, steps, peak
        self.ema = copy.deepcopy(model).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=decay)
        self.checkpoint, self.log = work / f"{name}.pt", work / "log.jsonl"
        self.step = 0
        self.processor_seconds = 0.0  # of all runs
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.processor_seconds = state["step"], state.get("processor_seconds", 0.0)
            print(f"{name}: resuming at step {self.step}", flush=True)

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "processor_seconds": self.processor_seconds,
        }
        write_whole(self.checkpoint, lambda path: torch.save(state, path))

    def run(
        self,
        loss_of: Callable[[int], dict[str, torch.Tensor]],
        *,
        every: int = 50,
        keep: int = 250,
        held_out: Callable[[torch.nn.Module], dict[str, torch.Tensor]] | None = None,
    ) -> None:
        """Train up to the last step.

        Parameters
        ----------
        loss_of : callable
            step -> the loss under "loss", and what else is to be logged.
        every, keep : int
            Steps between log lines, and between checkpoints, which are also written every five minutes.
        held_out : callable, optional
            Judges the moving average at each checkpoint that falls on `keep` and at the last: what it returns is logged.
        """
        self.model.train()
        sums, summed = dict[str, float](), 0
        started, first, saved = time.monotonic(), self.step, time.monotonic()
        worked = time.process_time() - self.processor_seconds
        while self.step < self.steps:
            rate = learning_rate(self.step, self.steps, self.peak)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
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
            for key, value in losses.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach())
            self.processor_seconds = time.process_time() - worked
            summed += 1
            if self.step % every == 0 or self.step == self.steps:
                seconds = (time.monotonic() - started) / (self.step - first)
                self._tell({key: value / summed for key, value in sums.items()}, seconds)
                sums, summed = {}, 0
            last = self.step % keep == 0 or self.step == self.steps
            if held_out is not None and last:
                with torch.no_grad():
                    judged = held_out(self.ema.eval())
                self._tell({f"held-out {key}": float(value) for key, value in judged.items()}, 0.0)
            if last or time.monotonic() - saved > _SAVED_EVERY:
                self.save()
                saved = time.monotonic()

    def _tell(self, numbers: dict[str, float], seconds: float) -> None:
        """Print a line, with the time left where the seconds of a step are known, and append it to the log."""
        parts = "  ".join(f"{key} {value:.4f}" for key, value in numbers.items())
        left = f"  {seconds:.2f} s/step, {seconds * (self.steps - self.step) / 60:.0f} min left" if seconds else ""
        print(f"{self.name} {self.step}/{self.steps}  {parts}{left}", flush=True)
        line = {"part": self.name, "step": self.step, "steps": self.steps, **numbers}
        line["processor seconds"] = round(self.processor_seconds, 1)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def run_to_average(self, loss_of: Callable[[int], dict[str, torch.Tensor]]) -> None:
        """Train up to the last step, and load the EMA of the weights into the model."""
        self.run(loss_of)
        self.model.load_state_dict(self.ema.state_dict())


def pixel_loss(error: torch.Tensor) -> torch.Tensor:
    """Return L1 and L2 of pixels (L2 keeps the stars), L1 of gradients, and L1 of 8 x 8 means (keeps the colours)."""
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    colours = F.avg_pool2d(error, 8).abs().mean()
    return error.abs().mean() + 16 * error.pow(2).mean() + edges + 4 * colours


def psnr(error: torch.Tensor) -> torch.Tensor:
    """Return the peak signal-to-noise ratio in dB of an error of images in [-1, 1], without gradient."""
    return -10 * torch.log10(error.detach().pow(2).mean() / 4)


def export_pipeline(name: str, parts: dict[str, Any], output: Path) -> None:
    """Write a model's folder as diffusers reads it: networks as float16 safetensors, the scheduler, and the index.

    Parameters
    ----------
    name : str
        Class name in the index.
    parts : dict
        Subfolder -> scheduler or network; the networks are not changed.
    output : Path
    """
    index: dict[str, Any] = {"_class_name": name, "_diffusers_version": "0.42.1", "classes": list(CLASSES)}
    for folder, part in parts.items():
        half: Any = copy.deepcopy(part).to(torch.float16) if isinstance(part, torch.nn.Module) else part
        half.save_pretrained(output / folder)
        index[folder] = ["diffusers", type(part).__name__]
    text = json.dumps(index, indent=2) + "\n"
    write_whole(output / "model_index.json", lambda path: path.write_text(text))


def recipe_parser(description: str | None, keeps: str, part: str = "") -> argparse.ArgumentParser:
    """Return a parser with the options of all recipes; `part` is the subfolder that a recipe adds to an existing model."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help=f"folder of {keeps}")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    if part:
        parser.add_argument("--model", default="landscape", help=f"folder of the model that {part}/ is trained for")
        parser.add_argument("--output", type=Path, help=f"model folder to write {part}/ into; default WORK")
    return parser
