"""Whole training steps: against PyTorch's modules and optimizers, and as ops that change their arguments."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal
from torch.nn.utils import clip_grad_norm_, parameters_to_vector

import automl_ext
from automl_ext import _native

native_only = pytest.mark.skipif(
    not _native.is_loaded() or _native.current_backend() == "reference", reason="the native library is not in use"
)
BACKENDS = [pytest.param("auto", marks=native_only), "reference"]
LR, MAX_NORM, EPS = 1e-3, 0.5, 1e-5

# inputs, outputs, hidden, steps, options
POLICIES: dict[str, tuple[int, int, tuple[int, ...], int, dict[str, Any]]] = {
    "ppo": (4, 2, (64, 64), 200, {"rows": 128, "old": True, "normalize_advantages": True}),
    "ppo, masks and clipped values": (5, 9, (24, 33, 7), 130, {"old": True, "old_values": True, "masks": True}),
    "ppo, gaussian": (17, 6, (64, 64), 100, {"gaussian": True, "old": True, "old_values": True}),
    "ppo, many gaussian": (30, 17, (100, 256, 5), 70, {"gaussian": True, "old": True, "normalize_advantages": True}),
    "ppo, one row": (3, 5, (1,), 90, {"rows": 1, "old": True, "activation": "relu"}),
    "a2c": (4, 3, (64, 64), 40, {"rmsprop": True}),
    "a2c, gaussian": (2, 1, (40,), 65, {"gaussian": True, "normalize_advantages": True, "activation": "relu"}),
}
TDS: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {
    "dqn": ((4, 256, 256, 2), 64, {}),
    "layer_norm": ((9, 50, 70, 7), 137, {"layer_norm": True, "double": True, "weights": True}),
    "one layer": ((3, 20, 4), 5, {"layer_norm": True, "huber": False}),
    "double": ((6, 33, 17, 40, 3), 70, {"double": True, "weights": True, "activation": "tanh"}),
}


def perceptron(sizes: tuple[int, ...], activation: str, layer_norm: bool = False) -> nn.Sequential:
    """Return a perceptron of PyTorch's modules."""
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        modules += [nn.Linear(inputs, outputs), *[nn.LayerNorm(outputs)] * layer_norm]
        modules.append(nn.ReLU() if activation == "relu" else nn.Tanh())
    return nn.Sequential(*modules, nn.Linear(*sizes[-2:])).double()


class Step:
    """One case: its arguments in float64, PyTorch's step, and a call of the op."""

    parameters: Tensor
    rmsprop = False
    keywords: dict[str, Any]

    def state(self, dtype: torch.dtype) -> tuple[Tensor, tuple[Tensor | None, Tensor], Tensor]:
        p = self.parameters.to(dtype, copy=True)
        return p, (None if self.rmsprop else torch.zeros_like(p), torch.zeros_like(p)), torch.zeros(())

    def optimizer(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        if self.rmsprop:
            return torch.optim.RMSprop(parameters, LR, alpha=0.99, eps=EPS)
        return torch.optim.Adam(parameters, LR, eps=EPS)

    def numbers(self) -> dict[str, Any]:
        betas = (0.9, 0.99 if self.rmsprop else 0.999)
        return {"lr": LR, "max_norm": MAX_NORM, "eps": EPS, "betas": betas}


def cast(x: Any, dtype: torch.dtype) -> Any:
    return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x


class PolicyCase(Step):
    def __init__(self, name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        inputs, outputs, hidden, n, options = POLICIES[name]
        options = dict(options)
        torch.manual_seed(seed)
        self.gaussian, self.rmsprop = options.pop("gaussian", False), options.pop("rmsprop", False)
        old, masks, rows = options.pop("old", False), options.pop("masks", False), options.pop("rows", None)
        self.activation = options.get("activation", "tanh")
        self.actor, self.critic = [inputs, *hidden, outputs], [inputs, *hidden, 1]
        self.networks = nn.ModuleList(perceptron(s, self.activation) for s in (self.actor, self.critic))
        self.log_std = nn.Parameter(0.3 * torch.randn(outputs * self.gaussian, dtype=torch.float64))
        every = [*([self.log_std] if self.gaussian else []), *self.networks.parameters()]
        for p in every:
            p.data = p.data.to(dtype).double()  # the inputs of both computations are equal
        self.parameters = parameters_to_vector(every).detach()
        self.every = every

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape).to(dtype).double()

        self.observations, self.advantages, self.returns = randn(n, inputs), randn(n), randn(n)
        self.actions = randn(n, outputs) if self.gaussian else torch.randint(outputs, (n,))
        self.masks = None
        if masks:
            self.masks = torch.rand(n, outputs) < 0.6
            self.masks[torch.arange(n), self.actions] = True
        with torch.no_grad():
            log_probs = self.evaluate(slice(None))[0]
        self.keywords = options | {"clip": 0.2, "value_clip": 0.3, "vf_coef": 0.7, "ent_coef": 0.05}
        self.keywords["old_log_probs"] = (log_probs + 0.3 * randn(n)).to(dtype).double() if old else None
        self.keywords["old_values"] = randn(n) if options.get("old_values") else None
        self.keywords |= {"masks": self.masks, "rows": None if rows is None else torch.randperm(n)[:rows]}

    def evaluate(self, rows: Any) -> tuple[Tensor, Tensor, Tensor]:
        seen, actions = self.observations[rows], self.actions[rows]
        outputs, values = (network(seen) for network in self.networks)
        if self.gaussian:
            normal = Normal(outputs, self.log_std.exp())
            return normal.log_prob(actions).sum(1), normal.entropy().sum(1), values.squeeze(1)
        if self.masks is not None:
            outputs = outputs.masked_fill(~self.masks[rows], -1e30)
        return (pi := Categorical(logits=outputs)).log_prob(actions), pi.entropy(), values.squeeze(1)

    def loss(self) -> tuple[Tensor, list[Tensor]]:
        k = self.keywords
        rows = slice(None) if k["rows"] is None else k["rows"]
        log_probs, entropy, values = self.evaluate(rows)
        a, target = self.advantages[rows], self.returns[rows]
        if k.get("normalize_advantages"):
            a = (a - a.mean()) / (a.std(correction=0) + 1e-8)
        gain, kl, clipped = a * log_probs, torch.zeros(()), torch.zeros(())
        if k["old_log_probs"] is not None:
            log_ratio = log_probs - k["old_log_probs"][rows]
            ratio = log_ratio.exp()
            gain = torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
            kl, clipped = (ratio - 1 - log_ratio).mean(), ((ratio - 1).abs() > 0.2).double().mean()
        errors = (values - target) ** 2
        if k["old_values"] is not None:
            old = k["old_values"][rows]
            errors = torch.maximum(errors, (old + (values - old).clamp(-0.3, 0.3) - target) ** 2)
        loss = -gain.mean() + k["vf_coef"] * errors.mean() - k["ent_coef"] * entropy.mean()
        return loss, [-gain.mean(), errors.mean(), entropy.mean(), kl, clipped]

    def call(self, state: Any, dtype: torch.dtype = torch.float64, **changed: Any) -> list[Tensor]:
        tensors = {name: getattr(self, name) for name in ("observations", "actions", "advantages", "returns")}
        sizes = {"actor": self.actor, "critic": self.critic}
        arguments = tensors | self.keywords | self.numbers() | sizes | changed
        return [*automl_ext.policy_gradient_step(*state, **{name: cast(x, dtype) for name, x in arguments.items()})]


class TdCase(Step):
    def __init__(self, name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        sizes, n, options = TDS[name]
        options = dict(options)
        torch.manual_seed(seed)
        activation, layer_norm = options.get("activation", "relu"), options.get("layer_norm", False)
        self.online = perceptron(sizes, activation, layer_norm)
        self.networks = nn.ModuleList([self.online, copy.deepcopy(self.online)])
        for p in self.networks.parameters():
            p.data = (p + 0.1 * torch.randn(p.shape)).to(dtype).double()
        self.every = [*self.online.parameters()]
        self.parameters = parameters_to_vector(self.every).detach()

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape).to(dtype).double()

        weights = randn(n).abs() if options.pop("weights", False) else None
        self.tensors = {
            "target": parameters_to_vector(self.networks[1].parameters()).detach(),
            "observations": randn(n, sizes[0]),
            "actions": torch.randint(sizes[-1], (n,)),
            "returns": 2 * randn(n),
            "next_observations": randn(n, sizes[0]),
            "terminated": torch.rand(n) < 0.2,
            "discounts": randn(n).sigmoid().to(dtype).double(),
        }
        self.keywords = options | {"sizes": [*sizes], "weights": weights}

    def loss(self) -> tuple[Tensor, list[Tensor]]:
        x, k = self.tensors, self.keywords
        q = self.online(x["observations"]).gather(1, x["actions"][:, None]).squeeze(1)
        with torch.no_grad():
            next_q = self.networks[1](x["next_observations"])
            selector = self.online(x["next_observations"]) if k.get("double") else next_q
            best = next_q.gather(1, selector.argmax(1, keepdim=True)).squeeze(1)
            y = x["returns"] + torch.where(x["terminated"], 0, x["discounts"] * best)
        kind = nn.HuberLoss if k.get("huber", True) else nn.MSELoss
        losses = kind(reduction="none")(q, y)
        loss = (losses if k["weights"] is None else k["weights"] * losses).mean()
        return loss, [loss, q.mean(), (q - y).abs()]

    def call(self, state: Any, dtype: torch.dtype = torch.float64, **changed: Any) -> list[Tensor]:
        p, moments, step = state
        arguments = self.tensors | self.keywords | self.numbers() | changed
        arguments = {name: cast(x, dtype) for name, x in arguments.items()}
        loss, value, norm, errors = automl_ext.td_step(p, arguments.pop("target"), moments, step, **arguments)
        return [loss, value, errors, norm]


CASES = [*((PolicyCase, name) for name in POLICIES), *((TdCase, name) for name in TDS)]
every_case = pytest.mark.parametrize(("kind", "name"), CASES, ids=lambda x: x if isinstance(x, str) else x.__name__)


def torch_steps(case: Any, count: int) -> tuple[Tensor, list[Tensor]]:
    """Take steps by PyTorch's modules and optimizers; return the first gradient and the first metrics."""
    optimizer = case.optimizer(case.every)
    first: Any = None
    for _ in range(count):
        optimizer.zero_grad()
        loss, metrics = case.loss()
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in case.every])
        first = first or (gradient, [x.detach() for x in (*metrics, gradient.norm())])
        clip_grad_norm_(case.every, MAX_NORM)
        optimizer.step()
    return first


@every_case
@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_are_those_of_pytorch(kind: Any, name: str, backend: str) -> None:
    case = kind(name)
    with automl_ext.backend(backend):
        state = case.state(torch.float64)
        metrics = case.call(state)
        for _ in range(2):
            case.call(state)
    before = case.parameters
    _, expected = torch_steps(case, 3)
    for got, want in zip(metrics, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12, check_dtype=False)
    moved, wanted = state[0] - before, parameters_to_vector(case.every).detach() - before
    assert float((moved - wanted).abs().max()) <= 1e-9 * float(wanted.abs().max())
    assert state[2] == 3


@native_only
@every_case
def test_float32_is_close_to_float64(kind: Any, name: str) -> None:
    case = kind(name, dtype=torch.float32)
    exact = kind(name, dtype=torch.float32)
    state = case.state(torch.float32)
    case.call(state, torch.float32, max_norm=math.inf)
    decay = 1 - 0.99 if case.rmsprop else 1 - 0.9
    state64 = case.state(torch.float64)
    exact.call(state64, max_norm=math.inf)
    gradient, true = (s[1][1].sqrt() if case.rmsprop else s[1][0].double() / decay for s in (state, state64))
    assert float((gradient - true).abs().max()) <= 2e-6 * float(true.abs().max())
    # From here on the updates: PyTorch's own float32 steps are off by as much.
    before = case.parameters
    state, state64 = case.state(torch.float32), case.state(torch.float64)
    for _ in range(3):
        case.call(state, torch.float32), case.call(state64)
    change = state64[0] - before
    assert float((state[0] - state64[0]).abs().max()) <= 1e-3 * float(change.abs().max())


@native_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bits_do_not_depend_on_threads_or_on_how_rows_are_given(dtype: torch.dtype) -> None:
    """40 blocks of rows are more than the gradients that are in memory at once."""
    torch.manual_seed(0)
    n, actor, critic = 2500, [4, 64, 64, 3], [4, 64, 64, 1]
    size = sum((a + 1) * b for sizes in (actor, critic) for a, b in pairwise(sizes))
    parameters = (torch.randn(size) / 8).to(dtype)
    columns = [torch.randn(n, 4), torch.randint(3, (n,)), torch.randn(n), torch.randn(n)]
    columns = [cast(x, dtype) for x in columns]
    order = torch.randperm(n)

    def run(threads: int, tensors: list[Tensor], rows: Tensor | None) -> tuple[Tensor, ...]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            state = parameters.clone(), (torch.zeros_like(parameters), torch.zeros_like(parameters)), torch.zeros(())
            metrics = automl_ext.policy_gradient_step(*state, *tensors, actor=actor, critic=critic, lr=LR, rows=rows)
        finally:
            torch.set_num_threads(before)
        return state[0], *state[1], *metrics

    expected = run(1, columns, order)
    for other in (run(2, columns, order), run(3, columns, order), run(1, [x[order] for x in columns], None)):
        for x, y in zip(other, expected, strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_beyond_max_kl_changes_nothing(backend: str) -> None:
    case = PolicyCase("ppo")
    with automl_ext.backend(backend):
        state = case.state(torch.float64)
        kl = float(case.call(state, max_kl=0.0)[3])
        assert kl > 0.0
        assert torch.equal(state[0], case.parameters)
        assert not state[1][0].any()
        assert not state[1][1].any()
        assert state[2] == 0
        case.call(state, max_kl=kl)
        assert state[2] == 1
        assert not torch.equal(state[0], case.parameters)


@native_only
@every_case
def test_opcheck_and_strided_inputs(kind: Any, name: str) -> None:
    """Inputs may have any strides."""
    case = kind(name)
    states = [case.state(torch.float64) for _ in range(2)]
    case.call(states[0])

    def strided(x: Any) -> Any:
        if not isinstance(x, Tensor) or x.ndim == 0:
            return x
        wide = torch.stack([x, torch.zeros_like(x)], -1)[..., 0]
        return wide.T.clone(memory_format=torch.contiguous_format).T if x.ndim == 2 else wide

    columns = (
        case.tensors
        if kind is TdCase
        else {each: getattr(case, each) for each in ("observations", "actions", "advantages", "returns")}
    )
    case.call(states[1], **{key: strided(x) for key, x in (columns | case.keywords).items()})
    assert torch.equal(states[0][0], states[1][0])

    calls: list[Any] = []
    op = torch.ops.automl_ext
    overload = op.td_step.default if kind is TdCase else op.policy_gradient_step.default

    class Recorded(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is overload:
                calls.append(args)
            return function(*args, **(kwargs or {}))

    with Recorded():
        case.call(case.state(torch.float64))
    (args,) = calls
    torch.library.opcheck(overload, args, test_utils=["test_schema", "test_faketensor"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", ["observations", "advantages", "returns"])
@native_only
def test_numbers_that_are_not_finite_act_as_in_pytorch(column: str, value: float) -> None:
    for case in (PolicyCase("ppo"), TdCase("layer_norm")):
        if isinstance(case, TdCase) and column == "advantages":
            continue
        holder = case.tensors if isinstance(case, TdCase) else vars(case)
        holder[column] = holder[column].clone()
        holder[column][case.keywords["rows"][5] if isinstance(case, PolicyCase) else 5] = value
        results = []
        for backend in ("auto", "reference"):
            with automl_ext.backend(backend):
                state = case.state(torch.float64)
                results.append((*case.call(state), state[0]))
        for x, y in zip(*results, strict=True):
            torch.testing.assert_close(x, y, equal_nan=True, rtol=1e-9, atol=1e-9)


def test_a_terminal_state_needs_no_finite_next_value() -> None:
    case = TdCase("double")
    case.tensors["terminated"][3] = True
    case.tensors["next_observations"][3] = math.nan
    state = case.state(torch.float64)
    assert all(x.isfinite().all() for x in case.call(state))
    assert state[0].isfinite().all()


BAD_POLICY: list[tuple[dict[str, Any], str]] = [
    ({"actor": [4, 2]}, "actor: expected the inputs and the units of 2 to 8 layers"),
    ({"actor": [4, 0, 2]}, "actor: expected a list of positive ints"),
    ({"critic": [4, 64, 64, 2]}, "critic: expected 4 inputs and 1 output"),
    ({"critic": [4, 64, 1]}, "parameters: expected .* numbers for the networks"),
    ({"observations": torch.zeros(200, 3)}, r"observations: expected shape \(200, 4\)"),
    ({"observations": torch.zeros(4)}, r"observations: expected shape \[N, 4\]"),
    ({"actions": torch.full((200,), 2)}, r"actions: expected values in \[0, 2\), got 2"),
    ({"actions": torch.zeros(200, dtype=torch.int32)}, "actions: expected a int64 tensor"),
    ({"advantages": torch.zeros(199)}, r"advantages: expected shape \(200,\)"),
    ({"masks": torch.ones(200, 3, dtype=torch.bool)}, r"masks: expected shape \(200, 2\)"),
    ({"rows": torch.tensor([0, 200])}, r"rows: expected values in \[0, 200\), got 200"),
    ({"rows": torch.tensor([], dtype=torch.int64)}, "rows: expected at least one step"),
    ({"rows": torch.zeros(2, 2, dtype=torch.int64)}, "rows: expected a vector"),
    ({"activation": "gelu"}, "activation: expected tanh or relu, got 'gelu'"),
    ({"normalize_advantages": "yes"}, "normalize_advantages: expected a bool"),
    ({"clip": 0.0}, "clip: expected a positive number"),
    ({"max_norm": math.nan}, "max_norm: expected a positive number"),
    ({"max_kl": -1.0}, "max_kl: expected a non-negative number"),
    ({"lr": math.inf}, "lr: expected a number in"),
    ({"betas": (0.9, 1.0)}, r"betas\[1\]: expected a number in \[0, 1\)"),
    ({"vf_coef": math.nan}, "vf_coef: expected a number"),
]
BAD_TD: list[tuple[dict[str, Any], str]] = [
    ({"sizes": [4, 256, 2]}, "parameters: expected .* numbers for the networks"),
    ({"target": torch.zeros(3)}, "target: expected shape"),
    ({"observations": torch.zeros(0, 4)}, "observations: expected shape .* with N of at least 1"),
    ({"actions": torch.full((64,), -1)}, r"actions: expected values in \[0, 2\), got -1"),
    ({"terminated": torch.zeros(64)}, "terminated: expected a bool tensor"),
    ({"weights": torch.zeros(3)}, "weights: expected shape"),
    ({"double": "yes"}, "double: expected a bool"),
    ({"eps": -1.0}, "eps: expected a number"),
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_arguments_are_named_and_change_nothing(backend: str) -> None:
    with automl_ext.backend(backend):
        for case, table in ((PolicyCase("ppo"), BAD_POLICY), (TdCase("dqn"), BAD_TD)):
            state = case.state(torch.float64)
            for changed, message in table:
                with pytest.raises((ValueError, TypeError, IndexError), match=message):
                    case.call(state, **changed)
            p, (average, square), step = state
            bad_states = [
                ((p, (average, average), step), "expected tensors that share no memory"),
                ((p[1:], (average, square), step), "parameters: expected .* numbers for the networks"),
                ((p.half(), (average, square), step), "parameters: expected a float32 or float64 tensor"),
                ((p, (average[1:], square), step), r"moments\[0\]: expected shape"),
                ((p, average, step), "moments: expected a pair of tensors"),
                ((p, (average, square), torch.zeros(1)), "step: expected a float32 tensor without dimensions"),
                ((p, (average, square.float()), step), r"moments\[1\]: expected a float64 tensor"),
            ]
            for bad, message in bad_states:
                with pytest.raises((ValueError, TypeError), match=message):
                    case.call(bad)
            assert torch.equal(p, case.parameters)
            assert not average.any()
            assert step == 0


@native_only
def test_wrong_arguments_of_the_raw_op_never_read_beyond_a_tensor() -> None:
    """The checks in C++ alone, for callers of torch.ops."""
    op = torch.ops.automl_ext.policy_gradient_step.default
    n, actor, critic = 4, [2, 3, 2], [2, 3, 1]
    size = sum((a + 1) * b for sizes in (actor, critic) for a, b in pairwise(sizes))

    def call(**changed: Any) -> Tensor:
        given = {
            "parameters": torch.zeros(size),
            "average": torch.zeros(size),
            "square": torch.zeros(size),
            "step": torch.zeros(()),
            "observations": torch.zeros(n, 2),
            "actions": torch.zeros(n, dtype=torch.int64),
            "masks": None,
            "old_log_probs": None,
            "old_values": None,
            "advantages": torch.zeros(n),
            "returns": torch.zeros(n),
            "rows": None,
            "actor": actor,
            "critic": critic,
        } | changed
        return op(*given.values(), False, False, 0.2, 0.2, 0.5, 0.0, 1.0, math.inf, 1e-3, 0.9, 0.999, 1e-8)

    assert call().shape == (6,)
    for changed in (
        {"rows": torch.tensor([-1])},
        {"actions": torch.tensor([0, 1, 2, 0])},
        {"returns": torch.zeros(3)},
        {"square": torch.zeros(size - 1)},
        {"step": torch.zeros((), dtype=torch.float64)},
        {"actor": [2, 2**40, 2]},
        {"actor": [2] * 20},
        {"masks": torch.ones(n, 1, dtype=torch.bool)},
    ):
        with pytest.raises((ValueError, TypeError, IndexError)):
            call(**changed)
