"""Acting: against PyTorch's modules and distributions, and as an op."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal
from torch.nn.utils import parameters_to_vector

import automl_ext
from automl_ext import _native

native_only = pytest.mark.skipif(
    not _native.is_loaded() or _native.current_backend() == "reference", reason="the native library is not in use"
)
BACKENDS = [pytest.param("auto", marks=native_only), "reference"]

# inputs, hidden, outputs, Gaussian, activation, dtype
CASES: dict[str, tuple[int, tuple[int, ...], int, bool, str, torch.dtype]] = {
    "cartpole": (4, (64, 64), 2, False, "tanh", torch.float32),
    "many actions": (5, (24, 33, 7), 19, False, "relu", torch.float64),
    "gaussian": (17, (40,), 6, True, "tanh", torch.float64),
    "gaussian, one": (3, (256, 100), 1, True, "relu", torch.float32),
}
every_case = pytest.mark.parametrize("name", CASES)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


class Acting:
    def __init__(self, name: str, n: int = 133) -> None:
        inputs, hidden, outputs, self.gaussian, self.activation, self.dtype = CASES[name]
        torch.manual_seed(0)
        self.sizes = {"actor": [inputs, *hidden, outputs], "critic": [inputs, *hidden, 1]}
        self.networks = []
        for sizes in self.sizes.values():
            layers: list[nn.Module] = []
            for pair in pairwise(sizes):
                layers += [nn.Linear(*pair), nn.ReLU() if self.activation == "relu" else nn.Tanh()]
            self.networks.append(nn.Sequential(*layers[:-1]).to(self.dtype))
        self.log_std = 0.3 * torch.randn(outputs * self.gaussian, dtype=self.dtype)
        weights = [parameters_to_vector(network.parameters()) for network in self.networks]
        self.parameters = torch.cat([self.log_std, *weights]).detach()
        self.observations = torch.randn(n, inputs, dtype=self.dtype)
        self.masks = None if self.gaussian else torch.rand(n, outputs) < 0.6
        if self.masks is not None:
            self.masks[:, outputs // 2] = True
        self.noise = (torch.randn(n, outputs) if self.gaussian else torch.rand(n)).to(self.dtype)

    def call(self, **changed: Any) -> Any:
        given = {"noise": self.noise, "masks": self.masks, "gaussian": self.gaussian, "activation": self.activation}
        arguments: Any = {"observations": self.observations, "parameters": self.parameters, **given, **self.sizes}
        return automl_ext.policy_act(**arguments | changed)

    @torch.no_grad()
    def policy(self) -> tuple[Any, Tensor]:
        outputs, values = (network(self.observations) for network in self.networks)
        if self.gaussian:
            return Normal(outputs, self.log_std.exp()), values.squeeze(1)
        assert self.masks is not None
        return Categorical(logits=outputs.masked_fill(~self.masks, -1e30)), values.squeeze(1)


@every_case
@every_backend
def test_actions_log_probs_and_values_are_those_of_the_modules(name: str, backend: str) -> None:
    case = Acting(name)
    policy, values = case.policy()
    with automl_ext.backend(backend):
        chosen, best = case.call(), case.call(noise=None)
    for got, mode in ((chosen, False), (best, True)):
        log_probs = policy.log_prob(got.actions)
        torch.testing.assert_close(got.log_probs, log_probs.sum(1) if case.gaussian else log_probs)
        torch.testing.assert_close(got.values, values)
        if case.gaussian:
            expected = policy.mean + policy.stddev * (0 if mode else case.noise)
            torch.testing.assert_close(got.actions, expected)
        elif mode:
            assert torch.equal(got.actions, policy.probs.argmax(1))


@every_backend
@pytest.mark.parametrize("name", ["cartpole", "many actions"])
def test_actions_are_as_frequent_as_probable(name: str, backend: str) -> None:
    """Numbers at equal distances hit each action as often as its probability says, up to one."""
    case, n = Acting(name), 2000
    policy, _ = case.policy()
    assert case.masks is not None
    for row in range(0, 133, 19):
        alone = {"observations": case.observations[row].expand(n, -1), "masks": case.masks[row].expand(n, -1)}
        numbers = ((torch.arange(n) + 0.5) / n).to(case.dtype)
        with automl_ext.backend(backend):
            actions = case.call(**alone, noise=numbers).actions
        counts = torch.bincount(actions, minlength=policy.probs.shape[1])
        assert float((counts - n * policy.probs[row]).abs().max()) <= 1
        assert not counts[~case.masks[row]].any()


@every_backend
@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_an_excluded_action_is_never_taken(number: float, backend: str) -> None:
    case = Acting("many actions")
    assert case.masks is not None
    case.masks[:, [0, -1]] = False
    with automl_ext.backend(backend):
        actions = case.call(noise=torch.full_like(case.noise, number)).actions
    assert case.masks.gather(1, actions.unsqueeze(1)).all()


@native_only
@every_case
def test_bits_do_not_depend_on_rows_threads_or_strides(name: str) -> None:
    case = Acting(name, 20_000 if name == "cartpole" else 133)
    expected = case.call()
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        threads = case.call()
    finally:
        torch.set_num_threads(before)

    def rows(part: Any) -> Any:
        masks = None if case.masks is None else case.masks[part]
        return case.call(observations=case.observations[part], noise=case.noise[part], masks=masks)

    parts = [torch.cat(x) for x in zip(rows(slice(3)), rows(slice(3, 110)), rows(slice(110, None)), strict=True)]
    strided = case.call(observations=case.observations.T.contiguous().T)
    for other in (threads, parts, strided):
        for x, y in zip(other, expected, strict=True):
            assert torch.equal(x, y)
    assert [len(x) for x in rows(slice(0))] == [0, 0, 0]
    arguments = (case.observations[:9], None, case.noise[:9], *case.sizes.values(), case.activation == "relu")
    op = torch.ops.automl_ext.policy_act.default
    torch.library.opcheck(
        op, (case.parameters, *arguments, case.gaussian), test_utils=["test_schema", "test_faketensor"]
    )


@every_backend
def test_a_nan_stays_in_its_row(backend: str) -> None:
    for name in ("cartpole", "gaussian"):
        case = Acting(name)
        with automl_ext.backend(backend):
            expected = case.call()
            case.observations[7] = math.nan
            got = case.call()
        assert got.values[7].isnan()
        assert got.log_probs[7].isnan() or case.gaussian
        others = torch.arange(133) != 7
        for x, y in zip(got, expected, strict=True):
            assert torch.equal(x[others], y[others])


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("cartpole", {"actor": [4, 2]}, "actor: expected the inputs and the units of 2 to 8 layers"),
    ("cartpole", {"critic": [4, 64, 64, 2]}, "critic: expected 4 inputs and 1 output"),
    ("cartpole", {"observations": torch.zeros(133, 3)}, r"observations: expected shape \(133, 4\)"),
    ("cartpole", {"observations": torch.zeros(4)}, r"observations: expected shape \[N, 4\]"),
    ("cartpole", {"observations": torch.zeros(133, 4).double()}, "observations: expected a float32 tensor"),
    ("cartpole", {"noise": torch.zeros(133, 2)}, r"noise: expected shape \(133,\)"),
    ("cartpole", {"masks": torch.ones(133, 2)}, "masks: expected a bool tensor"),
    ("cartpole", {"gaussian": True}, "parameters: expected .* numbers for the networks"),
    ("cartpole", {"gaussian": "no"}, "gaussian: expected a bool"),
    ("cartpole", {"activation": "gelu"}, "activation: expected tanh or relu, got 'gelu'"),
    ("cartpole", {"parameters": torch.zeros(3, 4)}, "parameters: expected a contiguous vector"),
    ("gaussian", {"masks": torch.ones(133, 6, dtype=torch.bool)}, "masks: expected None with a Gaussian policy"),
    ("gaussian", {"noise": torch.zeros(133, dtype=torch.float64)}, r"noise: expected shape \(133, 6\)"),
]


@every_backend
@pytest.mark.parametrize(("name", "changed", "message"), BAD)
def test_bad_arguments_are_named(name: str, changed: dict[str, Any], message: str, backend: str) -> None:
    case = Acting(name)
    with automl_ext.backend(backend), pytest.raises((TypeError, ValueError), match=f"policy_act: {message}"):
        case.call(**changed)
