"""Print figures of the import graph: `python tests/helpers/import_graph.py [ROOT]`.

Boxes are the packages and modules directly below `treering_verify`, and the statistics. A floor is one more than the highest
floor below a box; boxes that import each other in a circle share a floor.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STATISTICS = ("treering_detectors", "detectors")  # the second is the name until version 0.1.0


def modules(root: Path) -> dict[str, Path]:
    """Return the file of every module of both packages, by its dotted name."""
    bases = [(root, "treering_verify"), (root / "detectors", STATISTICS[0]), (root, STATISTICS[1])]
    found: dict[str, Path] = {}
    for base, package in bases:
        if not (base / package / "__init__.py").exists():
            continue
        for path in (base / package).rglob("*.py"):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def box_of(module: str) -> str:
    """Return the box that a module belongs to."""
    package, *rest = module.split(".")
    return package if package in STATISTICS else (rest[0] if rest else "__init__")


def edges(found: dict[str, Path]) -> set[tuple[str, str]]:
    """Return (box, imported box) for every import anywhere in a source."""
    result = set()
    for module, path in found.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                while name and name not in found:
                    name = name.rpartition(".")[0]
                if name and box_of(name) != box_of(module):
                    result.add((box_of(module), box_of(name)))
    return result


def reachable(start: str, arrows: set[tuple[str, str]]) -> set[str]:
    """Return the boxes that arrows lead to from a box."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for source, target in arrows:
            if source == waiting[-1] and target not in seen:
                seen.add(target)
                waiting.insert(0, target)
        waiting.pop()
    return seen


def figures(root: Path) -> dict[str, int]:
    """Return boxes, floors, boxes in circles, their arrows, files that lie flat, and files of the fullest folder."""
    found = modules(root)
    arrows = {(a, b) for a, b in edges(found) if "__init__" not in (a, b)}
    boxes = {box_of(module) for module in found} - {"__init__"}
    below = {box: reachable(box, arrows) for box in boxes}
    circles = {box for box in boxes if box in below[box]}
    not_down = {(a, b) for a, b in arrows if a in below[b]}  # in whatever order a circle is told, some of these go up
    floor: dict[str, int] = {}

    def height(box: str) -> int:
        if box not in floor:
            floor[box] = 1 + max((height(b) for b in below[box] if box not in below[b]), default=0)
        return floor[box]

    flat = len(list((root / "treering_verify").glob("*.py")))
    folders: dict[Path, int] = {}
    for path in found.values():
        folders[path.parent] = folders.get(path.parent, 0) + 1
    return {
        "boxes": len(boxes),
        "floors": max(map(height, boxes)),
        "boxes in circles": len(circles),
        "imports that do not go down": len(not_down),
        "files flat in treering_verify": flat,
        "files in the fullest folder": max(folders.values()),
    }


if __name__ == "__main__":
    for name, count in figures(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT).items():
        print(f"{name}: {count}")
