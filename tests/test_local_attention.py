"""Local and global attention.

The tiled form computes what the definition says, keeps little, and refuses what it cannot read.
"""

from importlib import import_module

import pytest
import torch
from torch.autograd import gradcheck

from kernels import needs_gxx
from models.ops import attention_map, global_attention, local_attention
from models.ops.local_attention import local_weights, shifted
from models.ops.local_attention_tiled import SIDE

SHAPES = [  # B, C, V, T, H, W, P
    (1, 4, 3, 1, 5, 7, 3),
    (2, 3, 5, 3, SIDE, SIDE, 5),
    (1, 2, 2, 4, SIDE + 1, 2 * SIDE + 3, 9),
    (1, 3, 2, 2, 1, 11, 7),
    (1, 4, 4, 2, 13, 27, 21),
    (1, 2, 3, 2, 3, 4, 31),
    (1, 2, 2, 8, 17, 9, 1),
    (1, 16, 64, 4, 16, 24, 21),
]


def tensors(shape, scale: float = 1.0, dtype=torch.float64):
    """Query (B, C, H, W), keys (B, C, T, H, W), values (B, V, T, H, W)."""
    b, c, v, t, h, w, _ = shape
    query = scale * torch.randn(b, c, h, w, dtype=dtype)
    keys = scale * torch.randn(b, c, t, h, w, dtype=dtype)
    values = torch.randn(b, v, t, h, w, dtype=dtype)
    return [query, keys, values]


@pytest.mark.parametrize("constant", [None, 0.7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tiles_read_what_the_definition_reads_and_have_its_gradients(shape, constant):
    inputs = tensors(shape)
    if constant is not None:
        inputs.append(torch.tensor([constant], dtype=torch.float64))
    results = []
    for backend in ("reference", "tiled"):
        leaves = [x.clone().requires_grad_() for x in inputs]
        read = local_attention(*leaves[:3], shape[-1], *leaves[3:], backend=backend)
        weight = torch.linspace(-1, 1, read.numel(), dtype=read.dtype).view_as(read)
        results.append([read, *torch.autograd.grad((read * weight).sum(), leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_float32_is_within_1e_5_of_float64(shape, scale):
    q, k, v = tensors(shape, scale)
    exact = local_attention(q, k, v, shape[-1], backend="reference")
    single = local_attention(q.float(), k.float(), v.float(), shape[-1])
    assert (single - exact).abs().max() <= 1e-5 * exact.abs().max()


@pytest.mark.parametrize("backend", ["tiled", pytest.param("cpp", marks=needs_gxx)])
def test_a_constant_that_weighs_next_to_nothing_gets_its_gradient_in_float32(backend):
    """A weight of 1e-6 must not come from 1 minus the others."""
    found = []
    for dtype, way in ((torch.float64, "reference"), (torch.float32, backend)):
        torch.manual_seed(5)
        q, k, v = (x.to(dtype) for x in tensors((1, 8, 16, 3, 9, 13, 7)))
        constant = torch.tensor([-8.0], dtype=dtype, requires_grad=True)
        local_attention(q, k, v, 7, constant, backend=way).square().sum().backward()
        found.append(constant.grad.double())
    exact, single = found
    torch.testing.assert_close(single, exact, rtol=1e-4, atol=0)


def test_gradcheck_of_the_tiled_form():
    q, k, v = (x.requires_grad_() for x in tensors((1, 2, 2, 2, 4, 5, 3)))
    constant = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda *x: local_attention(x[0], x[1], x[2], 3, x[3]), (q, k, v, constant))


def test_a_tap_outside_the_map_takes_part_with_logit_zero_and_value_zero():
    ones = torch.ones(1, 1, 1, 1, 1)
    read = local_attention(torch.zeros(1, 1, 1, 1), ones, ones, 3)
    assert read.item() == pytest.approx(1 / 9), "nine equal weights, eight of them for nothing"
    read = local_attention(torch.zeros(1, 1, 1, 1), ones, ones, 3, torch.zeros(1))
    assert read.item() == pytest.approx(1 / 10), "and the constant is a tenth"


def test_logits_are_not_scaled_and_all_frames_share_one_softmax():
    query = torch.full((1, 4, 1, 1), 0.5)
    keys = torch.stack([torch.full((1, 4, 1, 1), 1.0), torch.zeros(1, 4, 1, 1)], 2)
    values = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1, 1)
    expected = torch.tensor([2.0, 0.0]).softmax(0)[0]
    assert local_attention(query, keys, values, 1).item() == pytest.approx(expected.item())


def test_a_weight_of_one_gets_no_gradient_however_large_its_logit():
    q = torch.full((1, 2, 9, 9), 1e3, requires_grad=True)
    k = torch.zeros(1, 2, 1, 9, 9)
    k[:, :, :, 4, 4] = 1e3
    k.requires_grad_()
    v = torch.randn(1, 3, 1, 9, 9)
    local_attention(q, k, v, 21).sum().backward()
    assert q.grad.abs().max() == 0 and k.grad.abs().max() == 0


@needs_gxx
def test_nothing_but_the_inputs_is_kept_for_the_backward_pass():
    shape = (1, 4, 16, 3, 24, 40, 11)
    q, k, v = (x.float().requires_grad_() for x in tensors(shape))
    for backend, per_pixel in (("tiled", 0), ("cpp", 2)):
        kept = []

        def note(x, kept=kept):
            kept.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            local_attention(q, k.unbind(2), v.unbind(2), 11, backend=backend)
        inputs = q.numel() + k.numel() + v.numel()
        assert sum(kept) == inputs + per_pixel * 24 * 40, "no weight, no read, no padded copy"


def test_gradients_are_the_same_to_the_bit_every_time():
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        leaves = [x.float().requires_grad_() for x in tensors((2, 4, 3, 2, 19, 21, 7))]
        found.append(torch.autograd.grad(local_attention(*leaves, 7).square().sum(), leaves))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_maps_may_come_as_one_tensor_or_one_by_one_in_any_memory_format():
    q, k, v = tensors((2, 4, 3, 3, 10, 12, 5))
    stacked = local_attention(q, k, v, 5)
    formats = [x.contiguous(memory_format=torch.channels_last) for x in k.unbind(2)]
    assert torch.equal(stacked, local_attention(q, formats, list(v.unbind(2)), 5))
    columns_first = q.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(stacked, local_attention(columns_first, k, v, 5))


@pytest.mark.parametrize("channels, size", [(8, 5), (300, 7)])  # both shapes of tiles
def test_values_in_bfloat16_are_multiplied_in_it_and_nothing_else_is(channels, size):
    """As if weights and values alone were rounded; what is summed in float32 is rounded once."""
    q, k, v = tensors((2, 4, channels, 3, 11, 19, size), dtype=torch.float32)
    v = v.bfloat16()
    weights = local_weights(q, k, size).bfloat16().float()  # (B, T, P^2, H, W)
    taps = [torch.stack(list(shifted(value.float(), size)), 1) for value in v.unbind(2)]
    taps = torch.stack(taps, 1)  # (B, T, P^2, V, H, W)
    expected = torch.einsum("btphw,btpvhw->bvhw", weights, taps)
    read = local_attention(q, k, v, size, backend="tiled")
    assert read.dtype == torch.bfloat16
    torch.testing.assert_close(read.float(), expected, rtol=2**-8, atol=1e-5)
    unrounded = local_attention(q, k, v.float(), size, backend="tiled")
    # Else nothing is tested
    assert (expected - unrounded).abs().max() > 1e-4, "rounding the weights shows"


def test_gradients_of_values_in_bfloat16_are_those_of_the_same_values_in_float32():
    q, k, v = tensors((2, 4, 8, 3, 11, 19, 5), dtype=torch.float32)
    v = v.bfloat16()
    g = torch.randn(2, 8, 11, 19).bfloat16()
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        leaves = [x.detach().clone().requires_grad_() for x in (q, k, v.to(dtype))]
        local_attention(*leaves, 5, backend="tiled").backward(g.to(dtype))
        found[dtype] = [x.grad for x in leaves]
    *exact, rounded = found[torch.bfloat16]
    assert rounded.dtype == torch.bfloat16
    for one, other in zip(exact, found[torch.float32], strict=False):
        assert torch.equal(one, other)
    torch.testing.assert_close(rounded.float(), found[torch.float32][2], rtol=2**-8, atol=1e-6)


def test_autocast_does_not_round_the_logits_and_half_types_come_back_as_they_were():
    q, k, v = (x.float() for x in tensors((1, 8, 4, 2, 12, 12, 5), 3.0))
    exact = local_attention(q, k, v, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(local_attention(q, k, v, 5), exact)
        half = local_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), 5)
    assert half.dtype == torch.bfloat16
    rounded = [x.bfloat16().float() for x in (q, k, v)]
    wide = local_attention(*rounded, 5)
    torch.testing.assert_close(half.float(), wide, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": 4}, "must be odd, got 4"),
        ({"size": -1}, "must be odd"),
        ({"backend": "cupyy"}, "unknown backend 'cupyy'.*reference"),
        ({"keys": torch.zeros(1, 3, 2, 5, 6)}, r"a key is \(1, 3, 5, 6\), expected \(1, 2, 5, 6\)"),
        ({"values": torch.zeros(1, 4, 2, 5, 7)}, r"a value is \(1, 4, 5, 7\), expected \(1, 4, 5"),
        ({"values": torch.zeros(1, 4, 3, 5, 6)}, "got 2 keys and 3 values"),
        ({"keys": [], "values": []}, "at least one"),
        ({"constant": torch.zeros(2)}, "one number"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    given = {
        "query": torch.zeros(1, 2, 5, 6),
        "keys": torch.zeros(1, 2, 2, 5, 6),
        "values": torch.zeros(1, 4, 2, 5, 6),
        "size": 3,
    }
    with pytest.raises(ValueError, match=message):
        local_attention(**given | arguments)


@pytest.mark.parametrize("constant", [None, torch.tensor([0.4], dtype=torch.float64)])
def test_global_attention_is_a_scaled_softmax_over_all_cells(constant):
    q, k, v = tensors((2, 4, 3, 3, 5, 6, 1))
    logits = torch.einsum("bchw,bctij->bhwtij", q, k).flatten(3) / 2
    if constant is not None:
        logits = torch.cat([logits, constant.expand(*logits.shape[:3], 1)], 3)
    weights = logits.softmax(3)[..., : 3 * 30]
    expected = torch.einsum("bhwn,bvn->bvhw", weights, v.flatten(2))
    torch.testing.assert_close(global_attention(q, k.unbind(2), v.unbind(2), constant), expected)


@pytest.mark.parametrize("size", [3, 9, 31])
def test_an_attention_map_holds_the_weights_of_its_pixel(size):
    q, k, _ = tensors((1, 3, 1, 2, 6, 8, size))
    constant = torch.tensor([0.2], dtype=torch.float64)
    radius = size // 2
    y, x = 1, 6
    found = attention_map(q, k.unbind(2), (y, x), size, constant)
    weights = local_weights(q, k, size, constant)[0, :, :, y, x].unflatten(1, (size, size))
    assert found.shape == (2, 6, 8)
    for row in range(6):
        for column in range(8):
            dy = row - y + radius
            dx = column - x + radius
            expected = torch.zeros(2, dtype=torch.float64)
            if 0 <= dy < size and 0 <= dx < size:
                expected = weights[:, dy, dx]
            torch.testing.assert_close(found[:, row, column], expected)


@pytest.mark.parametrize("constant", [None, torch.tensor(0.3)])
def test_large_values_are_read_in_parts(monkeypatch, constant):
    q = torch.randn(2, 4, 3, 5)
    k = [torch.randn(2, 4, 3, 5) for _ in range(3)]
    v = [torch.randn(2, 19, 3, 5) for _ in range(3)]
    expected = global_attention(q, k, v, constant)
    module = import_module("models.ops.global_attention")
    monkeypatch.setattr(module, "LARGE", 0)
    assert module.values_at_once(4, 19, 45) == 8
    torch.testing.assert_close(global_attention(q, k, v, constant), expected)


def test_a_global_attention_map_reads_what_global_attention_reads():
    q, k, v = tensors((1, 4, 3, 2, 5, 6, 1))
    weights = attention_map(q, k.unbind(2), (2, 3), None)
    read = torch.einsum("thw,vthw->v", weights, v[0])
    torch.testing.assert_close(read, global_attention(q, k.unbind(2), v.unbind(2))[0, :, 2, 3])
    with pytest.raises(ValueError, match="outside the map"):
        attention_map(q, k.unbind(2), (5, 0), None)
    assert attention_map(q, (), (0, 0), 3).shape == (0, 5, 6)
