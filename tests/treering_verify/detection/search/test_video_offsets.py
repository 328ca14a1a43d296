"""Videos that lost their first frames, or begin with others, are found again, with a p-value that has paid for it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import video_pipelines
from treering_detectors import clopper_pearson

import treering_verify as tv
from treering_verify.detection.search.grid import IDENTITY
from treering_verify.detection.search.neighbours import AS_IT_IS, NEAR
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.search import Searched, search_page
from treering_verify.detection.search.settings import Search
from treering_verify.detection.search.target import Target
from treering_verify.detection.search.video_offsets import Offset, Timeline
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import VideoModel, from_pipeline
from treering_verify.watermark.embedding import embed, extract, features

FRAMEWISE, CAUSAL = Timeline(6, 6), Timeline(17, 5)
LENGTH = {"animatediff": 8, "wan": 17}
STEPS = 3
QUICK = InversionOptions(method="encoder", steps=STEPS)


# --- on noise alone -------------------------------------------------------------------------------------------------------


def key_of(timeline: Timeline, seed: int) -> tv.Key:
    return tv.Key.generate((2 * timeline.latent_frames, 16, 16), seed=seed, inner_radius=2, outer_radius=4)


def late_noise(noise: torch.Tensor, offset: Offset) -> torch.Tensor:
    """Noise of a late video, with other noise where it is another's."""
    moved = 2 * offset.images // offset.timeline.stride
    other = initial_noise((abs(moved), *noise.shape[1:]), [7])[0]
    return torch.cat([noise[moved:], other] if moved > 0 else [other, noise[:moved]])


def test_what_a_late_video_shows_is_said_by_its_images() -> None:
    assert [offset.images for offset in FRAMEWISE.offsets()] == [1, -1, 2, -2, 3, -3]
    assert [offset.images for offset in CAUSAL.offsets()] == [4, -4, 8, -8], "whole latent frames"
    assert [list(CAUSAL.visible(frame)) for frame in (0, 1, 4)] == [[0], [1, 2, 3, 4], [13, 14, 15, 16]]
    assert Offset(2, FRAMEWISE).visible_in_noise() == {2: 0, 3: 1, 4: 2, 5: 3}
    assert Offset(-2, FRAMEWISE).visible_in_noise() == {0: 2, 1: 3, 2: 4, 3: 5}
    # The first latent frame holds one image, the others four: neither stands for the other.
    assert Offset(4, CAUSAL).visible_in_noise() == {2: 1, 3: 2, 4: 3}
    assert Offset(4, CAUSAL).seen_when_undone() == [2, 3, 4]
    assert Offset(-4, CAUSAL).visible_in_noise() == {1: 2, 2: 3, 3: 4}
    assert Offset(-4, CAUSAL).seen_when_undone() == [0, 1, 2, 3]
    assert Timeline(1, 1).offsets() == Timeline(5, 2).offsets() == [], "too short"
    for timeline in (FRAMEWISE, CAUSAL, Timeline(16, 16), Timeline(81, 21)):
        assert all(2 * abs(offset.images) <= timeline.images for offset in timeline.offsets())


@pytest.mark.parametrize("timeline", [FRAMEWISE, CAUSAL])
def test_undoing_puts_images_and_noise_where_they_were_and_shows_no_others(timeline: Timeline) -> None:
    was = torch.arange(timeline.images, dtype=torch.float32).repeat_interleave(3)[None, :, None, None]
    planes = torch.arange(1.0, 1 + 2 * timeline.latent_frames).reshape(-1, 1, 1)
    for offset in timeline.offsets():
        other = torch.full((1, 3 * abs(offset.images), 1, 1), -1.0)
        lost = 3 * offset.images
        late = torch.cat([was[:, lost:], other], 1) if lost > 0 else torch.cat([other, was[:, :lost]], 1)
        again = offset.undo(late)
        mask = offset.mask(2 * timeline.latent_frames)
        assert again.shape == was.shape
        for frame in range(timeline.latent_frames):
            channels = [3 * image + c for image in timeline.visible(frame) for c in range(3)]
            same = torch.equal(again[:, channels], was[:, channels])
            assert set(mask[2 * frame : 2 * frame + 2].flatten().tolist()) == {float(same)}
        moved = planes.roll(-2 * offset.images // timeline.stride, 0)
        back, seen = offset.undo_in_noise(moved), offset.visible_in_noise()
        for frame in range(timeline.latent_frames):
            here = slice(2 * frame, 2 * frame + 2)
            assert torch.equal(back[here], planes[here] if frame in seen else 0 * planes[here])


def searched(
    late: torch.Tensor, video: torch.Tensor, keys: list[tv.Key], timeline: Timeline, again: Any, alpha: float = 1e-300
) -> Searched:
    """Search a late video, (3 F, H, W), for keys, on its noise alone and on what `again` gives for it."""
    targets = [Target(key.name, key.fingerprint, key.family, key.numbers) for key in keys]
    model: Any = SimpleNamespace(screen=None, frames=timeline.images, latent_shape=late.shape, image_size=(64, 64))
    return search_page(model, Page.of(video), video[None], late, targets, Search("quick"), again, alpha, timeline)


def blank(timeline: Timeline) -> torch.Tensor:
    return torch.zeros(3 * timeline.images, 64, 64)


@pytest.mark.parametrize("pattern", ["random", "rings", "mixed-rings"])
@pytest.mark.parametrize("offset", [*FRAMEWISE.offsets(), *CAUSAL.offsets()], ids=lambda o: f"{o.images}")
def test_a_late_noise_is_found_among_other_keys_and_named(offset: Offset, pattern: str) -> None:
    shape = (2 * offset.timeline.latent_frames, 16, 16)
    key, other = (tv.Key.generate(shape, pattern=pattern, seed=s, inner_radius=2, outer_radius=5) for s in (1, 2))
    marked = embed(initial_noise(shape, [3]), key)[0]
    late = late_noise(marked, offset)
    asked: list[torch.Tensor] = []

    def again(videos: torch.Tensor) -> torch.Tensor:
        asked.append(videos)
        # What was undone shows all planes that are known; the others hold anything.
        return (marked + 9 * initial_noise(shape, [4])[0] * (1 - offset.mask(shape[0])))[None].expand(
            len(videos), -1, -1, -1
        )

    absent, found = searched(late, blank(offset.timeline), [other, key], offset.timeline, again).found
    # Few numbers and half of the video do not tell the offset from the video as it is: then the record says "near".
    little = pattern != "random" and 2 * abs(offset.images) >= offset.timeline.images - 1
    named = [offset.changes, NEAR + AS_IT_IS] if little else [offset.changes]
    assert found is not None and found.hypothesis in named and asked
    # An offset has an eighth of alpha for all of its kind. With half of it, -3 would stand between the two.
    between = -3 + np.log10(0.5 / 0.125)
    assert found.log10_pvalue < between and (absent is None or absent.log10_pvalue > between)
    estimate = features(extract((marked * offset.mask(shape[0]))[None], key), key)[0]
    cosine = estimate @ key.numbers / np.linalg.norm(estimate) / np.linalg.norm(key.numbers)
    assert found.statistic == pytest.approx(cosine, rel=1e-6)


def test_words_count_images() -> None:
    said = {offset.images: offset.changes for offset in (*FRAMEWISE.offsets(), *CAUSAL.offsets())}
    assert said[1] == "began 1 frame late" and said[4] == "began 4 frames late"
    assert said[-1] == "began with 1 other frame" and said[-8] == "began with 8 other frames"


@pytest.mark.parametrize("still", [False, True])
def test_the_searched_p_is_never_more_often_small_than_it_says(still: bool) -> None:
    """With both stages, whatever the frames have in common."""
    shape = (2 * FRAMEWISE.latent_frames, 16, 16)
    first, second = initial_noise(shape, [5, 6])
    if still:  # all frames alike, so that all offsets are but for what they leave out
        first, second = (z[:2].repeat(FRAMEWISE.latent_frames, 1, 1) for z in (first, second))
    again = lambda videos: second.expand(len(videos), -1, -1, -1)  # noqa: E731
    keys = [key_of(FRAMEWISE, seed) for seed in range(100)]
    found = [
        one.log10_pvalue if one else 0.0 for one in searched(first, blank(FRAMEWISE), keys, FRAMEWISE, again).found
    ]
    for alpha in (0.5, 0.2, 0.05):
        count = sum(log10 <= math.log10(alpha) for log10 in found)
        assert clopper_pearson(count, len(found), 0.999)[0] <= alpha * (1 - IDENTITY)


# --- on models ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["animatediff", "wan"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str) -> VideoModel:
    pipe = getattr(video_pipelines, family)()
    return from_pipeline(pipe, image_size=video_pipelines.SIZE[family], frames=LENGTH[family])  # type: ignore[return-value]


@pytest.fixture(scope="module")
def key(model: VideoModel, family: str) -> tv.Key:
    channels = video_pipelines.kept_channels(family, model.latent_frames)
    return tv.Key.generate(model.latent_shape, channels=channels, seed=1)


@pytest.fixture(scope="module")
def videos(model: VideoModel, key: tv.Key) -> tuple[list[Any], list[Any]]:
    """A marked video's frames, and another's."""
    (marked,) = tv.generation.generate_videos(model, key, seeds=[3], prompts=["a cat"], steps=STEPS)
    (other,) = tv.generation.generate_videos(model, None, seeds=[4], prompts=["a dog"], steps=STEPS)
    return list(marked.frames), list(other.frames)


def test_a_video_that_begins_late_is_detected_and_it_is_said(
    model: VideoModel, key: tv.Key, videos: tuple[list[Any], list[Any]]
) -> None:
    marked, other = videos
    for lost in (4, -4):
        frames = marked[lost:] + other[:lost] if lost > 0 else other[:-lost] + marked
        plain = tv.verify(frames, key, model=model, inversion=QUICK, search=None)
        assert plain.verdict != "detected"
        found = tv.verify(frames, key, model=model, inversion=QUICK, search="quick")
        assert found.verdict == "detected" and found.best is not None
        words = "began 4 frames late" if lost > 0 else "began with 4 other frames"
        assert found.best.hypothesis == found.record()["hypothesis"] == words
        foreign = tv.Key.generate(model.latent_shape, channels=key.channels, seed=2)
        assert tv.verify(frames, foreign, model=model, inversion=QUICK, search="quick").verdict != "detected"
