"""Ray: two nodes on this machine; killed workers, a removed node, resources, and equality with the other back ends.

One test, so that one cluster is started, even if several processes run the tests.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nas_search_world
import pytest
import torch

from automl_ext.nas.search.search import search
from automl_ext.nas.strategies.renas import ReNASConfig
from automl_ext.parallel.cluster import Cluster
from automl_ext.parallel.jobs import Jobs
from automl_ext.parallel.seeds import run_seeds
from automl_ext.rl.registry import algorithm
from automl_ext.training.errors import UserError

ray = pytest.importorskip("ray", reason='needs ray: pip install "automl_ext[ray]"')
calls = pytest.importorskip("ray_calls")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster: a head with one CPU, and a node with one CPU and one (pretended) GPU."""
    from ray.cluster_utils import Cluster as Nodes

    os.environ["RAY_DISABLE_MEMORY_MONITOR"] = "1"
    small = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Nodes(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    ray.init(cluster.address, logging_level="error", log_to_driver=False)  # belongs to the head: there is no other node
    cluster.gpu_node = cluster.add_node(**small, num_gpus=1)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def results_are_in_order_after_a_killed_worker(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cluster("ray"), Jobs(partial(calls.work, tmp_path), 2) as jobs:
        for number in range(5):
            jobs.add((number, 0.3 if number == 0 else 0.0, int(number == 1)))
        results = [jobs.next()[1] for _ in range(5)]
    assert [number for number, _, _ in results] == list(range(5))
    assert all(torch.equal(ones, torch.ones(number)) for number, ones, _ in results)
    assert os.getpid() not in {process for _, _, process in results}
    assert [len(list(tmp_path.glob(f"{number}-*"))) for number in range(5)] == [1, 2, 1, 1, 1]


def exceptions_of_the_function_are_raised(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cluster("ray"), Jobs(calls.fail, 2) as jobs:
        for number in range(3):
            jobs.add((number,))
        assert jobs.next()[1] == 0
        with pytest.raises(UserError, match=r"^bad input, in a worker$"):
            jobs.next()[1]
        with pytest.raises(RuntimeError, match="Unpicklable"):
            jobs.next()[1]


def calls_have_their_resources_and_the_settings_of_the_driver(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOML_EXT_TEST", "value")
    monkeypatch.chdir(tmp_path)
    with Cluster("ray", cpus=1, gpus=0.5), Jobs(calls.facts, 2) as jobs:
        for number in range(2):
            jobs.add((number,))
        found = [jobs.next()[1] for _ in range(2)]
    assert found == [{"threads": 1, "folder": str(tmp_path), "variable": "value", "gpus": "0"}] * 2


def resources_that_no_node_has_are_an_error(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Cluster("ray", gpus=2),
        pytest.raises(UserError, match="no node of the Ray cluster has 1 CPUs and 2 GPUs; its nodes have: "),
    ):
        Jobs(calls.facts, 2)


def cancelled_calls_stop(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray cancels no call whose process is just being started: here it ignores the first request for every call."""
    begin, cancel, asked = time.monotonic(), ray.cancel, []

    def second_time(call: Any, force: bool) -> None:
        if call in asked:
            cancel(call, force=force)
        asked.append(call)

    monkeypatch.setattr(ray, "cancel", second_time)
    with Cluster("ray"), Jobs(partial(calls.work, tmp_path), 2) as jobs:
        for number in range(4):
            jobs.add((number, 600.0))
        while len(list(tmp_path.iterdir())) < 1:
            time.sleep(0.05)
    with Cluster("ray"), Jobs(partial(calls.work, tmp_path), 2) as jobs:
        jobs.add((9,))
        assert jobs.next()[1][0] == 9
    assert time.monotonic() - begin < 500
    assert len(list(tmp_path.iterdir())) <= 3  # of at most two in flight, and the last one


def short_calls_end_instead_of_being_cancelled(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray aborts this process if a call ends just when it is cancelled."""
    import ray

    cancelled: list[Any] = []
    with Cluster("ray"), Jobs(partial(calls.work, tmp_path), 2) as jobs:
        jobs.add((0,))
        assert jobs.next()[1][0] == 0  # a process of Ray has started
        monkeypatch.setattr(ray, "cancel", lambda handle, force: cancelled.append(handle))
        jobs.add((1,))
    assert not cancelled
    assert len(list(tmp_path.iterdir())) == 2


def runs(process: int) -> bool:
    """Return whether a process of this machine exists and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def same_metrics(a: Path, b: Path) -> bool:
    return (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()


def a_search_is_equal_to_one_of_processes_and_resumed(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other commands use the same queue: ``Jobs``."""
    table = str(nas_search_world.write(tmp_path / "table.npz"))
    config = ReNASConfig(evaluator="table", table=table, evaluations=30, population=6, sample=3, workers=2)
    search("renas", config, tmp_path / "here")
    with Cluster("ray"):
        assert search("renas", config, tmp_path / "there", stop_after=12) is None
        search("renas", config, tmp_path / "there", resume="auto")
    assert same_metrics(tmp_path / "here", tmp_path / "there")


def seeds_run_on_the_nodes(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = algorithm("a2c")
    config = found.config(total_steps=60, eval_every=30, eval_episodes=1, final_episodes=1)
    here = run_seeds(found.train, "a2c", config, tmp_path / "here", [3, 4])
    with Cluster("ray"):
        there = run_seeds(found.train, "a2c", config, tmp_path / "there", [3, 4], workers=2)
    assert here is not None
    assert there is not None
    assert here["summary"]["eval_return_mean"] == there["summary"]["eval_return_mean"]
    assert same_metrics(tmp_path / "here/seed-4", tmp_path / "there/seed-4")


def a_removed_node_loses_no_call(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last test that needs the second node. The calls last until its worker has ended, some time after the node."""
    gate = tmp_path / "gate"
    started = tmp_path / "started"
    started.mkdir()
    with Cluster("ray"), Jobs(partial(calls.work_until, gate, started), 2) as jobs:
        for number in range(4):
            jobs.add((number,))
        while len(list(started.iterdir())) < 2:
            time.sleep(0.05)
        processes = [int(path.name.split("-")[2]) for path in started.iterdir()]
        nodes.remove_node(nodes.gpu_node, allow_graceful=False)
        while all(runs(process) for process in processes):
            time.sleep(0.05)
        gate.touch()
        results = [jobs.next()[1] for _ in range(4)]
    assert [number for number, _, _ in results] == list(range(4))
    assert len(list(started.iterdir())) == 5


@pytest.mark.slow
def test_calls_on_two_nodes(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[Callable[[Any, Path, pytest.MonkeyPatch], None]] = [
        results_are_in_order_after_a_killed_worker,
        exceptions_of_the_function_are_raised,
        calls_have_their_resources_and_the_settings_of_the_driver,
        resources_that_no_node_has_are_an_error,
        cancelled_calls_stop,
        short_calls_end_instead_of_being_cancelled,
        a_search_is_equal_to_one_of_processes_and_resumed,
        seeds_run_on_the_nodes,
        a_removed_node_loses_no_call,
    ]
    for check in checks:
        (tmp_path / check.__name__).mkdir()
        with monkeypatch.context() as patch:
            check(nodes, tmp_path / check.__name__, patch)
