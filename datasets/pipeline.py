"""Which transforms a clip goes through, composed from parsed options."""

from __future__ import annotations

from .clip import Transform
from .photometric import Photometric, RandomBlur
from .synthetic_past import SyntheticPast
from .transforms import (
    Compose,
    KeepRatio,
    RandomCrop,
    RandomFlip,
    RandomRotate,
    RandomScale,
    RandomShift,
    Resize,
    ToMultiple,
)


def training_transform(args) -> Transform:
    """Resize, then one geometric draw per clip, then colours: the order of the published recipes.

    A synthetic past comes first: all else treats it as a true one. Scale, rotation, blur, flip and
    crop come as in ETC, colours after them as in TMANet and MRCFA, the shift of LMANet after the
    flip.
    """
    steps = []  # only what is asked for: a step that does nothing would draw random numbers
    if args.synthetic_past:
        steps.append(SyntheticPast(args.synthetic_past))
    if boxed(args):
        ratio = args.random_scale or (1.0, 1.0)
        steps.append(KeepRatio(args.work_box, ratio, args.interpolation))
    elif args.work_size:
        steps.append(Resize(args.work_size, args.interpolation))
    if args.random_scale and not boxed(args):
        steps.append(RandomScale(*args.random_scale, args.interpolation))
    if args.random_rotate:
        steps.append(RandomRotate(args.random_rotate, p=0.5))
    if args.random_blur:
        steps.append(RandomBlur(args.random_blur))
    if args.random_flip:
        steps.append(RandomFlip(args.random_flip))
    if args.random_shift:
        steps.append(RandomShift(args.random_shift, args.shift_border))
    if args.random_crop:
        ratio = args.crop_max_ratio if args.crop_max_ratio < 1 else None
        steps.append(RandomCrop(args.random_crop, max_ratio=ratio))
    if args.photometric != "none":
        steps.append(Photometric(shared=args.photometric == "clip"))
    return Compose(steps)


def evaluation_transform(args) -> Transform:
    """Frames at working size; labels too if predictions are scored there."""
    # --use-orig-res needs the labels at their own size too.
    resize_labels = args.score_size == "work" and not args.use_orig_res
    return Compose(work_steps(args, labels=resize_labels))


def work_steps(args, *, labels: bool) -> list[Transform]:
    """What brings a clip to working size; with `labels`, its labels as well."""
    steps: list[Transform] = []
    if boxed(args):
        steps.append(KeepRatio(args.work_box, interpolation=args.interpolation, labels=labels))
    elif args.work_size:
        steps.append(Resize(args.work_size, args.interpolation, labels=labels))
    if args.stretch:
        steps.append(ToMultiple(args.stretch, args.interpolation))
    return steps


def boxed(args) -> bool:
    """Whether frames are fitted into --work-box."""
    return bool(args.work_box and not args.work_size)
