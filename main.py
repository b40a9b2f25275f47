#!/usr/bin/env python3
"""StreamSeg: train, evaluate and stream video semantic segmentation.

python main.py --training  --data-root CITYSCAPES --weights erfnet_pretrained.pth --savedir save/run
python main.py --eval-mode --data-root CITYSCAPES --weights save/run/model_best.pth --savedir save/eval
python main.py --inference --source drive.mp4 --weights save/run/model_best.pth --savedir save/drive
python main.py --benchmark --weights save/run/model_best.pth --savedir save/speed
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path

import options

SLOWEST = (
    5.0  # frames a second below which frames are pictures of different things: no video metrics
)


def parse_args(argv: list[str] | None = None, of_weights: dict | None = None):
    """Words (default: the command line) to options; judges words, not the disk. of_weights: see options.parse."""
    return options.parse(sys.argv[1:] if argv is None else argv, of_weights)


def options_of_weights(argv: list[str]) -> dict:
    """What the weights that are to run were trained with, where their files say so."""
    weights = options.weights_to_run(argv)
    if not weights:
        return {}
    from utils.checkpoint import network_of

    return network_of(weights)


def main(argv: list[str] | None = None) -> int:
    """Run one job. The exit code: 0, 2 for a mistake of the user's (told in one line), 128 + n after signal n."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv, options_of_weights(argv))
    from utils.run.dist import launch, launched, leave, rank
    from utils.run.errors import USER_ERRORS, one_line, say
    from utils.run.loading import end_workers
    from utils.run.savedir import release
    from utils.run.setup import check_device
    from utils.run.stopping import Interrupted

    try:
        if args.gpus > 1 and not launched():
            require(args)
            check_device(args)
            return launch(str(Path(__file__).resolve()), argv, args.gpus)
        run(args)
    except Interrupted as stop:
        if rank() == 0:  # all ranks stop together
            say(str(stop))
        return stop.code
    except USER_ERRORS as error:
        if os.environ.get("STREAMSEG_DEBUG"):
            raise
        say(one_line(error))
        return 2
    finally:
        end_workers()
        release()
        leave()
    return 0


def run(args) -> None:
    """The story of a run: device, data, network, weights, savedir, then the job."""
    from utils.log import Console
    from utils.run.setup import begin

    without_device = {"replay": show_again, "data check": check_data, "file list": list_files}
    if args.job in without_device:
        return without_device[args.job](args)
    require(args)
    from utils.run.allocator import keep_freed_memory

    keep_freed_memory()
    device = begin(args)
    from utils.run.dist import barrier, rank, require_same_on_all_ranks

    console = Console(rank())
    require_same_on_all_ranks("options", options.shared(args))
    if args.of_weights:
        console.note(f"the weights say {' '.join(args.of_weights)}")
    if args.idle:
        console.warn(f"without effect in this run: {', '.join(args.idle)}")
    jobs = {"training": train, "evaluation": evaluate, "inference": infer, "benchmark": benchmark}
    jobs[args.job](args, device, console)
    barrier()  # ranks leave together: gloo's threads may abort one whose peer is already gone


def show_again(args) -> None:
    """--replay: the record of a run that is over, to a visdom server."""
    from utils.dashboard.replay import replay
    from utils.log import Console

    shown = replay(Path(args.replay), args.server, args.port)
    Console().note(f"{args.server}:{args.port} shows {', '.join(shown)}")


def check_data(args) -> None:
    """--check-data: every frame and label of every split is read. ValueError if anything is wrong."""
    from datasets import label_set, list_videos
    from datasets.check import check
    from options import DATASETS
    from utils.log import Console
    from utils.run.errors import USER_ERRORS, one_line

    console, names, problems = Console(), label_set(args).names, []
    for split in DATASETS[args.dataset].splits:
        try:
            videos = list_videos(args, split)
        except USER_ERRORS as error:
            problems.append(one_line(error))
            console.warn(f"{split}: {problems[-1]}")
            continue
        found = check(
            videos,
            args.num_workers,
            lambda items, total, split=split: console.progress(items, total, split),
        )
        for problem in found.problems:
            console.warn(problem)
        console.note(f"{len(videos)} videos in {found.text(split, names)}")
        problems += found.problems
    if problems:
        raise ValueError(
            f"--check-data found {len(problems)} problem{'s' * (len(problems) > 1)} in {args.dataset}; "
            f"the first: {problems[0]}"
        )


def list_files(args) -> None:
    """--needed-frames: what scoring --val-split reads, one path a line: for `rsync --files-from` and its like."""
    from datasets import build_dataset, data_root, label_set
    from datasets.check import needed_files
    from models import build_model

    model = build_model(args, len(label_set(args).names))
    data = build_dataset(args, args.val_split, augment=False, startup=model.startup)
    for path in needed_files(data.videos, model.startup, data.dense):
        print(path.relative_to(data_root(args)))


def require(args) -> None:
    """What a job cannot do without. ValueError says which option is missing."""
    import datasets

    here = Path(__file__).resolve().parent
    if Path(datasets.__file__).resolve().parent.parent != here:
        raise RuntimeError(
            f"the folder datasets of StreamSeg is hidden by {datasets.__file__}: "
            f"run `python {here / 'main.py'}` without -P and without PYTHONSAFEPATH"
        )
    if args.inference and not args.source:
        raise ValueError(
            "--inference needs --source: a video file, folder, glob, camera index, stream address or -"
        )
    if not (args.training or args.benchmark) and not args.weights:
        raise ValueError(
            f"--{'inference' if args.inference else 'eval-mode'} needs --weights: the checkpoint to run"
        )


def make_model(args, labels, device, console, *, complete: bool):
    """The network with its weights, on the device; channels last, which convolutions run faster in."""
    import torch

    from models import build_model
    from utils.checkpoint import load_weights
    from utils.run.dist import fingerprint, require_same_on_all_ranks

    model = build_model(args, len(labels.names))
    if args.weights:
        report = load_weights(model, args.weights, complete=complete, new_classes=args.new_classes)
        console.note(str(report))
        if complete and report.classes and report.classes != labels.names:
            raise ValueError(
                f"the weights were trained for {', '.join(report.classes)}, not for "
                f"{', '.join(labels.names)}: choose another --dataset"
            )
    elif args.training and not args.train_encoder:
        console.note(
            "neither --weights nor --train-encoder: the encoder stays as it was drawn, at random"
        )
    require_same_on_all_ranks("weights", [fingerprint(model)])
    return model.to(device, memory_format=torch.channels_last)


def prepare(args, model):
    """The network for labelling alone: --precision and --compile, batch norm folded. Not for training."""
    from models.deploy.inference import for_inference
    from utils.run.setup import PRECISIONS

    return for_inference(model, dtype=PRECISIONS[args.precision], compiled=args.compile)


def train(args, device, console) -> None:
    """Epoch after epoch: train, validate, log, save."""
    from datasets import build_dataset, label_set
    from engine import LossModule, train_one_epoch
    from utils.dashboard import Dashboard
    from utils.run import savedir
    from utils.run.dist import rank, require_same_on_all_ranks, world_size, wrap
    from utils.run.loading import training_loader
    from utils.run.setup import autocast, views_of
    from utils.run.stopping import StopRequest
    from utils.training.recorder import Recorder
    from utils.training.sampler import EpochBatches
    from utils.training.training_state import TrainingState

    stop, folder = StopRequest("; --resume goes on from here").listen(), Path(args.savedir)
    model = make_model(args, label_set(args), device, console, complete=False)
    data = build_dataset(
        args,
        args.train_split,
        augment=True,
        draw=model.training_offsets,
        with_flows=model.wants_flows,
    )
    require_same_on_all_ranks("training data", [data.summary()])
    scored = [("train", args.train_split)] * args.iouTrain + [("val", args.val_split)] * args.iouVal
    scored = [(name, scoring_data(args, split, model)) for name, split in scored]
    note_gaps(args, data, console)
    set_class_weights(args, model, data, device)
    batches = EpochBatches(
        len(data), args.batch_size, rank=rank(), ranks=world_size(), seed=args.seed
    )
    state = TrainingState(model, args, data.labels.names, len(data), batches.steps, device)
    savedir.acquire(folder, args)
    recorder = Recorder(
        folder,
        state,
        console,
        stop,
        steps=batches.steps,
        resume=args.resume,
        tensorboard=args.tensorboard,
        steps_loss=args.steps_loss,
        steps_save=args.steps_save,
        epochs_save=args.epochs_save,
    )
    savedir.record(folder, args.job, options.to_recipe(args), model)
    network, loader = (
        wrap(LossModule(model), device),
        training_loader(data, batches, args.num_workers, device.type),
    )
    parts = {"device": device, "autocast": autocast(args, device)}
    views, progress = views_of(args, model), state.progress
    with Dashboard.of(args, data.labels) as dashboard:
        for epoch in range(progress.epoch, args.num_epochs):
            batches.begin(epoch, progress.step)
            shown = console.progress(
                loader, batches.steps, f"epoch {epoch + 1}/{args.num_epochs}", progress.step
            )
            train_one_epoch(
                network,
                shown,
                state.optimizer,
                state.schedule,
                progress,
                scaler=state.scaler,
                size_rule=model.size_rule,
                on_step=recorder.on_step,
                on_skip=recorder.on_skip if args.on_nonfinite == "skip" else None,
                **parts,
            )
            recorder.before_validation()
            losses = progress.means()
            scores = {
                name: score(
                    args,
                    model,
                    split,
                    console,
                    views,
                    each(stop, dashboard.watch(name, len(split))),
                    **parts,
                )
                for name, split in scored
            }
            recorder.end_epoch(scores)
            dashboard.epoch(epoch + 1, losses, scores)


def each(stop, *consumers):
    """A consumer of engine.evaluate's frames: looks for a signal, then hands the frame to all."""

    def consume(labelled):
        stop.check()
        for take in consumers:
            take(labelled)

    return consume


def note_gaps(args, data, console) -> None:
    """Where frames are missing between labelled ones, memory sees the labelled frame before the gap: say how often."""
    gaps = sum(getattr(video, "gaps", 0) for video in data.videos)
    if args.offsets and gaps:
        console.note(
            f"{gaps} gaps in the {args.dataset} frames are bridged by the labelled frame before them"
        )


def set_class_weights(args, model, data, device) -> None:
    """--class-weights as a buffer of the model; an "ignore" output has weight 0."""
    from torch.nn.functional import pad

    from datasets.class_weights import class_weights

    weights = class_weights(args.class_weights, data.num_classes, data.videos)
    if weights is not None:
        model.class_weights = pad(weights, (0, model.num_outputs - data.num_classes)).to(device)


def scoring_data(args, split, model):
    """A split without augmentation: densely labelled videos to be labelled by `step`, others by clips."""
    from datasets import build_dataset
    from utils.run.dist import require_same_on_all_ranks

    data = build_dataset(args, split, augment=False, startup=model.startup)
    require_same_on_all_ranks(f"data to score ({split})", [data.summary()])
    return data.stepping() if data.dense else data


def score(args, model, data, console, views, consume, *, device, autocast, progress=None) -> dict:
    """The results of engine.evaluate on this rank's share of the data, added up over ranks."""
    from engine import evaluate as evaluate_clips
    from utils.run.dist import rank, world_size
    from utils.run.loading import evaluation_loader

    done = progress.done if progress else 0
    loader = evaluation_loader(data, args.num_workers, rank(), world_size(), done)
    steady = data.step and all((video.fps or SLOWEST) >= SLOWEST for video in data.videos)
    shown = console.progress(loader, done + len(loader), "scoring", done)
    return evaluate_clips(
        model,
        shown,
        num_classes=data.num_classes,
        device=device,
        views=views,
        autocast=autocast,
        stepping=data.step,
        consistency=steady,
        original=args.use_orig_res,
        degraded=degraded_of(data),
        progress=progress,
        consume=consume,
    )


def degraded_of(data):
    """Which frames of a data set are known to be degraded: (video, index) -> bool, or None where that is not known."""
    if not all(getattr(video, "degrade", False) for video in data.videos):
        return None
    return lambda video, index: data.videos[video].degraded(index)


def evaluate(args, device, console) -> None:
    """Score the weights on --val-split: results.json, results.txt, pictures."""
    from datasets import label_set
    from utils.dashboard import Dashboard
    from utils.metrics import DEFINITIONS
    from utils.output.outputs import EvaluationOutput
    from utils.output.report import class_table, environment, write_results
    from utils.run import savedir
    from utils.run.dist import barrier, rank, world_size
    from utils.run.evaluation_state import EvaluationProgress
    from utils.run.setup import views_of
    from utils.run.stopping import StopRequest

    stop, folder, labels = (
        StopRequest("; --resume goes on from here").listen(),
        Path(args.savedir),
        label_set(args),
    )
    model = make_model(args, labels, device, console, complete=True)
    data = scoring_data(args, args.val_split, model)
    note_gaps(args, data, console)
    savedir.acquire(folder, args)
    recipe = options.to_recipe(args)
    progress = EvaluationProgress(folder, recipe, args.weights, resume=args.resume)
    savedir.record(folder, args.job, recipe, model)
    savedir.remove_results(folder)
    model = prepare(args, model)
    fps = (data.videos[0].fps or 10.0) if args.save_video and data.step else None
    output = EvaluationOutput(
        folder,
        labels.names,
        labels.palette,
        frames=-(-len(data) // world_size()),
        pictures=-(-(len(data) if args.save_images else args.pictures) // world_size()),
        labels=args.save_labels,
        video_fps=fps,
        ids=labels.ids,
        start=progress.done,
    )
    with progress, output, Dashboard.of(args, labels) as dashboard:
        values = score(
            args,
            model,
            data,
            console,
            views_of(args, model),
            each(stop, output, dashboard.watch("eval", len(data), progress.done)),
            device=device,
            autocast=nullcontext(),
            progress=progress,
        )
        dashboard.results(values)
    if rank() == 0:
        run = {name: values.pop(name) for name in ("loss", "frames")}
        write_results(
            folder,
            {"metrics": values, **run, "options": vars(args), "environment": environment()},
            labels.names,
            definitions=DEFINITIONS,
        )
        console.note(
            class_table(labels.names, values["IoU"], values["recall"], values["label_share"])
        )
        console.note(
            f"mIoU {100 * values['mIoU']:.2f} on {run['frames']} frames; see {folder / 'results.txt'}"
            + (f" and {folder / 'pictures'}" if args.pictures else "")
        )
    barrier()
    progress.remove()  # only now: until the results are written, there is something to resume


def infer(args, device, console) -> None:
    """Label every source; one that fails does not stop the others, but the run ends with an error."""
    from datasets import label_set
    from datasets.source.names import expand_sources, unique_names
    from utils.dashboard import Dashboard
    from utils.output.pictures import legend, save_png
    from utils.run import savedir
    from utils.run.dist import gather, rank, world_size
    from utils.run.errors import USER_ERRORS, one_line
    from utils.run.evaluation_state import FinishedSources
    from utils.run.stopping import StopRequest

    stop, folder, labels = (
        StopRequest("; --resume goes on from here").listen(),
        Path(args.savedir),
        label_set(args),
    )
    good, failures, notes = [], [], []
    for spec in args.source:
        try:
            expand_sources([spec])
            good.append(spec)
        except USER_ERRORS as error:
            failures.append(one_line(error))
    if not good:
        raise ValueError("; ".join(failures))
    sources = expand_sources(good)
    asked, failures = len(sources) + len(failures), failures if rank() == 0 else []
    model = make_model(args, labels, device, console, complete=True).eval()
    if args.explore and not hasattr(model, "attention"):
        raise ValueError(f"--explore: --method {args.method} has no attention to look at")
    savedir.acquire(folder, args)
    recipe = options.to_recipe(args)
    finished = FinishedSources(folder, recipe, resume=args.resume)
    savedir.record(folder, args.job, recipe, model)
    model = prepare(args, model)
    if rank() == 0:
        save_png(folder / "legend.png", legend(labels.names, labels.palette))
    with Dashboard.of(args, labels) as dashboard:
        for spec, name in list(zip(sources, unique_names(sources), strict=True))[
            rank() :: world_size()
        ]:
            if name in finished:
                console.note(f"{name}: labelled before, left as it is")
                continue
            try:
                notes += label_source(
                    args, spec, name, model, labels, device, console, stop, dashboard
                )
                finished.add(name)
            except USER_ERRORS as error:
                stop.check()  # what failed may be what the signal has ended
                failures.append(one_line(error))
    for note in sum(gather(notes)[1:], []):
        console.warn(note)
    failures = sum(gather(failures), [])
    if failures:
        raise ValueError(f"{len(failures)} of {asked} sources failed: " + "; ".join(failures))


def label_source(args, spec, name, model, labels, device, console, stop, dashboard) -> list[str]:
    """One source from its first frame to its last, or to a signal: what was labelled by then is kept. Its notes."""
    from datasets.source import open_source
    from datasets.source.read_ahead import ReadAhead
    from engine import Stepper, stream
    from utils.dashboard.explorer import LastFrames, explore
    from utils.output.outputs import InferenceOutput
    from utils.run.setup import views_of

    stepper = Stepper(model, views_of(args, model), nullcontext())
    stepper = LastFrames(stepper) if args.explore else stepper
    notes = []
    with (
        open_source(spec, step=args.frame_step) as source,
        ReadAhead(source, latest=source.live, resize=resizing(args)) as frames,
        InferenceOutput(
            Path(args.savedir), name, args.output, source.fps, labels.palette, args.alpha
        ) as output,
    ):
        stop.wake = source.stop
        stop.check()
        total = min(filter(None, (source.length, args.max_frames)), default=None)
        labelled = stream(stepper, islice(frames, args.max_frames), device=device)
        count, seconds = 0, 0.0
        for frame, prediction, spent in console.progress(labelled, total, name):
            count, seconds = count + 1, seconds + spent
            output.write(frame.image, frame.name, prediction.numpy())
            dashboard.live(frame.name, frame.image, prediction.numpy())
            tell(source.notes, notes, console)
            stop.check()
    tell(source.notes, notes, console)
    stop.check()
    console.note(
        f"{name}: {count} frames, the network took {1000 * seconds / max(count, 1):.0f} ms a frame on "
        f"average; see {args.savedir}"
    )
    if args.explore and count:
        console.note(
            f"where does the last frame look? {args.server}:{args.port} shows it; Ctrl-C ends this"
        )
        explore(dashboard, stepper, lambda: bool(stop))
    return notes


def resizing(args):
    """How an image comes to --work-size; None where it stays as it is."""
    from datasets.transforms import resample

    size = args.work_size
    return partial(resample, size=tuple(size), interpolation=args.interpolation) if size else None


def benchmark(args, device, console) -> None:
    """Time every stage of an inference: benchmark.json, benchmark.txt."""
    from tempfile import TemporaryDirectory

    import torch

    from datasets import label_set
    from engine import Stepper, frame_tensor
    from utils.run import benchmark as speed
    from utils.run import savedir
    from utils.run.setup import views_of

    folder, labels = Path(args.savedir), label_set(args)
    model = make_model(args, labels, device, console, complete=True).eval()
    savedir.acquire(folder, args)
    savedir.record(folder, args.job, options.to_recipe(args), model)
    parameters = sum(p.numel() for p in model.parameters())
    args.max_frames = args.max_frames or speed.FRAMES
    with TemporaryDirectory() as temporary:
        spec = (args.source or [str(Path(temporary) / "video.mp4")])[0]
        if not args.source:
            speed.write_test_video(
                Path(spec), tuple(args.work_size or (512, 1024)), args.max_frames
            )
        size, frame = first_image(args, spec)
        flops = speed.step_flops(model, model_input(model, frame_tensor(frame, device)))
        stepper = Stepper(prepare(args, model), views_of(args, model), nullcontext())
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        warm_up = max(speed.WARM_UP, 1 - min(model.offsets, default=0))
        result = speed.summary(
            one_after_another(args, spec, stepper, labels, device, temporary), warm_up
        )
        stepper.reset()
        overlapped = speed.throughput(
            overlapping(args, spec, stepper, labels, device, temporary), warm_up
        )
    result |= {
        "size": size,
        "work_size": frame.shape[:2],
        "overlapped_fps": overlapped,
        "parameters": parameters,
        "flops": flops,
        "peak_memory": speed.peak_memory(device),
        "options": vars(args),
        "environment": speed.machine(),
    }
    speed.write(folder, result)
    console.note(speed.table(result))


def first_image(args, spec):
    """(H, W) of a source's frames, and its first image at working size."""
    from datasets.source import open_source

    resize = resizing(args)
    with open_source(spec, step=args.frame_step) as source:
        image = next(iter(source)).image
    return image.shape[:2], image if resize is None else resize(image)


def model_input(model, frame):
    """frame (1, 3, H, W) padded to a size the network takes."""
    from utils.views import pad_edges

    return pad_edges(frame, model.size_rule)


def one_after_another(args, spec, stepper, labels, device, folder) -> dict[str, list[float]]:
    """Seconds of each stage on each frame of a source."""
    from datasets.source import open_source
    from engine import frame_tensor, label_map
    from utils.output.outputs import InferenceOutput
    from utils.run.benchmark import measure

    resize, align_corners = resizing(args), stepper.model.backbone.align_corners
    with (
        open_source(spec, step=args.frame_step) as source,
        InferenceOutput(
            Path(folder), "stages", args.output, source.fps, labels.palette, args.alpha
        ) as output,
    ):
        stages = {
            "pre-process": lambda f: (
                f,
                frame_tensor(f.image if resize is None else resize(f.image), device),
            ),
            "network": lambda pair: (pair[0], stepper(pair[1])),
            "post-process": lambda pair: (
                pair[0],
                label_map(pair[1], pair[0].image.shape[:2], align_corners),
            ),
            "write": lambda pair: output.write(pair[0].image, pair[0].name, pair[1].numpy()),
        }
        return measure(islice(source, args.max_frames), stages, device)


def overlapping(args, spec, stepper, labels, device, folder):
    """The same frames as --inference labels them; yields after each."""
    from datasets.source import open_source
    from datasets.source.read_ahead import ReadAhead
    from engine import stream
    from utils.output.outputs import InferenceOutput

    with (
        open_source(spec, step=args.frame_step) as source,
        ReadAhead(source, latest=source.live, resize=resizing(args)) as frames,
        InferenceOutput(
            Path(folder), "overlapped", args.output, source.fps, labels.palette, args.alpha
        ) as output,
    ):
        for frame, prediction, _ in stream(stepper, islice(frames, args.max_frames), device=device):
            output.write(frame.image, frame.name, prediction.numpy())
            yield frame.name


def tell(fresh: list[str], told: list[str], console) -> None:
    """Warn of what a source has noted since the last time."""
    while fresh:
        told.append(fresh.pop(0))
        console.warn(told[-1])


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:  # before a job could listen to it
        print("main.py: error: stopped by Ctrl-C", file=sys.stderr)
        code = 130
    sys.exit(code)
