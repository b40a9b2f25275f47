"""Text files that people and other systems wrote: lists of classes and lists of frames."""

from __future__ import annotations

import codecs
import logging
import re
import unicodedata
from functools import cache
from pathlib import Path

# What other systems put at the beginning of a text file, and the encoding that it tells.
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# Of Unix and Windows, and of old Macs. str.splitlines knows more, which editors do not count.
LINE_ENDS = r"\r\n|\n|\r"
HEX_COLOUR = r"[0-9a-fA-F]{6}\s*(?:$|[#,;])"


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(number, text) of the lines of a file that hold anything, without comments.

    UTF-8 or UTF-16, with or without a byte order mark; else Latin-1, with a warning. ValueError
    names the file and the line where this is no text.
    """
    lines = []
    for number, line in enumerate(re.split(LINE_ENDS, decode(path)), 1):
        # Files that were joined have byte order marks in the middle.
        text = line.replace("\ufeff", "")
        odd = next((c for c in text if unicodedata.category(c) == "Cc" and c != "\t"), None)
        if odd:
            raise ValueError(
                f"{path}, line {number}: the character {ord(odd):#04x} is no text; "
                "save the file as UTF-8"
            )
        text = without_comment(text).strip()
        if text:
            lines.append((number, text))
    return lines


def decode(path: Path) -> str:
    """The text of a file, whichever encoding it has."""
    data = Path(path).read_bytes()
    encoding = encoding_of(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(re.split(LINE_ENDS, data[: error.start].decode("latin-1")))
        if encoding.startswith("utf-16"):
            raise ValueError(
                f"{path}, line {line}: this is no text file in UTF-16; save it as UTF-8"
            ) from error
    warn_of_latin(path, line)
    return data.decode("latin-1")


def encoding_of(data: bytes) -> str:
    """The encoding that a byte order mark tells, or the zeros of UTF-16 without one."""
    for mark, name in MARKS.items():
        if data.startswith(mark):
            return name
    # UTF-16 has a zero beside each character of ASCII, line ends among them: before or after it.
    before = data[::2].count(0)
    after = data[1::2].count(0)
    # One zero alone is damage, which is told by its line.
    if before > len(data) / 4 and not after:
        return "utf-16-be"
    if after > len(data) / 4 and not before:
        return "utf-16-le"
    return "utf-8"


@cache  # a list is read for every split
def warn_of_latin(path: Path, line: int) -> None:
    logging.getLogger("streamseg").warning(
        "%s, line %d: this is no text file in UTF-8, it is read as Latin-1; save it as UTF-8",
        path,
        line,
    )


def without_comment(text: str) -> str:
    """The line up to a # that begins a word: C# is a name, and so is "lane #1" in quotes.

    A # before six hexadecimal digits at the end is a colour, unless the line begins with it.
    """
    quoted = False
    for position, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        if character != "#" or quoted:
            continue
        before = text[:position]
        if not before.strip():
            return ""
        begins_word = before[-1].isspace() or before[-1] in ",;"
        if begins_word and not re.match(HEX_COLOUR, text[position + 1 :]):
            return before
    return text
