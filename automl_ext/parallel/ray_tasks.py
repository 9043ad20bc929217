"""Calls that run as tasks on the nodes of a Ray cluster. The only file that imports Ray.

automl_ext and its dependencies must be installed on every node, in the same version. The function is sent once to each
worker process, with the user's modules and the environment variables AUTOML_EXT_….
"""

from __future__ import annotations

import contextlib
import os
import pickle
import time
import traceback
import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from automl_ext._version import __version__
from automl_ext.parallel.backend import Death, dumps_result
from automl_ext.parallel.own_modules import Files, install, own_modules
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.machine.memory import keep_freed_memory

PAUSE = 0.5  # seconds until a call is repeated whose node has died
GRACE = 0.5  # seconds in which calls may end before they are cancelled
PATIENCE = 30.0  # seconds of waiting after which the resources of the cluster are checked again


def import_ray() -> Any:
    """Import Ray.

    Raises:
        ModuleNotFoundError: Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ModuleNotFoundError('--cluster needs ray: pip install "automl_ext[ray]"', name="ray") from None
    return ray


def connect(address: str) -> Callable[[], None]:
    """Connect this process to a cluster, see :class:`~automl_ext.parallel.cluster.Cluster`.

    A connection of the caller (``ray.init``) is used as it is.

    Returns:
        A function that ends the connection.

    Raises:
        UserError: the cluster does not answer.
    """
    ray = import_ray()
    if ray.is_initialized():
        return lambda: None
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    try:
        if address != "ray":
            ray.init(address, **options)
        else:
            try:
                ray.init("auto", **options)
            except ConnectionError:  # no cluster runs here
                if os.environ.get("RAY_ADDRESS"):
                    raise
                ray.init("local", include_dashboard=False, **options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise UserError(f"--cluster {address}: cannot connect to Ray: {short(error)}") from None
    return lambda: ray.shutdown()


class RemoteTraceback(Exception):
    """The traceback of an exception in a worker of Ray, as text: the cause of the exception that is raised here."""


class RayTasks:
    """A :class:`~automl_ext.parallel.backend.Backend` of Ray tasks. The caller repeats lost tasks.

    Args:
        function: the function to call; functions of the main script are pickled by value.
        threads: number of threads of PyTorch in each call.
        cpus, gpus: resources that each call reserves on its node.

    Raises:
        UserError: no node has these resources, or the user's modules are too large to send.
    """

    def __init__(self, function: Callable[..., Any], threads: int, cpus: float, gpus: float) -> None:
        self.ray = import_ray()
        self.needs = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
        if not self.fits():
            offers = ", ".join(f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in self.nodes())
            raise UserError(
                f"--cpus-per-trial, --gpus-per-trial: no node of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs; "
                f"its nodes have: {offers or 'nothing'}"
            )
        variables = {name: value for name, value in os.environ.items() if name.startswith("AUTOML_EXT_")}
        setup = (__version__, os.getcwd(), threads, variables, own_modules(), self.ray.cloudpickle.dumps(function))
        self.setup = self.ray.put(setup)
        self.key = uuid.uuid4().hex
        task = self.ray.remote(_run)
        self.task = task.options(num_cpus=cpus, num_gpus=gpus or None, max_retries=0)
        self.unfinished: set[Any] = set()
        self.results: dict[Any, bytes] = {}
        self.warned = False

    def nodes(self) -> list[dict[str, float]]:
        """Return the resources of the nodes that are alive."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def fits(self) -> bool:
        """Return whether a node has the resources of a call, free or not."""
        return any(all(node.get(name, 0) >= need for name, need in self.needs.items()) for node in self.nodes())

    def start(self, call: bytes) -> Any:
        handle = self.task.remote(self.key, [self.setup], call)  # in a list, Ray does not resolve the reference
        self.unfinished.add(handle)
        return handle

    def wait(self, handles: Sequence[Any], block: bool) -> list[bool]:
        done: set[Any] = set()
        while not done and handles:
            ready, _ = self.ray.wait(list(handles), num_returns=1, timeout=PATIENCE if block else 0, fetch_local=False)
            if ready:
                ready, _ = self.ray.wait(list(handles), num_returns=len(handles), timeout=0, fetch_local=False)
            done = {*ready}
            if not block:
                break
            if not done and not self.warned and not self.fits():
                self.warned = True
                warnings.warn(f"no node of the Ray cluster has {self.needs}: waiting for one", stacklevel=4)
        self.unfinished -= done
        return [handle in done for handle in handles]

    def lost(self, handle: Any) -> Death | None:
        errors = self.ray.exceptions
        try:
            self.results[handle] = self.ray.get(handle)
        except (errors.WorkerCrashedError, errors.OutOfMemoryError):
            return "process"
        except (errors.NodeDiedError, errors.LocalRayletDiedError, errors.ObjectLostError):
            time.sleep(PAUSE)  # until Ray knows that the node is dead, it sends calls there
            return "node"
        return None

    def result(self, handle: Any) -> Any:
        value, error, text = pickle.loads(self.results.pop(handle))
        if error is not None:
            raise error from RemoteTraceback(text)
        return value

    def close(self) -> None:
        with contextlib.suppress(Exception):  # the cluster is gone: the first error says more
            # Ray (2.60) aborts this process if a call ends just when it is cancelled, so short calls may end first.
            calls = list(self.unfinished)
            _, unfinished = self.ray.wait(calls, num_returns=len(calls), timeout=GRACE) if calls else ([], [])
            end = time.monotonic() + PATIENCE
            while unfinished and time.monotonic() < end:
                for handle in unfinished:
                    self.ray.cancel(handle, force=True)  # the results of unfinished calls are not needed
                # Ray forgets to cancel a call whose process is just being started; it would keep its place.
                _, unfinished = self.ray.wait(unfinished, num_returns=len(unfinished), timeout=1)
        self.unfinished.clear()


_functions: dict[str, Callable[..., Any]] = {}  # set in worker processes only


def _run(key: str, setup: list[Any], call: bytes) -> bytes:
    """Call the function in a worker of Ray. Return, pickled: the result, the exception or None, and its traceback."""
    try:
        if key not in _functions:
            import ray

            _functions[key] = _prepare(*ray.get(setup[0]))
        return dumps_result((_functions[key](*pickle.loads(call)), None, ""))
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        try:
            return dumps_result((None, error, text))
        except Exception:  # the exception cannot be pickled
            return dumps_result((None, RuntimeError(text), text))


def _prepare(
    version: str, folder: str, threads: int, variables: dict[str, str], modules: Files, function: bytes
) -> Callable[..., Any]:
    """Initialize a worker of Ray. Return the function."""
    if version != __version__:
        raise UserError(f"--cluster: a node has automl_ext {__version__}, expected {version} as here")
    if os.path.isdir(folder):  # relative paths mean the same as in the driver
        os.chdir(folder)
    os.environ.update(variables)
    torch.set_num_threads(threads)
    keep_freed_memory()
    install(modules)
    found: Callable[..., Any] = pickle.loads(function)
    return found
