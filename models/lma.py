"""LMANet: local memory attention (Paul, Danelljan, Van Gool, Timofte, IROS 2021), on any backbone.

    frame -- encode --> features -- kv_Q --> key, value
                           |                  |     |
                           |       memory -- read -- fuse --> features -- decode --> logits
                           |         ^
                           +-- kv_M -+  key, value: read by later frames (--memorize-first: by
                                        this one too)

The memory is a queue of what `kv_M` made of the last frames, as many as --stm-queue-size; a frame
that finds it empty is decoded as by the single-frame network. Pushing moves references: attention
takes the maps of each frame as they are, so nothing is stacked, padded or copied from frame to
frame. Structures (--model-struct):

    original              the drawing
    aux_mem_loss          a second decoder labels the read alone, for a second loss
    mem_only              that second decoder is the only one: what memory alone knows
    original_kv_fusion    keys and values are made of the fused features, so the memory is recurrent
                          (RecurrentLMANet)

Channels of keys and values go with the fusion (models/parts/fusion.py). Names of modules are the
published ones; where the published files differ, LMANET below says what becomes of their entries.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .backbones.backbone import Features
from .keymaps import KeyMap
from .method import History, WindowMethod, drawn_offsets, split_rates
from .ops import attention_map, global_attention, local_attention
from .parts.correspondence import correspondence_loss
from .parts.fusion import FUSIONS


class KeyInit(NamedTuple):
    """How key layers begin and learn under --small-key-init, relative to the common way."""

    scale: float  # of their first weights
    rate: float  # of their learning rate


# Products of keys are not scaled down. Of keys as convolutions commonly begin they are hundreds
# apart on ERFNet's features: attention is one-hot, and one-hot weights have no gradient. So keys
# begin smaller and learn more slowly than the rest, alone or supervised by flow.
SMALL_KEYS = KeyInit(scale=0.1, rate=0.03)
SUPERVISED_SMALL_KEYS = KeyInit(scale=0.03, rate=0.3)
# Without labels the batch norm of the fused map grows from 1 to the scale of the features: at the
# common rate that alone takes thousands of steps.
SCALE_RATE = 10.0
# Added to the variance of a channel before it divides an error: some channels hardly vary.
VARIANCE_FLOOR = 1e-2

# The files spell the backbone's parts as the original held them; an auxiliary head is missing.
LMANET = KeyMap(
    "LMANet",
    (
        (
            r"(?:kv_(?:M|Q|init)_r4|memory_fusion|memory_module(?:_local)?|decoder_mem)\..+",
            r"\g<0>",
        ),
        (r"encoder\.(layer[0-4]\..+)", r"backbone.\1"),
        (r"decoder\.(cls\..+)", r"backbone.\1"),
        (r"(?:ppm|encoder|decoder)\..+", r"backbone.\g<0>"),
    ),
    covers=r"(?!backbone\.aux\.).+",
)


class KeyValue(nn.Module):
    """features (B, F, h, w) -> key (B, C, h, w), value (B, V, h, w).

    Without value channels the values are the features themselves.
    """

    def __init__(self, channels: int, key_channels: int, value_channels: int | None):
        super().__init__()
        self.Key = nn.Conv2d(channels, key_channels, 3, padding=1)
        self.Value = nn.Identity()
        if value_channels:
            self.Value = nn.Conv2d(channels, value_channels, 3, padding=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.Key(features), self.Value(features)


class MemoryRead(nn.Module):
    """Attention over the remembered frames, with or without a learnable extra logit (no match)."""

    def __init__(self, size: int | None, learnable_constant: bool):
        """size: of the local window; None: global attention."""
        super().__init__()
        self.size = size
        constant = nn.Parameter(torch.zeros(1)) if learnable_constant else None
        self.register_parameter("const", constant)

    def forward(self, query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        """query (B, C, h, w), T keys (B, C, h, w), T values (B, V, h, w) -> read (B, V, h, w)."""
        if self.size is not None:
            return local_attention(query, keys, values, self.size, self.const)
        # In the type of the keys, which may be wider than that of the values.
        wide = [value.to(query.dtype) for value in values]
        return global_attention(query, keys, wide, self.const).to(values[0].dtype)


class FrameOutput(NamedTuple):
    """What became of one frame. Where memory was empty nothing was read."""

    features: Features  # of the backbone
    fused: Features  # with what was read; the same where nothing was
    value: Tensor | None = None  # (B, V, h, w), the frame's own
    read: Tensor | None = None  # (B, V, h, w), from memory
    # the frame's key (B, C, h, w), and those it was compared with
    attended: tuple[Tensor, tuple[Tensor, ...]] | None = None


class LMANet(WindowMethod):
    """Any backbone with a memory. State: keys and values of the last frames (History of pairs)."""

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
        correspondence_weight: float = 0.0,
    ):
        """offsets: of the frames in memory; without any, and not memorize_first, this is the
        single-frame network.

        local=False: global attention. align_weights: query keys begin equal to memory keys.
        always_decode: training decodes every frame of a clip and learns from all labels.
        random_memory (N, W): a training clip has N frames in memory, drawn among the last W.
        head_lr: learning rate of the memory relative to the backbone's. feature_distillation: share
        of a loss that needs no labels. small_key_init: see SMALL_KEYS. correspondence_weight: of a
        loss on attention where clips bring flow. ValueError where the channels do not divide.
        """
        super().__init__(backbone, offsets)
        self.struct = struct
        self.memorize_first = memorize_first
        self.always_decode = always_decode
        self.random_memory = random_memory
        self.head_lr = head_lr
        self.feature_distillation = feature_distillation
        self.small_key_init = small_key_init
        self.correspondence_weight = correspondence_weight
        self.wants_flows = correspondence_weight > 0
        self.key_init = SUPERVISED_SMALL_KEYS if self.wants_flows else SMALL_KEYS
        # What clips leave without a gradient: the decoder that labels first frames alone; with a
        # queue of one frame, keys and values of the second frame of a clip of two; decoders where
        # there is no loss on labels.
        recurrent_or_memory = struct in ("mem_only", "original_kv_fusion")
        self.has_unused_parameters = recurrent_or_memory or feature_distillation == 1
        strategy = FUSIONS[fusion]
        key_channels, value_channels = memory_channels(fusion, backbone.channels)
        self.build_keys(key_channels, value_channels, strategy.value_part > 1, align_weights)
        self.memory_name = "memory_module_local" if local else "memory_module"
        size = corr_size if local else None
        self.add_module(self.memory_name, MemoryRead(size, learnable_constant))
        if struct != "mem_only":
            self.memory_fusion = strategy.build(backbone.channels, value_channels)
        if struct in ("aux_mem_loss", "mem_only"):
            self.decoder_mem = backbone.second_decoder(value_channels)
        if not offsets and not memorize_first:
            self.freeze_memory()

    def build_keys(self, key_channels: int, value_channels: int, convolved: bool, aligned: bool):
        """The layers of keys and values. convolved: values have layers of their own."""
        channels = self.backbone.channels
        own_values = value_channels if convolved else None
        self.kv_M_r4 = KeyValue(channels, key_channels, own_values)
        # mem_only decodes the read alone: the value of the frame is not asked for.
        query_values = None if self.struct == "mem_only" else own_values
        self.kv_Q_r4 = KeyValue(channels, key_channels, query_values)
        if self.small_key_init:
            for part in (self.kv_M_r4, self.kv_Q_r4):
                weight = part.Key.weight
                bound = self.key_init.scale * weight[0].numel() ** -0.5
                nn.init.uniform_(weight, -bound, bound)
        if aligned:
            self.kv_Q_r4.Key.load_state_dict(self.kv_M_r4.Key.state_dict())

    def freeze_memory(self) -> None:
        """--baseline-mode: the memory is there, so that weights fit, and is not trained."""
        for part in self.children():
            if part is not self.backbone:
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
            "correspondence_weight": args.correspondence_loss,
        }
        if args.model_struct == "original_kv_fusion":
            return RecurrentLMANet(backbone, args.offsets, queue=args.stm_queue_size, **options)
        return cls(backbone, args.offsets, **options)

    @property
    def num_outputs(self):
        return self.backbone.num_outputs + (not self.backbone.learned_ignore)

    def training_offsets(self, rng):
        if self.random_memory:
            return drawn_offsets(rng, *self.random_memory)
        return self.offsets

    # The drawing

    def memory_entry(self, encoded):
        return self.kv_M_r4(encoded.last)

    def predict(self, encoded, entries):
        return self.label(self.read_memory(encoded, entries))

    def read_memory(self, features: Features, entries: tuple) -> FrameOutput:
        """One frame, given the (key, value) that earlier ones left, oldest first."""
        if self.memorize_first:
            entries = (*entries, self.memory_entry(features))
        if not entries:
            return FrameOutput(features, features)
        keys, values = zip(*entries, strict=True)
        key, value = self.kv_Q_r4(features.last)
        read = self.memory(key, keys, values)  # (B, V, h, w)
        fused = features
        if self.struct != "mem_only":
            fused = features._replace(last=self.memory_fusion(value, read))
        return FrameOutput(features, fused, value, read, (key, keys))

    def label(self, output: FrameOutput) -> Tensor:
        """-> logits (B, K, h, w)."""
        if self.struct == "mem_only":
            return self.label_read(output)
        return self.decode(output.fused)

    def decode(self, features: Features) -> Tensor:
        return self.with_ignore(self.backbone.decode(features))

    def label_read(self, output: FrameOutput) -> Tensor:
        """-> logits of the second decoder; of the first where nothing was read."""
        if output.read is None:
            return self.decode(output.fused)
        return self.with_ignore(self.decoder_mem(output.read))

    def with_ignore(self, logits: Tensor) -> Tensor:
        """Adds the constant "ignore" output where none is learned.

        It is added before upsampling, as published.
        """
        if self.backbone.learned_ignore:
            return logits
        return torch.cat([logits, torch.zeros_like(logits[:, :1])], 1)

    @property
    def memory(self) -> MemoryRead:
        return self.get_submodule(self.memory_name)

    def forward(self, clip, flows=None):
        """A clip longer than a read is a window as published: consecutive frames, of which
        `offsets` are read."""
        return self.label(self.frame_outputs(self.readable(clip))[-1])

    def readable(self, clip: Tensor) -> Tensor:
        """The frames of a clip that a read uses, and the last."""
        past = clip.shape[1] - 1
        if past <= len(self.offsets):
            return clip
        read = [past + offset for offset in self.startup(past)]
        return clip[:, [*read, past]]

    def frame_outputs(self, clip: Tensor, every: bool = False) -> list[FrameOutput]:
        """What became of the last frame of a clip, or of every frame."""
        frames = clip.unbind(1)
        entries = ()
        found = []
        for t, frame in enumerate(frames, 1):
            features = self.backbone.encode(frame)
            last = t == len(frames)
            if every or last:
                found.append(self.read_memory(features, entries))
            if not last:
                entries = (*entries, self.memory_entry(features))
        return found

    # Training

    def losses(self, clip, labels, flows=None):
        """Cross entropy of the last frame, or with always_decode of all frames.

        With aux_mem_loss half of it is of the read alone. feature_distillation gives part of the
        weight, or all of it, to a loss without labels; correspondence_weight adds a loss on the
        attention of the last frame.
        """
        outputs = self.frame_outputs(self.readable(clip), self.always_decode)
        share = self.feature_distillation
        terms = {}
        if share < 1:
            of_labels = self.label_losses(outputs, labels)
            terms = {name: (1 - share) * loss for name, loss in of_labels.items()}
        if share:
            each = [feature_distillation_loss(output) for output in outputs]
            terms["feature_distillation"] = share * torch.stack(each).mean()
        attended = outputs[-1].attended
        if self.correspondence_weight and flows is not None and attended:
            key, keys = attended
            # With memorize_first the last key is the frame's own: no flow leads to it.
            loss = correspondence_loss(key, keys[: flows.shape[1]], flows, self.memory.size)
            terms["correspondence"] = self.correspondence_weight * loss
        return terms

    def label_losses(self, outputs: list[FrameOutput], labels: Tensor) -> dict[str, Tensor]:
        """What labels say of the frames that were decoded."""
        labels = labels[:, -len(outputs) :].transpose(0, 1).flatten(0, 1)  # (frames B, H, W)
        loss = self.cross_entropy(torch.cat([self.label(output) for output in outputs]), labels)
        if self.struct != "aux_mem_loss":
            return {"ce": loss}
        of_read = torch.cat([self.label_read(output) for output in outputs])
        return {"ce": loss / 2, "memory": self.cross_entropy(of_read, labels) / 2}

    def parameter_groups(self, lr, weight_decay):
        slow = []
        fast = []
        for name, parameter in self.named_parameters():
            if self.small_key_init and ".Key." in name:
                slow.append(parameter)
            if self.feature_distillation == 1 and name.startswith("memory_fusion.bn."):
                fast.append(parameter)
        rates = [
            (self.backbone.parameters(), 1.0),
            (slow, self.head_lr * self.key_init.rate),
            (fast, self.head_lr * SCALE_RATE),
        ]
        return split_rates(self, rates, lr, self.head_lr, weight_decay)

    # For others

    def fp32_modules(self) -> list[nn.Module]:
        """What half precision leaves in float32: keys, since their products are not scaled down."""
        return [module.Key for module in self.modules() if isinstance(module, KeyValue)]

    @torch.no_grad()
    def attention(self, frame: Tensor, state: History, yx: tuple[int, int]) -> Tensor:
        """Where pixel yx of frame (1, 3, H, W) attends in the frames that `step(frame, state)`
        reads -> (T, h, w)."""
        features = self.backbone.encode(frame)
        entries = self.select_entries(state)
        if self.memorize_first:
            entries = (*entries, self.memory_entry(features))
        stride = self.backbone.stride
        return attention_map(
            self.kv_Q_r4.Key(features.last),
            [key for key, _ in entries],
            (yx[0] // stride, yx[1] // stride),
            self.memory.size,
            self.memory.const,
        )

    def key_maps(self):
        return [*self.backbone.key_maps(), LMANET]


def memory_channels(fusion: str, channels: int) -> tuple[int, int]:
    """Channels of keys and values under a fusion; ValueError where `channels` do not divide."""
    strategy = FUSIONS[fusion]
    if channels % strategy.key_part or channels % strategy.value_part:
        raise ValueError(
            f"--fusion-strategy {fusion} makes keys of 1/{strategy.key_part} and values of "
            f"1/{strategy.value_part} of the channels, and {channels} do not divide so: choose "
            "another"
        )
    return channels // strategy.key_part, channels // strategy.value_part


def feature_distillation_loss(output: FrameOutput) -> Tensor:
    """Feature distillation from the frame to what memory makes of it; needs no labels.

    How far the fused features are from the frame's own, and what was read from the frame's value.
    Keys learn where the content of a frame lies in earlier ones, the fusion to pass it on: a new
    memory is soon no worse than the single-frame network it was added to.
    """
    loss = relative_error(output.fused.last, output.features.last)
    if output.read is None:
        return loss
    return loss + relative_error(output.read, output.value)


def relative_error(x: Tensor, target: Tensor) -> Tensor:
    """Squared error of x (B, C, h, w) relative to the variance of each channel of the target."""
    target = target.detach().float()
    error = (x.float() - target).square().mean((0, 2, 3))
    return (error / (target.var((0, 2, 3)) + VARIANCE_FLOOR)).mean()


class RecurrentLMANet(LMANet):
    """original_kv_fusion: memory is written from fused features, so it depends on all frames."""

    recurrent = True

    def __init__(self, backbone, offsets=(-3, -2, -1), *, queue: int = 3, **options):
        """offsets: of the frames of a training clip, consecutive. queue: how many are kept."""
        super().__init__(backbone, offsets, **options)
        self.queue = queue
        # Writes the first frame of a video, which nothing is fused into.
        self.kv_init_r4 = copy.deepcopy(self.kv_M_r4)

    def step(self, frame, state, flow=None, key=None):
        output, state = self.advance(frame, state)
        return self.label(output), state

    def observe(self, frame, state, flow=None, key=None):
        return self.advance(frame, state)[1]

    def advance(self, frame: Tensor, state: History) -> tuple[FrameOutput, History]:
        """The next frame, and the state after it."""
        output = self.read_memory(self.backbone.encode(frame), state.entries)
        write = self.kv_init_r4 if output.read is None else self.kv_M_r4
        return output, state.push(write(output.fused.last), self.queue)

    def frame_outputs(self, clip, every=False):
        state = self.start()
        found = []
        for frame in clip.unbind(1):
            output, state = self.advance(frame, state)
            found.append(output)
        return found if every else found[-1:]

    def readable(self, clip):
        return clip

    def select_entries(self, state, entry=None):
        return state.entries
