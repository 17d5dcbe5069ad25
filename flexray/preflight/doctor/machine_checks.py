"""The machine: compiler, GPU, memory and disks."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib import metadata

from rich.filesize import decimal

from flexray.config import RunConfig
from flexray.console.checks import Finding, fail, passed, warn
from flexray.engine.scheduler_config import GIB
from flexray.models.checkpoint import resolve_dtype
from flexray.preflight.host import check_writable, existing_folder, ram_bytes
from flexray.preflight.plan.dry_folder import DryFolder

SHM = "/dev/shm"
RAY_STORE_SHARE = 0.3  # of the memory, by Ray's default
LOW_DISK, NO_DISK = 5e9, 0.5e9  # bytes
RAY_FULL = 0.95  # share of a disk in use above which Ray stores nothing more
OLDEST_CAPABILITY = (7, 0)  # of a GPU that Triton compiles for
FREE_SHARE = 0.9  # of a GPU's memory; with less, another process is using it


def check_compiler(config: RunConfig | None) -> Iterator[Finding]:
    """What compiles FlexAttention: Triton on a GPU, a C++ compiler on CPUs."""
    import torch

    if config is not None and config.engine.backend != "flex":
        yield passed(f"none is needed: engine.backend is {config.engine.backend}")
    elif runs_on_gpu(config):
        c_compiler = os.environ.get("CC") or next(filter(shutil.which, ("gcc", "cc", "clang")), None)
        try:
            found = f"triton {metadata.version('triton')}"
        except metadata.PackageNotFoundError:
            yield _no_flex(
                config, "triton is not installed", "Install the torch build for CUDA, which has it."
            )
            return
        if c_compiler is None:
            yield _no_flex(config, f"{found}, but no C compiler, which it needs", "Install gcc.")
        else:
            yield passed(f"{found}, {c_compiler}")
    else:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            yield passed(f"C++ compiler {get_cpp_compiler()}, torch {torch.__version__}")
        except InvalidCxxCompiler:
            yield _no_flex(config, "no C++ compiler", "Install g++, or name one in CXX.")


def check_gpu(config: RunConfig | None) -> Iterator[Finding]:
    """The CUDA devices of this machine, and whether they support the configured dtype."""
    import torch

    if torch.cuda.is_available():
        yield from (_gpu(number, config) for number in range(torch.cuda.device_count()))
    elif driver := _driver():
        yield warn(
            f"the machine has a GPU (driver {driver}), but torch {torch.__version__} finds none",
            "Install a torch for CUDA that is no newer than the driver.",
        )
    else:
        yield passed("none: models run on the CPUs here")


def runs_on_gpu(config: RunConfig | None) -> bool:
    """Whether a run started here would have its model on a GPU."""
    import torch

    return torch.cuda.is_available() and (config is None or config.model.device != "cpu")


def _gpu(number: int, config: RunConfig | None) -> Finding:
    import torch

    found = torch.cuda.get_device_properties(number)
    free, total = torch.cuda.mem_get_info(number)
    capability = (found.major, found.minor)
    with torch.cuda.device(number):
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    what = (
        f"{number}: {found.name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, capability {found.major}."
        f"{found.minor}, {'bfloat16' if has_bfloat16 else 'no bfloat16'}, driver {_driver() or 'unknown'}, "
        f"CUDA {torch.version.cuda}"
    )
    if capability < OLDEST_CAPABILITY:
        return warn(what, "Triton does not compile for it: set engine.backend to sdpa.")
    dtype = resolve_dtype(config.model.dtype if config else "auto", on_gpu=True)
    if not has_bfloat16 and dtype == "bfloat16":
        return warn(what, "It has no bfloat16: set model.dtype to float16.")
    if free < FREE_SHARE * total:
        return warn(what, "Others use it: a run there has less room for rows. `nvidia-smi` names them.")
    return passed(what)


def check_memory(config: RunConfig | None) -> Iterator[Finding]:
    """RAM, and the shared memory that holds Ray's object store."""
    ram = ram_bytes()
    yield passed(f"{ram / GIB:.1f} GiB of RAM")
    megabytes = config.ray.object_store_mb if config else None
    store = megabytes * 2**20 if megabytes else int(RAY_STORE_SHARE * ram)
    shared = os.statvfs(SHM)
    size = shared.f_blocks * shared.f_frsize
    what = f"{size / GIB:.2f} GiB in {SHM}, for an object store of {store / GIB:.2f} GiB"
    if size < store:
        yield warn(
            what,
            "Ray then keeps its objects on disk, which is slow. Give the container more (docker: "
            "--shm-size), or set ray.object_store_mb.",
        )
    else:
        yield passed(what)


def check_disk(config: RunConfig | None) -> Iterator[Finding]:
    """Free space and write access for output, temporary files, Ray's files and compiled kernels."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    places = {
        "temporary files": tempfile.gettempdir(),
        "Ray": os.environ.get("RAY_TMPDIR", tempfile.gettempdir()),
        "compiled kernels": os.environ.get("TORCHINDUCTOR_CACHE_DIR") or default_cache_dir(),
    }
    if config is not None and (folder := DryFolder(config.output)).is_local:
        places = {"output": folder.url} | places
    for purpose, path in places.items():
        try:
            check_writable(path)
            disk = shutil.disk_usage(existing_folder(path))
        except OSError as e:
            yield fail(f"{purpose}: {path} cannot be written: {e.strerror}", "Make it writable.")
            continue
        what, used = f"{decimal(disk.free)} free for {purpose} ({path})", 1 - disk.free / (disk.total or 1)
        if disk.free < LOW_DISK:
            yield Finding("fail" if disk.free < NO_DISK else "warn", what, "Make room.")
        elif purpose == "Ray" and used > RAY_FULL:
            yield warn(f"{what}; {used:.0%} used", f"Ray stores nothing on a disk over {RAY_FULL:.0%}.")
        else:
            yield passed(what)


def _no_flex(config: RunConfig | None, what: str, advice: str) -> Finding:
    """FlexAttention cannot be compiled: a run uses another backend, unless engine.strict forbids it."""
    if config is not None and config.engine.strict:
        return fail(f"{what}; engine.strict forbids another backend than flex", advice)
    return warn(f"{what}: another backend than flex will be used, which each row says", advice)


def _driver() -> str:
    """The version of NVIDIA's driver; "" if there is none."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return lines[0] if lines else ""
