"""Compare results and gradients of an op with float64, relative to the error of eager PyTorch on the same device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from noise_error import moved_by_noise_errors
from op_spec import OpSpec
from torch import Tensor

F64 = torch.float64
DTYPES = (F64, torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = ("contiguous", "transposed", "expanded", "sliced")
EVERY_LAYOUT = (*LAYOUTS, "misaligned", "transposed and sliced", "rotated", "channels last", "padded", "negated")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(spec: OpSpec, size: int, dim: int, seed: int, device: str) -> tuple[list[Tensor], dict]:
    """Return the arguments of an op on a device; they are sampled on the CPU, so they are equal on all devices."""
    tensors, others = spec.make(size, dim, generator(seed))
    return [x.to(device) for x in tensors], {name: x.to(device) for name, x in others.items()}


def with_layout(x: Tensor, layout: str) -> Tensor:
    """Return x in another memory layout, one of ``EVERY_LAYOUT``.

    `expanded` repeats the first slice with stride 0. `misaligned` starts one element after an aligned address.
    """
    if layout == "misaligned":
        return x.new_empty(x.numel() + 1)[1:].view(x.shape).copy_(x)
    if x.ndim == 0 or x.numel() == 0 or layout == "contiguous":
        return x
    if layout == "sliced":
        return x.repeat_interleave(2, -1)[..., ::2]
    if layout == "padded":
        return torch.nn.functional.pad(x, (3, 2))[..., 3 : 3 + x.shape[-1]]
    if layout == "negated" and x.dtype in (torch.float32, F64):  # a view with the negative bit
        return torch.complex(torch.zeros_like(x), -x).conj().imag
    if x.ndim < 2:
        return x
    if layout == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "transposed and sliced":
        return x.transpose(0, -1).repeat_interleave(2, 0)[::2].transpose(0, -1)
    if layout == "rotated":
        return x.movedim(0, -1).contiguous().movedim(-1, 0)
    if layout == "expanded":
        return x[:1].expand_as(x)
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels last" and x.ndim == 4 else x


def cast(
    tensors: Sequence[Tensor],
    dtype: torch.dtype,
    layout: str = "contiguous",
    grad: bool = True,
    dtype_out: torch.dtype | None = None,
) -> list[Tensor]:
    """Return leaf tensors with values rounded to `dtype`, in `dtype_out` if given."""
    return [with_layout(x.to(dtype).to(dtype_out or dtype), layout).detach().requires_grad_(grad) for x in tensors]


def outputs_and_gradients(
    spec: OpSpec, tensors: list[Tensor], dim: int, others: dict, call: Callable | None = None
) -> list[Tensor]:
    """Return all float outputs, then the gradients of Σ output·c to every tensor, for a fixed non-constant c."""
    out = [y for y in spec.outputs(tensors, dim, call=call, **others) if y.is_floating_point()]
    results = [y.detach() for y in out]
    if not spec.differentiable:
        return results
    cotangents = [torch.linspace(-1, 2, y.numel(), dtype=F64).view(y.shape).cos().to(y) for y in out]
    on = [i for i, y in enumerate(out) if y.requires_grad]
    gradients = torch.autograd.grad([out[i] for i in on], tensors, [cotangents[i] for i in on], allow_unused=True)
    return results + [torch.zeros_like(x) if g is None else g for g, x in zip(gradients, tensors, strict=True)]


def largest(x: Tensor, dim: int, rowwise: bool) -> Tensor:
    """Return the largest absolute value of each row, or of the whole tensor."""
    if x.numel() == 0:
        return x.new_zeros(())
    return x.abs().amax(dim, keepdim=True) if rowwise and x.ndim > 1 else x.abs().max()


def allowed_for_noise(
    spec: OpSpec, dtype: torch.dtype, inputs: list[Tensor], dim: int, others: dict, device: str
) -> list[Tensor] | None:
    """Return how far errors of the float32 noise may move the results, or None if no allowance is made.

    The noise of eager PyTorch and of the CPU kernels has an error of 1 or 2 ulp. On a GPU it may be
    1e-6·max(1, |g|), for speed.
    """
    if spec.noise_seed is None or dtype == F64 or torch.device(device).type != "cuda":
        return None

    def results(logits: Tensor) -> list[Tensor]:
        return outputs_and_gradients(spec, cast([logits, *inputs[1:]], F64), dim, others)

    with spec.exact(dtype):
        return moved_by_noise_errors(results, inputs[0], spec.noise_seed, dim)


def exact_results(
    spec: OpSpec,
    inputs: list[Tensor],
    dtype: torch.dtype,
    eager_dtype: torch.dtype,
    dim: int,
    others: dict,
    device: str,
) -> tuple[list[Tensor], list[Tensor], list[Tensor] | None, Tensor | None]:
    """Return the exact results for `dtype` and for `eager_dtype`, what :func:`allowed_for_noise` returns, and the mask
    of the rows where the gradient exists, or None: everywhere. Inputs are on the CPU.
    """

    def exact_for(rounded_to: torch.dtype) -> list[Tensor]:
        with spec.exact(rounded_to):
            return outputs_and_gradients(spec, cast(inputs, rounded_to, dtype_out=F64), dim, others)

    exact = exact_for(dtype)
    exact_for_eager = exact if eager_dtype == dtype else exact_for(eager_dtype)
    smooth = spec.smooth(inputs, dim) if spec.smooth else None
    return exact, exact_for_eager, allowed_for_noise(spec, dtype, inputs, dim, others, device), smooth


def assert_accurate(spec: OpSpec, dtype: torch.dtype, size: int, device: str, layouts: Sequence[str] = LAYOUTS) -> None:
    """Check that the error is at most twice that of eager (its maximum over all layouts and dims) plus 2 ulp.

    The ulp is that of the largest value of the row. Exact results are computed on the CPU. Gumbel noise on a GPU has an
    additional error, see allowed_for_noise.
    """
    runs = []
    # There is no better reference than float64. For float64, the error of eager is that of float32, scaled, and the
    # rounding of the reference is added: compared with long double, its error is up to five times that of our ops.
    eager_dtype = torch.float32 if dtype == F64 else dtype
    for dim in spec.dims:
        tensors, others = made(spec, size, dim, size + 1, device)
        others_here = {name: x.cpu() for name, x in others.items()}
        known: dict[bool, tuple] = {}
        for layout in layouts:
            inputs = cast(tensors, dtype, layout)
            ours = outputs_and_gradients(spec, inputs, dim, others)
            eager = outputs_and_gradients(spec, cast(inputs, eager_dtype), dim, others, spec.eager)
            repeated = layout == "expanded"  # all other layouts have equal values
            if repeated not in known:
                here = [x.detach().cpu() for x in inputs]
                known[repeated] = exact_results(spec, here, dtype, eager_dtype, dim, others_here, device)
            exact, exact_for_eager, moved, smooth = known[repeated]
            results = [[x.cpu() for x in outputs] for outputs in (ours, eager, exact_for_eager, exact)]
            if smooth is not None:  # results are the output and the gradient of the input
                for outputs in results:
                    outputs[1] = torch.where(smooth, outputs[1], 0)
            runs.append((dim, layout, *results, moved))
    scale = torch.finfo(F64).eps / torch.finfo(torch.float32).eps if dtype == F64 else 1
    times, ulps = (5, 4) if dtype == F64 else (2, 2)
    for i in range(len(runs[0][2])):
        eager_error = max(
            float((run[3][i].double() - run[4][i]).abs().max()) if run[3][i].numel() else 0 for run in runs
        )
        for dim, layout, ours, eager, _, exact, moved in runs:
            y, expected = ours[i], exact[i]
            assert y.shape == expected.shape
            assert y.dtype == (F64 if dtype == F64 else eager[i].dtype)
            error = (y.double() - expected).abs()
            ulp = torch.finfo(y.dtype).eps * largest(expected, dim, spec.rowwise)
            noise = 0 if moved is None else largest(moved[i], dim, spec.rowwise)
            assert (error <= times * scale * eager_error + ulps * ulp + noise).all(), (
                f"{spec}, size {size}, result {i}, dim {dim}, {layout}: "
                f"error {error.max():.3g}, eager {scale * eager_error:.3g}"
            )
