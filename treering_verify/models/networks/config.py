"""Configurations of networks and schedulers, in the JSON files of diffusers' layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self


class Fields(dict[str, Any]):
    """A dictionary whose values are also attributes: `fields["name"]` and `fields.name` are the same."""

    def __getattr__(self, name: str) -> Any:
        """Return the value of a field."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Config(Fields):
    """Configuration of a network or scheduler."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a JSON file; fields that begin with an underscore say what wrote it and are left out.

        Raises
        ------
        OSError, ValueError
            If there is no such file, or it holds no JSON object.
        """
        fields = json.loads(path.read_text("utf-8"))
        if not isinstance(fields, dict):
            raise ValueError(f"{path.name} is no JSON object")
        return cls({name: value for name, value in fields.items() if not name.startswith("_")})

    def write(self, path: Path, kind: str) -> None:
        """Write a JSON file that names the class which the configuration belongs to."""
        path.write_text(json.dumps({"_class_name": kind, **self}, indent=2, sort_keys=True) + "\n", "utf-8")


def require(config: Config, **implemented: Any) -> None:
    """Raise ValueError if a configuration asks for what is not implemented, or names what is not known.

    Parameters
    ----------
    config : Config
    **implemented
        The only value of each field. A field that the configuration leaves out has it.
    """
    for name, value in implemented.items():
        found = config.get(name, value)
        if (list(found) if isinstance(found, tuple) else found) != value:
            raise ValueError(f"{name} is {found!r}: only {value!r} is implemented")
