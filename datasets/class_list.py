"""classes.txt: the names and colours of classes, in the forms in which such lists go around.

    name
    name r g b              traffic light 250 170 30
    r g b name              CamVid's label_colors.txt
    id name r g b           where the ids are 0, 1, 2 ...
    name,r,g,b              a csv, with a header or without

Commas, semicolons, tabs and spaces separate; names may stand in quotes; # begins a comment. What
cannot be told for sure is refused with its line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from .labels import Colour, LabelSet, default_palette
from .text import read_lines

EXPECTED = "expected name [r g b]"
TOKEN = re.compile(r"""(?P<quoted>"[^"]*"|'[^']*'(?=[\s,;]|$))|(?P<word>[^\s,;]+)""")
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
BRACKETS = re.compile(r"[\[({]\s*(\d+[\s,;]+\d+[\s,;]+\d+)\s*[\])}]")
HEX = re.compile(r"(?<!\S)#([0-9a-fA-F]{6})\b|(?<=[,;])#([0-9a-fA-F]{6})\b")

NAME = "name"
ID = "id"
RGB = ("r", "g", "b")
COLUMNS = {
    **dict.fromkeys(("name", "names", "class", "classes", "label", "labels"), NAME),
    **dict.fromkeys(("classname", "classnames", "labelname", "category"), NAME),
    **dict.fromkeys(("id", "classid", "labelid", "trainid", "index", "classindex"), ID),
    **dict.fromkeys(("r", "red"), "r"),
    **dict.fromkeys(("g", "green"), "g"),
    **dict.fromkeys(("b", "blue"), "b"),
}
# By how many numbers stand before the name and behind it. Ids must be those of the classes.
SHAPES = {(0, 0): (NAME,), (0, 3): (NAME, *RGB), (3, 0): (*RGB, NAME)}
SHAPES_WITH_ID = {
    (1, 0): (ID, NAME),
    (0, 1): (NAME, ID),
    (1, 3): (ID, NAME, *RGB),
    (4, 0): (ID, *RGB, NAME),
    (0, 4): (NAME, ID, *RGB),
}


class Line(NamedTuple):
    """One line, taken apart."""

    number: int
    text: str
    before: list[str]  # numbers before the name
    name: str
    after: list[str]  # numbers behind it
    separated: bool  # by commas, semicolons or tabs

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.before), len(self.after)


def read_classes(path: Path) -> LabelSet:
    """The classes of a list. Those without a colour get one of the default palette.

    ValueError names the file, and the line where there is one.
    """
    lines = read_lines(path)
    columns = None
    if lines:
        columns = header(lines[0][1])
    if columns:
        lines = lines[1:]
    if not 1 <= len(lines) <= 255:
        raise ValueError(f"{path} lists {len(lines)} classes, expected 1 to 255")
    taken_apart = []
    for number, text in lines:
        try:
            taken_apart.append(take_apart(number, text))
        except ValueError as error:
            raise refusal(path, number, text, error) from error
    ids = columns is None and have_ids(taken_apart)
    names: list[str] = []
    palette = list(default_palette(len(lines)))
    for line in taken_apart:
        try:
            name, colour = interpret(line, columns, ids, len(names))
            require_new(name, names)
        except ValueError as error:
            raise refusal(path, line.number, line.text, error) from error
        if colour:
            palette[len(names)] = colour
        names.append(name)
    return LabelSet(tuple(names), tuple(palette))


def refusal(path: Path, number: int, text: str, error: ValueError) -> ValueError:
    return ValueError(f"{path}, line {number} ({text!r}): {error}; {EXPECTED}")


def header(text: str) -> tuple[str, ...] | None:
    """The columns that the first line names, None where it is a class."""
    cells = re.split(r"[,;\t]", text)
    if len(cells) == 1:
        cells = text.split()
    words = [re.sub(r"[\s_\-\"']", "", cell).lower() for cell in cells]
    columns = tuple(COLUMNS.get(word, "") for word in words)
    if columns.count(NAME) != 1 or "" in columns or len(set(columns)) != len(columns):
        return None
    return columns


def take_apart(number: int, text: str) -> Line:
    """The numbers before the name, the name, the numbers behind it."""
    if text.count('"') % 2:
        raise ValueError("a quote is not closed")
    plain = HEX.sub(rgb_words, BRACKETS.sub(r" \1 ", text))
    tokens = list(TOKEN.finditer(plain))
    separated = bool(re.search(r"[,;\t]", re.sub(r"\"[^\"]*\"", "", plain)))
    texts = [token for token in tokens if not is_number(token)]
    if not texts and len(tokens) == 1:
        texts = tokens  # a class may be called 7
    if not texts:
        raise ValueError("there is no name")
    first = tokens.index(texts[0])
    last = tokens.index(texts[-1])
    name = plain[tokens[first].start() : tokens[last].end()]
    if first == last and tokens[first]["quoted"]:
        name = name[1:-1].strip()
    elif re.search(r"[,;\t]", name) or '"' in name:
        raise ValueError("there is more than one name: put a name that holds commas in quotes")
    elif re.search(r"^\d+\s*[:=]|[:=]\s*\d|::", name):
        raise ValueError("a name and numbers are joined by : or =: write spaces")
    before = [unquoted(token) for token in tokens[:first]]
    after = [unquoted(token) for token in tokens[last + 1 :]]
    return Line(number, text, before, name, after, separated)


def rgb_words(match: re.Match) -> str:
    """#804080 -> 128 64 128."""
    digits = match[1] or match[2]
    return " ".join(str(int(digits[i : i + 2], 16)) for i in (0, 2, 4))


def unquoted(token: re.Match) -> str:
    return token[0].strip("\"'").strip()


def is_number(token: re.Match) -> bool:
    return bool(NUMBER.fullmatch(unquoted(token)))


def have_ids(lines: list[Line]) -> bool:
    """Whether every line has a number more than a colour needs, as ids are."""
    if not all(line.shape in SHAPES_WITH_ID for line in lines):
        return False
    if len({line.shape for line in lines}) > 1:
        return False
    # lane 1, lane 2 are names; road 0, wall 1 are names with ids
    if lines[0].shape == (0, 1) and not lines[0].separated:
        return len(lines) > 1 and [line.after[0] for line in lines] == counted(len(lines))
    return len(lines) > 1 or lines[0].separated


def counted(number: int) -> list[str]:
    return [str(i) for i in range(number)]


def interpret(
    line: Line, columns: tuple[str, ...] | None, ids: bool, position: int
) -> tuple[str, Colour | None]:
    """Name and colour of the class at a position of the list."""
    if columns:
        named = line
        place = columns.index(NAME)
        if line.shape not in ((place, len(columns) - place - 1), (0, 0)):
            raise ValueError(f"it does not fit the header {','.join(columns)}")
        if line.shape == (0, 0):
            columns = (NAME,)
    elif ids:
        named = line
        columns = SHAPES_WITH_ID[line.shape]
    else:
        named = rejoin(line)
        columns = SHAPES.get(named.shape)
        if not columns:
            count = len(named.before) + len(named.after)
            raise ValueError(f"{count} numbers are no colour (put a name with numbers in quotes)")
    numbers = iter((*named.before, *named.after))
    values = {column: next(numbers) for column in columns if column != NAME}
    if values.get(ID, str(position)) != str(position):
        raise ValueError(
            f"the id is {values[ID]}, but this is class {position}: list all classes by id from 0"
        )
    if not named.name:
        raise ValueError("there is no name")
    present = [values[channel] for channel in RGB if channel in values]
    return named.name, colour_of(present)


def rejoin(line: Line) -> Line:
    """route 66 and 3 wheelers are names: a single number that spaces join to it is part of it."""
    if line.separated or len(line.before) + len(line.after) != 1:
        return line
    return line._replace(before=[], name=line.text, after=[])


def colour_of(values: list[str]) -> Colour | None:
    """Three numbers as a colour; none where there are none. ValueError: an impossible colour."""
    if not values:
        return None
    if len(values) != 3 or not all(value.isdecimal() and int(value) <= 255 for value in values):
        raise ValueError(
            f"{' '.join(values)} is an impossible colour (three numbers from 0 to 255)"
        )
    red, green, blue = map(int, values)
    return red, green, blue


def require_new(name: str, names: list[str]) -> None:
    if name in names:
        raise ValueError(f"the class {name} was there before")


def class_lines(labels: LabelSet) -> str:
    """The list that `read_classes` reads as these classes."""
    return "".join(map(class_line, labels.names, labels.palette))


def class_line(name: str, colour: Colour) -> str:
    # Beside three more numbers nothing would tell which one is the name.
    if NUMBER.fullmatch(name):
        return f"{name}\n"
    # Outside quotes numbers, commas and # mean something.
    if not re.fullmatch(r"[^\W\d_]+([ _-][^\W\d_]+)*", name):
        name = '"' + name.replace('"', "'") + '"'
    return f"{name} {' '.join(map(str, colour))}\n"
