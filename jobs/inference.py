"""--inference: label every source; one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import options
from datasets.source.left_out import left_out
from datasets.source.names import Skip, expand_sources, unique_names
from utils.dashboard import Dashboard
from utils.output.pictures import legend_of, save_png
from utils.run import savedir
from utils.run.dist import gather, rank, world_size
from utils.run.errors import USER_ERRORS, one_line
from utils.run.evaluation_state import FinishedSources

from .classes import labels_to_show, shown_classes
from .common import listen, make_model, prepare, start
from .flow_cache import keep_flow, provider_of, tell_flow_cache
from .given_flow import require_flow_root
from .pseudo_labels import PseudoLabels, reserved_names, write_classes
from .source_labelling import SourceLabelling
from .split_screen import comparison_of


def run(args) -> None:
    """Label all sources. ValueError in the end if any failed."""
    device, console = start(args)
    stop = listen()
    folder = Path(args.savedir)
    labels = labels_to_show(args)
    shown = shown_classes(args, labels)
    pseudo = PseudoLabels(args, labels)
    # The savedir may lie in a folder that is labelled.
    own = partial(savedir.is_inference_output, folder)
    sources, failures = usable_sources(args.source, own)
    for note in left_out(args.source, partial(savedir.is_left_by_runs, folder)):
        console.warn(note)
    asked = len(sources) + len(failures)
    if rank():
        failures = []  # all ranks found the same; one tells them
    # Named before they are shared among ranks: two sources of one name must not meet in a file.
    names = unique_names(sources, reserved_names(args))
    named = dict(zip(names, sources, strict=True))
    comparison = comparison_of(args, names)
    model = make_model(args, labels, device, console, complete=True).eval()
    require_flow_root(args, model)
    if args.explore and not hasattr(model, "attention"):
        raise ValueError(f"--explore: --method {args.method} has no attention to look at")
    savedir.acquire(folder, args)
    recipe = options.recipe(args)
    finished = FinishedSources(folder, recipe, list(named), resume=args.resume)
    savedir.record(folder, args.job, recipe, model)
    write_classes(folder, args, labels)
    model = prepare(args, model)
    keep_flow(args, provider_of(model))
    if rank() == 0:
        save_png(folder / "legend.png", legend_of(labels, shown))
    with Dashboard.of(args, labels) as dashboard:
        begin = partial(
            SourceLabelling,
            args,
            model,
            labels,
            pseudo,
            device=device,
            console=console,
            stop=stop,
            dashboard=dashboard,
            comparison=comparison,
        )
        notes, failed = label_share(named, finished, begin, console, stop)
    failures += failed
    tell_of_others(notes, console)
    pseudo.tell(console)
    tell_flow_cache(args, console)
    failures = sum(gather(failures), [])
    if failures:
        raise ValueError(f"{len(failures)} of {asked} sources failed: " + "; ".join(failures))


def usable_sources(specs: list[str], own: Skip) -> tuple[list[str], list[str]]:
    """The sources that the words name, and why words name none. ValueError if there is none.

    own: which files an inference has written itself.
    """
    good = []
    failures = []
    for spec in specs:
        try:
            expand_sources([spec], own)
            good.append(spec)
        except USER_ERRORS as error:
            failures.append(one_line(error))
    if not good:
        raise ValueError("; ".join(failures))
    return expand_sources(good, own), failures


def label_share(
    named: dict[str, str],
    finished: FinishedSources,
    begin: Callable[[], SourceLabelling],
    console,
    stop,
) -> tuple[list[str], list[str]]:
    """Label the sources of this rank -> what was noted about them, and why some failed."""
    notes = []
    failures = []
    for name, spec in list(named.items())[rank() :: world_size()]:
        if name in finished:
            console.note(f"{name}: labelled before, left as it is")
            continue
        try:
            notes += begin().label(spec, name)
            finished.add(name)
        except USER_ERRORS as error:
            stop.check()  # what failed may be what the signal has ended
            failures.append(one_line(error))
    return notes, failures


def tell_of_others(notes: list[str], console) -> None:
    """What other ranks have noted about their sources; each warned of its own at once."""
    for note in sum(gather(notes)[1:], []):
        console.warn(note)
