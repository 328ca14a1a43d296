"""`python -m treering_verify` is the `treering` command."""

from treering_verify.cli.main import main

main(prog_name="treering")
