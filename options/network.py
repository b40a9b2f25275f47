"""Options of the network: which method on which backbone, from which weights."""

from __future__ import annotations

from argparse import Namespace

from .jobs import NETWORK, TRAINING
from .option import FREE, Group, Option
from .shipped import DEFAULT, SHIPPED, weights_path
from .tables import BACKBONES, METHODS

ALIASES = {"psp": "psp101"}  # as LMANet's README calls it


def backbone_name(text: str) -> str:
    """The name that the table has."""
    return ALIASES.get(text, text)


def refuse_unfit(args: Namespace) -> str | None:
    method = METHODS[args.method]
    reason = method.unfit(BACKBONES[args.backbone])
    if not reason:
        return None
    fits = ", ".join(name for name, row in BACKBONES.items() if not method.unfit(row))
    return (
        f"--method {args.method} cannot run on --backbone {args.backbone}: {reason}; "
        f"it runs on {fits}"
    )


NETWORK_OPTIONS = Group(
    "network",
    (
        Option(
            "--method",
            "the network that labels video (listed below)",
            choices=tuple(METHODS),
            default="lma",
            network=True,
            everyday=True,
        ),
        Option(
            "--backbone",
            "the single-frame network in it (listed below)",
            type=backbone_name,
            choices=tuple(BACKBONES),
            default="erf",
            network=True,
            everyday=True,
        ),
        # On a resume the checkpoint has them; on each machine they may lie elsewhere.
        Option(
            "--weights",
            "checkpoints to start from or to run; published formats are recognised; "
            f"{', '.join(SHIPPED)} come with the tool, and --inference takes {DEFAULT} where "
            "neither weights nor a backbone are named",
            type=weights_path,
            default=[],
            nargs="+",
            metavar="FILE",
            resume=FREE,
            per_machine=True,
            everyday=True,
        ),
        Option(
            "--new-classes",
            "start from weights for other classes: outputs are new, but for classes that the "
            "weights know by name or by --class-map",
            type=bool,
            jobs=TRAINING,
            resume=FREE,
        ),
    ),
    jobs=NETWORK,
    refusals=(refuse_unfit,),
)
