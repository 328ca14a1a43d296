"""MarkDiffusion's Tree-Ring, through its package where that is installed: its own pattern, mask, injection and decision.

Its pipelines are Stable Diffusion's, so a model of this toolkit stands in for the pipeline: it has the shape of the latents,
and encodes and inverts the images. MarkDiffusion does the same with its pipeline: encoder, then DDIM without a prompt.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify.models import LatentModel

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

PACKAGE = "markdiffusion"


def installed_version() -> str:
    """Return the version of the package; "" where it is not installed."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return ""


class TreeRing:
    """MarkDiffusion's algorithm TR with its default settings, for latents of a model.

    Parameters
    ----------
    model : LatentModel

    Raises
    ------
    ImportError, AttributeError, TypeError
        If the package is of another release than those that have these classes.
    """

    def __init__(self, model: LatentModel) -> None:
        import torch
        from markdiffusion.utils import utils
        from markdiffusion.watermark.tr import tr

        path = utils.default_algorithm_config_path("TR")
        settings = dict(utils.load_config_file(path))
        # The shape of latents is all that it asks of a pipeline before images are generated.
        shape = (1, *model.latent_shape)
        config = SimpleNamespace(
            **settings,
            pipe=None,
            image_size=model.image_size,
            device="cpu",
            init_latents=torch.zeros(shape),
        )
        before = tr.get_random_latents
        tr.get_random_latents = lambda **_: torch.randn(shape)
        try:
            with torch.random.fork_rng(devices=[]):
                state = np.random.get_state()
                self._utils = tr.TRUtils(config)
                np.random.set_state(state)
        finally:
            tr.get_random_latents = before
        self._detector = tr.TRDetector(
            self._utils.watermarking_mask,
            self._utils.gt_patch,
            settings["threshold"],
            torch.device("cpu"),
            settings["threshold_p_value"],
        )
        self.threshold = float(settings["threshold"])

    def mark(self, noise: torch.Tensor) -> torch.Tensor:
        """Return noise, (B, C, h, w), with the mark of its defaults."""
        import torch

        return torch.cat([self._utils.inject_watermark(one) for one in noise.split(1)])

    def decide(self, noise_hat: torch.Tensor, kind: str) -> npt.NDArray[np.float64]:
        """Return +1 for noise estimates that it takes for marked by "l1_distance" or "p_value", and -1 for others."""
        found: list[dict[str, Any]] = [
            self._detector.eval_watermark(one, detector_type=kind) for one in noise_hat.split(1)
        ]
        return np.array([1.0 if one["is_watermarked"] else -1.0 for one in found])
