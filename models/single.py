"""The single-frame network: any backbone, frame by frame. The baseline of every comparison."""

from __future__ import annotations

from .keymaps import KeyMap
from .method import Method, split_rates

# A single-frame network of ours, as the start of a method that does without some of its parts.
SINGLE_FRAME = KeyMap(
    "our names of a single-frame network",
    ((r"backbone\..+", r"\g<0>"),),
    covers=r"backbone\.(?!aux\.|auxiliary_head\.).+",
)


class SingleFrame(Method):
    """backbone(frame) -> logits; there is no state."""

    def __init__(self, backbone, *, aux_weight: float = 0.0, head_lr: float = 1.0):
        """aux_weight: of the auxiliary head's loss, where the backbone has one.

        head_lr: learning rate of all that is not the encoder, relative to the encoder's (ETC and
        semseg train PSPNet's heads at 10).
        """
        super().__init__(backbone)
        self.aux_weight = aux_weight
        self.head_lr = head_lr

    @classmethod
    def from_args(cls, backbone, args):
        return cls(backbone, aux_weight=args.aux_weight, head_lr=args.head_lr)

    def step(self, frame, state, flow=None, key=None):
        return self.backbone(frame), state

    def observe(self, frame, state, flow=None, key=None):
        return state

    def forward(self, clip, flows=None):
        return self.backbone(clip[:, -1])

    def losses(self, clip, labels, flows=None):
        features = self.backbone.encode(clip[:, -1])
        loss = self.cross_entropy(self.backbone.decode(features), labels[:, -1])
        return self.with_auxiliary(loss, features, labels[:, -1], self.aux_weight)

    def parameter_groups(self, lr, weight_decay):
        encoder = (p for part in self.backbone.encoder_parts() for p in part.parameters())
        return split_rates(self, [(encoder, 1.0)], lr, self.head_lr, weight_decay)
