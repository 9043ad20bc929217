"""The suite every op passes: accuracy, layouts, derivatives, compile, vmap, autocast, determinism."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from op_spec import OpSpec
from op_specs import SIZES, SPECS
from torch import Tensor

from automl_ext import _native

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
F64 = torch.float64
LAYOUTS = ("contiguous", "transposed", "expanded", "sliced")

every_op = pytest.mark.parametrize("spec", SPECS, ids=str)
differentiable_op = pytest.mark.parametrize("spec", [s for s in SPECS if s.differentiable], ids=str)
native_only = pytest.mark.skipif(
    not _native.is_loaded() or _native.current_backend() == "reference", reason="the native library is not in use"
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_layout(x: Tensor, layout: str) -> Tensor:
    """The same shape, laid out otherwise. `expanded` repeats the first slice (its stride is 0)."""
    if x.ndim < 2 or x.numel() == 0 or layout == "contiguous":
        return x
    if layout == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "expanded":
        return x[:1].expand_as(x)
    if layout == "transposed and sliced":
        return x.transpose(0, -1).repeat_interleave(2, 0)[::2].transpose(0, -1)
    return x.repeat_interleave(2, -1)[..., ::2]


def cast(
    tensors: list[Tensor],
    dtype: torch.dtype,
    layout: str = "contiguous",
    grad: bool = True,
    dtype_out: torch.dtype | None = None,
) -> list[Tensor]:
    """Leaves of `dtype`; with dtype_out, the values that dtype can hold, in another."""
    return [with_layout(x.to(dtype).to(dtype_out or dtype), layout).detach().requires_grad_(grad) for x in tensors]


def outputs_and_gradients(
    spec: OpSpec, tensors: list[Tensor], dim: int, others: dict, call: Callable | None = None
) -> list[Tensor]:
    """All float outputs, then the gradient of Σ output·c to every tensor, c fixed and not constant."""
    out = [y for y in spec.outputs(tensors, dim, call=call, **others) if y.is_floating_point()]
    results = [y.detach() for y in out]
    if not spec.differentiable:
        return results
    cotangents = [torch.linspace(-1, 2, y.numel(), dtype=torch.float64).view(y.shape).cos().to(y.dtype) for y in out]
    on = [i for i, y in enumerate(out) if y.requires_grad]
    gradients = torch.autograd.grad([out[i] for i in on], tensors, [cotangents[i] for i in on], allow_unused=True)
    return results + [torch.zeros_like(x) if g is None else g for g, x in zip(gradients, tensors, strict=True)]


def largest(x: Tensor, dim: int, rowwise: bool) -> Tensor:
    if x.numel() == 0:
        return x.new_zeros(())
    return x.abs().amax(dim, keepdim=True) if rowwise and x.ndim > 1 else x.abs().max()


@every_op
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_error_is_at_most_twice_that_of_eager_pytorch(spec: OpSpec, dtype: torch.dtype, size: int) -> None:
    """Plus 2 ulp of the row's largest value. Eager's error is its largest over all layouts and dims."""
    runs = []
    for dim in spec.dims:
        tensors, others = spec.make(size, dim, generator(size + 1))
        for layout in LAYOUTS:
            inputs = cast(tensors, dtype, layout)
            ours = outputs_and_gradients(spec, inputs, dim, others)
            # Float64 has no better reference than itself: there eager's error is that of float32, scaled, and the
            # reference's own rounding comes on top (against long double it errs up to five times as much as we do).
            eager_dtype = torch.float32 if dtype == torch.float64 else dtype
            eager = outputs_and_gradients(spec, cast(inputs, eager_dtype), dim, others, spec.eager)
            with spec.exact(eager_dtype):
                exact_for_eager = outputs_and_gradients(spec, cast(inputs, eager_dtype, dtype_out=F64), dim, others)
            with spec.exact(dtype):
                exact = outputs_and_gradients(spec, cast(inputs, dtype, dtype_out=F64), dim, others)
            if spec.smooth:  # the gradient of the one input follows the one output
                smooth = spec.smooth(inputs, dim)
                for results in (ours, eager, exact_for_eager, exact):
                    results[1] = torch.where(smooth, results[1], 0)
            runs.append((dim, layout, ours, eager, exact_for_eager, exact))
    scale = torch.finfo(F64).eps / torch.finfo(torch.float32).eps if dtype == F64 else 1
    times, ulps = (5, 4) if dtype == F64 else (2, 2)
    for i in range(len(runs[0][2])):
        eager_error = max(
            float((run[3][i].double() - run[4][i]).abs().max()) if run[3][i].numel() else 0 for run in runs
        )
        for dim, layout, ours, eager, _, exact in runs:
            y, expected = ours[i], exact[i]
            assert y.shape == expected.shape
            assert y.dtype == (F64 if dtype == F64 else eager[i].dtype)
            error = (y.double() - expected).abs()
            ulp = torch.finfo(y.dtype).eps * largest(expected, dim, spec.rowwise)
            assert (error <= times * scale * eager_error + ulps * ulp).all(), (
                f"{spec}, result {i}, dim {dim}, {layout}: error {error.max():.3g}, eager {scale * eager_error:.3g}"
            )


@differentiable_op
@pytest.mark.parametrize("dim", [0, -1])
def test_gradcheck_and_gradgradcheck(spec: OpSpec, dim: int) -> None:
    if dim not in spec.dims:
        dim = spec.dims[-1]
    tensors, others = spec.make(4, dim, generator(3))
    inputs = cast(tensors, torch.float64)

    def function(*xs: Tensor) -> tuple[Tensor, ...]:
        return tuple(y for y in spec.outputs(xs, dim, **others) if y.is_floating_point())

    if "hard" in spec.name:  # a step function: its gradient is that of the soft sample by definition
        soft = next(s for s in SPECS if s.name == spec.name.removesuffix("_hard"))
        got = outputs_and_gradients(spec, inputs, dim, others)[1:]
        expected = outputs_and_gradients(soft, inputs, dim, others)[1:]
        torch.testing.assert_close(got, expected)

        def second(s: OpSpec) -> Tensor:
            gradient = torch.func.grad(lambda x: (s.call([x, inputs[1]], dim) * x.cos()).sum())
            return torch.func.jacrev(gradient)(inputs[0])

        hessians = [second(s) for s in (spec, soft)]
        # d²/dx² of Σ y·cos x: where y enters only through its gradient the two agree; the term in y itself is
        # Σ −y·cos x, diagonal, and is what hardening changes.
        values = [s.call(inputs, dim).detach() for s in (spec, soft)]
        diagonal = [torch.diag((y * inputs[0].cos()).flatten()).reshape(hessians[0].shape) for y in values]
        torch.testing.assert_close(hessians[0] + diagonal[0], hessians[1] + diagonal[1])
        return
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@native_only
@every_op
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "transposed and sliced"])
def test_opcheck(spec: OpSpec, layout: str) -> None:
    for dim in spec.dims:
        tensors, others = spec.make(5, dim, generator(1))
        inputs = cast(tensors, torch.float32, layout, grad=spec.differentiable)
        for name, arguments in spec.native(inputs, dim, **others):
            torch.library.opcheck(getattr(torch.ops.automl_ext, name).default, arguments)


@differentiable_op
def test_compile_fullgraph_dynamic_equals_eager(spec: OpSpec) -> None:
    torch._dynamo.reset()
    dim = spec.dims[-1]

    def function(inputs: list[Tensor], others: dict) -> tuple[Tensor, ...]:
        return spec.outputs([x * 2 for x in inputs], dim, **others)

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in (4, 9):
        tensors, others = spec.make(size, dim, generator(size))
        a, b = cast(tensors, torch.float32), cast(tensors, torch.float32)
        eager, traced = function(a, others), compiled(b, others)
        for y, z in zip(eager, traced, strict=True):
            torch.testing.assert_close(z, y, rtol=0, atol=0)
        for out in (eager, traced):
            sum(y.cos().sum() for y in out if y.is_floating_point()).backward()
        for x, z in zip(a, b, strict=True):
            torch.testing.assert_close(z.grad, x.grad)


@every_op
def test_vmap_equals_a_loop(spec: OpSpec) -> None:
    dim = spec.dims[-1]
    batches = [spec.make(5, dim, generator(seed)) for seed in range(3)]
    others = batches[0][1]
    for batched in range(len(batches[0][0])):  # each argument alone, and then all of them
        for which in ({batched}, set(range(len(batches[0][0])))):
            in_dims = tuple(0 if i in which else None for i in range(len(batches[0][0])))
            columns = zip(*(tensors for tensors, _ in batches), strict=True)
            stacked = [torch.stack(xs) if i in which else xs[0] for i, xs in enumerate(columns)]
            together = torch.func.vmap(lambda *xs: spec.outputs(xs, dim, **others), in_dims)(*stacked)
            for sample in range(3):
                xs = [x[sample] if i in which else x for i, x in enumerate(stacked)]
                alone = spec.outputs(xs, dim, **others)
                for y, z in zip(alone, together, strict=True):
                    torch.testing.assert_close(z[sample], y)


@differentiable_op
def test_vmap_of_grad_and_jacrev(spec: OpSpec) -> None:
    dim = spec.dims[-1]
    tensors, others = spec.make(4, dim, generator(5))
    rest = tensors[1:]

    def loss(x: Tensor) -> Tensor:
        first, *_ = spec.outputs([x, *rest], dim, **others)
        return first.sin().sum()

    samples = torch.stack([tensors[0], tensors[0] + 0.5, -tensors[0]])
    together = torch.func.vmap(torch.func.grad(loss))(samples)
    jacobian = torch.func.jacrev(loss)(tensors[0])
    for x, got in zip(samples, together, strict=True):
        x = x.clone().requires_grad_()
        torch.testing.assert_close(got, torch.autograd.grad(loss(x), x)[0])
    torch.testing.assert_close(jacobian, together[0])
    vectorised = torch.autograd.functional.jacobian(
        lambda x: spec.outputs([x, *rest], dim, **others)[0], tensors[0], vectorize=True
    )
    looped = torch.autograd.functional.jacobian(lambda x: spec.outputs([x, *rest], dim, **others)[0], tensors[0])
    torch.testing.assert_close(vectorised, looped)


@native_only
@differentiable_op
def test_forward_mode_is_refused_not_silently_zero(spec: OpSpec) -> None:
    dim = spec.dims[-1]
    tensors, others = spec.make(4, dim, generator(5))
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda x: spec.outputs([x, *tensors[1:]], dim, **others)[0], (tensors[0],), (tensors[0],))


@every_op
def test_autocast(spec: OpSpec) -> None:
    dim = spec.dims[-1]
    tensors, others = spec.make(5, dim, generator(7))
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        inputs = cast(tensors, dtype, grad=False)
        plain = spec.outputs(inputs, dim, **others)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = spec.outputs(inputs, dim, **others)
        for y, z in zip(plain, out, strict=True):
            if not y.is_floating_point():
                continue
            half = dtype == torch.bfloat16 and spec.autocast_dtype is not None
            assert z.dtype == (spec.autocast_dtype if half else dtype)
            torch.testing.assert_close(z.to(dtype), y)


@native_only
@every_op
def test_one_and_two_threads_give_the_same_bits(spec: OpSpec) -> None:
    dim = spec.dims[-1]
    tensors, others = spec.make(40_000, dim, generator(11))
    inputs = cast(tensors, torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(outputs_and_gradients(spec, inputs, dim, others))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@every_op
def test_a_thousand_repeats_give_the_same_bits(spec: OpSpec) -> None:
    dim = spec.dims[-1]
    tensors, others = spec.make(33, dim, generator(13))
    inputs = cast(tensors, torch.float32, grad=False)
    first = spec.outputs(inputs, dim, **others)
    for _ in range(1000 if _native.is_loaded() else 50):
        for a, b in zip(first, spec.outputs(inputs, dim, **others), strict=True):
            assert torch.equal(a, b)


@every_op
def test_inputs_are_not_changed(spec: OpSpec) -> None:
    for dim in spec.dims:
        tensors, others = spec.make(9, dim, generator(17))
        inputs = cast(tensors, torch.float32)
        before = [x.detach().clone() for x in inputs]
        outputs_and_gradients(spec, inputs, dim, others)
        assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))
