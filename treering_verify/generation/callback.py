"""A callback that marks the images of a diffusers pipeline from within its loop, for scripts that cannot pass `latents=`.

The initial noise is out of reach there: a pipeline calls back at the end of a step, for the first time after one step along
the ODE. So the key is written into the latents after that step, which are still nearly all noise, and the loop goes on from
there. `generator.watermarked_noise` marks the initial noise itself: prefer it wherever it can be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.errors import UsageError
from treering_verify.generation.sidecar import sidecar
from treering_verify.models import LatentModel, canonical_noise, from_pipeline, native_noise, pipeline_shape
from treering_verify.watermark.embedding import embed
from treering_verify.watermark.keys.given import keys_to_write
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

# The first call after which a sampler goes on from the latents that it is given. Some samplers take a step along the ODE in
# several calls, each from the step's first point, and lose what is written between them.
_FIRST_FREE = {
    "DDIMScheduler": 0,
    "DEISMultistepScheduler": 0,
    "DPMSolverMultistepScheduler": 0,
    "DPMSolverSinglestepScheduler": 0,  # or later: see `_first_free`
    "EulerDiscreteScheduler": 0,
    "FlowMatchEulerDiscreteScheduler": 0,
    "HeunDiscreteScheduler": 1,
    "LMSDiscreteScheduler": 0,
    "PNDMScheduler": 1,
    "TCDScheduler": 0,
    "UniPCMultistepScheduler": 0,  # if its corrector is told: see `_forget_sample`
}
_FIRST_FREE_OF_RUNGE_KUTTA = 3  # the Runge-Kutta steps with which PNDM may begin


class WatermarkCallback:
    """Writes a key once, early in a pipeline's loop: ``pipe(prompt, callback_on_step_end=WatermarkCallback(pipe, key))``.

    It marks what image to image and inpainting make at any strength, too: the key is written into the noise that the
    pipeline added to the image. The weaker that noise is, the less of the new image comes from it. One object serves any
    number of calls. Verification needs the key and the model only.

    Parameters
    ----------
    pipe : DiffusionPipeline
        A pipeline of a class that `treering models` lists, or one with the components of such a class and more inputs, with
        the sampler that the call will use. It is not changed.
    key : Key, path of a key file, or sequence of these
        One key for all images of a call, or one for each, for noise of the images' size. A call makes
        ``num_images_per_prompt`` images of each prompt, those of one prompt after another.

    Raises
    ------
    ModelError
        If the pipeline belongs to no family.
    UsageError
        If the sampler discards what is written, or a key is retired or not yet in use; when called, if the images have
        another size than the key, there are more or fewer of them than keys, or no step follows the one that the key is
        written after.
    """

    def __init__(self, pipe: Any, key: Key | str | Path | Sequence[Key | str | Path]) -> None:
        given = keys_to_write(key)
        self._one_for_all = isinstance(given, Key)
        self.keys = (given,) if isinstance(given, Key) else tuple(given)
        if not self.keys:
            raise UsageError("no keys: give one key for all images, or one per image")
        pipeline_shape(pipe)  # refuses pipelines of no family, and networks with other inputs
        for one in self.keys:
            one.check_in_use()
            native_noise(pipe, embed(_zeros(one), one))  # refuses keys of other channels
        self._last: dict[str, Any] = {"steps": 0, "guidance": None, "written_after_step": None}
        self._pipe, self._sampler = pipe, _sampler(pipe)

    def __call__(self, pipe: Any, step: int, timestep: Any, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return a step's results with the key in the latents, if this is the step to mark, and as they are otherwise."""
        import torch

        self._sampler = _sampler(pipe)
        # Image to image starts in the middle of the scheduler's times.
        times = pipe.scheduler.timesteps[len(pipe.scheduler.timesteps) - pipe.num_timesteps :]
        if step != _first_free(pipe.scheduler, len(times)):
            return callback_kwargs
        if step + 1 >= len(times):
            raise UsageError(f"{len(times)} steps are too few to write a key during them: take more, or give latents=")
        latents = callback_kwargs["latents"]
        z = canonical_noise(pipe, latents, self.keys[0].latent_shape)
        keys = self._keys_of(len(z))
        sigma = _sigma(pipe.scheduler, times[step + 1], z)
        pairs = zip((z / sigma).split(1), keys, strict=True)
        marked = native_noise(pipe, sigma * torch.cat([embed(one, key) for one, key in pairs]))
        _forget_sample(pipe.scheduler)
        self._last = {
            "steps": pipe.num_timesteps,
            "guidance": getattr(pipe, "guidance_scale", None),
            "written_after_step": step + 1,
        }
        return {**callback_kwargs, "latents": marked.to(latents.device, latents.dtype)}

    def record(self, file: str | Path | None = None) -> dict[str, Any]:
        """Return a JSON-ready description of the last call, as a sidecar has it; it holds no secret.

        Parameters
        ----------
        file : str or Path, optional
            An image of that call as it is stored, for its SHA-256.
        """
        keys = self.keys[0] if self._one_for_all else self.keys
        described = sidecar(self._described_model, keys, {"sampler": self._sampler, **self._last}, file=file)
        return {**described, "marked": self._last["written_after_step"] is not None}

    @cached_property
    def _described_model(self) -> LatentModel:
        """The pipeline as verification sees it, for its name and the digest of its weights."""
        return from_pipeline(self._pipe)

    def _keys_of(self, images: int) -> Sequence[Key]:
        if self._one_for_all:
            return self.keys * images
        if len(self.keys) != images:
            raise UsageError(
                f"{len(self.keys)} keys for {images} images: give one key for all, or one per image of the call (prompts "
                "times num_images_per_prompt)"
            )
        return self.keys


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


def _first_free(scheduler: Any, steps: int) -> int:
    name = type(scheduler).__name__
    if name == "PNDMScheduler" and not scheduler.config.skip_prk_steps:
        return _FIRST_FREE_OF_RUNGE_KUTTA
    if name == "DPMSolverSinglestepScheduler":
        # Calls of order 2 and 3 start from the latents of the last call of order 1.
        orders = scheduler.order_list[-steps:]
        return next((i for i, order in enumerate(orders[1:]) if order == 1), steps - 1)
    return _FIRST_FREE[name]


def _forget_sample(scheduler: Any) -> None:
    """Let UniPC go on from other latents: without the last ones its corrector, which starts from them, skips one step."""
    if type(scheduler).__name__ == "UniPCMultistepScheduler":
        scheduler.last_sample = None


def _sigma(scheduler: Any, timestep: Any, z: torch.Tensor) -> float:
    """Return the noise's standard deviation in the latents at a timestep: the scheduler's mix of image 0 and noise 1."""
    add = getattr(scheduler, "scale_noise", None) or scheduler.add_noise
    zero, one, time = z.new_zeros(1, 1, 1, 1), z.new_ones(1, 1, 1, 1), timestep.reshape(1).to(z.device)
    noisy = add(zero, time, one) if hasattr(scheduler, "scale_noise") else add(zero, one, time)
    return float(noisy)
