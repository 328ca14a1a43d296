"""Command line: parse, call, print. Data goes to stdout, everything else to stderr.

Exit codes: 0 ran; 1 what --fail-on names was found; 2 usage, key or model error; 3 finished, but some files could not be
judged; 130 interrupted.
"""

from __future__ import annotations

from pathlib import Path

import click

from treering_verify.cli.attack import attack
from treering_verify.cli.audit import audit
from treering_verify.cli.benchmark import benchmark
from treering_verify.cli.calibrate import calibrate
from treering_verify.cli.command import Group, reported_errors
from treering_verify.cli.decode import decode
from treering_verify.cli.demo import demo
from treering_verify.cli.generate import generate
from treering_verify.cli.identify import identify
from treering_verify.cli.keygen import keygen
from treering_verify.cli.keys import keys
from treering_verify.cli.models import models
from treering_verify.cli.report import report
from treering_verify.cli.verify import recheck, verify
from treering_verify.version import __version__

_SETTINGS = {"auto_envvar_prefix": "TREERING", "help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=Group, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="treering")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file of options; none is read unless named.")
@click.pass_context
def main(context: click.Context, config: Path | None) -> None:
    """Mark images of latent diffusion models, and verify later whether an image is one of them.

    Every option can also be set in the environment (TREERING_VERIFY_ALPHA=1e-9 is --alpha of verify) and in a TOML file
    (--config or TREERING_CONFIG), under the command's name: [verify], alpha = 1e-9. The command line overrides the
    environment, and the environment overrides the file.

    Exit codes: 0 ran; 1 --fail-on found its verdict; 2 usage, key or model error; 3 some files could not be judged; 130
    interrupted.
    """
    if config:
        from treering_verify.cli.configuration import read_defaults

        with reported_errors():
            context.default_map = read_defaults(config, main)


main.add_section("Mark", keygen, keys, generate)
main.add_section("Verify", verify, identify, audit, decode, recheck, report)
main.add_section("Evaluate", demo, attack, benchmark, calibrate)
main.add_section("Manage", models)
