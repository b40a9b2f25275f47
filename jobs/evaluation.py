"""--eval-mode: score the weights on --val-split: results.json, results.txt, pictures."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import options
from datasets import label_set
from utils.dashboard import Dashboard
from utils.metrics import DEFINITIONS
from utils.output.evaluation import EvaluationOutput
from utils.output.label_tree import check_label_tree
from utils.output.report import class_table, environment, write_results
from utils.run import savedir
from utils.run.dist import barrier, rank, world_size
from utils.run.evaluation_state import EvaluationProgress
from utils.run.setup import views_of
from utils.views import Views

from .classes import tell_left_out
from .common import consumers, listen, make_model, note_gaps, prepare, scoring_data, start
from .flow_cache import keep_flow, provider_of, tell_flow_cache
from .key_pictures import KeyPictures
from .keys import has_keys
from .live import arrivals_of
from .scoring import is_steady, measures_latency, score, tell_unmeasured
from .temporal import gaps_of, tell_gaps
from .work_size import size_warnings

RATE = 10.0  # frames a second of a video whose data set has no rate


def run(args) -> None:
    device, console = start(args)
    stop = listen()
    folder = Path(args.savedir)
    labels = label_set(args)
    model = make_model(args, labels, device, console, complete=True)
    data = scoring_data(args, args.val_split, model)
    tell_data(args, data, console)
    arrivals = arrivals_of(args, data, model) if measures_latency(args, data) else None
    savedir.acquire(folder, args)
    recipe = options.recipe(args)
    progress = EvaluationProgress(folder, recipe, args.weights, resume=args.resume)
    savedir.record(folder, args.job, recipe, model)
    savedir.remove_results(folder)
    # Last of all: a prepared network takes no weights any more.
    model = prepare(args, model)
    keep_flow(args, provider_of(model))
    views = views_of(args, model)
    output = evaluation_output(args, folder, labels, data, progress.done)
    sequences = key_pictures(args, folder, labels, data, model, views, progress.done)
    with progress, output, sequences, Dashboard.of(args, labels) as dashboard:
        watched = dashboard.watch("eval", len(data), progress.done)
        consume = consumers(stop, output, sequences, watched)
        results = score(
            args,
            model,
            data,
            console=console,
            views=views,
            consume=consume,
            device=device,
            autocast=nullcontext(),
            arrivals=arrivals,
            progress=progress,
            stop=stop,
        )
        dashboard.results(results)
    # Other ranks have written theirs: their results were merged.
    if rank() == 0:
        report(args, folder, labels, results, console)
        tell_flow_cache(args, console)
        if args.save_labels:
            tell_labels(folder / "labels", data, console)
    barrier()
    # Only now: until the results are written, there is something to resume.
    progress.remove()


def tell_data(args, data, console) -> None:
    """What is not as one might expect."""
    note_gaps(args, data, console)
    tell_unmeasured(args, data, console)
    if is_steady(data) and {"vc", "tc"} & set(args.metrics):
        tell_gaps(gaps_of(data), console)
    tell_left_out(args, data, console)
    height, width = first_size(data)
    for warning in size_warnings(args, height, width):
        console.warn(warning)


def key_pictures(args, folder: Path, labels, data, model, views: Views, start: int) -> KeyPictures:
    """The pictures of key frames and what follows them, shared among ranks."""
    ranks = world_size()
    return KeyPictures(
        folder,
        labels,
        model,
        views,
        stepping=data.step,
        frames=-(-len(data) // ranks),
        sequences=-(-args.key_pictures // ranks) if has_keys(args) else 0,
        start=start,
    )


def tell_labels(folder: Path, data, console) -> None:
    """That every frame has its label image. ValueError where one is missing."""
    names = (
        f"{data.videos[v].name}/{data.videos[v].frame_name(index)}" for v, index in data.samples
    )
    console.note(f"{check_label_tree(folder, names)} are complete in {folder}")


def first_size(data) -> tuple[int, int]:
    """(H, W) of the first frame that has a label: the frames before it may be missing."""
    video = next(video for video in data.videos if len(video.labelled))
    return video.frame(video.labelled[0]).shape[:2]


def evaluation_output(args, folder: Path, labels, data, start: int) -> EvaluationOutput:
    """What is drawn and written of the frames, shared among ranks."""
    ranks = world_size()
    pictures = len(data) if args.save_images else args.pictures
    rate = None
    if args.save_video and data.step:
        rate = data.videos[0].fps or RATE
    return EvaluationOutput(
        folder,
        labels.names,
        labels.palette,
        frames=-(-len(data) // ranks),
        pictures=-(-pictures // ranks),
        labels=args.save_labels,
        video_fps=rate,
        ids=labels.ids,
        start=start,
    )


def report(args, folder: Path, labels, results: dict, console) -> None:
    """Write the results, and print the table of classes."""
    # Facts about the run rather than metrics: they stand beside these.
    run = {name: results.pop(name) for name in ("loss", "frames", "latency") if name in results}
    content = {
        "metrics": results,
        **run,
        "options": options.values(args),
        "environment": environment(),
    }
    write_results(folder, content, labels.names, definitions=DEFINITIONS)
    table = class_table(labels.names, results["IoU"], results["recall"], results["label_share"])
    console.note(table)
    places = str(folder / "results.txt")
    if args.pictures:
        places += f" and {folder / 'pictures'}"
    if "key_distance" in results:
        console.note(key_frames_line(results["key_distance"], run["latency"]))
    console.note(f"mIoU {100 * results['mIoU']:.2f} % on {run['frames']} frames; see {places}")


def key_frames_line(distances: dict, latency: dict) -> str:
    """mIoU by distance from the key frame, and what frames cost, in one line."""
    by_distance = ", ".join(f"{k}: {100 * value:.2f}" for k, value in distances["mIoU"].items())
    return (
        f"mIoU % by distance from the key frame: {by_distance}; milliseconds of a key frame "
        f"{latency['key_ms']:.1f}, of others {latency['non_key_ms']:.1f}, on average "
        f"{latency['average_ms']:.1f}"
    )
