"""The GPU baseline: local attention as three unfused kernels per remembered frame, as LMANet's paper code is described.

Written from that description. Per frame: both maps are copied into zero-filled padded (H, W, C) buffers; one block of
32 threads per pixel correlates it with its window, the threads striding over channels and the first of them summing
up; after one softmax over the volumes of all frames, one thread per channel and pixel adds up P^2 weighted values.
The second barrier per tap is ours: without it the first thread may read sums that others have begun to clear.
Not measured yet: written without a GPU.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SOURCE = r"""
extern "C" __global__ void pad(const float* x, float* padded, int C, int H, int W, int r) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= C * H * W) return;
    int c = i / (H * W), y = i / W % H, x_ = i % W;
    padded[((long)(y + r) * (W + 2 * r) + x_ + r) * C + c] = x[i];
}
extern "C" __global__ void correlate(const float* q, const float* k, float* volume, int C, int H, int W, int r) {
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
extern "C" __global__ void gather(const float* weights, const float* v, float* out, int V, int H, int W, int r) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= V * H * W) return;
    int c = i / (H * W), y = i / W % H, x = i % W, P = 2 * r + 1, width = W + 2 * r;
    float sum = 0;
    for (int tap = 0; tap < P * P; ++tap)
        sum += weights[((long)tap * H + y) * W + x] * v[((long)(y + tap / P) * width + x + tap % P) * V + c];
    out[i] = sum;
}
"""


@lru_cache(maxsize=1)
def kernels():
    import cupy

    module = cupy.RawModule(code=SOURCE)
    return {name: module.get_function(name) for name in ("pad", "correlate", "gather")}


def launch(name: str, grid: tuple, block: int, tensors: tuple[Tensor, ...], *sizes: int) -> None:
    """On the current stream of the tensors' device."""
    import cupy
    import numpy as np

    stream = torch.cuda.current_stream(tensors[0].device)
    with cupy.cuda.Device(tensors[0].device.index), cupy.cuda.ExternalStream(stream.cuda_stream):
        kernels()[name](
            grid, (block,), (*(np.uintp(x.data_ptr()) for x in tensors), *map(np.int32, sizes))
        )


def padded(x: Tensor, radius: int) -> Tensor:
    """(1, C, H, W) -> (H + 2r, W + 2r, C)."""
    x = x.contiguous()
    channels, height, width = x.shape[1:]
    out = x.new_zeros(height + 2 * radius, width + 2 * radius, channels)
    launch("pad", (-(-x.numel() // 256),), 256, (x, out), channels, height, width, radius)
    return out


def unfused(query: Tensor, keys: list[Tensor], values: list[Tensor], size: int) -> Tensor:
    """query (1, C, H, W), T keys, T values, float32 on a GPU -> (1, V, H, W)."""
    radius, (channels, height, width) = size // 2, query.shape[1:]
    volumes = []
    for key in keys:
        q, k, volume = (
            padded(query, radius),
            padded(key, radius),
            query.new_zeros(size**2, height, width),
        )
        launch("correlate", (width, height), 32, (q, k, volume), channels, height, width, radius)
        volumes.append(volume)
    weights = torch.cat(volumes).softmax(0).unflatten(0, (len(keys), size**2))
    read = 0
    for part, value in zip(weights, values, strict=True):
        v, out = (
            padded(value, radius),
            torch.zeros_like(value, memory_format=torch.contiguous_format),
        )
        launch(
            "gather",
            (-(-out.numel() // 256),),
            256,
            (part.contiguous(), v, out),
            value.shape[1],
            height,
            width,
            radius,
        )
        read = read + out
    return read
