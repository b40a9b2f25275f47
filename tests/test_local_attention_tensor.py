"""Tensor cores in the CUDA kernels of local attention.

They are emulated on a CPU, lane by lane, with products laid out as PTX defines them.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import (
    NARROW,
    Build,
    Memory,
    assert_equal_to,
    exact,
    needs_gpu,
    needs_gxx,
    on_gpu,
    read_leaves,
    reads_on_host,
)
from models.ops import local_attention, local_attention_cupy
from models.ops.local_attention_cupy import laid_out
from models.ops.read_memory import products_of, read_by_kernels, read_memory

TF32 = Build(12, 520, 7)
HALF = Build(16, 200, 5, "Half", "Half")
BFLOAT = Build(4, 136, 31, "float", "Bfloat")
ON_HOST = [  # a build and the problems it is to solve: shape of Memory.random, constant
    # Two blocks of channels, the second of them ragged
    (TF32, [((1, 3, 10, 9), 0.3)]),
    # Half of the warps' rows each, channels beyond the last
    (HALF, [((2, 2, 5, 9), None), ((1, 1, 9, 17), 0.3)]),
    # A window of more cells than one visit has, or the map
    (BFLOAT, [((1, 2, 9, 11), None), ((1, 1, 2, 40), 0.2)]),
]
# What rounding loses, relative to the largest number that is read
LOSES = {"float": 1e-3, "Half": 2e-3, "Bfloat": 1e-2}
BARRIER = "__syncthreads();\n            accumulate(at, held, sums);"


def rounded(x: Tensor, kind: str) -> Tensor:
    """As products take it.

    tf32 has 10 bits of a float's mantissa; numbers half way between two are rounded away from zero.
    """
    if kind != "float":
        return x.to(NARROW[kind]).double()
    bits = x.float().contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).double()


def visits(build: Build, memory: Memory):
    """What a pixel meets at once, in the kernel's order.

    -> frame, dy, and which of the dx (P, W) belong to the visit.
    """
    radius = build.window // 2
    width = memory.query.shape[3]
    # Of a cell in what the tile sees
    column = torch.arange(build.window)[:, None] + torch.arange(width) % 8
    for frame in range(len(memory.keys)):
        for dy in range(-radius, radius + 1):
            for first in range(0, 8 + build.window - 1, 32):
                yield frame, dy, column // 32 == first // 32


def rounded_read(build: Build, memory: Memory) -> Tensor:
    """(B, H, W, V) in float64, with values and weights rounded for their products as in the kernel.

    Weights are rounded relative to the largest logit so far. Their sum is of those that are not
    rounded.
    """
    batch, _, height, width = memory.query.shape
    radius = build.window // 2
    border = (radius,) * 4
    keys = [F.pad(x.double(), border) for x in memory.keys]
    values = [F.pad(rounded(x, build.value_type), border) for x in memory.values]
    inside = F.pad(torch.ones(height, width, dtype=torch.bool), border)

    def row(x, dy):
        """(..., P, H, W): what lies at dy and every dx."""
        line = x[..., radius + dy : radius + dy + height, :]
        return torch.stack([line[..., dx : dx + width] for dx in range(build.window)], -3)

    outside = len(keys) * sum((~row(inside, dy)).sum(0) for dy in range(-radius, radius + 1))
    largest = torch.where(outside > 0, 0.0, -100.0).double().expand(batch, height, width)
    constant = torch.tensor(-torch.inf).double()  # without one: takes no part
    if memory.constant is not None:
        constant = torch.tensor(memory.constant).double()
    largest = largest.maximum(constant)
    total = outside * torch.exp(-largest) + torch.exp(constant - largest)
    read = torch.zeros(batch, build.values, height, width, dtype=torch.float64)
    for frame, dy, taps in visits(build, memory):
        logits = torch.einsum("bchw,bcphw->bphw", memory.query.double(), row(keys[frame], dy))
        logits = logits.masked_fill(~(row(inside, dy) & taps[:, None]), -torch.inf)
        before = largest
        largest = largest.maximum(logits.amax(1))
        factor = torch.exp(before - largest)
        weights = torch.exp(logits - largest[:, None])
        total = total * factor + weights.sum(1)
        weights = rounded(weights.float(), build.value_type)
        parts = torch.einsum("bphw,bcphw->bchw", weights, row(values[frame], dy))
        read = read * factor[:, None] + parts
    return (read / total[:, None]).movedim(1, -1)


def of_steps(build: Build, *shape) -> Memory:
    """Logits are multiples of 1/64, exact in any order of summing.

    So the rounding of weights does not depend on the last bit of a sum.
    """
    memory = Memory.random(build, *shape, scale=0.7)
    query, *keys = [(8 * x).round() / 8 for x in (memory.query, *memory.keys)]
    return memory._replace(query=query, keys=keys)


@needs_gxx
@pytest.mark.parametrize("build, problems", ON_HOST, ids=str)
def test_nothing_is_rounded_but_weights_and_values_whatever_the_order_of_threads(
    host, build, problems
):
    for shape in problems:
        memory = of_steps(build, *shape)
        program = host(build)
        forwards = reads_on_host(program, build, memory)
        backwards = reads_on_host(program, build, memory, backwards=True)
        assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))
        exactly, softmax, by_products, its_softmax = forwards
        assert torch.equal(softmax, its_softmax)
        expected = rounded_read(build, memory)
        if build.value_type == "float":
            assert_equal_to([by_products], [expected], 2e-6)
        else:
            # Results are stored in the type, too: the same, but where one is close to half a step
            expected = expected.to(NARROW[build.value_type]).double()
            assert (by_products != expected).double().mean() < 2e-3
        truth = exact(build, memory)[0]
        assert_equal_to([by_products], [truth], LOSES[build.value_type])
        exact_loses = LOSES | {"float": 1e-5}
        assert_equal_to([exactly], [truth], exact_loses[build.value_type])


@needs_gxx
@pytest.mark.parametrize("build", [TF32, HALF, BFLOAT], ids=str)
def test_a_read_of_one_cell_is_its_value(host, build):
    memory = Memory.random(build, (1, 2, 4, 9))
    query = torch.full_like(memory.query, 8)
    keys = [torch.zeros_like(x) for x in memory.keys]
    keys[1][:, :, 1, 4] = 64
    found = reads_on_host(host(build), build, memory._replace(query=query, keys=keys))[2]
    near = ((torch.arange(9) - 4).abs() <= build.window // 2).expand(4, 9)
    value = rounded(memory.values[1][0, :, 1, 4], build.value_type)
    assert torch.equal(found[0, near].double(), value.expand(int(near.sum()), -1))
    others = found[0, ~near].double()
    assert near.all() or not torch.equal(others, value.expand_as(others))


@needs_gxx
def test_no_warp_takes_weights_that_another_still_writes(host):
    build = Build(4, 136, 3, "float", "Half")
    memory = of_steps(build, (1, 2, 9, 9))
    found = reads_on_host(host(build, "thread"), build, memory)[2]
    assert_equal_to([found], [exact(build, memory)[0]], LOSES["Half"])
    without = (BARRIER, BARRIER.split("\n")[1])
    with pytest.raises(RuntimeError, match="data race"):
        reads_on_host(host(build, "thread", without), build, memory)


# What chooses


@pytest.fixture
def switch():
    """To say how PyTorch may multiply float32, as users do; put back after."""
    before = torch.backends.cuda.matmul.fp32_precision

    def use(precision):
        torch.backends.cuda.matmul.fp32_precision = precision

    yield use
    torch.backends.cuda.matmul.fp32_precision = before


def test_float32_is_exact_unless_pytorch_may_round_it_however_it_was_told(switch):
    assert products_of(torch.float32) == "exact"
    assert {products_of(dtype) for dtype in (torch.float16, torch.bfloat16)} == {"tensor"}
    expected = {"high": "tensor", "medium": "tensor", "highest": "exact"}
    for told in ("high", "highest", "medium", "highest"):
        torch.set_float32_matmul_precision(told)
        assert products_of(torch.float32) == expected[told]
    switch("tf32")
    assert products_of(torch.float32) == "tensor"
    switch("ieee")
    assert products_of(torch.float32) == "exact"


@needs_gxx
def test_the_switch_selects_the_kernel_and_gradients_stay_as_they_are(on_cpu, switch):
    build = Build(4, 132, 3)
    launches = on_cpu(build)
    memory = Memory.random(build, (1, 2, 5, 9), scale=0.5)
    leaves = memory.leaves()

    def read():
        found = read_leaves(leaves, 2, 3, "cupy")
        return [found, *torch.autograd.grad((found * memory.gradient).sum(), leaves)]

    exactly = read()
    switch("tf32")
    by_products = read()
    reads = [name for name in launches if name.startswith("read")]
    assert reads == ["read_memory", "read_memory_tensor"]
    truth = exact(build, memory)[0].movedim(-1, 1)
    assert_equal_to(exactly[:1], [truth], 1e-6)
    assert_equal_to(by_products[:1], [truth], LOSES["float"])
    assert not torch.equal(exactly[0], by_products[0])
    assert all(torch.equal(a, b) for a, b in zip(exactly[1:], by_products[1:], strict=True))


@needs_gxx
def test_few_channels_are_read_exactly_whatever_is_allowed(on_cpu, switch):
    build = Build(4, 8, 3)
    launches = on_cpu(build)
    memory = Memory.random(build, (1, 2, 5, 9))
    switch("tf32")
    read = local_attention(memory.query, memory.keys, memory.values, 3, backend="cupy")
    assert launches == ["read_memory"]
    assert_equal_to([read.movedim(1, -1)], exact(build, memory)[:1], 1e-6)


@needs_gxx
def test_torch_compile_and_opcheck_take_the_rounded_read(on_cpu, switch):
    build = Build(4, 132, 3)
    launches = on_cpu(build)
    memory = Memory.random(build, (1, 2, 5, 9))
    query, keys, values = laid_out(memory.query, memory.keys, memory.values)
    for x in (query, *keys, *values):
        x.requires_grad_()
    torch.library.opcheck(read_memory, (query, keys, values, 3, None), {"products": "tensor"})

    @torch.compile(backend="aot_eager", fullgraph=True)
    def read(query, *maps):
        kernels = local_attention_cupy
        return read_by_kernels(kernels, query, maps[:2], maps[2:], size=3, constant=None)

    maps = [memory.query, *memory.keys, *memory.values]
    kernel = {"ieee": "read_memory", "tf32": "read_memory_tensor"}
    for told in ("ieee", "tf32", "ieee"):
        switch(told)
        launches.clear()
        read(*maps)
        assert launches == [kernel[told]]


# On a GPU

ON_GPU = [  # channels of keys and values, window, shape, constant
    ((32, 512, 21), (1, 2, 33, 29), None),
    ((128, 2048, 21), (1, 3, 17, 33), 0.3),
    ((16, 200, 7), (1, 2, 20, 9), None),
]


@needs_gpu
@pytest.mark.parametrize("kind", ["float", "Half", "Bfloat"])
@pytest.mark.parametrize("sizes, shape, constant", ON_GPU)
def test_on_a_gpu_tensor_cores_round_no_more_than_their_type(sizes, shape, constant, kind, switch):
    build = Build(*sizes, kind, kind)
    memory = Memory.random(build, shape, constant, scale=build.keys**-0.25)
    switch("tf32")
    found = [on_gpu(build, memory, NARROW[kind]) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    truth = exact(build, memory)
    assert_equal_to(found[0][:1], [truth[0]], LOSES[kind])
    gradients_lose = {"float": 1e-5, "Half": 2e-2, "Bfloat": 2e-2}
    assert_equal_to(found[0][1:], truth[1:], gradients_lose[kind])
    if kind == "float":
        switch("ieee")
        assert_equal_to(on_gpu(build, memory)[:1], [truth[0]], 1e-5)


@needs_gpu
@pytest.mark.parametrize("kind", ["float", "Half", "Bfloat"])
def test_on_a_gpu_both_reads_save_the_same_softmax_and_products_round_as_they_do_here(kind):
    build = Build(32, 512, 21, kind, kind)
    memory = of_steps(build, (1, 2, 33, 29))
    query, *others = (
        x.to("cuda", NARROW[kind]) for x in (memory.query, *memory.keys, *memory.values)
    )
    maps = laid_out(query, others[:2], others[2:])
    read, softmax = read_memory(*maps, 21, None, products="exact")
    by_products, its_softmax = read_memory(*maps, 21, None, products="tensor")
    assert torch.equal(softmax, its_softmax) and not torch.equal(read, by_products)
    expected = rounded_read(build, memory)
    tolerance = {"float": 1e-4, "Half": 1e-3, "Bfloat": 5e-3}
    assert_equal_to([by_products.cpu()], [expected], tolerance[kind])
