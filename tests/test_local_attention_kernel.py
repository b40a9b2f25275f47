"""The CUDA kernels of local attention.

They are built for a CPU, where each of their threads is emulated; they are compiled for GPUs; and
they run on a GPU if there is one.
"""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from kernels import (
    Build,
    Memory,
    assert_compiles_whole,
    assert_equal_to,
    compile_by_nvrtc,
    compile_for_gpu,
    exact,
    find_nvrtc,
    needs_gpu,
    needs_gxx,
    needs_nvcc,
    on_gpu,
    outcome,
    read_leaves,
    run_on_host,
)
from models.ops import cuda_kernels, local_attention, local_attention_cupy, read_memory
from models.ops.local_attention import choose

ERF = Build(16, 64, 21)
PSP101 = Build(128, 2048, 21)
PSP18 = Build(32, 512, 21)
HALF = Build(16, 64, 9, "Bfloat", "Half")
ON_HOST = [  # a build and the problems it is to solve: shape of Memory.random, constant
    (ERF, [((1, 4, 6, 9), 0.3), ((2, 1, 5, 9), None)]),
    # Two parts, ragged channels
    (Build(12, 100, 5), [((1, 2, 9, 9), None), ((2, 3, 1, 3), 0.5)]),
    # Four parts, blocks of values, more channels than stay resident
    (Build(20, 520, 7), [((1, 2, 5, 9), 0.3)]),
    # Blocks of keys
    (Build(132, 68, 3), [((2, 1, 9, 8), None)]),
    # A window of more cells than one visit has
    (Build(4, 4, 31), [((1, 1, 9, 11), None), ((1, 8, 2, 40), 0.2)]),
    (HALF, [((1, 2, 9, 11), 0.3)]),
]


@needs_gxx
@pytest.mark.parametrize("build, problems", ON_HOST, ids=str)
def test_the_kernels_on_a_cpu_are_right_clean_and_do_not_depend_on_the_order_of_threads(
    host, build, problems
):
    tolerance = 5e-3 if build is HALF else 1e-5
    for shape, constant in problems:
        memory = Memory.random(build, shape, constant)
        forwards = run_on_host(host(build), build, memory)
        backwards = run_on_host(host(build), build, memory, backwards=True)
        assert_equal_to(forwards, exact(build, memory), tolerance)
        assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))


@needs_gxx
def test_a_weight_of_one_gives_its_key_and_its_query_no_gradient(host):
    build = Build(20, 520, 7)
    memory = Memory.random(build, (1, 2, 4, 5), scale=1e3)
    for key in memory.keys:
        key.zero_()
    memory.keys[1][:, :, 1, 2] = 1e3
    memory.query.fill_(1e3)
    _, of_query, *others = run_on_host(host(build), build, memory)
    assert of_query.abs().max() == 0 and all(x.abs().max() == 0 for x in others[:2])
    assert others[3].abs().max() > 0


@needs_gxx
@pytest.mark.parametrize("values", [8, 132])
def test_no_thread_reads_what_another_still_writes(host, values):
    build = Build(4, values, 3)
    memory = Memory.random(build, (1, 2, 5, 9), 0.3)
    assert_equal_to(run_on_host(host(build, "thread"), build, memory), exact(build, memory), 1e-5)


@needs_gxx
def test_a_missing_barrier_is_found(host):
    build = Build(4, 8, 3)
    edit = ("hand_over(weights, 0);\n        __syncwarp();", "hand_over(weights, 0);")
    with pytest.raises(RuntimeError, match="data race"):
        run_on_host(host(build, "thread", edit), build, Memory.random(build, (1, 2, 5, 9)))


@needs_gxx
def test_the_launcher_fills_the_struct_that_the_kernels_read(host):
    done = subprocess.run([host(ERF), "layout"], capture_output=True, check=True)
    offsets = [int(word) for word in done.stdout.split()]
    problem = cuda_kernels.PROBLEM
    assert offsets == [*(problem.fields[name][1] for name in problem.names), problem.itemsize]


@needs_gxx
@pytest.mark.parametrize("constant", [None, 0.4])
def test_the_backend_pads_launches_and_differentiates(on_cpu, constant):
    launches = on_cpu(Build(4, 8, 3))
    build = Build(3, 6, 3)  # neither fills 16 bytes: the kernels are built for 4 and 8
    memory = Memory.random(build, (2, 3, 5, 9), constant)
    found = outcome(build, memory, backend="cupy")
    assert launches[:1] == ["read_memory"], "reading is one launch"
    assert launches[1:] == ["gradient_of_query", "gradient_of_keys", "gradient_of_values"]
    assert_equal_to(found, exact(build, memory), 1e-5)
    leaves = memory.leaves()
    with torch.inference_mode():
        read = read_leaves(leaves, 3, 3, "cupy")
    assert torch.equal(read.movedim(1, -1), found[0])


@needs_gxx
@pytest.mark.parametrize("constant", [None, 0.4])
def test_pytorch_accepts_the_operators(on_cpu, constant):
    on_cpu(Build(4, 8, 3))
    query, *keys = (torch.randn(2, 5, 9, 4, requires_grad=True) for _ in range(3))
    values = [torch.randn(2, 5, 9, 8, requires_grad=True) for _ in range(2)]
    if constant is not None:
        constant = torch.tensor([constant], requires_grad=True)
    arguments = (query, keys, values, 3, constant)
    torch.library.opcheck(read_memory.read_memory, arguments, {"products": "exact"})


@needs_gxx
def test_torch_compile_takes_the_backend_whole(on_cpu):
    on_cpu(Build(4, 8, 3))
    leaves = Memory.random(Build(4, 8, 3), (1, 2, 5, 9)).leaves()

    def read(query, *maps):
        kernels = local_attention_cupy
        return read_memory.read_by_kernels(
            kernels, query, maps[:2], maps[2:], size=3, constant=None
        )

    assert_compiles_whole(read, leaves)


def test_a_backend_that_cannot_run_says_why_and_auto_takes_another():
    x = torch.zeros(1, 4, 3, 3)
    assert local_attention_cupy.unfit(x, [x], [x]) == "the query is on cpu, not on a CUDA device"
    message = "backend cupy of local attention cannot be used: the query is on cpu"
    with pytest.raises(RuntimeError, match=message):
        local_attention(x, [x], [x], 3, backend="cupy")
    assert choose("auto", x, [x], [x]) in ("cpp", "tiled")


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"is_cuda": False, "device": "cpu"}, "on cpu"),
        ({"dtype": torch.float64}, "torch.float64: the kernels read"),
        ({"frames": 17}, "17 frames in memory"),
        ({"cupy": None}, "pip install 'cupy-cuda13x"),
        ({"capability": (7, 5)}, "compute capability 7.5"),
    ],
)
def test_every_reason_is_told(change, reason, monkeypatch):
    given = {
        "is_cuda": True,
        "device": torch.device("cuda", 0),
        "dtype": torch.float32,
        "frames": 2,
        "cupy": SimpleNamespace(__version__="14.0"),
        "capability": (9, 0),
    } | change
    x = SimpleNamespace(**{name: given[name] for name in ("is_cuda", "device", "dtype")})
    monkeypatch.setitem(sys.modules, "cupy", given["cupy"])
    monkeypatch.setattr(local_attention_cupy, "find_spec", lambda name: given["cupy"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: given["capability"])
    for cached in (local_attention_cupy.missing_cupy, local_attention_cupy.weak_device):
        cached.cache_clear()
        monkeypatch.setattr(local_attention_cupy, cached.__name__, cached.__wrapped__)
    unfit = local_attention_cupy.unfit
    memory = [x] * given["frames"]
    assert reason in (unfit(x, memory, memory) or local_attention_cupy.missing())
    fine = SimpleNamespace(is_cuda=True, device=torch.device("cuda", 0), dtype=torch.bfloat16)
    if not {"cupy", "capability"} & set(change):
        assert unfit(fine, [fine], [fine]) is None


# Compilers for GPUs


@needs_nvcc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_120"])
@pytest.mark.parametrize("build", [ERF, PSP101, PSP18], ids=str)
def test_nvcc_compiles_them_without_spilling_a_register(build, architecture, tmp_path):
    kernels = compile_for_gpu(build, architecture, tmp_path)
    assert len(kernels) == 4 + build.wide
    assert {spilled for _, spilled in kernels.values()} == {0}, kernels
    # Two blocks of 256 threads on a multiprocessor
    if architecture == "sm_90":
        assert kernels["read_memory"][0] <= 128 and kernels["gradient_of_values"][0] <= 128


@needs_nvcc
@pytest.mark.parametrize(
    "build, architecture",
    [
        (Build(16, 64, 21, "Bfloat", "Bfloat"), "sm_90"),
        (Build(128, 2048, 21, "Bfloat", "Bfloat"), "sm_90"),
        (Build(32, 512, 21, "float", "Half"), "sm_80"),
    ],
    ids=str,
)
def test_half_types_read_without_spilling_a_register(build, architecture, tmp_path):
    kernels = compile_for_gpu(build, architecture, tmp_path)
    reads = [spilled for name, (_, spilled) in kernels.items() if name.startswith("read_memory")]
    assert reads == [0] * (1 + build.wide), kernels
    assert max(spilled for _, spilled in kernels.values()) <= 64, kernels


def test_cupys_compiler_takes_the_source_and_keeps_what_the_launcher_looks_for():
    library = find_nvrtc()
    if library is None:
        pytest.skip("no nvidia-cuda-nvrtc")
    options = (*cuda_kernels.options_of(*PSP18), "--gpu-architecture=sm_90")
    cubin = compile_by_nvrtc(library, cuda_kernels.source(), options)
    assert all(f"\0{name}\0".encode() in cubin for name in (*cuda_kernels.PASSES, "plans"))
    with pytest.raises(RuntimeError, match="error"):
        compile_by_nvrtc(library, "not a kernel", options)


# On a GPU


ON_GPU = [
    (ERF, (1, 4, 64, 128), None),
    (ERF, (2, 3, 61, 37), 0.3),
    (PSP18, (1, 2, 33, 29), None),
    (PSP101, (1, 3, 17, 33), None),
    (Build(16, 64, 31), (1, 2, 9, 11), 0.5),
    (Build(3, 5, 7), (2, 2, 20, 9), None),
    (Build(132, 68, 3), (1, 2, 9, 8), None),
    *((Build(16, 64, 5), (1, frames, 23, 50), None) for frames in range(1, 9)),
]


@needs_gpu
@pytest.mark.parametrize("build, shape, constant", ON_GPU, ids=str)
def test_on_a_gpu_they_are_right_and_repeat_to_the_bit(build, shape, constant):
    memory = Memory.random(build, shape, constant)
    found = [on_gpu(build, memory) for _ in range(2)]
    assert_equal_to(found[0], exact(build, memory), 1e-5)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@needs_gpu
@pytest.mark.parametrize("dtype, kind", [(torch.float16, "Half"), (torch.bfloat16, "Bfloat")])
def test_on_a_gpu_half_types_lose_no_more_than_their_rounding(dtype, kind):
    build = Build(16, 64, 21, kind, kind)
    memory = Memory.random(build, (1, 3, 25, 40))
    assert_equal_to(on_gpu(build, memory, dtype), exact(build, memory), 1e-2)


@needs_gpu
def test_on_a_gpu_a_stream_of_its_own_and_a_graph_give_the_same():
    memory = Memory.random(ERF, (1, 4, 40, 56))
    query, *maps = [x.cuda() for x in (memory.query, *memory.keys, *memory.values)]

    def read():
        return local_attention(query, maps[:4], maps[4:], 21, backend="cupy")

    expected = read()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # A kernel on another stream would not wait for what follows
        torch.cuda._sleep(10_000_000)
        query.mul_(2)
        doubled = read()
    torch.cuda.current_stream().wait_stream(stream)
    query.div_(2)
    assert torch.equal(read(), expected) and not torch.equal(doubled, expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = read()
    query.mul_(2)
    graph.replay()
    assert torch.equal(captured, doubled)


@needs_gpu
def test_on_a_gpu_nothing_waits_for_it():
    memory = Memory.random(ERF, (1, 2, 24, 24), 0.5)
    on_gpu(ERF, memory)  # compiles
    leaves = memory.leaves("cuda")
    gradient = memory.gradient.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        read_leaves(leaves, 2, 21, "auto").backward(gradient)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_on_a_gpu_auto_takes_the_kernels():
    x = torch.zeros(1, 4, 3, 3, device="cuda")
    assert choose("auto", x, [x], [x]) == "cupy"
