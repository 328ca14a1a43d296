"""The long description: README.md, whose relative links only work within the repository, with absolute ones.

Everything else about the package stands in pyproject.toml.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
HOME = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Source"]


def absolute(match: re.Match[str]) -> str:
    """Link or image of Markdown, absolute: images as files, everything else as pages."""
    image, text, target = match.groups()
    return f"{image}[{text}]({HOME}/{'raw' if image else 'blob'}/main/{target})"


setup(
    long_description=re.sub(
        r"(!?)\[([^\[\]]*)\]\((?!https?:|#|mailto:)([^()\s]+)\)", absolute, (ROOT / "README.md").read_text("utf-8")
    ),
    long_description_content_type="text/markdown",
)
