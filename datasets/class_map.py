"""--class-map: classes of one label set as classes of another, many to one.

Names are the same whatever their case, spaces, hyphens and underscores. A class becomes another, or
`ignore`; one that the map does not name is an error, unless the map says what all others become
(`*`): nothing is left out without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .class_map_file import IGNORED, REST, Pair, built_in, read_pairs
from .clip import Video
from .known_classes import known_set
from .labels import IGNORE, LabelSet, default_palette, id_table, plain


@dataclass(frozen=True)
class ClassMap:
    """Pairs of names. `name` is the file or the built-in map, for messages."""

    name: str
    pairs: tuple[Pair, ...]
    # A map that comes with the tool may name classes that an edition of a data set lacks.
    strict: bool = True

    @cached_property
    def by_source(self) -> dict[str, Pair]:
        return {plain(pair.source): pair for pair in self.pairs}

    @property
    def sources(self) -> tuple[str, ...]:
        """The classes that it names, in the order of its lines."""
        return tuple(pair.source for pair in self.pairs if pair.source != REST)

    @property
    def targets(self) -> tuple[str, ...]:
        """What they become, in the order in which the lines come to them."""
        found = {plain(pair.target): pair.target for pair in reversed(self.pairs) if pair.target}
        return tuple(reversed(found.values()))

    def leads_to(self, names: Sequence[str]) -> bool:
        """Whether these are its targets, in whatever order."""
        return {plain(name) for name in names} == {plain(name) for name in self.targets}

    def names(self, source: str) -> bool:
        """Whether a line says what this class becomes."""
        return plain(source) in self.by_source or REST in self.by_source

    def target_set(self, own: LabelSet | None = None) -> LabelSet:
        """The targets as a label set: a known one where they are all of its classes.

        Others get colours of the classes that become them, as far as the label set `own` has such.
        """
        names = self.targets
        if not names:
            raise ValueError(f"{self.name}: every class becomes {IGNORED}")
        # A map of the tool leads to a known set, even where nothing becomes some class of it.
        known = known_set(names, part=not self.strict)
        if known:
            return known
        palette = list(default_palette(len(names)))
        own = own or known_set(self.sources) or LabelSet((), ())
        colours = {plain(name): colour for name, colour in zip(*own[:2], strict=True)}
        places = {plain(name): place for place, name in enumerate(names)}
        # Backwards, so that the first line of a target decides, its own name before all.
        by_name = sorted(self.pairs, key=lambda pair: pair.source != pair.target)
        for pair in reversed(by_name):
            if pair.target and plain(pair.source) in colours:
                palette[places[plain(pair.target)]] = colours[plain(pair.source)]
        return LabelSet(names, tuple(palette))

    def table(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[int, ...]:
        """For each source its place among the targets, IGNORE where it has none.

        ValueError: a source that no line names, a line whose names are no class.
        """
        self.require_known(sources, targets)
        places = {plain(name): place for place, name in enumerate(targets)}
        unnamed = [source for source in sources if not self.names(source)]
        if unnamed:
            advice = f"add one for each, or `{REST} -> {IGNORED}`"
            if not self.strict:
                advice = "is it for these classes? A file of your own may say more"
            raise ValueError(f"{self.name} has no line for {', '.join(unnamed)}: {advice}")
        found = []
        for source in sources:
            pair = self.by_source.get(plain(source)) or self.by_source[REST]
            found.append(places[plain(pair.target)] if pair.target else IGNORE)
        return tuple(found)

    def require_known(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        """ValueError names the first line with a name that is no class."""
        for pair in self.pairs:
            unknown_source = pair.source != REST and not is_one_of(pair.source, sources)
            if unknown_source and self.strict:
                raise self.refusal(pair, pair.source, sources)
            used = self.strict or not unknown_source
            if used and pair.target and not is_one_of(pair.target, targets):
                raise self.refusal(pair, pair.target, targets)

    def refusal(self, pair: Pair, name: str, names: Sequence[str]) -> ValueError:
        return ValueError(
            f"{self.name}, line {pair.line} ({pair.text!r}): {unknown_class(name, names)}"
        )


class LabelMap(NamedTuple):
    """How labels of a data set are read as others."""

    labels: LabelSet  # what they become
    table: np.ndarray  # (256,) uint8: class id in the data set -> class id
    left_out: tuple[tuple[int, str], ...]  # (id, name) of the classes that become 255


class MappedVideo:
    """A video whose labels are read by a table of ids; all else is the video's own."""

    def __init__(self, video: Video, table: np.ndarray):
        self.video = video
        self.table = table

    def __len__(self) -> int:
        return len(self.video)

    def label(self, index: int) -> np.ndarray:
        """(H, W) uint8 class ids, 255 = ignore."""
        return self.table[self.video.label(index)]

    def __getattr__(self, name: str):
        # A worker process asks before there is a video.
        if name == "video" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.video, name)


def find_map(word: str, option: str = "--class-map") -> ClassMap:
    """The map of a file, or the one of this name that comes with the tool.

    option: what the word was given to, for messages. ValueError: there is neither; a line that
    cannot be read.
    """
    path = Path(word)
    maps = built_in()
    if path.is_file():
        return ClassMap(word, tuple(read_pairs(path)))
    if word in maps:
        return ClassMap(word, tuple(read_pairs(maps[word])), strict=False)
    raise ValueError(
        f"{option} {word} is neither a file nor one of {', '.join(maps)}{near(word, maps)}"
    )


def label_map(class_map: ClassMap, own: LabelSet, *, learnt: bool) -> LabelMap | None:
    """How labels of a data set with the classes `own` are read; None: as they are.

    Labels that are what the map leads to stay: it then says what becomes of the classes of the
    weights. learnt: a network learns, or has learnt, what the map makes of labels; for others it
    has a line for each class of theirs. ValueError: neither.
    """
    if are_targets(class_map, own.names):
        return None
    come_from = [name for name in own.names if plain(name) in class_map.by_source]
    lead_to = [name for name in own.names if is_one_of(name, class_map.targets)]
    # `*` is not enough here: it would take a target that is misspelt for a new class.
    partly = len(come_from) < len(own.names)
    if not learnt and partly and len(come_from) <= max(len(lead_to), len(own.names) // 2):
        class_map.require_known(class_map.sources, own.names)
    target = class_map.target_set(own)
    places = class_map.table(own.names, target.names)
    table = id_table(dict(enumerate(places)))
    left_out = tuple((k, own.names[k]) for k, place in enumerate(places) if place == IGNORE)
    return LabelMap(target, table, left_out)


def are_targets(class_map: ClassMap, names: Sequence[str]) -> bool:
    """Whether the map leads to these classes, and would not lead on from them."""
    if not all(is_one_of(target, names) for target in class_map.targets):
        return False
    pairs = [class_map.by_source.get(plain(name)) for name in names]
    stays = [pair and pair.target and plain(pair.target) == plain(pair.source) for pair in pairs]
    return all(stays) or not all(pairs)


def find_classes(wanted: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    """The ids of classes. ValueError: one that does not exist."""
    ids = {plain(name): k for k, name in enumerate(names)}
    for name in wanted:
        if plain(name) not in ids:
            raise ValueError(unknown_class(name, names))
    return tuple(ids[plain(name)] for name in wanted)


def is_one_of(name: str, names: Sequence[str]) -> bool:
    return plain(name) in map(plain, names)


def unknown_class(name: str, names: Sequence[str]) -> str:
    """That there is no such class, and which was probably meant."""
    return f"{name} is none of the classes {', '.join(names)}{near(name, names)}"


def near(word: str, names: Sequence[str]) -> str:
    by_plain = {plain(name): name for name in names}
    found = get_close_matches(plain(word), list(by_plain), n=1)
    return f"; did you mean {by_plain[found[0]]}?" if found else ""
