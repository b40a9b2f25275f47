"""Networks: tables of methods and backbones, and the one way to build a model.

Names map to "module:Class", so nothing is imported before it is chosen.
"""

from __future__ import annotations

from importlib import import_module

METHODS = {
    "lma": "models.lma:LMANet",
    "single": "models.single:SingleFrame",
    "tma": "models.tma:TMANet",
}
BACKBONES = {
    "erf": "models.backbones.erfnet:ERFNet",
    "psp18": "models.backbones.pspnet:PSPNet18",
    "psp50": "models.backbones.pspnet:PSPNet50",
    "psp101": "models.backbones.pspnet:PSPNet101",
    "r50v1c": "models.backbones.fcn:ResNet50V1c",
    "r101v1c": "models.backbones.fcn:ResNet101V1c",
}


def find(table: dict[str, str], name: str) -> type:
    """The class that `name` stands for. ValueError with the choices for an unknown name."""
    if name not in table:
        raise ValueError(f"unknown name {name!r}: choose from {', '.join(table)}")
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)


def build_model(args, num_classes: int):
    """The network of parsed options (main.parse_args) for `num_classes` classes as evaluated, without "ignore"."""
    backbone = find(BACKBONES, args.backbone)(num_classes, **backbone_options(args))
    model = find(METHODS, args.method).from_args(backbone, args)
    model.loss_options = {
        "mean": args.loss_mean,
        "ohem": (args.ohem[0], int(args.ohem[1])) if args.ohem else None,
    }
    model.loss_at_logits = args.shallow_dec
    freeze(model, args)
    return model


def backbone_options(args) -> dict:
    """Constructor arguments beyond the class count; options.py has refused those a backbone does not know."""
    chosen = {"shallow_decoder": True} if args.shallow_dec else {}
    chosen |= {} if args.align_corners is None else {"align_corners": args.align_corners}
    return chosen | ({"use_bn": False} if args.backbone_nobn else {})


def freeze(model, args) -> None:
    """Stop training the parts of the backbone that the options exclude, and note those that stay in eval mode."""
    backbone = model.backbone
    encoder = backbone.encoder_parts()
    decoder = [part for part in backbone.children() if not any(part is other for other in encoder)]
    for parts, trained, always_eval in (
        (encoder, args.train_encoder, args.encoder_eval_mode),
        (decoder, args.train_decoder, args.decoder_eval_mode),
    ):
        for part in () if trained else parts:
            part.requires_grad_(False)
        if always_eval:
            model.always_eval.extend(parts)
    if not args.aux_weight:  # DistributedDataParallel waits for every parameter that is trained
        for part in backbone.auxiliary_parts():
            part.requires_grad_(False)
