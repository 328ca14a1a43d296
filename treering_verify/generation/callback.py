"""Mark what a diffusers pipeline generates from within its loop, where a script cannot be given `latents=`.

The noise itself is out of reach there: a pipeline calls back at the end of a step, the first time when one step along the
ODE is done. So the key is written into what that step left, while that is noise still but for a small share of image, and
the rest of the way goes on from it. `generation.watermarked_noise` marks the noise itself: use it wherever it can be used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treering_verify.errors import UsageError
from treering_verify.models import canonical_noise, native_noise
from treering_verify.results import SCHEMA_VERSION
from treering_verify.watermark.embedding import embed
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

# Calls after which a sampler goes on from the latents that it is given. Some take a step along the ODE in several calls,
# each from where the step began: what is written between them is lost. UniPC goes back every time, and cannot be marked so.
_FIRST_FREE = {
    "DDIMScheduler": 0,
    "DPMSolverMultistepScheduler": 0,
    "EulerDiscreteScheduler": 0,
    "FlowMatchEulerDiscreteScheduler": 0,
    "HeunDiscreteScheduler": 1,
    "PNDMScheduler": 1,
}
_FIRST_FREE_OF_RUNGE_KUTTA = 3  # with which PNDM begins where it is configured so


class WatermarkCallback:
    """``pipe(prompt, callback_on_step_end=WatermarkCallback(pipe, key))``: write a key once, early in the loop.

    All images of a call get the key. One object serves any number of calls. Verification needs the key and the model, and
    nothing that is recorded here.

    Parameters
    ----------
    pipe : DiffusionPipeline
        Of a class that `treering models` lists; its sampler as it will be during the call. It is not changed.
    key : Key
        Made for the noise of the images' size.

    Raises
    ------
    ModelError
        If the pipeline belongs to no family.
    UsageError
        If the sampler takes back what is written; when called, if the images have another size than the key, or there is no
        step left after the one that the key is written in.
    """

    def __init__(self, pipe: Any, key: Key) -> None:
        native_noise(pipe, embed(_zeros(key), key))  # refuses other pipelines, and keys of other channels
        self.key, self._last = key, {"steps": 0, "guidance": None, "written_after_step": None}
        self._model, self._sampler = str(pipe.config.get("_name_or_path") or type(pipe).__name__), _sampler(pipe)

    def __call__(self, pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Take what a pipeline passes at the end of a step, and return what it is to go on with."""
        self._sampler = _sampler(pipe)
        times = pipe.scheduler.timesteps
        if step != _first_free(pipe.scheduler):
            return callback_kwargs
        if step + 1 >= len(times):
            raise UsageError(f"{len(times)} steps are too few to write a key during them: take more, or give latents=")
        latents = callback_kwargs["latents"]
        z = canonical_noise(pipe, latents, self.key.latent_shape)
        sigma = _sigma(pipe.scheduler, times[step + 1], z)
        marked = native_noise(pipe, sigma * embed(z / sigma, self.key))
        self._last = {
            "steps": pipe.num_timesteps,
            "guidance": pipe.guidance_scale,
            "written_after_step": step + 1,
        }
        return {**callback_kwargs, "latents": marked.to(latents.device, latents.dtype)}

    def record(self) -> dict[str, Any]:
        """JSON-ready description of the last call, as a sidecar has it; no secret."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self._model,
            "marked": self._last["written_after_step"] is not None,
            "key": self.key.name,
            "fingerprint": self.key.fingerprint,
            "sampler": self._sampler,
            **self._last,
        }


def _zeros(key: Key) -> torch.Tensor:
    import torch

    return torch.zeros(1, *key.latent_shape)


def _sampler(pipe: Any) -> str:
    scheduler = pipe.scheduler
    name = type(scheduler).__name__
    if name not in _FIRST_FREE or "sde" in str(scheduler.config.get("algorithm_type", "")):
        raise UsageError(
            f"what is written during the steps of a {name} was not tried, or is taken back: use one of "
            f"{', '.join(_FIRST_FREE)} (none of their stochastic forms), or give the pipeline latents="
        )
    return name


def _first_free(scheduler: Any) -> int:
    name = type(scheduler).__name__
    if name == "PNDMScheduler" and not scheduler.config.skip_prk_steps:
        return _FIRST_FREE_OF_RUNGE_KUTTA
    return _FIRST_FREE[name]


def _sigma(scheduler: Any, timestep: Any, z: torch.Tensor) -> float:
    """Share of noise in what the scheduler goes on with, on its own scale: what it makes of no image and unit noise."""
    add = getattr(scheduler, "scale_noise", None) or scheduler.add_noise
    zero, one, time = z.new_zeros(1, 1, 1, 1), z.new_ones(1, 1, 1, 1), timestep.reshape(1).to(z.device)
    noisy = add(zero, time, one) if hasattr(scheduler, "scale_noise") else add(zero, one, time)
    return float(noisy)
