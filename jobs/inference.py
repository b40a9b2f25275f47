"""--inference: label every source; one that fails does not stop the others."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path

import options
from datasets.source import open_source
from datasets.source.left_out import left_out
from datasets.source.names import Skip, expand_sources, unique_names
from datasets.source.read_ahead import ReadAhead
from engine import stream
from utils.dashboard import Dashboard
from utils.dashboard.explorer import LastFrames, explore
from utils.output.inference import InferenceOutput
from utils.output.pictures import legend_of, save_png, without_ignore
from utils.run import savedir
from utils.run.dist import gather, rank, world_size
from utils.run.errors import USER_ERRORS, one_line
from utils.run.evaluation_state import FinishedSources
from utils.run.setup import views_of
from utils.stepper import Stepper

from .classes import labels_to_show, shown_classes
from .common import listen, make_model, prepare, start
from .flow_cache import keep_flow, provider_of, tell_flow_cache
from .given_flow import SourceFlow, flow_files, require_flow_root, uses_given_flow
from .keys import has_keys, policy_of
from .pseudo_labels import PseudoLabels, reserved_names, write_classes
from .source_consistency import SourceConsistency
from .split_screen import comparison_of
from .work_size import WorkSize, size_warnings

# Kinds of sources whose frames have no times.
UNTIMED = ("folder", "glob", "stdin", "image")


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
    notes = []
    with Dashboard.of(args, labels) as dashboard:
        for name, spec in list(named.items())[rank() :: world_size()]:
            if name in finished:
                console.note(f"{name}: labelled before, left as it is")
                continue
            labelling = SourceLabelling(
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
            try:
                notes += labelling.label(spec, name)
                finished.add(name)
            except USER_ERRORS as error:
                stop.check()  # what failed may be what the signal has ended
                failures.append(one_line(error))
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


def tell_of_others(notes: list[str], console) -> None:
    """What other ranks have noted about their sources; each warned of its own at once."""
    for note in sum(gather(notes)[1:], []):
        console.warn(note)


class SourceLabelling:
    """One source from its first frame to its last, or to a signal; what was labelled is kept."""

    def __init__(
        self, args, model, labels, pseudo, *, device, console, stop, dashboard, comparison=None
    ):
        self.args = args
        self.model = model
        self.labels = labels
        self.pseudo = pseudo
        self.device = device
        self.console = console
        self.stop = stop
        self.dashboard = dashboard
        self.comparison = comparison
        self.keys = has_keys(args)
        self.notes: list[str] = []

    def label(self, spec: str, name: str) -> list[str]:
        """Label the source -> what was noted about it."""
        args = self.args
        views = views_of(args, self.model)
        stepper = Stepper(self.model, views, nullcontext(), policy=policy_of(args))
        if args.explore:
            stepper = LastFrames(stepper)
        own = partial(savedir.is_inference_output, Path(args.savedir))
        with open_source(spec, step=args.frame_step, fps=args.fps, skip=own) as source:
            count, seconds = self.run(source, stepper, name)
        self.tell(source.notes)
        self.stop.check()
        mean = 1000 * seconds / max(count, 1)
        self.console.note(
            f"{name}: {count} frames, the network took {mean:.0f} ms a frame on average; "
            f"see {args.savedir}"
        )
        if args.explore and count:
            self.explore(stepper)
        return self.notes

    def run(self, source, stepper, name: str) -> tuple[int, float]:
        """Frames that were labelled, and the seconds the network took."""
        args = self.args
        self.tell_rate(source, name)
        count = 0
        seconds = 0.0
        work_size = WorkSize(args)
        shown = shown_classes(args, self.labels)
        split = None
        if self.comparison:
            split = self.comparison.of(source, name, self.labels.palette, shown)
        consistency = None
        if "tc" in args.metrics:
            consistency = SourceConsistency(args, len(self.labels.names))
        with (
            ReadAhead(source, latest=source.live, resize=work_size) as frames,
            InferenceOutput(
                Path(args.savedir),
                name,
                args.output,
                fps=source.fps,
                palette=self.labels.palette,
                alpha=args.alpha,
                still=source.kind == "image" and source.length == 1,
                key_record=self.keys and args.key_record,
                key_strip=self.keys and args.key_strip,
                shown=shown,
                split=split,
            ) as output,
        ):
            # A signal ends a wait for a camera or a pipe that sends nothing.
            self.stop.wake = source.stop
            self.stop.check()
            total = min(filter(None, (source.length, args.max_frames)), default=None)
            # Images are decoded and resized on a thread of their own, ahead of the network.
            labelled = stream(
                stepper,
                islice(frames, args.max_frames),
                device=self.device,
                given_flow=self.given_flow(source, name),
                confidence=self.pseudo.wants_confidence or "confidence" in args.output,
            )
            for result in self.console.progress(labelled, total, name):
                frame = result.frame
                if count == 0:
                    self.tell_size(work_size, frame.image.shape[:2])
                count += 1
                seconds += result.seconds
                if consistency:
                    consistency.add(frame.image, result.prediction, frame.name)
                self.write(output, result, name, stepper.decision if self.keys else None)
                self.tell(output.take_notes())
                self.tell(source.notes)
                self.stop.check()
        if source.live:
            self.console.note(
                f"{name}: {frames.dropped} frames were left out; latency "
                f"{1000 * frames.mean_latency:.0f} ms on average, "
                f"{1000 * frames.max_latency:.0f} ms at most"
            )
        if consistency:
            path = Path(args.savedir) / f"{name}_consistency.json"
            self.console.note(f"{name}: {consistency.write(path)}")
        return count, seconds

    def write(self, output: InferenceOutput, result, name: str, decision) -> None:
        """Write and show a frame of the source `name`."""
        frame = result.frame
        confidence = None
        if result.confidence is not None:
            confidence = result.confidence.numpy()
        labels = without_ignore(result.prediction.numpy(), len(self.labels.names))
        labels = self.pseudo(labels, confidence, name, frame.name)
        output.write(
            frame.image, frame.name, labels, frame.time, decision, result.seconds, confidence
        )
        self.dashboard.live(frame.name, frame.image, labels)

    def given_flow(self, source, name: str) -> SourceFlow | None:
        """What knows the flow of the source's frames, where it comes from files."""
        if not uses_given_flow(self.args, self.model):
            return None
        # Frames that nobody reads are lost, and the flow across them is in no file.
        if source.live:
            raise ValueError(
                f"{name}: --flow given has no flow of a live source: choose --flow dis"
            )
        return SourceFlow(flow_files(self.args), name, self.device)

    def tell_rate(self, source, name: str) -> None:
        """Say where a video is written at a rate that nothing has stated."""
        videos = {"overlay", "side-by-side", "split-screen"} & set(self.args.output)
        untimed = source.kind in UNTIMED and source.length != 1
        if videos and untimed and source.assumed_rate:
            self.tell(
                [
                    f"{name}: nothing says how many frames a second it has, "
                    f"{source.fps:g} are assumed (--fps says otherwise)"
                ]
            )

    def tell_size(self, work_size: WorkSize, size: tuple[int, int]) -> None:
        """Say at which size frames of this size are labelled, where nobody asked for it."""
        note = work_size.note(size)
        if note:
            self.console.note(note)
        else:
            self.tell(size_warnings(self.args, *size))

    def tell(self, fresh: list[str]) -> None:
        """Warn of what the source has noted since the last time."""
        while fresh:
            self.notes.append(fresh.pop(0))
            self.console.warn(self.notes[-1])

    def explore(self, stepper: LastFrames) -> None:
        """Show where pixels of the last frame attend, until a signal."""
        where = f"{self.args.server}:{self.args.port}"
        self.console.note(f"where does the last frame look? {where} shows it; Ctrl-C ends this")
        explore(self.dashboard, stepper, lambda: bool(self.stop))
