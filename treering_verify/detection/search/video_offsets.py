"""Offsets in time: a video that lost its first images since it was made, or begins with some of another.

Each frame of a video's noise has numbers of its own, so a video that is late puts every frame against another's. Its noise
is late with it. Planes that a hypothesis does not see are zero: what is tested still depends on the video alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from treering_verify.models import LatentModel, makes_videos

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Timeline:
    """How the images of a video are divided among its latent frames.

    The first latent frame has one image; each of the others has the same number of them (`stride`).

    Attributes
    ----------
    images, latent_frames : int
        How many a video has.
    """

    images: int
    latent_frames: int

    @classmethod
    def of(cls, model: LatentModel) -> Timeline | None:
        """Return the timeline of a model; None if it makes images, or videos too short to be found once they begin late."""
        if not makes_videos(model):
            return None
        timeline = cls(model.frames, model.latent_frames)
        return timeline if timeline.offsets() else None

    @property
    def stride(self) -> int:
        """How many images each latent frame has, but the first."""
        return (self.images - 1) // max(1, self.latent_frames - 1)

    def visible(self, frame: int) -> range:
        """Return the numbers of the images in a latent frame."""
        return range(max(0, (frame - 1) * self.stride + 1), frame * self.stride + 1)

    def offsets(self) -> list[Offset]:
        """Return the offsets to try: whole latent frames, with half the images and one whole latent frame left."""
        most = self.images // 2 // max(1, self.stride)
        offsets = [Offset(sign * frames * self.stride, self) for frames in range(1, most + 1) for sign in (1, -1)]
        return [offset for offset in offsets if offset.visible_in_noise()]


@dataclass(frozen=True)
class Offset:
    """By how many images a video begins late, or too early.

    Attributes
    ----------
    images : int
        How many images are missing at the video's beginning; less than 0: how many others stand before it. A multiple of
        the timeline's stride.
    timeline : Timeline
    """

    images: int
    timeline: Timeline

    @property
    def changes(self) -> str:
        """What was done, in words, as a verdict says it."""
        count = abs(self.images)
        frames = "frame" if count == 1 else "frames"
        return f"began {count} {frames} late" if self.images > 0 else f"began with {count} other {frames}"

    def visible_in_noise(self) -> dict[int, int]:
        """Return, for each original latent frame that the late video's latent shows whole, which frame shows it there."""
        line, frames = self.timeline, range(self.timeline.latent_frames)
        places = {frame: frame - self.images // line.stride for frame in frames}
        whole = {frame: place for frame, place in places.items() if place in frames}
        return {frame: place for frame, place in whole.items() if len(line.visible(frame)) == len(line.visible(place))}

    def seen_when_undone(self) -> list[int]:
        """Return the latent frames all of whose images the late video has."""
        line, left = self.timeline, range(self.images, self.images + self.timeline.images)
        return [frame for frame in range(line.latent_frames) if all(one in left for one in line.visible(frame))]

    def undo_in_noise(self, noise_hat: torch.Tensor) -> torch.Tensor:
        """Move the noise (C f, h, w) of a late video back to its original latent frames; those that it lacks are 0."""
        planes = noise_hat.unflatten(0, (self.timeline.latent_frames, -1))
        moved = planes.new_zeros(planes.shape)
        for frame, place in self.visible_in_noise().items():
            moved[frame] = planes[place]
        return moved.flatten(0, 1)

    def undo(self, video: torch.Tensor) -> torch.Tensor:
        """Move images (B, 3 F, H, W) back to their places; the first or the last stands in for missing ones."""
        import torch

        places = torch.arange(self.timeline.images, device=video.device) - self.images
        frames = video.unflatten(1, (self.timeline.images, -1))
        return frames[:, places.clamp(0, self.timeline.images - 1)].flatten(1, 2)

    def mask(self, channels: int) -> torch.Tensor:
        """Return which of the noise's C f planes a video shows once its offset is undone, 1 or 0: (C f, 1, 1)."""
        import torch

        planes = torch.zeros(self.timeline.latent_frames, channels // self.timeline.latent_frames)
        planes[self.seen_when_undone()] = 1
        return planes.flatten()[:, None, None]
