"""Several products with the same x, against PyTorch's one by one."""

import pytest
import torch
import torch.nn.functional as F

from colossi.model.matrix import linears


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("frozen", [None, 0, 2])
@pytest.mark.parametrize("compiled", [False, True])
def test_products_and_all_gradients_are_those_of_separate_ones(compiled: bool, frozen: int | None) -> None:
    torch.manual_seed(0)
    # As in a block: x is the result of passes that the compiler fuses, and one product is used transposed.
    x, *ws = (torch.randn(shape) for shape in ((2, 8, 16), (16, 16), (8, 16), (32, 16)))
    leaves = [leaf.requires_grad_() for at, leaf in enumerate((x, *ws)) if at != frozen]

    def ours(x: torch.Tensor, *ws: torch.Tensor) -> torch.Tensor:
        return weighed(linears(x.sin(), *ws))

    def weighed(ys: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return ys[0].transpose(1, 2).tanh().cumsum(1).sum() + ys[1].cos().sum() + ys[2].square().sum()

    expected = weighed(tuple(F.linear(x.sin(), w) for w in ws))
    found = (torch.compile(ours) if compiled else ours)(x, *ws)
    torch.testing.assert_close(found, expected)
    for theirs, mine in zip(
        torch.autograd.grad(expected, leaves), torch.autograd.grad(found, leaves), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
