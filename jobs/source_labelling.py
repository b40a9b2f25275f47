"""The labelling of one source: its frames, what is written of them, what is told."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

from datasets.source.read_ahead import ReadAhead
from engine import StreamedFrame, stream
from utils.dashboard.explorer import LastFrames, explore
from utils.output.inference import InferenceOutput
from utils.output.pictures import without_ignore
from utils.run.setup import views_of
from utils.stepper import Stepper

from .classes import shown_classes
from .given_flow import SourceFlow, flow_files, uses_given_flow
from .keys import has_keys, policy_of
from .source_consistency import SourceConsistency
from .sources import Opener
from .work_size import WorkSize, size_warnings

# Kinds of sources whose frames have no times.
UNTIMED = ("folder", "glob", "stdin", "image", "split")


class SourceLabelling:
    """One source from its first frame to its last, or to a signal; what was labelled is kept."""

    def __init__(
        self,
        args,
        model,
        labels,
        pseudo,
        *,
        device,
        console,
        stop,
        dashboard,
        comparison=None,
        submission=None,
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
        self.submission = submission
        self.keys = has_keys(args)
        self.notes: list[str] = []

    def label(self, opener: Opener, name: str) -> list[str]:
        """Label the source that it opens -> what was noted about it."""
        args = self.args
        views = views_of(args, self.model)
        stepper = Stepper(self.model, views, nullcontext(), policy=policy_of(args))
        if args.explore:
            stepper = LastFrames(stepper)
        with opener() as source:
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
        self.tell_rate(source, name)
        count = 0
        seconds = 0.0
        work_size = WorkSize(self.args)
        consistency = self.consistency()
        with (
            ReadAhead(source, latest=source.live, resize=work_size) as frames,
            self.output(source, name) as output,
        ):
            # A signal ends a wait for a camera or a pipe that sends nothing.
            self.stop.wake = source.stop
            self.stop.check()
            for result in self.labelled(frames, source, stepper, name):
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
            self.tell_live(frames, name)
        if consistency:
            path = Path(self.args.savedir) / f"{name}_consistency.json"
            self.console.note(f"{name}: {consistency.write(path)}")
        return count, seconds

    def consistency(self) -> SourceConsistency | None:
        """What measures the labels over time, where that is asked for."""
        if "tc" not in self.args.metrics:
            return None
        return SourceConsistency(self.args, len(self.labels.names))

    def output(self, source, name: str) -> InferenceOutput:
        """All that is written of the source."""
        args = self.args
        shown = shown_classes(args, self.labels)
        split = None
        if self.comparison:
            split = self.comparison.of(source, name, self.labels.palette, shown)
        return InferenceOutput(
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
            submission=self.submission.writer(name) if self.submission else None,
        )

    def labelled(self, frames, source, stepper, name: str) -> Iterable[StreamedFrame]:
        """Its frames, labelled, with a progress bar."""
        args = self.args
        # Images are decoded and resized on a thread of their own, ahead of the network.
        results = stream(
            stepper,
            islice(frames, args.max_frames),
            device=self.device,
            given_flow=self.given_flow(source, name),
            confidence=self.pseudo.wants_confidence or "confidence" in args.output,
        )
        total = min(filter(None, (source.length, args.max_frames)), default=None)
        return self.console.progress(results, total, name)

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

    def tell_live(self, frames: ReadAhead, name: str) -> None:
        """Say how a live source was kept up with."""
        self.console.note(
            f"{name}: {frames.dropped} frames were left out; latency "
            f"{1000 * frames.mean_latency:.0f} ms on average, "
            f"{1000 * frames.max_latency:.0f} ms at most"
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
