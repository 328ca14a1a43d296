"""Videos that lost their first frames, or begin with others, are found again, with a p-value that has paid for it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import video_pipelines
from treering_detectors import clopper_pearson

import treering_verify as tv
from treering_verify.detection.evidence import searched_evidence
from treering_verify.detection.search.geometry import IDENTITY_WEIGHT, KINDS, candidates, undo
from treering_verify.detection.search.search import Search, confirm, guess
from treering_verify.detection.search.video_offsets import Offset, Timeline
from treering_verify.errors import UsageError
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.media.images import to_tensor
from treering_verify.models import LatentModel, VideoModel, from_pipeline
from treering_verify.watermark.embedding import embed, extract, features

FRAMEWISE, CAUSAL = Timeline(6, 6), Timeline(17, 5)
LENGTH = {"animatediff": 8, "wan": 17}
STEPS = 3
QUICK = InversionOptions(method="encoder", steps=STEPS)
TIME = Search(("time",))


# --- on noise alone -------------------------------------------------------------------------------------------------------


def key_of(timeline: Timeline, seed: int) -> tv.Key:
    return tv.Key.generate((2 * timeline.latent_frames, 16, 16), seed=seed, inner_radius=2, outer_radius=4)


def late_noise(noise: torch.Tensor, offset: Offset) -> torch.Tensor:
    """Noise of a late video, with other noise where it is another's."""
    moved = 2 * offset.images // offset.timeline.stride
    other = initial_noise((abs(moved), *noise.shape[1:]), [7])[0]
    return torch.cat([noise[moved:], other] if moved > 0 else [other, noise[:moved]])


def test_what_a_late_clip_shows_is_said_by_pictures() -> None:
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
def test_undoing_puts_pictures_and_noise_where_they_were_and_shows_no_others(timeline: Timeline) -> None:
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


def test_time_takes_its_share_from_clips_alone() -> None:
    pictures = candidates(9, KINDS)
    assert [str(group) for group in pictures] == [str(group) for group in candidates(9, KINDS[:3])]
    assert sum(group.weight * len(group.shifts) for group in pictures) == pytest.approx(1 - IDENTITY_WEIGHT)
    assert candidates(9, ("time",)) == ()
    videos = candidates(9, KINDS, FRAMEWISE)
    assert sum(group.weight * len(group.shifts) for group in videos) == pytest.approx(1 - IDENTITY_WEIGHT)
    assert sum(group.weight for group in videos if group.frame.offset) == pytest.approx((1 - IDENTITY_WEIGHT) / 4)


@pytest.mark.parametrize("pattern", ["random", "rings", "mixed-rings"])
@pytest.mark.parametrize("offset", [*FRAMEWISE.offsets(), *CAUSAL.offsets()], ids=lambda o: f"{o.images}")
def test_a_late_noise_is_found_among_other_keys_and_named(offset: Offset, pattern: str) -> None:
    shape = (2 * offset.timeline.latent_frames, 16, 16)
    key, other = (tv.Key.generate(shape, pattern=pattern, seed=s, inner_radius=2, outer_radius=5) for s in (1, 2))
    marked = embed(initial_noise(shape, [3]), key)[0]
    late = late_noise(marked, offset)
    absent, found = guess(late, [other, key], TIME, offset.timeline)
    assert found[0].hypothesis.changes == offset.changes
    assert found[0].evidence.log10_pvalue < -3 < absent[0].evidence.log10_pvalue
    # Undone in the video and recovered again: all that the video shows is read, and nothing else.
    again = confirm(marked, key, found[0])
    estimate = features(extract((marked * offset.mask(shape[0]))[None], key), key)[0]
    cosine = estimate @ key.numbers / np.linalg.norm(estimate) / np.linalg.norm(key.numbers)
    assert again.evidence.statistic == pytest.approx(cosine, rel=1e-9)
    assert again.evidence.log10_pvalue <= found[0].evidence.log10_pvalue + 1e-9
    elsewhere = marked + 9 * initial_noise(shape, [4])[0] * (1 - offset.mask(shape[0]))
    assert confirm(elsewhere, key, found[0]).evidence.statistic == pytest.approx(cosine, rel=1e-9)


def test_words_count_pictures() -> None:
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
    video, trials = torch.zeros(1, 3 * FRAMEWISE.images, 4, 4), 1500
    found = []
    for seed in range(trials):
        key = key_of(FRAMEWISE, seed)
        again = lambda pictures: second.expand(len(pictures), -1, -1, -1)  # noqa: E731
        ((best,),) = searched_evidence(first[None], video, [key], TIME, again, 1e-300, FRAMEWISE)
        found.append(best.log10_pvalue)
    for alpha in (0.5, 0.2, 0.05):
        count = sum(log10 <= math.log10(alpha) for log10 in found)
        assert clopper_pearson(count, trials, 0.999)[0] <= alpha
        assert count > 0.25 * alpha * trials, "nor is the bound an idle one"


def test_what_is_guessed_is_undone_and_read_again_within_the_budget() -> None:
    timeline = FRAMEWISE
    key = key_of(timeline, 1)
    marked = embed(initial_noise(key.latent_shape, [3]), key)
    late = late_noise(marked[0], Offset(2, timeline))[None] + 2.5 * initial_noise(
        key.latent_shape, [4]
    )  # seen badly, as it is
    video = torch.arange(timeline.images).float().repeat_interleave(3)[None, :, None, None] * torch.ones(1, 1, 4, 4)
    asked: list[torch.Tensor] = []

    def again(pictures: torch.Tensor) -> torch.Tensor:
        asked.append(pictures)
        return marked.expand(len(pictures), -1, -1, -1)

    ((plain,),) = searched_evidence(late, video, [key], replace(TIME, budget=0), again, 1e-30, timeline)
    assert not asked and plain.hypothesis == "began 2 frames late"
    ((best,),) = searched_evidence(late, video, [key], TIME, again, 1e-30, timeline)
    assert len(asked) == 1 and len(asked[0]) == 1, "the best offset of this key"
    assert asked[0][0, ::3, 0, 0].tolist() == [0, 0, 0, 1, 2, 3]
    assert best.hypothesis == plain.hypothesis and best.log10_pvalue < 2 * plain.log10_pvalue


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


def test_a_clip_that_begins_late_is_detected_and_it_is_said(
    model: VideoModel, key: tv.Key, videos: tuple[list[Any], list[Any]]
) -> None:
    marked, other = videos
    for lost in (4, -4):
        frames = marked[lost:] + other[:lost] if lost > 0 else other[:-lost] + marked
        plain = tv.detection.verify(frames, key, model=model, inversion=QUICK, search=None)
        assert plain.verdict != "detected"
        found = tv.detection.verify(frames, key, model=model, inversion=QUICK, search=TIME)
        assert found.verdict == "detected" and found.best is not None
        words = "began 4 frames late" if lost > 0 else "began with 4 other frames"
        assert found.best.hypothesis == found.record()["hypothesis"] == words
        foreign = tv.Key.generate(model.latent_shape, channels=key.channels, seed=2)
        assert tv.detection.verify(frames, foreign, model=model, inversion=QUICK, search=TIME).verdict != "detected"


def test_a_clip_that_was_moved_back_shows_the_key_in_what_is_left(
    model: VideoModel, key: tv.Key, videos: tuple[list[Any], list[Any]]
) -> None:
    """Its first frames cut off and its end repeated, as reading does; what was undone gives all planes that are known."""
    marked, _ = videos
    frames = marked[4:] + marked[-1:] * 4
    pixels = torch.cat([to_tensor(frame) for frame in frames], dim=1)
    timeline = Timeline.of(model)
    assert timeline is not None
    noise_hat, _ = recover_noise(model, pixels, QUICK)
    ((best, *_),) = guess(noise_hat[0], [key], TIME, timeline)
    assert best.hypothesis.changes == "began 4 frames late"
    undone, _ = recover_noise(model, undo(pixels, best.hypothesis), QUICK)
    again = confirm(undone[0], key, best)
    assert again.evidence.log10_pvalue < -100
    assert again.evidence.statistic > 0.9 * best.evidence.statistic


def test_time_is_not_searched_in_pictures(tiny_model: LatentModel) -> None:
    assert Timeline.of(tiny_model) is None
    image = tv.Key.generate(tiny_model.latent_shape, seed=1)
    for kinds in (("time",), ("flip", "time")):
        with pytest.raises(UsageError, match=r"time is searched in videos.*flip, rotation, crop, or all"):
            tv.detection.verify(b"", image, model=tiny_model, search=Search(kinds))
    z, pixels = torch.randn(1, *tiny_model.latent_shape), torch.zeros(1, 3, *tiny_model.image_size)
    again = lambda pictures: torch.zeros(len(pictures), *tiny_model.latent_shape)  # noqa: E731
    found = [
        searched_evidence(z, pixels, [image], Search(kinds), again, 1e-6, Timeline.of(tiny_model))
        for kinds in (KINDS, KINDS[:3])
    ]
    assert found[0] == found[1]
