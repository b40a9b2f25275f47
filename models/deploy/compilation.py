"""torch.compile for the bulk of the work."""

from __future__ import annotations

import torch

from ..method import Method


def compile_backbone(model: Method) -> None:
    """Compile encoder and decoder; frames and state move between them as before.

    On a CPU it needs a C++ compiler. A new frame size compiles anew.
    """
    backbone = model.backbone
    for name in ("encode", "decode"):
        plain = getattr(backbone, name)
        # "freezing" inlines the weights: nothing changes them any more.
        compiled = torch.compile(plain, dynamic=False, options={"freezing": True})
        setattr(backbone, name, compiled)
