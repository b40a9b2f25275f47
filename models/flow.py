"""Key frames and optical flow: SwNet-seq, also known as GSVNet (Lee et al., arXiv 2103.08834).

    key frame:  frame -- backbone --> logits
    others:     flow into the frame before -- warp its logits -- guided filter --> logits

Every frame but the key frames costs a fraction of the backbone. What is propagated
(parts/propagation.py):

    gsv     the published network: logits at 1/8 are warped, then mended by a guided filter
    warp    the key frame's own logits, moved by the flow since then; nothing to train
    hold    the key frame's logits as they were: the baseline

The flow is that of any provider (optical_flow/). The published light network and FlowNetS are
trained together with the filter and stand in its checkpoint. The backbone is never trained here: it
makes the key frames, and in training it is also the teacher.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .keymaps import KeyMap
from .method import Method, split_rates
from .ops.resize import resize_aligned
from .ops.warp import resize_flow
from .optical_flow import FlowProvider, LightFlow, build_flow, flow_between
from .parts.distillation import kl_per_element
from .parts.propagation import PROPAGATIONS
from .single import SINGLE_FRAME

# SwNet-seq's checkpoint: the filter, and beside it the light flow network.
SWNET_SEQ = KeyMap(
    "SwNet-seq",
    (
        (r"grm\.intra_net\.intra_net\.(.+)", r"propagation.filter.intra.\1"),
        (r"grm\.ideal_dk\.filter_copy_s", r"propagation.filter.kernels"),
        (r"grm\.guide\.guide_conv\.(.+)", r"propagation.filter.guide.entry.\1"),
        (r"grm\.guide\.guide_conv_feat\.([01]\..+)", r"propagation.filter.guide.down1.\1"),
        (r"grm\.guide\.guide_conv_feat\.3(\..+)", r"propagation.filter.guide.down2.0\1"),
        (r"grm\.guide\.guide_conv_feat\.4(\..+)", r"propagation.filter.guide.down2.1\1"),
        (r"grm\.guide\.guide_deconv\.1(\..+)", r"propagation.filter.guide.up1.0\1"),
        (r"grm\.guide\.guide_deconv\.2(\..+)", r"propagation.filter.guide.up1.1\1"),
        (r"grm\.guide\.guide_deconv\.5(\..+)", r"propagation.filter.guide.up2.0\1"),
        (r"grm\.guide\.guide_deconv\.6(\..+)", r"propagation.filter.guide.up2.1\1"),
        (r"grm\.guide\.guide_decoder\.(.+)", r"propagation.filter.guide.exit.\1"),
        (r"state_dict_of\.(.+)", r"optical_flow.\1"),
    ),
    covers=r"propagation\.filter\..+",
)
# A checkpoint of ours whose filter or flow network this one may do without.
OTHER_PARTS = KeyMap(
    "our names, without what this propagation lacks",
    ((r"(?:backbone|propagation|optical_flow)\..+", r"\g<0>"),),
    covers=r"(?:backbone|propagation|optical_flow)\.(?!aux\.|auxiliary_head\.).+",
)


@dataclass(frozen=True)
class Propagated:
    """What the next frame needs of this one."""

    frame: Tensor  # (B, 3, H, W)
    carried: tuple[Tensor, ...]  # what the propagation moves on: the logits, first of all


class FlowPropagation(Method):
    """Key frames by the backbone, the frames between them by propagation."""

    has_unused_parameters = True

    def __init__(
        self,
        backbone: nn.Module,
        optical_flow: FlowProvider | None,
        propagation: nn.Module,
        *,
        clip_offsets: tuple[int, ...] = (),
        key_scale: float = 1.0,
        steps: tuple[int, ...] = (1, 2),
        ce_weight: float = 10.0,
        distillation: float = 10.0,
        flow_weight: float = 0.0,
        rates: tuple[float, float] = (10.0, 10.0),
    ):
        """optical_flow: None where flow comes from outside. clip_offsets: of a clip to score,
        whose first frame is the key frame. key_scale: of key frames, for the backbone.

        Training: steps: distances from the key frame that are learned. ce_weight: of cross entropy
        and distillation together; distillation: of the latter inside. flow_weight: of the error
        against the flow that clips bring. rates: learning rates of guide and flow network relative
        to the rest.
        """
        super().__init__(backbone)
        self.clip_offsets = clip_offsets
        self.optical_flow = optical_flow
        self.propagation = propagation
        self.key_scale = key_scale
        self.steps = tuple(sorted(set(steps)))
        self.ce_weight = ce_weight
        self.distillation = distillation
        self.flow_weight = flow_weight
        self.rates = rates
        self.wants_flows = flow_weight > 0
        self.takes_flows = False
        # Teacher and segmenter: never trained, whatever the options of the backbone say.
        self.always_eval.append(backbone)

    @classmethod
    def from_args(cls, backbone, args):
        propagation = PROPAGATIONS[args.propagate].from_args(backbone.num_outputs, args)
        return cls(
            backbone,
            build_flow(args),
            propagation,
            clip_offsets=args.offsets,
            key_scale=args.eval_scale,
            steps=tuple(args.multi_step),
            ce_weight=args.loss_weight,
            distillation=args.distillation_weight,
            flow_weight=args.flow_loss,
            rates=(args.guide_lr, args.flow_lr),
        )

    @property
    def capturable(self) -> bool:
        computed = self.optical_flow is not None and self.propagation.moves
        return not computed or self.optical_flow.capturable

    def needs_flow(self, key: bool | None) -> bool:
        return not key and self.propagation.moves

    def startup(self, past: int) -> tuple[int, ...]:
        """A clip begins with its key frame, as far back as there are frames."""
        return tuple(offset for offset in self.clip_offsets if -offset <= past)

    # Frame by frame

    def step(self, frame, state, flow=None, key=None):
        """Without a state every frame is a key frame; key=None propagates where there is one."""
        if state is None or key:
            carried = self.propagation.begin(self.segment(frame), frame.shape[-2:])
        else:
            carried = self.propagate(frame, state, flow)
        return carried[0], Propagated(frame, carried)

    def segment(self, frame: Tensor) -> Tensor:
        """frame (B, 3, H, W) -> the backbone's logits, at its own resolution."""
        if self.key_scale != 1:
            rule = self.backbone.size_rule
            size = [rule.fit(int(side * self.key_scale)) for side in frame.shape[-2:]]
            frame = resize_aligned(frame, size)
        return self.backbone(frame)

    def propagate(self, frame: Tensor, state: Propagated, flow: Tensor | None) -> tuple:
        """What is carried on to this frame."""
        if not self.propagation.moves:
            return state.carried
        grid = state.carried[0].shape[-2:]
        if flow is None:
            flow = flow_between(self.optical_flow, frame, state.frame)
        cells = resize_flow(flow, grid, frame.shape[-2:])
        return self.propagation(state.carried, cells, frame)

    def upsample(self, logits, size):
        """As the backbone does; maps at 1/8 of the frame were published with aligned corners."""
        if self.propagation.aligned:
            return resize_aligned(logits, size)
        return super().upsample(logits, size)

    # Training

    def training_offsets(self, rng: random.Random) -> tuple[int, ...]:
        return tuple(range(-max(self.steps), 0))

    def losses(self, clip, labels, flows=None):
        """The mean over distances from the key frame, each learned from the clip's last frame.

        The published training takes one distance after the other, an epoch each.
        """
        size = labels.shape[-2:]
        teacher = self.upsample(self.frozen_logits(clip[:, -1]), size)
        terms: dict[str, list[Tensor]] = {"ce": [], "distillation": [], "flow": []}
        for distance in self.steps:
            logits, flow_error = self.propagated(clip[:, -1 - distance :], flows)
            logits = self.upsample(logits, size)
            terms["ce"].append(self.cross_entropy(logits, labels[:, -1]))
            terms["distillation"].append(kl_per_element(logits, teacher))
            terms["flow"].append(flow_error)
        weights = {
            "ce": self.ce_weight,
            "distillation": self.ce_weight * self.distillation,
            "flow": self.flow_weight,
        }
        return {
            name: weight * torch.stack(terms[name]).mean()
            for name, weight in weights.items()
            if weight
        }

    @torch.no_grad()
    def frozen_logits(self, frame: Tensor) -> Tensor:
        return self.backbone(frame)

    def propagated(self, clip: Tensor, flows: Tensor | None) -> tuple[Tensor, Tensor]:
        """clip (B, 1 + k, 3, H, W), key frame first -> logits of its last frame, error of the flow.

        Only the last two steps train the filter; before them it runs as in evaluation. The flow
        network is in train mode throughout.
        """
        key, *others = clip.unbind(1)
        carried = self.propagation.begin(self.frozen_logits(key), key.shape[-2:])
        errors = []
        previous = key
        for place, frame in enumerate(others, start=1 - len(others)):
            grid = carried[0].shape[-2:]
            flow = None if flows is None else flows[:, place - 1]
            if flow is None or not (self.takes_flows or self.optical_flow is None):
                flow = flow_between(self.optical_flow, frame, previous)
            cells = resize_flow(flow, grid, frame.shape[-2:])
            if flows is not None:
                exact = resize_flow(flows[:, place - 1], grid, frame.shape[-2:])
                errors.append(mean_error(cells, exact))
            trained = place > -2 and self.training
            self.propagation.train(trained)
            with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
                carried = self.propagation(carried, cells, frame)
            previous = frame
        self.propagation.train(self.training)
        error = torch.stack(errors).mean() if errors else carried[0].new_zeros(())
        return carried[0], error

    def parameter_groups(self, lr, weight_decay):
        guide, network = self.rates
        parts = []
        if hasattr(self.propagation, "filter"):
            parts.append((self.propagation.filter.guide.parameters(), guide))
        if self.optical_flow is not None:
            parts.append((self.optical_flow.parameters(), network))
        return split_rates(self, parts, lr, 1.0, weight_decay)

    # Weights

    def lacks(self) -> tuple[str, ...]:
        """The beginnings of keys of this method that have no entry here."""
        keys = self.state_dict()
        parts = ("propagation.", "optical_flow.")
        return tuple(part for part in parts if not any(key.startswith(part) for key in keys))

    def key_maps(self):
        others = OTHER_PARTS.without(*self.lacks())
        maps = [*self.backbone.key_maps(), SINGLE_FRAME, others]
        has_filter = hasattr(self.propagation, "filter")
        is_light = isinstance(self.optical_flow, LightFlow)
        if has_filter:
            # Without the light network its entries are known and not used.
            maps.append(SWNET_SEQ if is_light else SWNET_SEQ.without("optical_flow."))
        # Its own table would take the light network out of such a file, and leave the filter.
        if self.optical_flow is not None and not (has_filter and is_light):
            maps += [table.prefixed("optical_flow.") for table in self.optical_flow.key_maps()]
        return maps


def mean_error(flow: Tensor, exact: Tensor) -> Tensor:
    """Mean absolute error in cells, over what is known of `exact`: NaN stands for unknown."""
    known = exact.isfinite()
    errors = (flow - exact.nan_to_num()).abs() * known
    return errors.sum() / known.sum().clamp(min=1)
