"""The Muon optimiser (Jordan et al., 2024) for matrices and stacks of matrices.

`torch.optim.Muon` takes matrices only; the experts of a layer are one stack [experts, out, in].
"""

from collections.abc import Iterable

import torch

# Quintic Newton-Schulz coefficients, from Jordan's description of Muon.
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5


def orthogonalised(gradient: torch.Tensor) -> torch.Tensor:
    """Nearest (semi-)orthogonal matrices to a stack [..., rows, columns], by Newton-Schulz."""
    wide = gradient.shape[-2] > gradient.shape[-1]
    x = gradient.mT if wide else gradient
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    result: torch.Tensor = x.mT if wide else x
    return result


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose step is orthogonalised.

    Args:
        params: tensors of two or more dimensions.
        lr: size of a step in spectral norm (times sqrt(rows / columns) for tall matrices).
        momentum: decay of the running gradient.
    """

    def __init__(
        self, params: Iterable[torch.Tensor], lr: float = 5e-3, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                running = state["momentum"].mul_(group["momentum"]).add_(parameter.grad)
                update = orthogonalised(parameter.grad + group["momentum"] * running)
                rows, columns = parameter.shape[-2:]
                scale = max(1.0, rows / columns) ** 0.5
                parameter.add_(update, alpha=-group["lr"] * scale)
