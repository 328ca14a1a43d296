"""The model card of `landscape-sd`, written from the recipe's log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_PARTS = {
    "text": "`tokenizer`, `text_encoder`: byte-level BPE of the captions' words in CLIP's format; `CLIPTextModel`",
    "autoencoder": "`vae`: `AutoencoderKL`, factor 8, 4 latent channels",
    "diffusion": "`unet`: `UNet2DConditionModel`, cross-attention at 16 x 16 and 8 x 8, v-prediction",
    "decoder": "the decoder of `vae` again, on latents with noise",
}


def card(work: Path, model: Path) -> str:
    """Return the text of the card of a model folder; `work` holds `log.jsonl`."""
    lines = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    size = sum(path.stat().st_size for path in model.rglob("*.safetensors"))
    rows = [_row(part, what, [line for line in lines if line["part"] == part]) for part, what in _PARTS.items()]
    table = "\n".join(rows)
    return f"""# Model card: `landscape-sd`

A text-to-image model of 256 x 256 landscapes, a `StableDiffusionPipeline`, {size / 1e6:.1f} MB of float16 safetensors.
Made from scratch by `python -m treering_verify.training.landscape_sd.train`; no image or text of others is in it.

| part | steps | processor minutes | held out |
|---|---|---|---|
{table}

Held out means scenes and captions of the stream "test", which nothing was trained on; the moving average of the weights is
judged. `psnr` is that of the autoencoder in dB, `loss` that of the part (the diffusion network's: squared error of the
velocity, all times alike), `right` the share of a caption's attributes that are told rightly.

## Data

Procedural scenes, rendered without limit by `training/landscape_sd/scenes.py`, with captions of a small grammar
(`captions.py`): style, land, season, trees, water, time of day, sky, and where the sun or the moon stands. A batch is a pure
function of (stream, index); seeds of the noise are the numbers of the steps. Prompts in other words are read as letters, and
mean little to the model. 12 % of the captions were dropped, so guidance extrapolates from the empty prompt.

## Licence

Apache-2.0, like the code: data, recipe and weights are ours. Not made for anything but testing watermarks.
"""


def _row(part: str, what: str, lines: list[dict[str, Any]]) -> str:
    if not lines:
        return f"| {what} | 0 | | |"
    last, judged = lines[-1], [line for line in lines if any(name.startswith("held-out") for name in line)]
    held_out = {name: value for name, value in (judged[-1] if judged else {}).items() if name.startswith("held-out")}
    told = ", ".join(f"{name.removeprefix('held-out ')} {value:.4g}" for name, value in held_out.items())
    return f"| {what} | {last['step']} of {last['steps']} | {last['processor seconds'] / 60:.1f} | {told} |"
