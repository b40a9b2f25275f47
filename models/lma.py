"""LMANet: local memory attention (Paul, Danelljan, Van Gool, Timofte, IROS 2021), on any backbone.

    frame -- encode --> features -- kv_Q --> key, value
                           |                  |     |
                           |       memory -- read -- fuse --> features -- decode --> logits
                           |         ^
                           +-- kv_M -+  key, value: read by later frames (--memorize-first: by this one too)

The memory is a queue of what `kv_M` made of the last frames, as many as --stm-queue-size; a frame that finds it empty
is decoded as by the single-frame network. Pushing moves references: attention takes the maps of each frame as they
are, so nothing is stacked, padded or copied from frame to frame. Structures (--model-struct):

    original              the drawing
    aux_mem_loss          a second decoder labels the read alone, for a second loss
    mem_only              that second decoder is the only one: what memory alone knows
    original_kv_fusion    keys and values are made of the fused features, so the memory is recurrent (RecurrentLMANet)

Channels of keys and values go with the fusion (models/fusion.py). Names of modules are the published ones; where the
backbone has no learned "ignore" output, one that is constantly 0 follows its classes, as published for PSPNet.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .backbones.backbone import Features
from .keymaps import LMANET
from .method import History, WindowMethod, drawn_offsets, split_rates
from .ops import attention_map, global_attention, local_attention
from .parts.correspondence import correspondence_loss_of
from .parts.fusion import FUSIONS

# --small-key-init. Products of keys are not scaled down: of keys as convolutions commonly begin they are hundreds apart on
# ERFNet's features, and attention that looks at one cell hardly learns, for one-hot weights have no gradient. So keys
# begin smaller, and learn more slowly, than the rest: (scale, rate), alone and where flow tells them (--correspondence-loss).
SOFT, SOFT_AND_TOLD = (0.1, 0.03), (0.03, 0.3)
# Without labels the batch norm of the fused map grows from 1 to the scale of the features: at the common rate that
# alone takes thousands of steps.
SCALE_RATE = 10.0


class KeyValue(nn.Module):
    """features (B, F, h, w) -> key (B, C, h, w), value (B, V, h, w); without value channels they are the features."""

    def __init__(self, channels: int, key_channels: int, value_channels: int | None):
        super().__init__()
        self.Key = nn.Conv2d(channels, key_channels, 3, padding=1)
        self.Value = (
            nn.Conv2d(channels, value_channels, 3, padding=1) if value_channels else nn.Identity()
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.Key(features), self.Value(features)


class MemoryRead(nn.Module):
    """Attention over the remembered frames, with or without a learnable constant as one more logit."""

    def __init__(self, size: int | None, learnable_constant: bool):
        """size: of the local window; None: every pixel looks everywhere."""
        super().__init__()
        self.size = size
        self.register_parameter(
            "const", nn.Parameter(torch.zeros(1)) if learnable_constant else None
        )

    def forward(self, query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        """query (B, C, h, w), T keys (B, C, h, w), T values (B, V, h, w) -> read (B, V, h, w)."""
        if self.size is None:  # in the type of the keys, which may be wider than that of the values
            wide = [value.to(query.dtype) for value in values]
            return global_attention(query, keys, wide, self.const).to(values[0].dtype)
        return local_attention(query, keys, values, self.size, self.const)


class Visit(NamedTuple):
    """What became of one frame: its features, those fused with what was read, its value and the read (B, V, h, w).

    looked: the frame's key, and those it was compared with. Where memory was empty nothing was read (None), and the
    fused features are the frame's own.
    """

    features: Features
    fused: Features
    value: Tensor | None = None
    read: Tensor | None = None
    looked: tuple[Tensor, tuple[Tensor, ...]] | None = None


class LMANet(WindowMethod):
    """Any backbone with a memory. State: keys and values of the last frames (models.method.History of pairs)."""

    def __init__(
        self,
        backbone,
        offsets: tuple[int, ...] = (-3, -2, -1),
        *,
        fusion: str = "sigmoid-do1",
        corr_size: int = 21,
        struct: str = "original",
        local: bool = True,
        learnable_constant: bool = False,
        memorize_first: bool = False,
        align_weights: bool = True,
        always_decode: bool = False,
        random_memory: tuple[int, int] | None = None,
        head_lr: float = 1.0,
        feature_distillation: float = 0.0,
        small_key_init: bool = False,
        correspondence_loss: float = 0.0,
    ):
        """offsets: of the frames in memory; without any, and not memorize_first, this is the single-frame network.

        local=False: global attention. align_weights: query keys begin equal to memory keys. always_decode: training
        decodes every frame of a clip and learns from all labels. random_memory (N, W): a training clip has N frames in
        memory, drawn among the last W. head_lr: learning rate of the memory relative to the backbone's. feature_distillation:
        share of a loss that needs no labels (see `imitation`). small_key_init: see SOFT. correspondence_loss: weight of
        `correspondence_loss_of` where clips bring flow. ValueError where the channels do not divide.
        """
        super().__init__(backbone, offsets)
        channels, strategy = backbone.channels, FUSIONS[fusion]
        if channels % strategy.key_part or channels % strategy.value_part:
            raise ValueError(
                f"--fusion-strategy {fusion} makes keys of 1/{strategy.key_part} and values of 1/"
                f"{strategy.value_part} of the channels, and {channels} do not divide so: choose another"
            )
        self.struct, self.memorize_first, self.always_decode = struct, memorize_first, always_decode
        # What clips leave without a gradient: the decoder that labels first frames alone; with a queue of one frame,
        # keys and values of the second frame of a clip of two; decoders where there is no loss on labels
        self.has_unused_parameters = (
            struct in ("mem_only", "original_kv_fusion") or feature_distillation == 1
        )
        self.random_memory, self.head_lr, self.feature_distillation, self.small_key_init = (
            random_memory,
            head_lr,
            feature_distillation,
            small_key_init,
        )
        self.correspondence_loss, self.wants_flows = correspondence_loss, correspondence_loss > 0
        key_scale, self.key_rate = SOFT_AND_TOLD if correspondence_loss else SOFT
        key_channels, value_channels = (
            channels // strategy.key_part,
            channels // strategy.value_part,
        )
        convolved = value_channels if strategy.value_part > 1 else None
        self.kv_M_r4 = KeyValue(channels, key_channels, convolved)
        self.kv_Q_r4 = KeyValue(channels, key_channels, None if struct == "mem_only" else convolved)
        if small_key_init:
            for part in (self.kv_M_r4, self.kv_Q_r4):
                nn.init.uniform_(
                    part.Key.weight,
                    -(bound := key_scale * part.Key.weight[0].numel() ** -0.5),
                    bound,
                )
        if align_weights:
            self.kv_Q_r4.Key.load_state_dict(self.kv_M_r4.Key.state_dict())
        self.memory_name = "memory_module_local" if local else "memory_module"
        self.add_module(
            self.memory_name, MemoryRead(corr_size if local else None, learnable_constant)
        )
        if struct != "mem_only":
            self.memory_fusion = strategy.build(channels, value_channels)
        if struct in ("aux_mem_loss", "mem_only"):
            self.decoder_mem = backbone.second_decoder(value_channels)
        if not offsets and not memorize_first:
            for part in (part for part in self.children() if part is not backbone):
                part.requires_grad_(False)

    @classmethod
    def from_args(cls, backbone, args):
        options = {
            "fusion": args.fusion_strategy,
            "corr_size": args.corr_size,
            "struct": args.model_struct,
            "local": args.local_correlation,
            "learnable_constant": args.learnable_constant,
            "memorize_first": args.memorize_first,
            "align_weights": args.align_weights,
            "always_decode": args.always_decode,
            "random_memory": args.random_memory,
            "head_lr": args.head_lr,
            "feature_distillation": args.feature_distillation,
            "small_key_init": args.small_key_init,
            "correspondence_loss": args.correspondence_loss,
        }
        if args.model_struct == "original_kv_fusion":
            return RecurrentLMANet(backbone, args.offsets, queue=args.stm_queue_size, **options)
        return cls(backbone, args.offsets, **options)

    @property
    def num_outputs(self):
        return self.backbone.num_outputs + (not self.backbone.learned_ignore)

    def training_offsets(self, rng):
        return drawn_offsets(rng, *self.random_memory) if self.random_memory else self.offsets

    # The drawing

    def remember(self, encoded):
        return self.kv_M_r4(encoded.last)

    def read(self, encoded, entries):
        return self.label(self.look_back(encoded, entries))

    def look_back(self, features: Features, entries) -> Visit:
        """One frame, given the (key, value) that earlier ones left, oldest first."""
        if self.memorize_first:
            entries = (*entries, self.remember(features))
        if not entries:
            return Visit(features, features)
        keys, values = zip(*entries, strict=True)
        key, value = self.kv_Q_r4(features.last)
        read = self.memory(key, keys, values)  # (B, V, h, w)
        fused = (
            features
            if self.struct == "mem_only"
            else features._replace(last=self.memory_fusion(value, read))
        )
        return Visit(features, fused, value, read, (key, keys))

    def label(self, visit: Visit) -> Tensor:
        """-> logits (B, K, h, w)."""
        return self.label_read(visit) if self.struct == "mem_only" else self.decode(visit.fused)

    def decode(self, features: Features) -> Tensor:
        return self.with_ignore(self.backbone.decode(features))

    def label_read(self, visit: Visit) -> Tensor:
        """-> logits of the second decoder; of the first where nothing was read."""
        return (
            self.decode(visit.fused)
            if visit.read is None
            else self.with_ignore(self.decoder_mem(visit.read))
        )

    def with_ignore(self, logits: Tensor) -> Tensor:
        """Adds the constant "ignore" output where none is learned. It is added before upsampling, as published."""
        return (
            logits
            if self.backbone.learned_ignore
            else torch.cat([logits, torch.zeros_like(logits[:, :1])], 1)
        )

    @property
    def memory(self) -> MemoryRead:
        return self.get_submodule(self.memory_name)

    def forward(self, clip, flows=None):
        """A clip longer than a read is a window as published: consecutive frames, of which `offsets` are read."""
        return self.label(self.visit(self.readable(clip))[-1])

    def readable(self, clip: Tensor) -> Tensor:
        """The frames of a clip that a read uses, and the last."""
        past = clip.shape[1] - 1
        if past <= len(self.offsets):
            return clip
        return clip[:, [past + offset for offset in self.startup(past)] + [past]]

    def visit(self, clip: Tensor, every: bool = False) -> list[Visit]:
        """The last frame of a clip, or every frame."""
        entries, *frames = (), *clip.unbind(1)
        found = []
        for t, frame in enumerate(frames, 1):
            features, last = self.backbone.encode(frame), t == len(frames)
            if every or last:
                found.append(self.look_back(features, entries))
            if not last:
                entries = (*entries, self.remember(features))
        return found

    # Training

    def losses(self, clip, labels, flows=None):
        """Cross entropy of the last frame, or with always_decode of all; aux_mem_loss: half of it from the read.

        feature_distillation gives part of the weight, or all of it, to `imitation`; correspondence_loss adds `correspondence_loss_of` for attention
        of the last frame.
        """
        visits = self.visit(self.readable(clip), self.always_decode)
        terms = self.label_losses(visits, labels) if self.feature_distillation < 1 else {}
        terms = {name: (1 - self.feature_distillation) * loss for name, loss in terms.items()}
        if self.feature_distillation:
            terms["imitation"] = (
                self.feature_distillation
                * torch.stack([imitation(visit) for visit in visits]).mean()
            )
        if self.correspondence_loss and flows is not None and visits[-1].looked:
            key, keys = visits[-1].looked  # with memorize_first the last key is the frame's own
            terms["match"] = self.correspondence_loss * correspondence_loss_of(
                key, keys[: flows.shape[1]], flows, self.memory.size
            )
        return terms

    def label_losses(self, visits: list[Visit], labels: Tensor) -> dict[str, Tensor]:
        labels = labels[:, -len(visits) :].transpose(0, 1).flatten(0, 1)  # (frames B, H, W)
        loss = self.cross_entropy(torch.cat([self.label(visit) for visit in visits]), labels)
        if self.struct != "aux_mem_loss":
            return {"ce": loss}
        of_read = torch.cat([self.label_read(visit) for visit in visits])
        return {"ce": loss / 2, "memory": self.cross_entropy(of_read, labels) / 2}

    def parameter_groups(self, lr, weight_decay):
        slow = [p for name, p in self.named_parameters() if self.small_key_init and ".Key." in name]
        fast = [
            p
            for name, p in self.named_parameters()
            if self.feature_distillation == 1 and name.startswith("memory_fusion.bn.")
        ]
        rates = [
            (self.backbone.parameters(), 1.0),
            (slow, self.head_lr * self.key_rate),
            (fast, self.head_lr * SCALE_RATE),
        ]
        return split_rates(self, rates, lr, self.head_lr, weight_decay)

    # For others

    def exact_parts(self) -> list[nn.Module]:
        """What half precision leaves in float32: keys, since their products are not scaled down."""
        return [module.Key for module in self.modules() if isinstance(module, KeyValue)]

    @torch.no_grad()
    def attention(self, frame: Tensor, state: History, yx: tuple[int, int]) -> Tensor:
        """Where pixel yx of frame (1, 3, H, W) looks in the frames that `step(frame, state)` reads -> (T, h, w)."""
        features = self.backbone.encode(frame)
        entries = [*self.recall(state), *[self.remember(features)] * self.memorize_first]
        cell = yx[0] // self.backbone.stride, yx[1] // self.backbone.stride
        return attention_map(
            self.kv_Q_r4.Key(features.last),
            [key for key, _ in entries],
            cell,
            self.memory.size,
            self.memory.const,
        )

    def recall(self, state: History) -> tuple:
        """What the next frame will find in memory."""
        past = len(state.entries)
        return tuple(state.entries[past + offset] for offset in self.startup(past))

    def key_maps(self):
        return [*self.backbone.key_maps(), LMANET]


def imitation(visit: Visit) -> Tensor:
    """How far the fused features are from the frame's own, and what was read from the frame's value.

    Needs no labels: keys learn where a frame's content lies in earlier ones, fusion to pass on what was there. A new
    memory is soon no worse by it than the single-frame network it was added to.
    """
    loss = relative_error(visit.fused.last, visit.features.last)
    return loss if visit.read is None else loss + relative_error(visit.read, visit.value)


def relative_error(x: Tensor, target: Tensor) -> Tensor:
    """Squared error of x (B, C, h, w) relative to the variance of each channel of the target."""
    target = target.detach().float()
    error = (x.float() - target).square().mean((0, 2, 3))
    return (error / (target.var((0, 2, 3)) + 1e-2)).mean()


class RecurrentLMANet(LMANet):
    """original_kv_fusion: what a frame leaves behind is made of its fused features, hence of all frames before it."""

    recurrent = True

    def __init__(self, backbone, offsets=(-3, -2, -1), *, queue: int = 3, **options):
        """offsets: of the frames of a training clip, consecutive; queue: how many of them are kept."""
        super().__init__(backbone, offsets, **options)
        self.queue = queue
        self.kv_init_r4 = copy.deepcopy(self.kv_M_r4)

    def step(self, frame, state, flow=None, key=None):
        visit, state = self.advance(frame, state)
        return self.label(visit), state

    def observe(self, frame, state, flow=None, key=None):
        return self.advance(frame, state)[1]

    def advance(self, frame: Tensor, state: History) -> tuple[Visit, History]:
        """The next frame, and the state after it."""
        visit = self.look_back(self.backbone.encode(frame), state.entries)
        entry = (self.kv_init_r4 if visit.read is None else self.kv_M_r4)(visit.fused.last)
        return visit, state.push(entry, self.queue)

    def visit(self, clip, every=False):
        state, found = self.start(), []
        for frame in clip.unbind(1):
            visit, state = self.advance(frame, state)
            found.append(visit)
        return found if every else found[-1:]

    def readable(self, clip):
        return clip

    def recall(self, state):
        return state.entries
