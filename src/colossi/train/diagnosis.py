"""Where a pass first makes a number that is none: the module by name, or the weights that are to blame."""

import torch
from torch import Tensor, nn

from colossi.data.corpus import Batch
from colossi.model.matrix import local
from colossi.train.mesh import World, mine
from colossi.train.parallel import Parts


def where_it_broke(parts: Parts, batch: Batch, world: World) -> str:
    """One phrase. All ranks must call it together: it runs the forward pass again."""
    bad = [name for name, p in parts.weights().items() if not bool(torch.isfinite(local(p)).all())]
    if bad:
        return f"weights that are not finite: {bad[0]}" + (
            f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        )
    if parts.pipeline is not None:
        return "the weights that are here are finite"
    (grok,) = parts.stages()
    found: list[str] = []

    def look(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor) and not bool(torch.isfinite(first).all()):
                found.append(name)

        return hook

    handles = [m.register_forward_hook(look(name)) for name, m in grok.named_modules() if name]
    with torch.no_grad():
        arrays = (batch.inputs, batch.targets, batch.is_target, batch.first)
        grok(*(mine(x, world) if x is not None else None for x in arrays))
    for handle in handles:
        handle.remove()
    return f"first not finite after {found[0]}" if found else "all activations and weights are finite"
