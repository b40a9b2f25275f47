"""torch.compile for the bulk of the work."""

from __future__ import annotations

import torch

from ..method import Method

# One size at a time; "freezing" inlines the weights, which nothing changes any more.
SETTINGS = {"dynamic": False, "options": {"freezing": True}}


def compile_backbone(model: Method) -> None:
    """Compile encoder and decoders; frames and state move between them as before.

    On a CPU it needs a C++ compiler. A new frame size compiles anew.
    """
    backbone = model.backbone
    for name in ("encode", "decode"):
        compiled = torch.compile(getattr(backbone, name), **SETTINGS)
        setattr(backbone, name, compiled)
    # Decoders of a method's own: TMANet's stands in for the backbone's.
    for name in ("decoder", "decoder_mem"):
        part = getattr(model, name, None)
        if part is not None:
            part.compile(**SETTINGS)
