"""The GPU baseline: local attention as three unfused kernels per remembered frame.

Written from a description of the LMANet paper's code. Per frame, both maps are copied into
zero-filled padded (H, W, C) buffers. One block of 32 threads per pixel correlates it with its
window: the threads stride over channels and the first of them sums up. After one softmax over the
volumes of all frames, one thread per channel and pixel adds up P^2 weighted values. The second
barrier per tap is ours: without it the first thread may read sums that others have begun to clear.
Not measured yet: written without a GPU.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

SOURCE = r"""
extern "C" __global__ void pad(const float* x, float* padded, int C, int H, int W, int r) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= C * H * W) return;
    int c = i / (H * W), y = i / W % H, x_ = i % W;
    padded[((long)(y + r) * (W + 2 * r) + x_ + r) * C + c] = x[i];
}
extern "C" __global__ void correlate(
    const float* q, const float* k, float* volume, int C, int H, int W, int r) {
    __shared__ float sums[32];
    int x = blockIdx.x, y = blockIdx.y, lane = threadIdx.x, P = 2 * r + 1, width = W + 2 * r;
    const float* pixel = q + ((long)(y + r) * width + x + r) * C;
    for (int tap = 0; tap < P * P; ++tap) {
        const float* other = k + ((long)(y + tap / P) * width + x + tap % P) * C;
        float sum = 0;
        for (int c = lane; c < C; c += 32) sum += pixel[c] * other[c];
        sums[lane] = sum;
        __syncthreads();
        if (lane == 0) {
            float total = 0;
            for (int i = 0; i < 32; ++i) total += sums[i];
            volume[((long)tap * H + y) * W + x] = total;
        }
        __syncthreads();
    }
}
extern "C" __global__ void gather(
    const float* weights, const float* v, float* out, int V, int H, int W, int r) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= V * H * W) return;
    int c = i / (H * W), y = i / W % H, x = i % W, P = 2 * r + 1, width = W + 2 * r;
    float sum = 0;
    for (int tap = 0; tap < P * P; ++tap) {
        long cell = (long)(y + tap / P) * width + x + tap % P;
        sum += weights[((long)tap * H + y) * W + x] * v[cell * V + c];
    }
    out[i] = sum;
}
"""


THREADS = 256  # of a block, but for `correlate`
WARP = 32  # threads that correlate one pixel


@lru_cache(maxsize=1)
def kernels():
    import cupy

    module = cupy.RawModule(code=SOURCE)
    return {name: module.get_function(name) for name in ("pad", "correlate", "gather")}


def launch(name: str, grid: tuple, block: int, tensors: tuple[Tensor, ...], *sizes: int) -> None:
    """Start a kernel on the current stream of the tensors' device."""
    import cupy

    device = tensors[0].device
    stream = torch.cuda.current_stream(device)
    addresses = [np.uintp(x.data_ptr()) for x in tensors]
    arguments = (*addresses, *map(np.int32, sizes))
    with cupy.cuda.Device(device.index), cupy.cuda.ExternalStream(stream.cuda_stream):
        kernels()[name](grid, (block,), arguments)


def blocks_for(x: Tensor) -> tuple[int]:
    """A grid with a thread per number."""
    return (-(-x.numel() // THREADS),)  # rounded up


def padded(x: Tensor, radius: int) -> Tensor:
    """(1, C, H, W) -> (H + 2r, W + 2r, C)."""
    x = x.contiguous()
    channels, height, width = x.shape[1:]
    out = x.new_zeros(height + 2 * radius, width + 2 * radius, channels)
    launch("pad", blocks_for(x), THREADS, (x, out), channels, height, width, radius)
    return out


def unfused(query: Tensor, keys: list[Tensor], values: list[Tensor], size: int) -> Tensor:
    """query (1, C, H, W), T keys, T values, float32 on a GPU -> (1, V, H, W)."""
    volumes = torch.cat([volume(query, key, size) for key in keys])  # (T P^2, H, W)
    # One softmax over all frames
    weights = volumes.softmax(0).unflatten(0, (len(keys), size**2))
    read = 0
    for weight, value in zip(weights, values, strict=True):
        read = read + weighted_sum(weight.contiguous(), value, size // 2)
    return read


def volume(query: Tensor, key: Tensor, size: int) -> Tensor:
    """Logits (P^2, H, W) of one frame."""
    radius = size // 2
    channels, height, width = query.shape[1:]
    out = query.new_zeros(size**2, height, width)
    # As described, the query is copied for every frame as well
    maps = (padded(query, radius), padded(key, radius), out)
    launch("correlate", (width, height), WARP, maps, channels, height, width, radius)
    return out


def weighted_sum(weights: Tensor, value: Tensor, radius: int) -> Tensor:
    """weights (P^2, H, W), value (1, V, H, W) -> (1, V, H, W)."""
    channels, height, width = value.shape[1:]
    out = torch.zeros_like(value, memory_format=torch.contiguous_format)
    maps = (weights, padded(value, radius), out)
    launch("gather", blocks_for(out), THREADS, maps, channels, height, width, radius)
    return out
