"""--new-classes: a training starts from weights for other classes.

Layers whose outputs are classes are new, but for classes that the weights know: those of the same
name, or those that --class-map turns into a class. Their outputs go on from what they were.
"""

from __future__ import annotations

import torch

from datasets.class_map import ClassMap, find_map
from datasets.known_classes import known_set
from datasets.labels import other_classes, plain
from models import build_model
from utils.checkpoint import classes_of, load_weights, read
from utils.console import Console


def entries_to_leave(args, model, labels) -> list[str]:
    """The entries of the model that the weights hold for other classes of the same number.

    Where numbers differ, shapes tell; where they are equal, only names do.
    """
    trained = classes_of([read(path) for path in args.weights])
    if not other_classes(trained, labels.names):
        return []
    return entries_of_classes(args, model, len(labels.names))


def entries_of_classes(args, model, num_classes: int) -> list[str]:
    """The entries whose first dimension is classes: they are larger with one class more."""
    # No number is drawn for it.
    with torch.device("meta"):
        larger = build_model(args, num_classes + 1).state_dict()
    return [name for name, entry in model.state_dict().items() if larger[name].shape != entry.shape]


def start_known_classes(args, model, labels, console: Console) -> None:
    """Give the outputs of classes that the weights know what they were there."""
    class_map = find_map(args.class_map) if args.class_map else None
    existing = classes_of_weights(args, class_map)
    donors = donors_of(labels.names, existing, class_map)
    if not donors:
        return
    # As the weights were trained; its own random numbers are nobody's.
    with torch.random.fork_rng(devices=[]):
        former = build_model(args, len(existing))
    load_weights(former, args.weights)
    entries = entries_of_classes(args, model, len(labels.names))
    copied = copy_outputs(model.state_dict(), former.state_dict(), entries, donors)
    if copied:
        pairs = (describe(labels.names[k], existing[donor]) for k, donor in donors.items())
        console.note(f"outputs that go on from the weights: {', '.join(pairs)}")


def classes_of_weights(args, class_map: ClassMap | None) -> tuple[str, ...]:
    """The classes that the weights were trained for, by id; none where nothing says so."""
    names = classes_of([read(path) for path in args.weights])
    if names or class_map is None:
        return names
    # Published weights name none: they are taken to have those that the map comes from.
    known = known_set(class_map.sources)
    return known.names if known else ()


def donors_of(
    wanted: tuple[str, ...], existing: tuple[str, ...], class_map: ClassMap | None
) -> dict[int, int]:
    """For each wanted class that the weights know its id there.

    Of several that the map turns into one, that of its name, else that of the map's first line.
    """
    places = {plain(name): place for place, name in enumerate(existing)}
    found = {}
    for k, name in enumerate(wanted):
        sources = [name]
        if class_map is not None:
            targets = [pair for pair in class_map.pairs if pair.target]
            sources += [pair.source for pair in targets if plain(pair.target) == plain(name)]
        donors = [places[plain(source)] for source in sources if plain(source) in places]
        if donors:
            found[k] = donors[0]
    return found


@torch.no_grad()
def copy_outputs(
    new: dict[str, torch.Tensor],
    former: dict[str, torch.Tensor],
    entries: list[str],
    donors: dict[int, int],
) -> int:
    """Copy rows former[donor] -> new[class] of the entries that fit -> how many entries that are.

    An output that either has behind its classes ("ignore") stays new.
    """
    copied = 0
    for name in entries:
        target = new[name]
        source = former[name]
        # A layer that is narrower for fewer classes has other inputs, too.
        if source.shape[1:] != target.shape[1:]:
            continue
        for k, donor in donors.items():
            target[k] = source[donor]
        copied += 1
    return copied


def describe(name: str, donor: str) -> str:
    return name if plain(name) == plain(donor) else f"{name} (from {donor})"
