"""Published files of SegFormer, and which of the head's two norms a file holds."""

from __future__ import annotations

import re
from collections.abc import Collection

from ..keymaps import BN, KeyMap

WB = r"(?:weight|bias)"
ATTENTION = r"attn\.(?:q|kv|proj|sr|norm)"
MLP = r"mlp\.(?:fc1|dwconv\.dwconv|fc2)"
BLOCK = rf"block[1-4]\.\d+\.(?:norm[12]|{ATTENTION}|{MLP})"
ENCODER = rf"(?:patch_embed[1-4]\.(?:proj|norm)|norm[1-4]|{BLOCK})\.{WB}"
HEAD = (
    rf"(?:linear_c[1-4]\.proj\.{WB}|linear_fuse\.conv\.weight|linear_fuse\.(?:bn|gn)\.{BN}|"
    rf"linear_pred\.{WB})"
)

SEGFORMER = KeyMap(
    "SegFormer (NVIDIA, mmcv)",
    (
        (rf"backbone\.({ENCODER})", r"\1"),
        (rf"decode_head\.({HEAD})", r"\1"),
        (rf"decode_head\.conv_seg\.{WB}", None),
    ),
    covers=r".+",
    back=((r"(linear_.+)", r"decode_head.\1"), (r"(.+)", r"backbone.\1")),
)
# mit_b*.pth, as a start
MIX_TRANSFORMER = KeyMap(
    "Mix Transformer", ((ENCODER, r"\g<0>"), (rf"head\.{WB}", None)), covers=ENCODER
)
SEGFORMER_SMP = KeyMap(
    "SegFormer (segmentation-models)",
    (
        (rf"encoder\.({ENCODER})", r"\1"),
        # counted from the coarsest map
        *(
            (rf"decoder\.mlp_stage\.{4 - stage}\.linear\.({WB})", rf"linear_c{stage}.proj.\1")
            for stage in range(1, 5)
        ),
        (r"decoder\.fuse_stage\.0\.weight", "linear_fuse.conv.weight"),
        (rf"decoder\.fuse_stage\.1\.({BN})", r"linear_fuse.bn.\1"),
        (rf"segmentation_head\.0\.({WB})", r"linear_pred.\1"),
    ),
    covers=r".+",
)

# Names inside a block, ours beside those of transformers: of the files on its hub, and of its code
# since version 5.
IN_BLOCK = (
    ("norm1", "layer_norm_1", "layernorm_before"),
    ("norm2", "layer_norm_2", "layernorm_after"),
    ("attn.q", "attention.self.query", "attention.q_proj"),
    ("attn.kv", "attention.self.kv", "attention.kv_proj"),
    ("attn.sr", "attention.self.sr", "attention.sequence_reduction.sequence_reduction"),
    ("attn.norm", "attention.self.layer_norm", "attention.sequence_reduction.layer_norm"),
    ("attn.proj", "attention.output.dense", "attention.o_proj"),
    ("mlp.fc1", "mlp.dense1", "mlp.fc1"),
    ("mlp.dwconv.dwconv", "mlp.dwconv.dwconv", "mlp.dwconv.dwconv"),
    ("mlp.fc2", "mlp.dense2", "mlp.fc2"),
)
# Keys and values, which we hold as one.
JOINS = (
    (".attention.self.key.", ".attention.self.value.", ".attention.self.kv."),
    (".attention.k_proj.", ".attention.v_proj.", ".attention.kv_proj."),
)


def stage_rules(stage: int) -> list[tuple[str, str]]:
    """The rules of one stage, from 1, which transformers counts from 0."""
    n = stage - 1
    old = r"(?:segformer\.)?encoder"
    new = rf"(?:segformer\.)?stages\.{n}"
    rules = [
        (rf"{old}\.patch_embeddings\.{n}\.proj\.({WB})", rf"patch_embed{stage}.proj.\1"),
        (rf"{new}\.patch_embeddings\.proj\.({WB})", rf"patch_embed{stage}.proj.\1"),
        (rf"{old}\.patch_embeddings\.{n}\.layer_norm\.({WB})", rf"patch_embed{stage}.norm.\1"),
        (rf"{new}\.patch_embeddings\.layer_norm\.({WB})", rf"patch_embed{stage}.norm.\1"),
        (rf"{old}\.layer_norm\.{n}\.({WB})", rf"norm{stage}.\1"),
        (rf"{new}\.layer_norm\.({WB})", rf"norm{stage}.\1"),
    ]
    for ours, first, second in IN_BLOCK:
        name = rf"block{stage}.\1.{ours}.\2"
        rules.append((rf"{old}\.block\.{n}\.(\d+)\.{re.escape(first)}\.({WB})", name))
        rules.append((rf"{new}\.blocks\.(\d+)\.{re.escape(second)}\.({WB})", name))
    return rules


def head_rule(stage: int) -> tuple[str, str]:
    """Of the layer that projects the map of a stage."""
    published = rf"decode_head\.(?:linear_c|linear_projections)\.{stage - 1}\.proj\.({WB})"
    return published, rf"linear_c{stage}.proj.\1"


ENCODER_RULES = tuple(rule for stage in range(1, 5) for rule in stage_rules(stage))
SEGFORMER_TRANSFORMERS = KeyMap(
    "SegFormer (transformers)",
    (
        *ENCODER_RULES,
        *map(head_rule, range(1, 5)),
        (r"decode_head\.linear_fuse\.weight", "linear_fuse.conv.weight"),
        (rf"decode_head\.batch_norm\.({BN})", r"linear_fuse.bn.\1"),
        (rf"decode_head\.classifier\.({WB})", r"linear_pred.\1"),
    ),
    covers=r".+",
    joins=JOINS,
)
# Its ImageNet classifier, as a start
MIX_TRANSFORMER_TRANSFORMERS = KeyMap(
    "Mix Transformer (transformers)",
    (*ENCODER_RULES, (rf"classifier\.{WB}", None)),
    covers=ENCODER,
    joins=JOINS,
)
KEY_MAPS = (
    SEGFORMER,
    SEGFORMER_TRANSFORMERS,
    SEGFORMER_SMP,
    MIX_TRANSFORMER,
    MIX_TRANSFORMER_TRANSFORMERS,
)

GROUP_NORM = re.compile(r".*\blinear_fuse\.gn\.weight")
BATCH_NORM = re.compile(r".*\b(?:linear_fuse\.bn|decode_head\.batch_norm|fuse_stage\.1)\.weight")


def norm_of(keys: Collection[str]) -> str | None:
    """The head's norm in a file with these keys: gn, bn, or None where it holds no head."""
    if any(map(GROUP_NORM.fullmatch, keys)):
        return "gn"
    if any(map(BATCH_NORM.fullmatch, keys)):
        return "bn"
    return None
