"""--training: epoch after epoch, train, validate, log, save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

import options
from datasets import build_dataset, label_set
from datasets.class_weights import class_weights
from datasets.label_statistics import LOOKED_AT, LabelCounts, count_labels, label_problems
from engine import LossModule, train_one_epoch
from utils.console import Console
from utils.dashboard import Dashboard
from utils.run import savedir
from utils.run.dist import all_reduce_sum, rank, require_same_on_all_ranks, world_size, wrap
from utils.run.loading import training_loader
from utils.run.setup import autocast, views_of
from utils.run.stopping import Interrupted
from utils.training import counted_labels
from utils.training.recorder import Recorder
from utils.training.sampler import EpochBatches, Share
from utils.training.training_state import TrainingState

from .classes import tell_left_out
from .common import consumers, listen, make_model, note_gaps, scoring_data, start
from .flow_cache import WholeFrames, keep_flow, provider_of, tell_flow_cache, whole_frames
from .given_flow import flow_files, uses_given_flow
from .keys import require_videos
from .scoring import score


def run(args) -> None:
    device, console = start(args)
    stop = listen()
    # On a resume the checkpoint brings the weights; complete is only what runs as it is.
    model = make_model(args, label_set(args), device, console, complete=False)
    data = training_data(args, model)
    splits = splits_to_score(args, model)
    note_gaps(args, data, console)
    tell_left_out(args, data, console)
    counts = label_counts(args, data, console)
    set_class_weights(args, model, data, counts, device)
    batches = EpochBatches(
        shares(data, console), args.batch_size, rank=rank(), ranks=world_size(), seed=args.seed
    )
    state = TrainingState(
        model,
        args,
        described=described(args, data.labels),
        clips=len(data),
        steps_per_epoch=batches.steps,
        device=device,
    )
    recorder = begin_record(args, state, batches.steps, console=console, stop=stop)
    # Only now a resumed training has its weights.
    keep_flow(args, provider_of(model))
    if isinstance(data.flow_source, WholeFrames):
        data.flow_source.settle(model)
    if args.class_weights == "balanced" and rank() == 0:
        counted_labels.store(Path(args.savedir), described_labels(data), counts.pixels)
    trainer = Trainer(args, state, recorder, console, device)
    loader = training_loader(data, batches, args.num_workers, device.type, stop)
    with Dashboard.of(args, data.labels) as dashboard:
        for epoch in range(state.progress.epoch, args.num_epochs):
            batches.begin(epoch, state.progress.step)
            try:
                losses = trainer.train(loader, batches.steps)
            except Interrupted:
                recorder.save_alone()
                raise
            scores = {}
            for name, split in splits.items():
                consume = consumers(stop, dashboard.watch(name, len(split)))
                scores[name] = trainer.score(split, consume)
            recorder.end_epoch(scores)
            dashboard.epoch(epoch + 1, losses, scores)
    tell_flow_cache(args, console)
    tell_end(args, state, console)


def tell_end(args, state: TrainingState, console: Console) -> None:
    """What the training has left, and what comes next."""
    progress = state.progress
    weights = Path(args.savedir) / "model_best.pth.tar"
    best = f"epoch {progress.best_epoch} of {progress.epoch} is the best"
    if args.iouVal:
        best += f", with mIoU {100 * progress.best:.2f} % on {args.val_split}"
    console.note(f"{best}; its weights are {weights}, curves and log beside them")
    console.note(
        f"next: python main.py --eval-mode --weights {weights} --savedir {args.savedir}_eval, or "
        f"--inference --source VIDEO --weights {weights} --savedir {args.savedir}_video"
    )


def described(args, labels) -> dict[str, Any]:
    """What labelling needs besides the weights: it then runs without their data set."""
    return {
        "classes": list(labels.names),
        "palette": [list(map(int, colour)) for colour in labels.palette],
        "network": args.network,
    }


def begin_record(args, state: TrainingState, steps: int, *, console: Console, stop) -> Recorder:
    """Take the savedir, go on from its checkpoint where asked, and write down what is run."""
    folder = Path(args.savedir)
    savedir.acquire(folder, args)
    recorder = Recorder(
        folder,
        state,
        console,
        stop,
        steps=steps,
        resume=args.resume,
        tensorboard=args.tensorboard,
        steps_loss=args.steps_loss,
        steps_save=args.steps_save,
        epochs_save=args.epochs_save,
    )
    # Only now: a resume that is refused must leave the record of the run as it was.
    savedir.record(folder, args.job, options.recipe(args), state.model)
    return recorder


class Trainer:
    """What an epoch needs: the network as its ranks train it, precision, views."""

    def __init__(
        self, args, state: TrainingState, recorder: Recorder, console: Console, device: torch.device
    ):
        self.args = args
        self.state = state
        self.recorder = recorder
        self.console = console
        self.device = device
        self.model = state.model
        self.network = wrap(LossModule(state.model), device)
        self.precision = autocast(args, device)
        self.views = views_of(args, state.model)

    def train(self, loader, steps: int) -> dict[str, float]:
        """The rest of the epoch at hand -> its named losses, as means over the steps."""
        state = self.state
        progress = state.progress
        on_skip = self.recorder.on_skip if self.args.on_nonfinite == "skip" else None
        title = f"epoch {progress.epoch + 1}/{self.args.num_epochs}"
        bar = self.console.progress(loader, steps, title, progress.step)

        def on_step(terms: dict[str, float]) -> None:
            self.recorder.on_step(terms)
            self.tell_progress(bar, terms, steps)

        train_one_epoch(
            self.network,
            bar,
            state.optimizer,
            state.schedule,
            progress,
            device=self.device,
            autocast=self.precision,
            scaler=state.scaler,
            size_rule=self.model.size_rule,
            on_step=on_step,
            on_skip=on_skip,
        )
        self.recorder.before_validation()
        return progress.means()

    def tell_progress(self, bar, terms: dict[str, float], steps: int) -> None:
        """Beside the bar of the epoch: the loss, and the time that is left of the whole run."""
        if not hasattr(bar, "format_dict"):
            return  # without tqdm, and on other ranks
        text = f"loss {sum(terms.values()):.3f}"
        rate = bar.format_dict["rate"]
        if rate:
            progress = self.state.progress
            left = (self.args.num_epochs - progress.epoch) * steps - progress.step
            text += f", whole run {bar.format_interval(left / rate)} left"
        # Drawn with the bar's next update, not at once.
        bar.set_postfix_str(text, refresh=False)

    def score(self, split, consume) -> dict:
        """The results of a split by the network as it is now."""
        return score(
            self.args,
            self.model,
            split,
            console=self.console,
            views=self.views,
            consume=consume,
            device=self.device,
            autocast=self.precision,
            stop=self.recorder.stop,
        )


def training_data(args, model):
    """The clips to train on, as the method draws them."""
    learns_given = model.wants_flows and args.flow == "given"
    given = learns_given or uses_given_flow(args, model)
    source = flow_files(args) if given else whole_frames(args, model)
    data = build_dataset(
        args,
        args.train_split,
        augment=True,
        draw=model.training_offsets,
        with_flows=model.wants_flows or given or source is not None,
        unknown_flows=not (model.needs_known_flows or given),
        flow_source=source,
    )
    require_same_on_all_ranks("training data", [data.summary()])
    return data


def shares(data, console: Console) -> list[Share]:
    """How many clips of each part an epoch has; told where there are several."""
    first, *further = data.parts
    found = [Share(first.clips, first.clips)]
    for part in further:
        drawn = part.drawn(first.clips)
        console.note(
            f"--extra-data {part.name}: {drawn} of its {part.clips} clips an epoch, beside "
            f"{first.clips} of {first.name}"
        )
        found.append(Share(part.clips, drawn))
    return found


def splits_to_score(args, model) -> dict:
    """What is scored after each epoch, by the names that the log gives them."""
    splits = {}
    if args.iouTrain:
        splits["train"] = scoring_data(args, args.train_split, model)
    if args.iouVal:
        splits["val"] = scoring_data(args, args.val_split, model)
    for data in splits.values():
        require_videos(args, data)
    return splits


def label_counts(args, data, console: Console) -> LabelCounts:
    """Count the classes: in all labels where weights need it, else in some. Warns of odd counts."""

    def show(items, total):
        return console.progress(items, total, "counting classes")

    if args.class_weights == "balanced":
        counts = all_label_counts(args, data, show)
    else:
        counts = count_labels(data.videos, LOOKED_AT, workers=args.num_workers)
    problems = label_problems(
        counts.pixels,
        data.labels.names,
        counts.labels,
        counts.existing,
        # A rare class may stand in the labels that were not looked at.
        absent=counts.labels == counts.existing,
    )
    for problem in problems:
        console.warn(problem)
    return counts


def all_label_counts(args, data, progress) -> LabelCounts:
    """Count all labels, each rank its share; a resume finds them counted."""
    existing = sum(len(video.labelled) for video in data.videos)
    known = None
    if args.resume:
        known = counted_labels.stored(Path(args.savedir), described_labels(data))
    if known is not None:
        return LabelCounts(np.array(known), existing, existing)
    share = count_labels(
        data.videos, part=(rank(), world_size()), workers=args.num_workers, progress=progress
    )
    pixels = all_reduce_sum(torch.from_numpy(share.pixels)).numpy()
    return LabelCounts(pixels, existing, existing)


def described_labels(data) -> str:
    """What tells one set of labels from another."""
    existing = sum(len(video.labelled) for video in data.videos)
    return f"{data.summary()}, {existing} labels of {', '.join(data.labels.names)}"


def set_class_weights(args, model, data, counts: LabelCounts, device: torch.device) -> None:
    """--class-weights as a buffer of the model; an "ignore" output has weight 0."""
    weights = class_weights(args.class_weights, data.num_classes, pixels=counts.pixels)
    if weights is not None:
        further = model.num_outputs - data.num_classes
        model.class_weights = pad(weights, (0, further)).to(device)
