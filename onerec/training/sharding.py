"""Sharded training (FSDP2): every process holds a share of weights, gradients and optimiser state.

For what exceeds a card: of `large`, 0.95 B parameters, a replica's state takes 14 GiB, most of it
the experts'. Units are gathered when they compute and given back afterwards; the rest of the model
is a unit of its own.
"""

from collections.abc import Iterable, Mapping
from typing import cast

from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from onerec.training.runtime import Runtime


def strategy_of(runtime: Runtime) -> Strategy | str:
    """Lightning's strategy: one process, replicas of the whole model, or shards of it."""
    if runtime.processes == 1:
        return "auto"
    if runtime.sharding == "replicas":
        return "ddp"
    return ModelParallelStrategy(
        data_parallel_size=runtime.processes,
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,
    )


def shard(
    model: nn.Module, units: Iterable[nn.Module], mesh: DeviceMesh, *, methods: Iterable[str] = ()
) -> None:
    """Cut a model's weights into a share per process, in place.

    Args:
        model: What is trained; from now on it is called as `model(...)` or by `methods`.
        units: Parts of it that are gathered one at a time, each called as `unit(...)`.
        mesh: One dimension, the processes.
        methods: Of the model, beside `forward`, that compute with its weights; none calls another.
    """
    for unit in units:
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for method in methods:
        register_fsdp_forward_method(model, method)


def whole_weights(model: nn.Module) -> Mapping[str, Tensor]:
    """Weights and buffers of a model, shards put together; every process has to call it."""
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    return cast("Mapping[str, Tensor]", whole)
