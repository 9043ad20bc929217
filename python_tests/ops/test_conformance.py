"""The conformance suite of all ops: accuracy, layouts, derivatives, compile, vmap, autocast, determinism.

It runs on the CPU and, with the marker `cuda`, on a GPU (fixture `device`).
"""

from __future__ import annotations

import pytest
import torch
import torch.utils._pytree as pytree
from accuracy import DTYPES, LAYOUTS, assert_accurate, cast, made, outputs_and_gradients
from op_spec import OpSpec
from op_specs import SIZES, SPECS, TRACED, TRACED_NAMES
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from automl_ext import _native

every_op = pytest.mark.parametrize("spec", SPECS, ids=str)
differentiable_op = pytest.mark.parametrize("spec", [s for s in SPECS if s.differentiable], ids=str)
traced_op = pytest.mark.parametrize("spec", TRACED, ids=str)
traced_differentiable_op = pytest.mark.parametrize("spec", [s for s in TRACED if s.differentiable], ids=str)
native_only = pytest.mark.skipif(
    not _native.is_loaded() or _native.current_backend() == "reference", reason="the native library is not in use"
)


@native_only
def test_every_op_of_the_library_has_a_spec() -> None:
    assert {spec.name for spec in TRACED} == set(TRACED_NAMES)
    called = {"gumbel_argmax", "td_targets", "categorical_projection"}  # without gradients: tests of their own
    called |= {"policy_gradient_step", "td_step"}  # they change their arguments: test_training_steps.py
    called |= {"policy_act"}  # no gradients: test_policy_act.py
    for spec in TRACED:
        tensors, others = made(spec, 5, spec.dims[0], 1, "cpu")
        called |= {name for name, _ in spec.native(cast(tensors, torch.float32), spec.dims[0], **others)}
    names = (
        name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names() if "automl_ext::" in name
    )
    assert {name for name in names if not name.startswith("_")} <= called


@every_op
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_error_is_at_most_twice_that_of_eager_pytorch(spec: OpSpec, dtype: torch.dtype, device: str) -> None:
    # float32 has every size, the other dtypes every second one: test_op_calls.py draws from the product.
    sizes = SIZES if dtype == torch.float32 else SIZES[DTYPES.index(dtype) // 2 :: 2]
    # Only GPU kernels depend on the alignment: they read 16 bytes at a time if it allows.
    for size in sizes:
        assert_accurate(spec, dtype, size, device, LAYOUTS if device == "cpu" else (*LAYOUTS, "misaligned"))


@pytest.mark.parametrize(
    ("spec", "dim"),
    [(s, dim) for s in SPECS if s.differentiable for dim in sorted({s.dims[0], s.dims[-1]})],
    ids=str,
)
def test_gradcheck_and_gradgradcheck(spec: OpSpec, device: str, dim: int) -> None:
    tensors, others = made(spec, 4, dim, 3, device)
    inputs = cast(tensors, torch.float64)

    def function(*xs: Tensor) -> tuple[Tensor, ...]:
        return tuple(y for y in spec.outputs(xs, dim, **others) if y.is_floating_point())

    if "hard" in spec.name:  # a step function, whose gradient is defined as that of the soft sample
        soft = next(s for s in SPECS if s.name == spec.name.removesuffix("_hard"))
        got = outputs_and_gradients(spec, inputs, dim, others)[1:]
        expected = outputs_and_gradients(soft, inputs, dim, others)[1:]
        torch.testing.assert_close(got, expected)

        def second(s: OpSpec) -> Tensor:
            gradient = torch.func.grad(lambda x: (s.call([x, inputs[1]], dim) * x.cos()).sum())
            return torch.func.jacrev(gradient)(inputs[0])

        hessians = [second(s) for s in (spec, soft)]
        # d²/dx² of Σ y·cos x: hard and soft agree in all terms with derivatives of y and differ in the diagonal term
        # −y·cos x.
        values = [s.call(inputs, dim).detach() for s in (spec, soft)]
        diagonal = [torch.diag((y * inputs[0].cos()).flatten()).reshape(hessians[0].shape) for y in values]
        torch.testing.assert_close(hessians[0] + diagonal[0], hessians[1] + diagonal[1])
        return
    assert torch.autograd.gradcheck(function, inputs)
    # Second derivatives use PyTorch ops; on a GPU some of their sums have no fixed order. The fast mode compares
    # products of the Jacobian with random vectors instead of each of its entries.
    assert torch.autograd.gradgradcheck(function, inputs, nondet_tol=0.0 if device == "cpu" else 1e-12, fast_mode=True)


@native_only
@every_op
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "transposed and sliced"])
def test_opcheck(spec: OpSpec, device: str, layout: str) -> None:
    for dim in spec.dims:
        checks = ["test_schema", "test_faketensor"]
        if layout == "contiguous" and dim == spec.dims[-1] and spec in TRACED:  # slow, and the strides change nothing
            checks += ["test_autograd_registration", "test_aot_dispatch_dynamic"]
        tensors, others = made(spec, 5, dim, 1, device)
        inputs = cast(tensors, torch.float32, layout, grad=spec.differentiable)
        for name, arguments in spec.native(inputs, dim, **others):
            op = getattr(torch.ops.automl_ext, name).default
            torch.library.opcheck(op, arguments, test_utils=checks)


@traced_differentiable_op
def test_compile_fullgraph_dynamic_equals_eager(spec: OpSpec, device: str) -> None:
    torch._dynamo.reset()
    dim = spec.dims[-1]

    def function(inputs: list[Tensor], others: dict) -> tuple[Tensor, ...]:
        return spec.outputs([x * 2 for x in inputs], dim, **others)

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in (5, 6):  # no size of another dim: torch would take both for one symbol, and compile twice
        tensors, others = made(spec, size, dim, size, device)
        a, b = cast(tensors, torch.float32), cast(tensors, torch.float32)
        eager, traced = function(a, others), compiled(b, others)
        for y, z in zip(eager, traced, strict=True):
            torch.testing.assert_close(z, y, rtol=0, atol=0)
        for out in (eager, traced):
            sum(y.cos().sum() for y in out if y.is_floating_point()).backward()
        for x, z in zip(a, b, strict=True):
            torch.testing.assert_close(z.grad, x.grad)


@traced_op
def test_make_fx_and_fake_tensors(spec: OpSpec, device: str) -> None:
    dim = spec.dims[-1]
    tensors, others = made(spec, 5, dim, 1, device)
    inputs = cast(tensors, torch.float32)
    eager = spec.outputs(inputs, dim, **others)

    def function(xs: list[Tensor], rest: dict) -> tuple[Tensor, ...]:
        return spec.outputs(xs, dim, **rest)

    examples, their_others = made(spec, 5, dim, 2, device)  # other values, which must not become part of the graph
    traced = make_fx(function)(cast(examples, torch.float32), their_others)(inputs, others)
    with FakeTensorMode() as mode:
        fake = function(*pytree.tree_map_only(Tensor, mode.from_tensor, (inputs, others)))
    for y, z, shape in zip(eager, traced, fake, strict=True):
        torch.testing.assert_close(z, y, rtol=0, atol=0)
        assert (shape.shape, shape.dtype, shape.device) == (y.shape, y.dtype, y.device)


@every_op
def test_vmap_equals_a_loop(spec: OpSpec, device: str) -> None:
    dim = spec.dims[-1]
    batches = [made(spec, 5, dim, seed, device) for seed in range(3)]
    others = batches[0][1]
    for batched in range(len(batches[0][0])):  # each argument alone, then all of them
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


@traced_differentiable_op
def test_vmap_of_grad_and_jacrev(spec: OpSpec, device: str) -> None:
    dim = spec.dims[-1]
    tensors, others = made(spec, 4, dim, 5, device)
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
    vectorized = torch.autograd.functional.jacobian(
        lambda x: spec.outputs([x, *rest], dim, **others)[0], tensors[0], vectorize=True
    )
    looped = torch.autograd.functional.jacobian(lambda x: spec.outputs([x, *rest], dim, **others)[0], tensors[0])
    torch.testing.assert_close(vectorized, looped)


@traced_differentiable_op
def test_forward_mode(spec: OpSpec, device: str) -> None:
    dim = spec.dims[-1]
    tensors, others = made(spec, 4, dim, 5, device)

    def function(*xs: Tensor) -> tuple[Tensor, ...]:
        return tuple(y for y in spec.outputs(xs, dim, **others) if y.is_floating_point())

    def loss(*xs: Tensor) -> Tensor:
        return sum((y * y.cos()).sum() for y in function(*xs))

    if "hard" not in spec.name:  # a step function, whose derivative is defined as that of the soft sample
        assert torch.autograd.gradcheck(
            function,
            cast(tensors, torch.float64),
            check_forward_ad=True,
            check_backward_ad=False,
            check_batched_forward_grad=True,
            check_undefined_grad=False,
        )
    func, every = torch.func, tuple(range(len(tensors)))
    torch.testing.assert_close(func.jacfwd(function, every)(*tensors), func.jacrev(function, every)(*tensors))
    gradient = func.grad(loss, every)
    hessian = func.jacrev(gradient, every)(*tensors)
    torch.testing.assert_close(func.jacfwd(gradient, every)(*tensors), hessian)
    torch.testing.assert_close(func.jacrev(func.jacfwd(loss, every), every)(*tensors), hessian)

    def along(x: Tensor, dx: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        return func.jvp(lambda x: function(x, *tensors[1:]), (x,), (dx,))

    xs, dxs = torch.stack([tensors[0], -tensors[0]]), torch.stack([tensors[0].cos(), tensors[0].sin()])
    together = func.vmap(along)(xs, dxs)
    for sample in range(2):
        alone = along(xs[sample], dxs[sample])
        for y, z in zip((*alone[0], *alone[1]), (*together[0], *together[1]), strict=True):
            torch.testing.assert_close(z[sample], y)


@every_op
def test_forward_mode_does_not_change_the_result(spec: OpSpec, device: str) -> None:
    dim = spec.dims[-1]
    tensors, others = made(spec, 9, dim, 5, device)
    dtypes = (torch.float64, torch.float32, torch.bfloat16)
    for inputs in (cast(tensors, dtype, grad=False) for dtype in dtypes):
        values, tangents = torch.func.jvp(lambda *xs: spec.outputs(xs, dim, **others), tuple(inputs), tuple(inputs))
        for y, z, dz in zip(spec.outputs(inputs, dim, **others), values, tangents, strict=True):
            torch.testing.assert_close(z, y)
            assert spec.differentiable or not dz.any()


@native_only
@differentiable_op
def test_the_compiled_ops_refuse_forward_mode(spec: OpSpec, device: str) -> None:
    tensors, others = made(spec, 4, spec.dims[-1], 5, device)
    name, arguments = spec.native(tensors, spec.dims[-1], **others)[0]
    call = getattr(torch.ops.automl_ext, name).default
    first = arguments[0][0] if isinstance(arguments[0], list) else arguments[0]

    def function(x: Tensor) -> object:
        return call([x, *arguments[0][1:]] if isinstance(arguments[0], list) else x, *arguments[1:])

    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(function, (first,), (first,))


@every_op
def test_autocast(spec: OpSpec, device: str) -> None:
    dim = spec.dims[-1]
    tensors, others = made(spec, 5, dim, 7, device)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        inputs = cast(tensors, dtype, grad=False)
        plain = spec.outputs(inputs, dim, **others)
        with torch.autocast(device, dtype=torch.bfloat16):
            out = spec.outputs(inputs, dim, **others)
            if spec.lower_precision:
                plain = spec.outputs(inputs, dim, spec.eager, **others)
        for y, z in zip(plain, out, strict=True):
            if not y.is_floating_point():
                continue
            half = dtype == torch.bfloat16 and spec.autocast_dtype is not None
            assert z.dtype == (y.dtype if spec.lower_precision else spec.autocast_dtype if half else dtype)
            torch.testing.assert_close(z.to(y.dtype), y)


@native_only
@every_op
def test_one_and_two_threads_give_the_same_bits(spec: OpSpec) -> None:
    dim = spec.dims[-1]
    tensors, others = made(spec, 40_000, dim, 11, "cpu")
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
def test_a_thousand_repeats_give_the_same_bits(spec: OpSpec, device: str) -> None:
    dim = spec.dims[-1]
    tensors, others = made(spec, 33, dim, 13, device)
    inputs = cast(tensors, torch.float32, grad=False)
    first = spec.outputs(inputs, dim, **others)
    for _ in range(1000 if _native.is_loaded() else 50):
        for a, b in zip(first, spec.outputs(inputs, dim, **others), strict=True):
            assert torch.equal(a, b)


@every_op
def test_inputs_are_not_changed(spec: OpSpec, device: str) -> None:
    for dim in spec.dims:
        tensors, others = made(spec, 9, dim, 17, device)
        inputs = cast(tensors, torch.float32)
        before = [x.detach().clone() for x in inputs]
        outputs_and_gradients(spec, inputs, dim, others)
        assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))
