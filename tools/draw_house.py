"""Draw the rooms of recsys_lib and who imports whom, from the code, into book/figures/house.svg.

Usage: draw_house.py [--check]; with --check nothing is written, and the exit status is 1 where the
stored picture is another one.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "recsys_lib"
PICTURE = ROOT / "book" / "figures" / "house.svg"
# The order in which data flows, and the verb of each room.
ROOMS = {
    "checks": "check arguments",
    "files": "write and read files",
    "data": "load",
    "objectives": "compare",
    "evaluation": "evaluate",
    "models": "fit",
    "training": "train",
    "compression": "prune, quantize, distil",
    "serving": "serve",
    "recipe": "compress in steps",
    "text": "encode",
    "notebook": "show",
}
STEP, LEFT, TOP = 46, 24, 20
BOX = 176


def room_of(path: Path) -> str:
    """Return the room that a file of the package belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports() -> dict[tuple[str, str], int]:
    """Return how many files of one room import from another, for each pair that does."""
    found: dict[tuple[str, str], int] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                if node.module == "recsys_lib":
                    names |= {alias.name for alias in node.names}
                elif node.module.startswith("recsys_lib."):
                    names.add(node.module.split(".")[1])
            elif isinstance(node, ast.Import):
                names |= {
                    alias.name.split(".")[1]
                    for alias in node.names
                    if alias.name.startswith("recsys_lib.")
                }
        own = room_of(path)
        for name in names & ROOMS.keys() - {own}:
            if own in ROOMS:
                found[own, name] = found.get((own, name), 0) + 1
    return found


def draw() -> str:
    """Return the picture: a staircase of rooms, a dot where the row's room imports the column's."""
    rooms, pairs = list(ROOMS), imports()
    width = LEFT + STEP * len(rooms) + BOX + 20
    height = TOP + STEP * len(rooms) + 12
    used = "; ".join(
        f"{room} imports {', '.join(other for other in rooms if (room, other) in pairs) or 'none'}"
        for room in rooms
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="sans-serif">',
        "<title>The rooms of recsys_lib and who imports whom</title>",
        f"<desc>{escape(used)}.</desc>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for row, room in enumerate(rooms):
        x, y = LEFT + STEP * row, TOP + STEP * row
        users = [other for other in rooms[row + 1 :] if (other, room) in pairs]
        if users:
            end = TOP + STEP * rooms.index(users[-1]) + 18
            middle = x + 18
            parts.append(
                f'<line x1="{middle}" y1="{y + 36}" x2="{middle}" y2="{end}" stroke="#b0b0b0"/>'
            )
        own = [other for other in rooms[:row] if (room, other) in pairs]
        if own:
            start = LEFT + STEP * rooms.index(own[0]) + 18
            parts.append(
                f'<line x1="{start}" y1="{y + 18}" x2="{x}" y2="{y + 18}" stroke="#b0b0b0"/>'
            )
    for row, room in enumerate(rooms):
        x, y = LEFT + STEP * row, TOP + STEP * row
        for column, other in enumerate(rooms[:row]):
            if (room, other) in pairs:
                parts.append(
                    f'<circle cx="{LEFT + STEP * column + 18}" cy="{y + 18}" r="6" fill="#0072B2">'
                    f"<title>{room} imports {other}</title></circle>"
                )
        parts += [
            f'<rect x="{x}" y="{y}" width="{BOX}" height="36" rx="5" fill="#fdf1e7" '
            'stroke="#D55E00"/>',
            f'<text x="{x + 10}" y="{y + 16}" font-size="14" font-weight="bold" fill="#222222">'
            f"{room}</text>",
            f'<text x="{x + 10}" y="{y + 30}" font-size="11" fill="#444444">'
            f"{escape(ROOMS[room])}</text>",
        ]
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    """Write the picture, or compare it with the stored one."""
    picture = draw()
    if "--check" in sys.argv[1:]:
        stored = PICTURE.read_text(encoding="utf-8") if PICTURE.exists() else ""
        return int(stored != picture)
    PICTURE.write_text(picture, encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
