"""Scene cuts: frames that show something else than the frame before."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .context import FrameContext

SIZE = (48, 64)  # of the copies that are compared
BINS = 32  # of a histogram of brightness
# The peak of a phase correlation: 0.08 to 0.15 over cuts between five road videos, 0.3 to 1 under
# pans of up to 30 % of the width, flashes, and eight frames of a drive left out.
RELATED = 0.22
FLAT = 0.02  # standard deviation of brightness below which a frame shows nothing


class CutMeasures(NamedTuple):
    """Each of (B,)."""

    difference: Tensor  # of the histograms, 0 to 1
    correlation: Tensor  # the peak of the phase correlation, 0 to 1


class SceneCuts:
    """A cut is where brightness is distributed otherwise and no displacement explains the frame.

    Either alone errs: a flash changes the histogram, a fast pan the pixels. Phase correlation
    (Kuglin and Hines, 1975) looks at neither brightness nor contrast, and finds a displacement of
    the whole picture; zooming leaves the histogram nearly as it was.
    """

    def __init__(self, threshold: float = 0.25):
        """threshold: the difference of histograms, a share of the pixels; 1: never a cut."""
        self.threshold = threshold

    def measure(self, context: FrameContext) -> float:
        """How sure a cut is, to be compared with `threshold`; 0 where frames are related.

        Of a batch of videos the largest.
        """
        if context.small_before is None or self.threshold >= 1:
            return 0.0
        now = compared(context.small)
        before = compared(context.small_before)
        # A frame without contrast, in a flash or between fades, has no scene of its own.
        shows = now.flatten(1).std(1) > FLAT
        unrelated = shows & (phase_correlation(now, before) < RELATED)
        if not unrelated.any():
            return 0.0
        return float((histogram_difference(now, before) * unrelated).max())


def compared(small: Tensor) -> Tensor:
    """(B, h, w) -> (B, *SIZE)."""
    return F.interpolate(small[:, None].float(), SIZE, mode="area")[:, 0]


def phase_correlation(now: Tensor, before: Tensor) -> Tensor:
    """(B, h, w) twice -> (B,): the highest peak, 1 for a frame that is displaced as a whole."""
    spectra = torch.fft.rfft2(windowed(now)) * torch.fft.rfft2(windowed(before)).conj()
    phases = spectra / (spectra.abs() + 1e-6)
    return torch.fft.irfft2(phases, now.shape[-2:]).flatten(1).max(1).values


def windowed(frames: Tensor) -> Tensor:
    """Without the mean, and fading out to the borders: these would correlate with each other."""
    centred = frames - frames.mean((1, 2), keepdim=True)
    return centred * window(*frames.shape[-2:]).to(frames.device)


@lru_cache(maxsize=4)
def window(height: int, width: int) -> Tensor:
    down = torch.hann_window(height, periodic=False)
    return down[:, None] * torch.hann_window(width, periodic=False)


def histogram_difference(now: Tensor, before: Tensor) -> Tensor:
    """(B, h, w) twice -> (B,): the share of pixels whose brightness would have to change."""
    return (histogram(now) - histogram(before)).abs().sum(1) / 2


def histogram(frames: Tensor) -> Tensor:
    """(B, h, w) in [0, 1] -> (B, BINS): shares of the pixels."""
    bins = (frames.flatten(1) * BINS).long().clamp(0, BINS - 1)  # (B, h * w)
    counts = torch.zeros(len(frames), BINS, device=frames.device)
    counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=counts.dtype))
    return counts / bins.shape[1]
