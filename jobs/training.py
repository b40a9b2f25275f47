"""--training: epoch after epoch, train, validate, log, save."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import pad

import options
from datasets import build_dataset, label_set
from datasets.class_weights import class_weights
from engine import LossModule, train_one_epoch
from utils.dashboard import Dashboard
from utils.run import savedir
from utils.run.dist import rank, require_same_on_all_ranks, world_size, wrap
from utils.run.loading import training_loader
from utils.run.setup import autocast, views_of
from utils.training.recorder import Recorder
from utils.training.sampler import EpochBatches
from utils.training.training_state import TrainingState

from .common import consumers, listen, make_model, note_gaps, scoring_data, start
from .scoring import score


def run(args) -> None:
    device, console = start(args)
    stop = listen()
    folder = Path(args.savedir)
    model = make_model(args, label_set(args), device, console, complete=False)
    data = training_data(args, model)
    splits = splits_to_score(args, model)
    note_gaps(args, data, console)
    set_class_weights(args, model, data, device)
    batches = EpochBatches(
        len(data), args.batch_size, rank=rank(), ranks=world_size(), seed=args.seed
    )
    state = TrainingState(
        model,
        args,
        classes=data.labels.names,
        clips=len(data),
        steps_per_epoch=batches.steps,
        device=device,
    )
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
    # Only now: a resume that is refused must leave the record of the run as it was.
    savedir.record(folder, args.job, options.recipe(args), model)
    network = wrap(LossModule(model), device)
    loader = training_loader(data, batches, args.num_workers, device.type)
    views = views_of(args, model)
    precision = autocast(args, device)
    progress = state.progress
    on_skip = recorder.on_skip if args.on_nonfinite == "skip" else None
    with Dashboard.of(args, data.labels) as dashboard:
        for epoch in range(progress.epoch, args.num_epochs):
            batches.begin(epoch, progress.step)
            title = f"epoch {epoch + 1}/{args.num_epochs}"
            train_one_epoch(
                network,
                console.progress(loader, batches.steps, title, progress.step),
                state.optimizer,
                state.schedule,
                progress,
                device=device,
                autocast=precision,
                scaler=state.scaler,
                size_rule=model.size_rule,
                on_step=recorder.on_step,
                on_skip=on_skip,
            )
            recorder.before_validation()
            losses = progress.means()
            scores = {}
            for name, split in splits.items():
                consume = consumers(stop, dashboard.watch(name, len(split)))
                scores[name] = score(
                    args, model, split, console, views, consume, device=device, autocast=precision
                )
            recorder.end_epoch(scores)
            dashboard.epoch(epoch + 1, losses, scores)


def training_data(args, model):
    """The clips to train on, as the method draws them."""
    data = build_dataset(
        args,
        args.train_split,
        augment=True,
        draw=model.training_offsets,
        with_flows=model.wants_flows,
    )
    require_same_on_all_ranks("training data", [data.summary()])
    return data


def splits_to_score(args, model) -> dict:
    """What is scored after each epoch, by the names that the log gives them."""
    splits = {}
    if args.iouTrain:
        splits["train"] = scoring_data(args, args.train_split, model)
    if args.iouVal:
        splits["val"] = scoring_data(args, args.val_split, model)
    return splits


def set_class_weights(args, model, data, device: torch.device) -> None:
    """--class-weights as a buffer of the model; an "ignore" output has weight 0."""
    weights = class_weights(args.class_weights, data.num_classes, data.videos)
    if weights is not None:
        further = model.num_outputs - data.num_classes
        model.class_weights = pad(weights, (0, further)).to(device)
