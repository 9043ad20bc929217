"""Ray: two nodes on this machine; killed workers, a removed node, resources, and equality with the other back ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from automl_ext.parallel.cluster import Cluster
from automl_ext.parallel.workers import Workers
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
    cluster.gpu_node = cluster.add_node(**small, num_gpus=1)
    ray.init(cluster.address, logging_level="error", log_to_driver=False)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_results_are_in_order_after_killed_workers(nodes: Any, tmp_path: Path) -> None:
    with Cluster("ray"), Workers(partial(calls.work, tmp_path), 2) as workers:
        for number in range(5):
            workers.submit(number, 0.3 if number == 0 else 0.0, 1 if number in (1, 3) else 0)
        results = [workers.next() for _ in range(5)]
    assert [number for number, _, _ in results] == list(range(5))
    assert all(torch.equal(ones, torch.ones(number)) for number, ones, _ in results)
    assert os.getpid() not in {process for _, _, process in results}
    assert [len(list(tmp_path.glob(f"{number}-*"))) for number in range(5)] == [1, 2, 1, 2, 1]


def test_repeated_deaths_raise_an_error(nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_ext.parallel.workers.DEATHS", 2)
    with Cluster("ray"), Workers(partial(calls.work, tmp_path), 2) as workers:
        workers.submit(0, 0.0, 100)
        with pytest.raises(UserError, match="killed 2 times during the same call"):
            workers.next()


def test_exceptions_of_the_function_are_raised(nodes: Any) -> None:
    with Cluster("ray"), Workers(calls.fail, 2) as workers:
        for number in range(3):
            workers.submit(number)
        assert workers.next() == 0
        with pytest.raises(UserError, match=r"^bad input, in a worker$"):
            workers.next()
        with pytest.raises(RuntimeError, match="Unpicklable"):
            workers.next()


def test_calls_have_their_resources_and_the_settings_of_the_driver(
    nodes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AUTOML_EXT_TEST", "value")
    monkeypatch.chdir(tmp_path)
    with Cluster("ray", cpus=1, gpus=0.5), Workers(calls.facts, 2) as workers:
        for number in range(2):
            workers.submit(number)
        found = [workers.next() for _ in range(2)]
    assert found == [{"threads": 1, "folder": str(tmp_path), "variable": "value", "gpus": "0"}] * 2


def test_resources_that_no_node_has_are_an_error(nodes: Any) -> None:
    with (
        Cluster("ray", gpus=2),
        pytest.raises(UserError, match="no node of the Ray cluster has 1 CPUs and 2 GPUs; its nodes have: "),
    ):
        Workers(calls.facts, 2)


def test_cancelled_calls_stop(nodes: Any, tmp_path: Path) -> None:
    begin = time.monotonic()
    with Cluster("ray"), Workers(partial(calls.work, tmp_path), 2) as workers:
        for number in range(4):
            workers.submit(number, 300.0)
        while len(list(tmp_path.iterdir())) < 1:
            time.sleep(0.05)
        workers.cancel()
        workers.submit(9)
        assert workers.next()[0] == 9
    assert time.monotonic() - begin < 120
    assert len(list(tmp_path.iterdir())) <= 3  # of at most two in flight, and the last one


def test_a_removed_node_loses_no_call(nodes: Any, tmp_path: Path) -> None:
    """The last test that needs the second node."""
    with Cluster("ray"), Workers(partial(calls.work, tmp_path), 2) as workers:
        for number in range(4):
            workers.submit(number, 1.0)
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        nodes.remove_node(nodes.gpu_node, allow_graceful=False)
        results = [workers.next() for _ in range(4)]
    assert [number for number, _, _ in results] == list(range(4))
    assert len(list(tmp_path.iterdir())) == 5
