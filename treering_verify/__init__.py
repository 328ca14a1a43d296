"""treering-verify: mark the noise of latent diffusion models, and verify later whether an image came out of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from treering_verify.attacks import Attack
    from treering_verify.audit.folder import audit_folder
    from treering_verify.calibrated import verify_calibrated
    from treering_verify.calibration import Calibration
    from treering_verify.callbacks import WatermarkCallback
    from treering_verify.decoder_inversion import Problem, Settings
    from treering_verify.decoder_inversion import invert as invert_decoder
    from treering_verify.editing import edit
    from treering_verify.errors import (
        ImageError,
        KeyFileError,
        LimitedModelWarning,
        ModelError,
        TreeringError,
        UsageError,
    )
    from treering_verify.generation import generate, generate_clips, watermarked_noise
    from treering_verify.identification import identify, identify_many
    from treering_verify.key import Family, Key
    from treering_verify.key_index import KeyIndex, load_keys
    from treering_verify.messages import decode_many, with_message
    from treering_verify.model_check import check_model
    from treering_verify.models import LatentModel, ModelSource, from_pipeline, load_model, load_pipeline
    from treering_verify.noise_inversion import invert as invert_noise
    from treering_verify.nulls import calibrate
    from treering_verify.profiles import Profile
    from treering_verify.recovery import Pipeline, recover_noise
    from treering_verify.results import Generated, GeneratedClip, Inversion, KeyEvidence, Verdict
    from treering_verify.search import Search
    from treering_verify.verification import verify, verify_many
    from treering_verify.watermark import embed, extract, features

_HOMES = {
    "Attack": "attacks",
    "audit_folder": "audit.folder",
    "verify_calibrated": "calibrated",
    "WatermarkCallback": "callbacks",
    "Calibration": "calibration",
    "Problem": "decoder_inversion",
    "Settings": "decoder_inversion",
    "invert_decoder": "decoder_inversion:invert",
    "edit": "editing",
    "ImageError": "errors",
    "KeyFileError": "errors",
    "LimitedModelWarning": "errors",
    "ModelError": "errors",
    "TreeringError": "errors",
    "UsageError": "errors",
    "generate": "generation",
    "generate_clips": "generation",
    "watermarked_noise": "generation",
    "identify": "identification",
    "identify_many": "identification",
    "Family": "key",
    "Key": "key",
    "KeyIndex": "key_index",
    "load_keys": "key_index",
    "decode_many": "messages",
    "with_message": "messages",
    "LatentModel": "models",
    "ModelSource": "models",
    "from_pipeline": "models",
    "load_model": "models",
    "load_pipeline": "models",
    "invert_noise": "noise_inversion:invert",
    "calibrate": "nulls",
    "Generated": "results",
    "GeneratedClip": "results",
    "Inversion": "results",
    "KeyEvidence": "results",
    "Verdict": "results",
    "Search": "search",
    "check_model": "model_check",
    "Profile": "profiles",
    "Pipeline": "recovery",
    "recover_noise": "recovery",
    "verify": "verification",
    "verify_many": "verification",
    "embed": "watermark",
    "extract": "watermark",
    "features": "watermark",
}
__all__ = [
    "Attack",
    "Calibration",
    "Family",
    "Generated",
    "GeneratedClip",
    "ImageError",
    "Inversion",
    "Key",
    "KeyEvidence",
    "KeyFileError",
    "KeyIndex",
    "LatentModel",
    "LimitedModelWarning",
    "ModelError",
    "ModelSource",
    "Pipeline",
    "Problem",
    "Profile",
    "Search",
    "Settings",
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
    "generate_clips",
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
