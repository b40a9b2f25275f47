"""The Law, for any method: in eval mode, stepping through a video gives what `forward` gives on
each clip of it."""

from __future__ import annotations

import torch


def video(
    model, frames: int, seed: int, size: tuple[int, int] = (37, 53), batch: int = 2
) -> torch.Tensor:
    """(batch, frames, 3, H, W): random, of a size near `size` that the model takes."""
    generator = torch.Generator().manual_seed(seed)
    size = [model.size_rule.fit(side) for side in size]
    return torch.rand(batch, frames, 3, *size, generator=generator)


@torch.no_grad()
def assert_stream_equals_clip(
    model,
    tolerance: float = 1e-5,
    size: tuple[int, int] = (37, 53),
    device: torch.device | str = "cpu",
) -> None:
    """Two interleaved videos of batch 2, twice the oldest offset and three frames more."""
    model.eval()
    length = 2 * -min(model.offsets, default=0) + 3
    videos = [video(model, length, seed, size).to(device) for seed in (1, 2)]
    states = [model.start(), model.start()]
    for t in range(length):
        for v, frames in enumerate(videos):
            logits, states[v] = model.step(frames[:, t], states[v], key=t == 0)
            expected = model(clip_of(model, frames, t))
            scale = expected.abs().max().clamp(min=1e-3)
            assert (logits - expected).abs().max() <= tolerance * scale, (
                f"frame {t} of video {v} differs"
            )


def clip_of(model, frames: torch.Tensor, t: int) -> torch.Tensor:
    """The clip that frame t is labelled from: a window of entries, or for a recurrent method all
    frames so far."""
    if not model.recurrent:
        return frames[:, [t + offset for offset in model.startup(min(t, model.reach))] + [t]]
    return frames[:, : t + 1]
