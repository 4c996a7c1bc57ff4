"""Sharded training (FSDP2): every process holds a share of weights, gradients and optimiser state.

For models that exceed one GPU's memory: a replica of `large`, 0.95 B parameters, has 14 GiB of
state, mostly the experts'. The weights of a unit are gathered for its computation and freed
afterwards; the rest of the model is one further unit.
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
    """Shard a model's weights over processes, in place.

    Args:
        model: The trained model, afterwards called only as `model(...)` or by `methods`.
        units: Submodules gathered one at a time, each called as `unit(...)`.
        mesh: One-dimensional device mesh of the processes.
        methods: Methods beside `forward` that use the weights; they must not call each other.
    """
    for unit in units:
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for method in methods:
        register_fsdp_forward_method(model, method)


def whole_weights(model: nn.Module) -> Mapping[str, Tensor]:
    """Unsharded weights and buffers of a model; every process has to call it."""
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    return cast("Mapping[str, Tensor]", whole)
