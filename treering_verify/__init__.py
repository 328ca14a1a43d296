"""treering-verify: mark the noise of latent diffusion models, and verify later whether an image came out of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from treering_verify.version import __version__

if TYPE_CHECKING:
    from treering_verify.attacks import Attack
    from treering_verify.audit.folder import audit_folder
    from treering_verify.detection.calibration.build import calibrate
    from treering_verify.detection.calibration.calibration_file import Calibration
    from treering_verify.detection.calibration.verify import verify_calibrated
    from treering_verify.detection.identification import identify, identify_many
    from treering_verify.detection.messages import decode_many, with_message
    from treering_verify.detection.search.search import Search
    from treering_verify.detection.self_test import check_model
    from treering_verify.detection.verification import verify, verify_many
    from treering_verify.errors import (
        ImageError,
        KeyFileError,
        LimitedModelWarning,
        ModelError,
        TreeringError,
        UsageError,
    )
    from treering_verify.generation.callback import WatermarkCallback
    from treering_verify.generation.editing import edit
    from treering_verify.generation.generator import generate, generate_videos, watermarked_noise
    from treering_verify.inversion.decoder import Problem, Settings
    from treering_verify.inversion.decoder import invert as invert_decoder
    from treering_verify.inversion.decoder.solution import Solution
    from treering_verify.inversion.noise import invert as invert_noise
    from treering_verify.inversion.recovery import InversionOptions, recover_noise
    from treering_verify.models import LatentModel, ModelSource, from_pipeline, load_model, load_pipeline
    from treering_verify.models.profile import Profile
    from treering_verify.results import Generated, GeneratedVideo, KeyEvidence, Verdict
    from treering_verify.watermark.embedding import embed, extract, features
    from treering_verify.watermark.keys.index import KeyIndex, load_keys
    from treering_verify.watermark.keys.key import Family, Key

_HOMES = {
    "Attack": "attacks",
    "audit_folder": "audit.folder",
    "verify_calibrated": "detection.calibration.verify",
    "WatermarkCallback": "generation.callback",
    "Calibration": "detection.calibration.calibration_file",
    "Problem": "inversion.decoder",
    "Settings": "inversion.decoder",
    "invert_decoder": "inversion.decoder:invert",
    "edit": "generation.editing",
    "ImageError": "errors",
    "KeyFileError": "errors",
    "LimitedModelWarning": "errors",
    "ModelError": "errors",
    "TreeringError": "errors",
    "UsageError": "errors",
    "generate": "generation.generator",
    "generate_videos": "generation.generator",
    "watermarked_noise": "generation.generator",
    "identify": "detection.identification",
    "identify_many": "detection.identification",
    "Family": "watermark.keys.key",
    "Key": "watermark.keys.key",
    "KeyIndex": "watermark.keys.index",
    "load_keys": "watermark.keys.index",
    "decode_many": "detection.messages",
    "with_message": "detection.messages",
    "LatentModel": "models",
    "ModelSource": "models",
    "from_pipeline": "models",
    "load_model": "models",
    "load_pipeline": "models",
    "invert_noise": "inversion.noise:invert",
    "calibrate": "detection.calibration.build",
    "Generated": "results",
    "GeneratedVideo": "results",
    "Solution": "results",
    "KeyEvidence": "results",
    "Verdict": "results",
    "Search": "detection.search.search",
    "check_model": "detection.self_test",
    "Profile": "models.profile",
    "InversionOptions": "inversion.recovery",
    "recover_noise": "inversion.recovery",
    "verify": "detection.verification",
    "verify_many": "detection.verification",
    "embed": "watermark.embedding",
    "extract": "watermark.embedding",
    "features": "watermark.embedding",
}
__all__ = [
    "Attack",
    "Calibration",
    "Family",
    "Generated",
    "GeneratedVideo",
    "ImageError",
    "InversionOptions",
    "Key",
    "KeyEvidence",
    "KeyFileError",
    "KeyIndex",
    "LatentModel",
    "LimitedModelWarning",
    "ModelError",
    "ModelSource",
    "Problem",
    "Profile",
    "Search",
    "Settings",
    "Solution",
    "TreeringError",
    "UsageError",
    "Verdict",
    "WatermarkCallback",
    "__version__",
    "audit_folder",
    "calibrate",
    "check_model",
    "decode_many",
    "edit",
    "embed",
    "extract",
    "features",
    "from_pipeline",
    "generate",
    "generate_videos",
    "identify",
    "identify_many",
    "invert_decoder",
    "invert_noise",
    "load_keys",
    "load_model",
    "load_pipeline",
    "recover_noise",
    "verify",
    "verify_calibrated",
    "verify_many",
    "watermarked_noise",
    "with_message",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import treering_verify` stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(import_module(f"{__name__}.{module}"), attribute or name)
    globals()[name] = value
    return value
