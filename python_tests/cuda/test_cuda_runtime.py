"""Kernels on a GPU: CUDA graphs, streams, devices, launches, synchronization, determinism."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from cuda_cases import CASES, EPISODES_IN_TILES, SIZED, Case
from gpu import GPU, required
from torch import Tensor

import automl_ext as a

required()
pytestmark = [pytest.mark.cuda, pytest.mark.real_gpu]
every_case = pytest.mark.parametrize("case", [*CASES, *SIZED, *EPISODES_IN_TILES], ids=str)
SAMPLERS = [a.gumbel_softmax, a.gumbel_entmax15, a.gumbel_argmax]
each_sampler = pytest.mark.parametrize("op", SAMPLERS, ids=lambda op: op.__name__)


@contextlib.contextmanager
def synchronization_is_an_error() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def overwrite(tensors: list[Tensor], new: list[Tensor]) -> None:
    with torch.no_grad():
        for x, y in zip(tensors, new, strict=True):
            x.copy_(y)


def assert_same_bits(got: list[Tensor], expected: list[Tensor]) -> None:
    for i, (x, y) in enumerate(zip(got, expected, strict=True)):
        assert torch.equal(x, y), f"result {i}"


def captured(run: Callable[[], list[Tensor]]) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    """Return a CUDA graph of run and the tensors that a replay overwrites."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # warm up: loading and allocation at first use must not be captured
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    return graph, results


def test_the_guard_detects_synchronization() -> None:
    x = torch.ones(3, device=GPU)
    with synchronization_is_an_error(), pytest.raises(RuntimeError, match="synchron"):
        x.sum().item()
    assert x.sum().item() == 3


@every_case
def test_calls_do_not_synchronize(case: Case) -> None:
    tensors = case.tensors(GPU)
    with synchronization_is_an_error():
        case.outputs_and_gradients(tensors)


@each_sampler
def test_sampling_does_not_synchronize(op: Callable) -> None:
    logits = torch.zeros(7, 5, device=GPU)
    generator = torch.Generator(GPU).manual_seed(1)
    with synchronization_is_an_error():
        op(logits)
        op(logits, seed=3)
        op(logits, generator=generator)


@every_case
def test_graph_replay_equals_eager(case: Case) -> None:
    tensors = case.tensors(GPU)

    def run() -> list[Tensor]:
        with synchronization_is_an_error():
            return case.outputs_and_gradients(tensors)

    graph, results = captured(run)
    for seed in (1, 2):
        overwrite(tensors, case.tensors(GPU, seed))
        graph.replay()
        assert_same_bits(results, run())


@each_sampler
def test_every_replay_samples_new_noise(op: Callable) -> None:
    logits = torch.zeros(200, 8, device=GPU)
    graph, (y,) = captured(lambda: [op(logits)])
    samples = []
    for _ in range(3):
        graph.replay()
        samples.append(y.clone())
    assert not torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[1], samples[2])
    assert not torch.equal(samples[0], samples[2])


@every_case
def test_kernels_run_on_the_current_stream(case: Case) -> None:
    """New inputs are written late on this stream; a kernel on another stream would read the old ones."""
    tensors, new = case.tensors(GPU, seed=0), case.tensors(GPU, seed=1)
    old_results, expected = case.outputs_and_gradients(tensors), case.outputs_and_gradients(new)
    assert not all(torch.equal(x, y) for x, y in zip(old_results, expected, strict=True))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # cycles: tens of milliseconds
        overwrite(tensors, new)
        results = case.outputs_and_gradients(tensors)
    stream.synchronize()
    assert_same_bits(results, expected)


@every_case
def test_another_device_than_the_current_one(case: Case) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is only one GPU")
    assert torch.cuda.current_device() == 0
    expected = case.outputs_and_gradients(case.tensors("cuda:0"))
    results = case.outputs_and_gradients(case.tensors("cuda:1"))
    assert torch.cuda.current_device() == 0
    assert all(x.device == torch.device("cuda:1") for x in results)
    for x, y in zip(results, expected, strict=True):
        torch.testing.assert_close(x.cpu(), y.cpu())


def launched(run: Callable[[], object]) -> list[str]:
    """Return the names of the kernels, copies and fills that run launches on the GPU."""
    run()
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize()
    return [e.name for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]


@pytest.fixture(scope="module")
def profiler() -> None:
    x = torch.ones(3, device=GPU)
    if len(launched(lambda: x + 1)) != 1:
        pytest.skip("the profiler does not see single kernels")


@every_case
def test_one_launch_per_call(case: Case, profiler: None) -> None:
    """Each op is one launch, for a mixed op of up to 64 inputs; a loss is two."""
    tensors = [x.detach() for x in case.tensors(GPU)]
    names = launched(lambda: case.outputs(tensors))
    assert len(names) == case.launches, names


@every_case
def test_a_thousand_repeats_give_the_same_bits(case: Case) -> None:
    tensors = case.tensors(GPU)
    first = case.outputs_and_gradients(tensors)
    differing = torch.zeros((), dtype=torch.int64, device=GPU)
    # Fewer repeats for hundreds of gradients per call and where there are many cases.
    for _ in range(1000 if case in CASES and len(tensors) < 20 else 100):
        for x, y in zip(first, case.outputs_and_gradients(tensors), strict=True):
            differing += (x != y).any()
    assert differing == 0
