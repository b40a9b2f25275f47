"""Scene cuts: frames that show something else than the frame before."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .context import FrameContext

SIZE = (48, 64)  # of the copies that are compared
PARTS = (3, 4)  # each of 16 x 16 pixels
BINS = 8  # of the histogram of a part
# The peak of a phase correlation: 0.1 to 0.19 over cuts (two that are in road videos, and between
# five of these), 0.39 to 1 under drives, pans of up to 30 % of the width, flashes and noise.
RELATED = 0.28
FAINT = 0.01  # of the mean: frequencies of less power have phases of noise
FLAT = 0.02  # standard deviation of brightness below which a frame shows nothing


class SceneCuts:
    """A cut is where brightness is distributed otherwise and no displacement explains the frame.

    Either alone errs. A flash changes histograms, and a fast pan. Phase correlation (Kuglin and
    Hines, 1975) looks at neither brightness nor contrast and finds a displacement of the whole
    picture, but loses it in noise of the dark, in blur and in a strong zoom, which leave
    histograms of the parts of a frame nearly as they were.
    """

    def __init__(self, threshold: float = 0.35):
        """threshold: the difference of histograms, a share of the pixels; 1: never a cut.

        It is 0.43 to 0.85 over those cuts, 0.3 at most where correlation alone is lost.
        """
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
    power = spectra.abs()
    damped = power + FAINT * power.mean((1, 2), keepdim=True) + 1e-9
    peaks = torch.fft.irfft2(spectra / damped, now.shape[-2:]).flatten(1).max(1).values
    # What a displaced frame would reach.
    return peaks / (power / damped).mean((1, 2)).clamp(min=1e-3)


def windowed(frames: Tensor) -> Tensor:
    """Without the mean, and fading out to the borders: these would correlate with each other."""
    centred = frames - frames.mean((1, 2), keepdim=True)
    return centred * window(*frames.shape[-2:]).to(frames.device)


@lru_cache(maxsize=4)
def window(height: int, width: int) -> Tensor:
    down = torch.hann_window(height, periodic=False)
    return down[:, None] * torch.hann_window(width, periodic=False)


def histogram_difference(now: Tensor, before: Tensor) -> Tensor:
    """(B, *SIZE) twice -> (B,): the share of pixels whose brightness would have to change.

    Part by part, so that what is bright has to stay where it was, roughly.
    """
    return (histograms(now) - histograms(before)).abs().sum(2).mean(1) / 2


def histograms(frames: Tensor) -> Tensor:
    """(B, *SIZE) in [0, 1] -> (B, parts, BINS): shares of the pixels of each part."""
    rows, columns = PARTS
    parts = frames.unflatten(1, (rows, -1)).unflatten(3, (columns, -1))  # (B, rows, h, columns, w)
    pixels = parts.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)  # (B, parts, h * w)
    bins = (pixels * BINS).long().clamp(0, BINS - 1)
    counts = pixels.new_zeros(len(frames), rows * columns, BINS)
    counts.scatter_add_(2, bins, torch.ones_like(pixels))
    return counts / pixels.shape[2]
