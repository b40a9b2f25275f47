"""Class maps in files: one class of one label set, and its class in another, a line.

    truck -> car            the class "truck" becomes "car"
    traffic light, sign     the same with a comma, semicolon, tab or colon
    bicycle -> ignore       no class of the other set
    * -> ignore             all classes that no line names

Names that hold commas or colons stand in quotes, # begins a comment, and a csv may have a header.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from .labels import plain
from .text import read_lines

EXPECTED = "expected from -> to"
REST = "*"
IGNORED = "ignore"
FOLDER = Path(__file__).parent / "class_maps"  # those that come with the tool
# The first that a line has outside quotes separates its names.
SEPARATORS = ("->", "→", "\t", ";", ",", ":")
QUOTED = re.compile(r'"[^"]*"')
HEADERS = {("from", "to"), ("source", "target"), ("class", "becomes")}


class Pair(NamedTuple):
    """One line: a class and what it becomes."""

    source: str
    target: str | None  # None: ignored
    line: int
    text: str


def built_in() -> dict[str, Path]:
    """The maps that come with the tool, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.txt"))}


def read_pairs(path: Path) -> list[Pair]:
    """The lines of a map. ValueError names the file, and the line where there is one."""
    lines = read_lines(path)
    if lines and is_header(lines[0][1]):
        lines = lines[1:]
    if not lines:
        raise ValueError(f"{path} maps no class; {EXPECTED}, one a line")
    pairs: dict[str, Pair] = {}
    for number, text in lines:
        try:
            pair = Pair(*names_of(text), number, text)
            before = pairs.get(plain(pair.source))
            if before:
                raise ValueError(f"{pair.source} was mapped in line {before.line} before")
        except ValueError as error:
            raise ValueError(f"{path}, line {number} ({text!r}): {error}; {EXPECTED}") from error
        pairs[plain(pair.source)] = pair
    return list(pairs.values())


def is_header(text: str) -> bool:
    return tuple(plain(cell) for cell in cells_of(text)) in HEADERS


def names_of(text: str) -> tuple[str, str | None]:
    """The class and what it becomes."""
    if text.count('"') % 2:
        raise ValueError("a quote is not closed")
    cells = cells_of(text)
    if len(cells) != 2:
        raise ValueError(f"there are {len(cells)} names, not two")
    source, target = cells
    if not source:
        raise ValueError("there is no name before the separator")
    if not target:
        raise ValueError(f"{source} becomes nothing: name a class, or {IGNORED}")
    if target == REST:
        raise ValueError(f"{REST} stands for classes that become another, it is none")
    return source, None if plain(target) == IGNORED else target


def cells_of(text: str) -> list[str]:
    """The parts between separators, without quotes around them."""
    # Quoted parts are blanked, so that separators are found outside them alone.
    outside = QUOTED.sub(lambda match: "x" * len(match[0]), text)
    separator = next((mark for mark in SEPARATORS if mark in outside), None)
    if separator is None:
        return [unquoted(text)]
    cells = []
    start = 0
    for part in outside.split(separator):
        cells.append(unquoted(text[start : start + len(part)]))
        start += len(part) + len(separator)
    return cells


def unquoted(text: str) -> str:
    return text.strip().strip('"').strip()
