"""`python -m treering_verify` is the `treering` command."""

from treering_verify.cli import main

main(prog_name="treering")
