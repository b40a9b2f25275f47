"""The weights of a SegFormer under the names that other programs save them by."""

from __future__ import annotations

import re

import torch
from torch import Tensor

# In order: the first that occurs in a name is exchanged. Of files on transformers' hub.
HUB = (
    ("attn.q.", "attention.self.query."),
    ("attn.kv.", "attention.self.kv."),
    ("attn.proj.", "attention.output.dense."),
    ("attn.sr.", "attention.self.sr."),
    ("attn.norm.", "attention.self.layer_norm."),
    ("norm1.", "layer_norm_1."),
    ("norm2.", "layer_norm_2."),
    ("mlp.fc1.", "mlp.dense1."),
    ("mlp.fc2.", "mlp.dense2."),
)
# Of the modules of transformers 5.
RECENT = (
    ("attn.q.", "attention.q_proj."),
    ("attn.kv.", "attention.kv_proj."),
    ("attn.proj.", "attention.o_proj."),
    ("attn.sr.", "attention.sequence_reduction.sequence_reduction."),
    ("attn.norm.", "attention.sequence_reduction.layer_norm."),
    ("norm1.", "layernorm_before."),
    ("norm2.", "layernorm_after."),
)
PARTS = {  # of keys and values
    "self.kv.": ("self.key.", "self.value."),
    "kv_proj.": ("k_proj.", "v_proj."),
}


def mmcv_names(backbone) -> dict[str, Tensor]:
    """As NVIDIA's and MRCFA's single-frame networks are saved, but for `conv_seg`."""
    return {
        ("decode_head." if key.startswith("linear_") else "backbone.") + key: value
        for key, value in backbone.state_dict().items()
    }


def smp_names(backbone) -> dict[str, Tensor]:
    """As segmentation-models saves them."""
    heads = {
        r"linear_c(\d)\.proj": lambda match: f"decoder.mlp_stage.{4 - int(match[1])}.linear",
        r"linear_fuse\.conv": "decoder.fuse_stage.0",
        r"linear_fuse\.bn": "decoder.fuse_stage.1",
        r"linear_pred": "segmentation_head.0",
    }
    state = {}
    for key, value in backbone.state_dict().items():
        name = key
        for pattern, published in heads.items():
            name = re.sub(pattern, published, name)
        state[name if name != key else f"encoder.{key}"] = value
    return state


def transformers_names(backbone, *, recent: bool) -> dict[str, Tensor]:
    """As transformers saves them; recent: as its modules have been called since version 5."""
    state = {}
    for key, value in backbone.state_dict().items():
        name = head_name(key, recent) or encoder_name(key, recent)
        whole = next((part for part in PARTS if part in name), None)
        if whole is None:
            state[name] = value
            continue
        for part, half in zip(PARTS[whole], value.chunk(2), strict=True):
            state[name.replace(whole, part)] = half
    return state


def head_name(key: str, recent: bool) -> str | None:
    """None for what belongs to the encoder."""
    projection = re.fullmatch(r"linear_c(\d)\.(.+)", key)
    if projection:
        layers = "linear_projections" if recent else "linear_c"
        return f"decode_head.{layers}.{int(projection[1]) - 1}.{projection[2]}"
    for ours, theirs in (
        ("linear_fuse.conv", "linear_fuse"),
        ("linear_fuse.bn", "batch_norm"),
        ("linear_pred", "classifier"),
    ):
        if key.startswith(ours):
            return f"decode_head.{key.replace(ours, theirs)}"
    return None


def encoder_name(key: str, recent: bool) -> str:
    kind, stage, rest = re.fullmatch(r"(patch_embed|block|norm)(\d)\.(.+)", key).groups()
    n = int(stage) - 1
    if kind == "patch_embed":
        rest = rest.replace("norm.", "layer_norm.")
        if recent:
            return f"segformer.stages.{n}.patch_embeddings.{rest}"
        return f"segformer.encoder.patch_embeddings.{n}.{rest}"
    if kind == "norm":
        if recent:
            return f"segformer.stages.{n}.layer_norm.{rest}"
        return f"segformer.encoder.layer_norm.{n}.{rest}"
    for ours, theirs in RECENT if recent else HUB:
        if ours in rest:
            rest = rest.replace(ours, theirs)
            break
    if recent:
        return f"segformer.stages.{n}.blocks.{rest}"
    return f"segformer.encoder.block.{n}.{rest}"


def random_state(backbone) -> None:
    """Weights with which every entry shows, batch norm's statistics too."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for key, value in backbone.state_dict().items():
            if value.dtype == torch.float32:
                value.add_(0.05 * torch.randn(value.shape, generator=generator))
            if key.endswith("running_var"):
                value.abs_()
