"""Networks: the one way to build a model from parsed options."""

from __future__ import annotations

from importlib import import_module

from torch import nn

from .method import Method


def find(name: str) -> type:
    """The class that "module:Class" stands for; nothing is imported before it is chosen."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def build_model(args, num_classes: int) -> Method:
    """The network of parsed options (main.parse_args).

    num_classes: as evaluated, without "ignore".
    """
    backbone = find(args.backbone_class).from_args(num_classes, args)
    model = find(args.method_class).from_args(backbone, args)
    model.loss_options = loss_options(args)
    freeze_parts(model, args)
    return model


def loss_options(args) -> dict:
    """How the cross entropy is averaged, as models.parts.losses.cross_entropy takes it."""
    ohem = None
    if args.ohem:
        threshold, kept = args.ohem
        ohem = threshold, int(kept)
    return {"mean": args.loss_mean, "ohem": ohem}


def freeze_parts(model: Method, args) -> None:
    """Stop training the parts of the backbone that the options exclude.

    Parts whose batch norm statistics are kept are noted in model.always_eval.
    """
    backbone = model.backbone
    encoder = backbone.encoder_parts()
    decoder = [part for part in backbone.children() if not contains(encoder, part)]
    freeze(encoder, trained=args.train_encoder)
    freeze(decoder, trained=args.train_decoder)
    if args.encoder_eval_mode:
        model.always_eval.extend(encoder)
    if args.decoder_eval_mode:
        model.always_eval.extend(decoder)
    # DistributedDataParallel waits for the gradient of every parameter that is trained.
    freeze(backbone.auxiliary_parts(), trained=bool(args.aux_weight))


def freeze(parts: list[nn.Module], *, trained: bool) -> None:
    if not trained:
        for part in parts:
            part.requires_grad_(False)


def contains(parts: list[nn.Module], part: nn.Module) -> bool:
    return any(part is other for other in parts)
