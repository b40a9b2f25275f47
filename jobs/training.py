"""--training: epoch after epoch, train, validate, log, save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import options
from datasets import label_set
from engine import LossModule, train_one_epoch
from utils.console import Console
from utils.dashboard import Dashboard
from utils.run import savedir
from utils.run.dist import rank, world_size, wrap
from utils.run.loading import training_loader
from utils.run.setup import autocast, views_of
from utils.run.stopping import Interrupted
from utils.training.recorder import Recorder
from utils.training.sampler import EpochBatches
from utils.training.training_state import TrainingState

from .classes import tell_left_out
from .common import consumers, listen, make_model, note_gaps, start
from .flow_cache import WholeFrames, keep_flow, provider_of, tell_flow_cache
from .scoring import score
from .training_data import (
    label_counts,
    set_class_weights,
    shares,
    splits_to_score,
    store_counts,
    training_data,
)


def run(args) -> None:
    device, console = start(args)
    stop = listen()
    # On a resume the checkpoint brings the weights; complete is only what runs as it is.
    model = make_model(args, label_set(args), device, console, complete=False)
    data = training_data(args, model, console)
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
    store_counts(args, data, counts)
    trainer = Trainer(args, state, recorder, console, device)
    loader = training_loader(data, batches, args.num_workers, device.type, stop)
    with Dashboard.of(args, data.labels) as dashboard:
        for epoch in range(state.progress.epoch, args.num_epochs):
            batches.begin(epoch, state.progress.step)
            trainer.epoch(loader, batches.steps, splits, dashboard)
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

    def epoch(self, loader, steps: int, splits: dict, dashboard: Dashboard) -> None:
        """The rest of the epoch at hand, and the scores of all splits after it."""
        try:
            losses = self.train(loader, steps)
        except Interrupted:
            self.recorder.save_alone()
            raise
        scores = {}
        for name, split in splits.items():
            consume = consumers(self.recorder.stop, dashboard.watch(name, len(split)))
            scores[name] = self.score(split, consume)
        self.recorder.end_epoch(scores)
        dashboard.epoch(self.state.progress.epoch, losses, scores)

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
