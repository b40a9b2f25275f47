"""Several processes, one run: start them, know one's rank, add things up.

`--gpus N` starts N ranks through torch.distributed's elastic launcher; `torchrun main.py ...` works
as well. On GPUs the ranks speak NCCL, on a CPU gloo.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import uuid
import zlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ..training.batch_norm import share_batch_norms

OUT_OF_MEMORY = ": if nobody did that, memory was short"


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def launched() -> bool:
    """Whether this process is a rank that a launcher started.

    Some schedulers set RANK=0 and WORLD_SIZE=1 for every job: without an address to meet at, one
    process alone is no group. ValueError where several are to meet nowhere.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return False
    if "MASTER_ADDR" in os.environ:
        return True
    ranks = os.environ["WORLD_SIZE"]
    if ranks != "1":
        raise ValueError(
            f"the environment says WORLD_SIZE={ranks} but no MASTER_ADDR: start the ranks by "
            "torchrun or --gpus, or unset RANK and WORLD_SIZE"
        )
    return False


def launch(script: str, argv: Sequence[str], processes: int) -> int:
    """Run `script argv` as `processes` ranks on this machine.

    -> the exit code of the rank that failed first, or 0.
    """
    # They take a second to import, and one process of many needs them.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed", "torch.distributed.elastic.agent.server.api"):
        # A rank that fails says why itself.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    cores = os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores // processes, 1)))
    try:
        elastic_launch(config, sys.executable)(script, *argv)
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode
        # It was killed, so it could not say so itself.
        killer = signal.Signals(-failure.exitcode)
        cause = OUT_OF_MEMORY if killer == signal.SIGKILL else ""
        text = f"main.py: error: rank {number} was ended by {killer.name}{cause}"
        print(text, file=sys.stderr, flush=True)
        return 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0


def join(device: torch.device) -> torch.device:
    """Enter the group of ranks this process was started in, if any; the device of this rank."""
    if not launched():
        return device
    die_with_parent()
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        # Ranks wait long for each other where their videos differ in length; if one dies the
        # launcher ends all.
        dist.init_process_group(backend, timeout=timedelta(days=7))
    return device


def die_with_parent() -> None:
    """A launcher that is killed outright takes its ranks along (Linux).

    Else they would wait for each other.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over ranks; the tensor may live on the CPU."""
    if world_size() == 1:
        return values
    device = values.device
    if dist.get_backend() == "nccl":  # which takes nothing from the CPU
        device = torch.device("cuda", torch.cuda.current_device())
    total = values.to(device)
    if total is values:
        total = total.clone()  # the reduction writes in place
    dist.all_reduce(total)
    return total.to(values.device)


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank."""
    if world_size() == 1:
        return flag
    return bool(all_reduce_sum(torch.tensor(int(flag))))


def gather(value: Any) -> list[Any]:
    """A plain value of every rank, in rank order, on all ranks."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def require_same_on_all_ranks(what: str, value: Sequence[str]) -> None:
    """ValueError, on all ranks, unless all have the same words.

    Else they would wait for each other for ever, or add up what does not belong together.
    """
    first, *others = gather(list(value))
    for number, other in enumerate(others, 1):
        if other != first:
            raise ValueError(
                f"the ranks have different {what}: rank 0 {missing(first, other)}, "
                f"rank {number} {missing(other, first)}; start all of them with the same"
            )


def missing(words: Sequence[str], others: Sequence[str]) -> str:
    """The words that the others lack, as text."""
    return ", ".join(word for word in words if word not in others)[:200] or "none of that"


def fingerprint(module: torch.nn.Module) -> str:
    """A checksum of all that its state dict holds; it takes a while, and ranks alone ask for it."""
    total = 0
    tensors = module.state_dict().values() if world_size() > 1 else ()
    for tensor in tensors:
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        total = zlib.crc32(data.numpy(), total)
    return f"those of checksum {total:08x}"


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Give every rank the buffers of rank 0.

    Batch norm statistics differ between ranks that do not share them.
    """
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


def wrap(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The module as its ranks train it together: gradients averaged, batch norm over all ranks."""
    if world_size() == 1:
        return module
    if device.type == "cuda":
        module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)
    else:
        share_batch_norms(module)
    devices = [device] if device.type == "cuda" else None  # it wants none on a CPU
    return torch.nn.parallel.DistributedDataParallel(
        module, device_ids=devices, find_unused_parameters=module.model.has_unused_parameters
    )
