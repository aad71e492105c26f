"""What the pages say: commands with the output that they show, and files that they ask you to write."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "train",
    "calibrate",
    "launch",
    "info",
    "trace",
    "evaluate",
    "chat",
    "serve",
    "export",
    "report",
    "forecast",
    "plan",
    "simulate",
    "torture",
    "design",
    "check",
    "status",
    "schedule",
    "dashboard",
)  # the others look at train's run
PAGES = (
    *(ROOT / "docs" / "commands" / f"{name}.md" for name in COMMANDS),
    ROOT / "docs" / "survival.md",
    ROOT / "README.md",
)

FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]+)"')
EXIT = re.compile(r"exit=(\d+)")


@dataclass(frozen=True, slots=True)
class Example:
    """A line after `$ `, what the page shows below it (nothing: anything goes), and how it ends."""

    command: str
    shown: str
    exit_code: int


def examples(page: str) -> list[Example]:
    """All of a page's console blocks; the commands of one that says `exit=2` end with that."""
    found = []
    for language, rest, body in FENCE.findall(page):
        if language == "console":
            code = EXIT.search(rest)
            for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                command, _, shown = part.partition("\n")
                found.append(Example(command, shown, int(code[1]) if code else 0))
    return found


def files(page: str) -> dict[str, str]:
    """The blocks that have a title, by it."""
    return {title[1]: body for _, rest, body in FENCE.findall(page) if (title := TITLE.search(rest))}


def table(page: str, columns: int) -> list[tuple[str, ...]]:
    """The first cells of all rows of a page's tables that begin with code, without its backticks."""
    rows = (line.strip("|").split(" | ") for line in page.splitlines() if line.startswith("| `"))
    return [tuple(cell.strip(" `") for cell in row[:columns]) for row in rows]
