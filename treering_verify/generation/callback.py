"""A callback that marks the images of a diffusers pipeline from within its loop, for scripts that cannot pass `latents=`.

The initial noise is out of reach there: a pipeline calls back at the end of a step, for the first time after one step along
the ODE. So the key is written into the latents after that step, which are still nearly all noise, and the loop goes on from
there. `generator.watermarked_noise` marks the initial noise itself: prefer it wherever it can be used.
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

# The first call after which a sampler goes on from the latents that it is given. Some samplers take a step along the ODE in
# several calls, each from the step's first point, and lose what is written between them. UniPC does so in every step, so it
# is not in this table.
_FIRST_FREE = {
    "DDIMScheduler": 0,
    "DPMSolverMultistepScheduler": 0,
    "EulerDiscreteScheduler": 0,
    "FlowMatchEulerDiscreteScheduler": 0,
    "HeunDiscreteScheduler": 1,
    "PNDMScheduler": 1,
}
_FIRST_FREE_OF_RUNGE_KUTTA = 3  # the Runge-Kutta steps with which PNDM may begin


class WatermarkCallback:
    """Writes a key once, early in a pipeline's loop: ``pipe(prompt, callback_on_step_end=WatermarkCallback(pipe, key))``.

    All images of a call get the key. One object serves any number of calls. Verification needs the key and the model only.

    Parameters
    ----------
    pipe : DiffusionPipeline
        A pipeline of a class that `treering models` lists, with the sampler that the call will use. It is not changed.
    key : Key
        A key for noise of the images' size.

    Raises
    ------
    ModelError
        If the pipeline belongs to no family.
    UsageError
        If the sampler discards what is written, or the key is retired or not yet in use; when called, if the images have
        another size than the key, or no step follows the one that the key is written after.
    """

    def __init__(self, pipe: Any, key: Key) -> None:
        key.check_in_use()
        native_noise(pipe, embed(_zeros(key), key))  # refuses other pipelines, and keys of other channels
        self.key, self._last = key, {"steps": 0, "guidance": None, "written_after_step": None}
        self._model, self._sampler = str(pipe.config.get("_name_or_path") or type(pipe).__name__), _sampler(pipe)

    def __call__(self, pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return a step's results with the key in the latents, if this is the step to mark, and as they are otherwise."""
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
        """Return a JSON-ready description of the last call, as a sidecar has it; it holds no secret."""
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
            f"the {name} discards a key written during its steps, or was never tested: use one of "
            f"{', '.join(_FIRST_FREE)} (none of their stochastic forms), or give the pipeline latents="
        )
    return name


def _first_free(scheduler: Any) -> int:
    name = type(scheduler).__name__
    if name == "PNDMScheduler" and not scheduler.config.skip_prk_steps:
        return _FIRST_FREE_OF_RUNGE_KUTTA
    return _FIRST_FREE[name]


def _sigma(scheduler: Any, timestep: Any, z: torch.Tensor) -> float:
    """Return the noise's standard deviation in the latents at a timestep: the scheduler's mix of image 0 and noise 1."""
    add = getattr(scheduler, "scale_noise", None) or scheduler.add_noise
    zero, one, time = z.new_zeros(1, 1, 1, 1), z.new_ones(1, 1, 1, 1), timestep.reshape(1).to(z.device)
    noisy = add(zero, time, one) if hasattr(scheduler, "scale_noise") else add(zero, one, time)
    return float(noisy)
