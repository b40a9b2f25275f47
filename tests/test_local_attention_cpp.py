"""Local attention's kernels for CPUs: right on every kind of processor, clean, never required."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from contextlib import contextmanager

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import warm
from kernels import (
    HERE,
    Build,
    Memory,
    assert_compiles_whole,
    assert_equal_to,
    exact,
    needs_gxx,
    outcome,
    run_on_host,
)
from models.ops import build_library, local_attention, read_memory
from models.ops.build_library import INSTRUCTIONS
from models.ops.local_attention import choose
from models.ops.local_attention_cpp import build_problem, library, missing, unfit

CAPABILITY = torch.backends.cpu.get_cpu_capability()
KINDS = {
    "DEFAULT": True,
    "AVX2": CAPABILITY in ("AVX2", "AVX512"),
    "AVX512": CAPABILITY == "AVX512",
}
PROBLEMS = [  # a build, a shape of Memory.random, a constant
    (Build(16, 64, 21), (2, 4, 13, 27), None),
    (Build(8, 128, 21), (1, 3, 30, 41), 0.3),
    (Build(3, 5, 7), (2, 2, 9, 40), 0.5),  # channels that fill no vector
    (Build(20, 144, 5), (1, 2, 8, 8), None),  # channels that fill some
    (Build(4, 4, 31), (1, 2, 1, 3), 0.2),
    (Build(4, 4, 31), (1, 8, 5, 6), None),  # a window larger than the map
    (Build(4, 16, 1), (2, 1, 6, 7), -0.4),
]
pytestmark = needs_gxx


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(params=KINDS)
def processor(request, monkeypatch, kept):
    """The kernels as a processor of this kind would have them."""
    if not KINDS[request.param]:
        pytest.skip(f"this processor is no {request.param}")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    with forgotten():
        yield request.param


@contextmanager
def forgotten():
    """As in a new process: no kernels were loaded yet."""

    def forget():
        library.cache_clear()
        build_problem.cache_clear()

    forget()
    try:
        yield
    finally:
        forget()


def test_on_every_kind_of_processor_they_are_right_however_many_threads_there_are(processor):
    threads = torch.get_num_threads()
    try:
        for build, shape, constant in PROBLEMS:
            memory = Memory.random(build, shape, constant)
            found = []
            for count in (1, 3):
                torch.set_num_threads(count)
                found.append(outcome(build, memory, backend="cpp"))
            assert_equal_to(found[0], exact(build, memory), 1e-5)
            assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    finally:
        torch.set_num_threads(threads)


def test_a_weight_of_one_gives_its_key_and_its_query_no_gradient(processor):
    build = Build(20, 24, 7)
    memory = Memory.random(build, (1, 2, 9, 11), scale=1e3)
    for key in memory.keys:
        key.zero_()
    memory.keys[1][:, :, 4, 5] = 1e3
    memory.query[:] = 1e3
    _, of_query, _, of_key, _, of_value = outcome(build, memory, backend="cpp")
    seen = of_query[0, 1:8, 2:9]  # by pixels whose window has the key
    assert seen.abs().max() == 0
    assert of_key[0, 4, 5].abs().max() == 0 and of_value.abs().max() > 0


@pytest.mark.parametrize("logit", [-1e15, -1e5, -443.6, -266.2, -90.0, -88.7, 90.0, 1e5])
def test_logits_may_be_of_any_size(processor, logit):
    """All are alike, but for those of taps outside the map, which are 0: far above or far below."""
    build = Build(4, 16, 5)
    memory = Memory.random(build, (1, 2, 9, 11))
    for x in (memory.query, *memory.keys):
        x.fill_(abs(logit / 4) ** 0.5)
    memory.query.mul_(logit / abs(logit))
    read, _, *found = outcome(build, memory, backend="cpp")
    # Without the query's gradient: it is 0 but for rounding, since all keys are equal
    expected, _, *others = exact(build, memory)
    assert_equal_to([read, *found], [expected, *others], 1e-5)


def test_a_pixel_of_which_all_logits_are_low_reads_their_softmax(processor):
    """What the exponential gives beyond its range must not show."""
    query = torch.full((1, 1, 9, 9), -1.0)
    values = torch.randn(1, 16, 9, 9)
    for logit in torch.linspace(0, 1000, 2000):
        read = local_attention(query, [torch.full_like(query, logit)], [values], 3, backend="cpp")
        torch.testing.assert_close(read[0, :, 4, 4], values[0, :, 3:6, 3:6].mean((1, 2)))


def strided(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same numbers, laid out in other ways."""
    wide = torch.zeros(x.numel() + 1)
    wide[1:] = x.flatten()
    return {
        "channels last": x.contiguous(memory_format=torch.channels_last),
        "sliced": torch.stack([x, x], -1)[..., 0],
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "at an odd address": wide[1:].view_as(x),
    }


@pytest.mark.parametrize("width", [1, 6])
@pytest.mark.parametrize("channels", [1, 16])
def test_maps_may_lie_in_memory_as_they_like(width, channels):
    query, key, value = (torch.randn(2, c, 5, width) for c in (channels, channels, 1))
    expected = local_attention(query, [key], [value], 3, backend="reference")
    for maps in zip(*(strided(x).values() for x in (query, key, value)), strict=True):
        leaves = [x.detach().requires_grad_() for x in maps]
        read = local_attention(leaves[0], [leaves[1]], [leaves[2]], 3, backend="cpp")
        torch.testing.assert_close(read, expected)
        assert all(x.isfinite().all() for x in torch.autograd.grad(read.sum(), leaves))
    same = key[:, :, :1].expand(-1, -1, 5, -1)
    torch.testing.assert_close(
        local_attention(query, [same], [value], 3, backend="cpp"),
        local_attention(query, [same], [value], 3, backend="reference"),
    )


@pytest.mark.parametrize("batch, channels, height", [(3, 0, 5), (0, 4, 5), (1, 4, 0)])
def test_nothing_is_read_of_nothing(batch, channels, height):
    leaves = [torch.randn(batch, c, height, 2, requires_grad=True) for c in (2, 2, channels)]
    read = local_attention(leaves[0], [leaves[1]], [leaves[2]], 21, backend="cpp")
    assert read.shape == (batch, channels, height, 2)
    gradients = torch.autograd.grad(read.sum(), leaves)
    assert [x.shape for x in gradients] == [x.shape for x in leaves]
    assert not any(x.any() for x in gradients)


def test_a_part_of_the_gradients_is_that_part():
    build = Build(4, 16, 5)
    memory = Memory.random(build, (1, 1, 6, 7))
    whole = outcome(build, memory, backend="cpp")[1:]
    for i in range(3):
        leaves = [memory.query.clone(), memory.keys[0].clone(), memory.values[0].clone()]
        leaves[i].requires_grad_()
        read = local_attention(leaves[0], [leaves[1]], [leaves[2]], 5, backend="cpp")
        (found,) = torch.autograd.grad((read * memory.gradient).sum(), [leaves[i]])
        assert torch.equal(found.movedim(1, -1), whole[i])


def test_maps_that_were_not_laid_out_are_not_touched():
    key = torch.zeros(1, 3, 3, 4)
    value = torch.zeros(1, 3, 3, 16)
    for query, values in ((key.bfloat16(), [value]), (key, [value[..., :5]])):
        with pytest.raises(AssertionError):
            read_memory.read_memory(query, [key], values, 3, None, products="exact")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_no_pass_reads_or_writes_what_is_not_its_own(sanitizers, kind, tmp_path):
    if not KINDS[kind]:
        pytest.skip(f"this processor is no {kind}")
    build = Build(16, 80, 9)
    program = tmp_path / "program"
    sizes = {"KEY_CHANNELS": build.keys, "VALUE_CHANNELS": build.values, "WINDOW": build.window}
    options = ["-std=c++17", "-O1", "-g1", *INSTRUCTIONS.get(kind, [])]
    options += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover"]
    options += ["-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
    options += [f"-D{name}={size}" for name, size in sizes.items()]
    subprocess.run(["g++", *options, HERE / "cpp_host.cpp", "-o", program], check=True)
    for shape, constant in [((2, 2, 7, 10), 0.3), ((1, 3, 3, 5), None)]:
        memory = Memory.random(build, shape, constant)
        # Here the last argument asks for more threads than one
        found = run_on_host(program, build, memory, sanitizers == "thread")
        assert_equal_to(found, exact(build, memory), 1e-5)


@pytest.mark.parametrize("constant", [None, 0.4])
def test_pytorch_accepts_the_operators_on_a_cpu(constant):
    query, *keys = (torch.randn(2, 5, 9, 4, requires_grad=True) for _ in range(3))
    values = [torch.randn(2, 5, 9, 16, requires_grad=True) for _ in range(2)]
    if constant is not None:
        constant = torch.tensor([constant], requires_grad=True)
    arguments = (query, keys, values, 3, constant)
    torch.library.opcheck(read_memory.read_memory, arguments, {"products": "exact"})


def test_torch_compile_takes_them_whole():
    leaves = Memory.random(Build(4, 16, 3), (1, 2, 5, 9)).leaves()

    def read(query, *maps):
        return local_attention(query, maps[:2], maps[2:], 3)

    assert_compiles_whole(read, leaves)


def test_half_types_are_read_in_float32_and_come_back_as_they_were():
    build = Build(8, 16, 5)
    rounded = build._replace(key_type="Bfloat", value_type="Bfloat")
    memory = Memory.random(rounded, (1, 2, 9, 12))
    halves = outcome(build, memory, torch.bfloat16, backend="cpp")
    singles = outcome(build, memory, backend="cpp")
    for half, single in zip(halves, singles, strict=True):
        assert half.dtype == torch.bfloat16 and torch.equal(half, single.bfloat16())


def test_auto_takes_them_for_what_they_can_read():
    x = torch.zeros(1, 4, 3, 3)
    wide = x.double()
    assert choose("auto", x, [x], [x]) == "cpp"
    assert choose("auto", x.bfloat16(), [x], [x]) == "cpp"
    assert choose("auto", wide, [wide], [wide]) == "tiled"
    assert "float64" in unfit(x, [x], [wide])
    assert "on cpu, meta, not on the CPU" in unfit(x, [x.to("meta")], [x])
    message = "backend cpp of local attention cannot be used: the maps are torch.float64"
    with pytest.raises(RuntimeError, match=message):
        local_attention(wide, [wide], [wide], 3, backend="cpp")


def test_floating_point_operations_are_counted():
    """Two per multiply-add of a tap inside the map.

    All nine pixels see all nine cells of both frames.
    """
    build = Build(4, 16, 5)
    memory = Memory.random(build, (1, 2, 3, 3))
    with FlopCounterMode(display=False) as counter:
        local_attention(memory.query, memory.keys, memory.values, 5, backend="cpp")
    assert counter.get_total_flops() == 2 * 9 * 9 * 2 * (4 + 16)


# Without a compiler, or a place


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing is built yet; -> the folder where libraries are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with forgotten():
        yield tmp_path / "streamseg"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the library that the usual compiler makes."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch, forgotten():
        patch.setenv("XDG_CACHE_HOME", str(folder))
        read_something()
    return folder / "streamseg"


@pytest.fixture
def built(fresh, made):
    """`fresh`, but that library is kept there: what follows it is another compiler's."""
    shutil.copytree(made, fresh)
    return fresh


def read_something() -> torch.Tensor:
    torch.manual_seed(0)
    query = torch.randn(1, 4, 5, 6)
    keys = torch.randn(1, 4, 2, 5, 6)
    values = torch.randn(1, 4, 2, 5, 6)
    return local_attention(query, keys, values, 3)


NO_COMPILER = (
    "there is no C++ compiler 'no-such-compiler' (install g++ or clang, or name one in CXX)"
)


@pytest.mark.parametrize(
    "compiler, reason",
    [
        ("no-such-compiler -O1", NO_COMPILER),
        ("g++ -include no-such-file", "error: no-such-file"),
        ("false", "false failed"),
    ],
)
def test_without_a_compiler_that_works_reads_take_the_slower_way_and_say_why(
    built, monkeypatch, compiler, reason
):
    expected = read_something()
    monkeypatch.setenv("CXX", compiler)
    message = "slower way on cpu: its C\\+\\+ kernels could not"
    with forgotten(), pytest.warns(RuntimeWarning, match=message) as warned:
        torch.testing.assert_close(read_something(), expected)
    assert reason in str(warned[0].message) and "\n" not in str(warned[0].message)


def test_what_they_cannot_read_starts_no_compiler(fresh, monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    x = torch.zeros(1, 4, 3, 3, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose("auto", x, [x], [x]) == "tiled"


def test_torch_compile_takes_the_slower_way_whole_too(fresh, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    x = torch.randn(1, 4, 5, 6)
    with forgotten(), pytest.warns(RuntimeWarning, match="slower way"):
        read = torch.compile(
            lambda x: local_attention(x, [x], [x], 3), backend="aot_eager", fullgraph=True
        )
        torch.testing.assert_close(read(x), local_attention(x, [x], [x], 3, backend="reference"))


def script(path, lines: str) -> str:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_may_say_what_it_likes(built, monkeypatch, tmp_path):
    expected = read_something()
    monkeypatch.setenv("CXX", script(tmp_path / "compiler", "printf '\\366' >&2; exec g++ \"$@\""))
    with forgotten():
        assert torch.equal(read_something(), expected)


@pytest.mark.parametrize("home", ["", "relative", "~"])
def test_without_a_home_nothing_is_kept_and_nothing_is_missed(built, monkeypatch, home, tmp_path):
    expected = read_something()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(build_library.os.path, "expanduser", lambda path: home)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    with forgotten():
        assert torch.equal(read_something(), expected) and set(tmp_path.iterdir()) == before


def test_temporary_files_need_not_be_executable(fresh, monkeypatch):
    """If /tmp is mounted so, the library in the cache is loaded."""
    load = build_library.ctypes.CDLL

    def strict(path):
        if not path.startswith(str(fresh)):
            raise OSError("failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(build_library.ctypes, "CDLL", strict)
    assert missing() is None


def test_without_openmp_they_have_threads_of_their_own(built, monkeypatch, tmp_path):
    expected = read_something()
    refuses = 'case "$*" in *-fopenmp*) echo no OpenMP >&2; exit 1; esac\nexec g++ "$@"'
    monkeypatch.setenv("CXX", script(tmp_path / "compiler", refuses))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with forgotten():
            assert torch.equal(read_something(), expected) and len(list(built.iterdir())) == 2
    finally:
        torch.set_num_threads(before)


def test_they_are_built_once_and_kept(fresh, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = read_something()
        assert [path.suffix for path in fresh.iterdir()] == [".so"]
        monkeypatch.setattr(subprocess, "run", None)
        with forgotten():
            assert torch.equal(read_something(), expected)


def processes(count: int) -> set[str]:
    """What so many new processes read, at once."""
    code = (
        "import torch; from models.ops import local_attention as read; x = torch.ones(1, 4, 5, 6);"
        "print(read(x, [x], [x], 3, backend='cpp').sum().item())"
    )
    running = [warm.Process("-c", code, cwd=HERE.parent) for _ in range(count)]
    printed = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0] * count
    return printed


def test_processes_that_begin_at_once_all_get_them_and_a_damaged_one_is_built_anew(fresh):
    expected = processes(3)
    (kept,) = fresh.iterdir()
    assert len(expected) == 1
    whole = kept.read_bytes()
    for damage in (b"not a library", whole[:1000], b""):
        kept.write_bytes(damage)
        assert processes(1) == expected and kept.read_bytes() == whole


def test_a_folder_that_cannot_be_written_does_not_matter(fresh):
    fresh.write_text("a file where the folder should be")
    assert missing() is None
