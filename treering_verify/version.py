"""The version, in a module of its own so that any other may import it."""

__version__ = "0.2.0"
