"""``automl-ext doctor``: shows the build and the backend, and checks every public op and its gradient."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import automl_ext
from automl_ext import _native
from automl_ext.training.machine.device import choose_device

# Largest error allowed in float32, relative to the largest value of the result: far above the rounding error.
_TOLERANCE = 1e-4


Outputs = Tensor | Sequence[Tensor]


def names_of_ops() -> list[str]:
    """Return the names of all public ops: the functions of ``automl_ext.ops``."""
    return [name for name in automl_ext.ops.__all__ if inspect.isfunction(getattr(automl_ext.ops, name))]


def checks(device: torch.device) -> tuple[dict[str, Callable[[], Outputs]], list[Tensor]]:
    """Return functions without arguments that call each op on a small problem, and the float inputs they share.

    An op that has no such function is reported as not checked.
    """
    g = torch.Generator().manual_seed(0)
    inputs: list[Tensor] = []

    def given(x: Tensor) -> Tensor:
        inputs.append(x.to(device).requires_grad_())
        return inputs[-1]

    def randn(*shape: int, scale: float = 1.0) -> Tensor:
        return given(scale * torch.randn(*shape, generator=g))

    def flags(p: float) -> Tensor:
        return (torch.rand(128, 8, generator=g) < p).to(device)

    logits, xs, weights = randn(64, 100, scale=2), [randn(4, 16, 8, 8) for _ in range(5)], randn(5)
    rewards, values, next_values, log_rhos = (randn(128, 8) for _ in range(4))
    ends = (flags(0.03), flags(0.03))
    next_probs = given(torch.softmax(torch.randn(64, 51, generator=g), -1))
    flat_rewards, tau = randn(64, scale=3), given(torch.tensor(0.5))
    episode = (rewards, next_values, *ends, 0.99)
    layers, biases = [randn(20, 100, scale=0.1), randn(5, 20)], [randn(20), randn(5)]
    state, gates = randn(64, 20), [randn(60, 100, scale=0.1), randn(60, 20), randn(60), randn(60)]
    actions = torch.randint(100, (64,), generator=g).to(device)
    seen, few, ended = torch.randn(64, 4, generator=g).to(device), actions % 3, actions > 50
    weights_of_two = torch.randn(4 * 8 + 8 + 8 * 3 + 3 + 4 * 8 + 8 + 8 + 1, generator=g).to(device)

    def policy_step(p: Tensor, moments: tuple[Tensor, Tensor], step: Tensor) -> Sequence[Tensor]:
        given = p, moments, step, seen, few, seen[:, 0], seen[:, 1]
        return automl_ext.policy_gradient_step(*given, actor=[4, 8, 3], critic=[4, 8, 1], lr=0.01)

    def td_step(p: Tensor, moments: tuple[Tensor, Tensor], step: Tensor) -> Sequence[Tensor]:
        given = p, p.flip(0), moments, step, seen, few, seen[:, 0], -seen, ended, seen[:, 1].sigmoid()
        return automl_ext.td_step(*given, sizes=[4, 8, 3], lr=0.01)

    def stepped(call: Callable[..., Sequence[Tensor]], size: int) -> Outputs:
        """Take two training steps; return the parameters after them, and the metrics of the second one."""
        parameters = weights_of_two[:size].clone()
        state = (torch.zeros_like(parameters), torch.zeros_like(parameters)), torch.zeros(())
        call(parameters, *state)
        return parameters, *call(parameters, *state)

    return {
        "entmax15": lambda: automl_ext.entmax15(logits),
        "entmax15_attention": lambda: automl_ext.entmax15_attention(logits, 2 * logits, logits, is_causal=True),
        "sparsemax": lambda: automl_ext.sparsemax(logits),
        "gumbel_softmax": lambda: automl_ext.gumbel_softmax(logits, tau, seed=1, return_index=True),
        "gumbel_entmax15": lambda: automl_ext.gumbel_entmax15(logits, tau, seed=1, return_index=True),
        "gumbel_argmax": lambda: automl_ext.gumbel_argmax(logits, seed=1),
        "mlp": lambda: automl_ext.mlp(logits, layers, biases),
        "gru_cell": lambda: automl_ext.gru_cell(logits, state, *gates),
        "categorical_log_probs": lambda: automl_ext.categorical_log_probs(logits, actions),
        "policy_gradient_loss": lambda: automl_ext.policy_gradient_loss(
            log_rhos, rewards, values, next_values, rewards, old_log_probs=0.5 * values.detach()
        ),
        "policy_gradient_step": lambda: stepped(policy_step, len(weights_of_two)),
        "policy_act": lambda: automl_ext.policy_act(
            weights_of_two, seen, seen[:, 0].sigmoid(), actor=[4, 8, 3], critic=[4, 8, 1]
        ),
        "td_step": lambda: stepped(td_step, 4 * 8 + 8 + 8 * 3 + 3),
        "mixed_op": lambda: automl_ext.mixed_op(xs, weights),
        "cell_aggregate": lambda: automl_ext.cell_aggregate([xs, xs], torch.stack([weights, -weights / 2])),
        "discounted_returns": lambda: automl_ext.discounted_returns(*episode),
        "n_step_returns": lambda: automl_ext.n_step_returns(*episode, 3),
        "gae": lambda: automl_ext.gae(rewards, values, next_values, *ends, 0.99, 0.95),
        "lambda_returns": lambda: automl_ext.lambda_returns(*episode, 0.95),
        "vtrace": lambda: automl_ext.vtrace(log_rhos, rewards, values, next_values, *ends, 0.99),
        "retrace": lambda: automl_ext.retrace(log_rhos, values, rewards, next_values, *ends, 0.99),
        "td_targets": lambda: automl_ext.td_targets(flat_rewards, next_probs, flat_rewards > 2, 0.99),
        "categorical_projection": lambda: automl_ext.categorical_projection(
            next_probs, flat_rewards, flat_rewards > 2, 0.99, -10.0, 10.0
        ),
    }, inputs


def outputs_and_gradients(op: Callable[[], Outputs], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return all outputs, and the gradients of the sum of their sines with respect to every input (zeros if unused)."""
    outputs = op()
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    loss = sum((y.sin().sum() for y in outputs if y.requires_grad), 0 * inputs[0].sum())
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    return [*(y.detach() for y in outputs), *gradients]


def relative_error(op: Callable[[], Outputs], inputs: Sequence[Tensor]) -> float:
    """Return the largest error against the reference backend, relative to each tensor's largest value."""
    ours = outputs_and_gradients(op, inputs)
    with automl_ext.backend("reference"):
        expected = outputs_and_gradients(op, inputs)
    errors = [(a - b).abs().max() / b.abs().max().clamp_min(1e-30) for a, b in zip(ours, expected, strict=True)]
    return float(torch.stack(errors).max())  # unlike Python's max, it keeps a NaN


def report(device_name: str = "auto") -> bool:
    """Print the report. Return whether all ops are correct. A missing library is reported but is not a failure.

    Raises:
        UserError: there is no such device.
    """
    device = choose_device(device_name)
    console = Console()
    facts = Table("fact", "value", title=f"automl_ext {automl_ext.__version__}")
    facts.add_row("torch (running)", torch.__version__)
    build = automl_ext.build_info()
    forced, used = os.environ.get("AUTOML_EXT_CPU"), build.get("instruction_set")
    for name, value in build.items():
        facts.add_row(name if name != "torch" else "torch (built for)", str(value))
    facts.add_row("threads", str(torch.get_num_threads()))
    facts.add_row("backend", f"{_native.current_backend()} (AUTOML_EXT_BACKEND)")
    for name in dict.fromkeys([device.type, "cpu", "cuda"]):
        facts.add_row(f"backend on {name}", backend_on(torch.device(name)))
    console.print(facts)
    if forced is not None and forced != used:
        console.print(
            f"AUTOML_EXT_CPU: expected an instruction set of this processor, got {forced!r}: ignored", style="yellow"
        )

    table = Table("op", "computed by", "error, gradients included", "", title=f"ops on {device}")
    correct = True
    ops, inputs = checks(device)
    computed_by = "kernel" if backend_on(device).startswith("compiled") else "PyTorch"
    for name in names_of_ops():
        if name not in ops:
            table.add_row(name, "", "", "[yellow]not checked: an example is missing in automl_ext/doctor.py")
            continue
        error = relative_error(ops[name], inputs)
        passed = error <= _TOLERANCE
        correct &= passed
        table.add_row(name, computed_by, f"{error:.1e}", "ok" if passed else "[red]WRONG")
    console.print(table)
    return correct


def backend_on(device: torch.device) -> str:
    """Return the backend in use on a device, and the reason."""
    if _native.current_backend() == "reference":
        return "PyTorch: the backend 'reference' is selected"
    why_not = _native.why_not_native(device)
    if why_not is None:
        return f"compiled kernels for {device.type}"
    return f"{'none' if _native.current_backend() == 'native' else 'PyTorch'}: {why_not}"


@dataclass
class DoctorCommand:
    device: str = "auto"
    """Device on which the ops are checked: auto, cpu or cuda."""


def doctor(command: DoctorCommand) -> int:
    """Check this installation. Return the exit code: 1 if something is wrong."""
    return 0 if report(command.device) else 1
