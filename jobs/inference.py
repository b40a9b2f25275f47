"""--inference: label every source; one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import options
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
from .pseudo_labels import PseudoLabels, write_classes
from .source_labelling import SourceLabelling
from .sources import Opener, named_sources
from .split_screen import comparison_of
from .submission import submission_of


def run(args) -> None:
    """Label all sources. ValueError in the end if any failed."""
    device, console = start(args)
    stop = listen()
    folder = Path(args.savedir)
    labels = labels_to_show(args)
    shown = shown_classes(args, labels)
    pseudo = PseudoLabels(args, labels)
    submission = submission_of(args, labels)
    sources, failures = named_sources(args, console)
    asked = len(sources) + len(failures)
    if rank():
        failures = []  # all ranks found the same; one tells them
    comparison = comparison_of(args, list(sources))
    model = make_model(args, labels, device, console, complete=True).eval()
    require_flow_root(args, model)
    if args.explore and not hasattr(model, "attention"):
        raise ValueError(f"--explore: --method {args.method} has no attention to look at")
    savedir.acquire(folder, args)
    recipe = options.recipe(args)
    finished = FinishedSources(folder, recipe, list(sources), resume=args.resume)
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
            submission=submission,
        )
        notes, failed = label_share(sources, finished, begin, console, stop)
    failures += failed
    tell_of_others(notes, console)
    pseudo.tell(console)
    tell_flow_cache(args, console)
    failures = sum(gather(failures), [])
    if failures:
        raise ValueError(f"{len(failures)} of {asked} sources failed: " + "; ".join(failures))
    # The gathering has waited for all ranks: their files are there.
    if submission and rank() == 0:
        submission.check(console)


def label_share(
    sources: dict[str, Opener],
    finished: FinishedSources,
    begin: Callable[[], SourceLabelling],
    console,
    stop,
) -> tuple[list[str], list[str]]:
    """Label the sources of this rank -> what was noted about them, and why some failed."""
    notes = []
    failures = []
    for name, opener in list(sources.items())[rank() :: world_size()]:
        if name in finished:
            console.note(f"{name}: labelled before, left as it is")
            continue
        try:
            notes += begin().label(opener, name)
            finished.add(name)
        except USER_ERRORS as error:
            stop.check()  # what failed may be what the signal has ended
            failures.append(one_line(error))
    return notes, failures


def tell_of_others(notes: list[str], console) -> None:
    """What other ranks have noted about their sources; each warned of its own at once."""
    for note in sum(gather(notes)[1:], []):
        console.warn(note)
