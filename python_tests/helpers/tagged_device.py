"""An accelerator emulated on the CPU: tensors with a device tag.

A :class:`Tagged` tensor reports the device :data:`DEVICE` and computes on the CPU. Operations that mix it with a CPU
tensor raise, as on a GPU, unless that tensor is 0-dim or an index. Copies between the devices and synchronizations are
counted by the line of automl_ext that causes them. :func:`install` changes torch and automl_ext for the whole process,
so call it in a process of its own.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("tagged")
DEVICE = torch.device("tagged:0")
COUNTS: dict[str, Counter[str]] = {kind: Counter() for kind in ("blocking", "queued", "back", "waits", "cpu index")}
INDEXING = ("index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index")
SIZES_FROM_VALUES = ("nonzero", "masked_select", "unique_dim", "_unique2")


def count(kind: str) -> None:
    """Count an event under the innermost line of automl_ext, but under the caller of ``send``.

    Args:
        kind: "blocking" and "queued" copies to the device, copies "back", "waits" of the CPU for a value, and copies of
            a "cpu index".
    """
    frame = sys._getframe(1)
    while frame is not None and (
        "/automl_ext/" not in frame.f_code.co_filename or frame.f_code.co_filename.endswith("machine/device.py")
    ):
        frame = frame.f_back  # type: ignore[assignment]
    where = "elsewhere" if frame is None else frame.f_code.co_filename.rpartition("/automl_ext/")[2]
    COUNTS[kind][where if frame is None else f"{where}:{frame.f_lineno}"] += 1


def on_device(device: Any) -> bool:
    return device is not None and torch.device(device).type in ("cuda", "tagged", "privateuseone")


class Tagged(torch.Tensor):
    @staticmethod
    def __new__(cls, elem: torch.Tensor, requires_grad: bool = False) -> Tagged:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            elem.size(),
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            layout=elem.layout,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made.elem = elem
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"Tagged({self.elem})"

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("can't convert a tensor of a device to numpy; copy it to the CPU first")
        count("back")
        return self.elem.detach().numpy(force=True)

    def tolist(self) -> Any:
        count("back")
        return self.elem.tolist()

    def __setitem__(self, index: Any, value: Any) -> None:
        def unwrap(x: Any) -> Any:
            return x.elem if isinstance(x, Tagged) else x

        with torch.no_grad():
            self.elem[tree_map(unwrap, index)] = unwrap(value)

    @property
    def data(self) -> Tagged:
        return self.detach()

    @data.setter
    def data(self, value: Tagged) -> None:
        self.elem = value.elem

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Tagged, (self.elem.detach().clone(),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied: Any = Tagged(self.elem.detach().clone(), self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation of ATen or of automl_ext, on the CPU, if no argument is on the wrong device."""
    space, _, rest = str(func).partition(".")
    name = rest.partition(".")[0]
    leaves = tree_leaves((args, kwargs))
    tagged = [x for x in leaves if isinstance(x, Tagged)]
    plain = [x for x in leaves if isinstance(x, torch.Tensor) and not isinstance(x, Tagged)]
    device = next((x for x in leaves if isinstance(x, torch.device)), None)
    there = on_device(device)
    if name == "_to_copy":
        if there and not tagged:
            count("queued" if kwargs.get("non_blocking") else "blocking")
        elif tagged and device is not None and not there:
            count("back")
    elif name == "copy_":
        to, source = isinstance(args[0], Tagged), isinstance(args[1], Tagged)
        if to and not source:
            count("queued" if kwargs.get("non_blocking") or args[2:] == (True,) else "blocking")
        elif source and not to:
            count("back")
    elif tagged and (any(x.dim() for x in plain) or (plain and space == "automl_ext")) and name != "set_":
        if name not in INDEXING:
            shapes = [tuple(x.shape) for x in tagged], [tuple(x.shape) for x in plain]
            raise RuntimeError(f"{func}: expected all tensors on one device, got {shapes} on two")
        count("cpu index")
    if tagged and (name in (*SIZES_FROM_VALUES, "_local_scalar_dense") or (name in INDEXING and _by_mask(args))):
        count("waits")
    rng = next((x for x in leaves if isinstance(x, torch.Generator)), None)
    if rng is not None and on_device(rng.device) != bool(there or tagged):
        raise RuntimeError(f"{func}: expected a generator on the device of the result, got {rng.device}")

    def unwrap(x: Any) -> Any:
        return x.elem if isinstance(x, Tagged) else torch.device("cpu") if isinstance(x, torch.device) else x

    kwargs_there = {**kwargs, **({"pin_memory": False} if kwargs.get("pin_memory") else {})}
    out = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs_there))
    if name == "_local_scalar_dense" or not (there or (tagged and device is None)):
        return out
    if func._schema.is_mutable and name.endswith("_") and isinstance(args[0], Tagged):
        return args[0]
    out = tree_map(lambda x: Tagged(x) if isinstance(x, torch.Tensor) and not isinstance(x, Tagged) else x, out)
    try:
        return return_and_correct_aliasing(func, args, kwargs, out) if tagged else out
    except Exception:  # operations whose aliases torch cannot correct return new tensors
        return out


def _by_mask(args: Any) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1] or ())


class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class Generator(torch.Generator):
    """A generator on the CPU with the tag of a device."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls, "cpu")
        made.tag = DEVICE if on_device(device) else torch.device("cpu")
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.tag


def install() -> None:
    """Let automl_ext find a GPU, which is :data:`DEVICE`, and torch compute on it."""
    import automl_ext
    from automl_ext import _native
    from automl_ext.training import seeding
    from automl_ext.training.files import checkpoint
    from automl_ext.training.machine import device as devices

    checkpoint.check_state = lambda *state: None  # it refuses subclasses of Tensor
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.Generator = seeding._Generator = Generator  # type: ignore[misc, assignment]
    torch.cuda.manual_seed = torch.cuda.manual_seed_all = lambda seed: None
    torch.cuda.get_rng_state_all = list  # type: ignore[assignment]
    torch.autograd.set_multithreading_enabled(False).__enter__()  # type: ignore[no-untyped-call]
    _native._devices = frozenset({*_native._devices, DEVICE.type})

    def chosen(name: str = "auto") -> torch.device:
        return DEVICE if name.startswith("cuda") else torch.device("cpu")

    original = devices.choose_device
    devices.choose_device = chosen
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith(automl_ext.__name__) and (
            getattr(module, "choose_device", None) is original
        ):
            module.choose_device = chosen

    tensor, autocast = torch.tensor, torch.autocast

    def new_tensor(*args: Any, device: Any = None, **options: Any) -> torch.Tensor:
        if not on_device(device):
            return tensor(*args, device=device, **options)
        count("blocking")
        return Tagged(tensor(*args, **options))

    torch.tensor = new_tensor
    torch.autocast = lambda kind, *args, **options: autocast(  # type: ignore[misc, assignment]
        "cpu" if kind == DEVICE.type else kind, *args, **options
    )
    Mode().__enter__()


def take_counts() -> dict[str, dict[str, int]]:
    """Return the counts since the last call."""
    counts = {kind: dict(counter.most_common()) for kind, counter in COUNTS.items()}
    for counter in COUNTS.values():
        counter.clear()
    return counts
