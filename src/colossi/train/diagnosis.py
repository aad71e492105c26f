"""Where a pass first makes a number that is none: the module by name, or the weights that are to blame."""

import torch
from torch import Tensor, nn

from colossi.data.corpus import Batch
from colossi.model.grok import Grok
from colossi.model.matrix import local


def where_it_broke(grok: Grok, batch: Batch, device: torch.device) -> str:
    """One phrase. All ranks must call it together: it runs the forward pass again."""
    bad = [name for name, p in grok.named_parameters() if not bool(torch.isfinite(local(p)).all())]
    if bad:
        return f"weights that are not finite: {bad[0]}" + (
            f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        )
    found: list[str] = []

    def look(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor) and not bool(torch.isfinite(first).all()):
                found.append(name)

        return hook

    handles = [m.register_forward_hook(look(name)) for name, m in grok.named_modules() if name]
    with torch.no_grad():
        tensors = (batch.inputs, batch.targets, batch.is_target)
        grok(*(torch.from_numpy(x).to(device) for x in tensors))
    for handle in handles:
        handle.remove()
    return f"first not finite after {found[0]}" if found else "all activations and weights are finite"
