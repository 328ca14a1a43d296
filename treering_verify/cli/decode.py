"""The command that reads messages out of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from treering_verify.cli.command import command
from treering_verify.cli.options.judging import Judging, judging_options
from treering_verify.cli.options.keys import check_fit, only_key

if TYPE_CHECKING:
    from treering_verify.inversion.recovery import InversionOptions
    from treering_verify.models import LatentModel
    from treering_verify.results import Verdict


@command("treering decode images/*.png --key message.key.json")
@judging_options(key_help="Key file of a pattern that carries messages (gaussian-shading).", search=False)
def decode(judging: Judging) -> None:
    """Read the message that an image carries.

    The key's pattern is gaussian-shading. The image may carry any message, not only the key's own. p is the evidence that
    there is a message as long as the key's own; if p is above alpha, no message is printed. treering verify needs less
    evidence: it tests for the key's own message alone. FILES are as for treering verify.
    """
    from treering_verify.detection.messages import check_pattern, decode_many

    key, images = only_key(judging.keys), judging.images()
    check_pattern(key)
    check_fit([key], judging.model)

    def judge(model: LatentModel, inversion: InversionOptions) -> Iterator[Verdict]:
        return decode_many(images, key, model=model, alpha=judging.alpha, inversion=inversion)

    judging.print("Reading", images, judge, keys=[key], message="")
