"""The long description; everything else about the package stands in pyproject.toml, which cannot change a text.

README.md links to files of the repository. Where the project has an address (`Source` in [project.urls]), these links become
absolute. Without one, each becomes its text and the path of the file, which the sdist holds.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
HOME = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {}).get("Source")


def link(match: re.Match[str]) -> str:
    """Return a link or image of Markdown that works outside the repository: images as files, everything else as pages."""
    image, text, target = match.groups()
    if HOME:
        return f"{image}[{text}]({HOME}/{'raw' if image else 'blob'}/main/{target})"
    return f"{text} (`{target}`)"


setup(
    long_description=re.sub(
        r"(!?)\[([^\[\]]*)\]\((?!https?:|#|mailto:)([^()\s]+)\)", link, (ROOT / "README.md").read_text("utf-8")
    ),
    long_description_content_type="text/markdown",
)
