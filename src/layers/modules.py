"""What may be assumed of a module that somebody may have wrapped, replaced, moved or watched."""

import torch
from torch import nn


# torch's own layers, transformers' activations, and what this package builds of them.
KNOWN_PACKAGES = ("torch.nn.modules.", "transformers.activations", f"{__name__.partition('.')[0]}.")


def is_plain(module: nn.Module) -> bool:
    """Whether nobody can tell how a module and those in it are run: once or in parts, in new memory or in place.

    That is so without gradients, tracing and hooks, if all modules are of known classes with their own forward and
    all parameters are ordinary floating-point tensors in memory.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or nn.modules.module._has_any_global_hook():
        return False
    return all(_is_untouched(part) for part in module.modules())


def _is_untouched(module: nn.Module) -> bool:
    if not type(module).__module__.startswith(KNOWN_PACKAGES) or "forward" in vars(module):
        return False
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    return all(
        parameter is None
        or (type(parameter) is nn.Parameter and parameter.is_floating_point() and not parameter.is_meta)
        for parameter in module._parameters.values()
    )


def is_watched(tensor: torch.Tensor) -> bool:
    """Whether something follows operations on a tensor: its own class, a trace, a mode or a transform of functions."""
    return (
        type(tensor) is not torch.Tensor
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


def is_computed_as_called(tensor: torch.Tensor) -> bool:
    """Whether an operation on a tensor is all that a CPU does: no gradients, no autocast, nothing that watches."""
    watched = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or is_watched(tensor)
    return tensor.device.type == "cpu" and not watched


def to_dtype_of(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """`x` in the dtype of the module's first floating-point parameter, or as it is if the module has none."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return x.to(parameter.dtype)
    return x
