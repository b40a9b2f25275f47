"""Recipes: files of words as on the command line; `#` starts a comment."""

from __future__ import annotations

import codecs
import shlex
from difflib import get_close_matches
from pathlib import Path

DEEPEST = 20  # recipes that name each other
# What other systems put at the beginning of a text file, and the encoding that it tells.
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def expand(words: list[str], depth: int = 0) -> list[str]:
    """The words with those of every recipe (`@file`) in its place.

    ValueError names the file, and the line where there is one.
    """
    if depth > DEEPEST:
        raise ValueError("a recipe reads itself")
    found = []
    for word in words:
        if word.startswith("@") and len(word) > 1:
            found += expand(read_recipe(Path(word[1:])), depth + 1)
        else:
            found.append(word)
    return found


def read_recipe(path: Path) -> list[str]:
    """The words of one recipe; it may name others."""
    words = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            words += shlex.split(line, comments=True)
        except ValueError as error:
            text = line.strip()
            raise ValueError(f"recipe {path}, line {number} ({text!r}): {error}") from error
    return words


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, or in UTF-16 with one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"can't open recipe {path}: {error.strerror}{suggestion(path)}") from error
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"recipe {path}, line {line}: this is no text file in UTF-8; save it as UTF-8"
        ) from error


def suggestion(path: Path) -> str:
    """Names of recipes near the one that is missing."""
    folder = path.parent if path.parent.is_dir() else Path("recipes")
    if not folder.is_dir():
        return ""
    near = get_close_matches(path.name, [file.name for file in folder.glob("*.txt")], n=1)
    return f"; did you mean @{folder / near[0]}?" if near else ""
