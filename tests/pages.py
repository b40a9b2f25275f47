"""The pages of documentation: README.md and docs/*.md, and the commands that they show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from command import ROOT

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
OTHERS = [ROOT / "trained_models" / "README.md", ROOT / "save" / "README.md"]


def name_of(page: Path) -> str:
    """For the ids of tests: README.md, docs/data.md."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def commands(page: Path) -> list[str]:
    r"""The commands of a page that start main.py; lines that end in \ are joined."""
    joined = re.sub(r"\\\n\s*", "", "\n".join(blocks(page, "bash")))
    return [line for line in joined.splitlines() if "main.py " in line]


def words_of(command: str) -> list[str]:
    """The words behind main.py."""
    return shlex.split(command.split("main.py ", 1)[1])
