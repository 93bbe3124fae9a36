import pytest
import torch

from offsim.testbed.muon import Muon, orthogonalised


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8), (3, 8, 24), (3, 24, 8)], ids=str)
def test_singular_values_come_close_to_one(shape: tuple[int, ...]) -> None:
    values = torch.linalg.svdvals(orthogonalised(random(*shape)))
    assert float(values.max()) < 1.3
    assert float(values.median()) > 0.65


def test_singular_vectors_stay() -> None:
    u, _ = torch.linalg.qr(random(12, 12, seed=1))
    v, _ = torch.linalg.qr(random(12, 12, seed=2))
    scales = torch.linspace(1.0, 3.0, 12)
    core = u.T @ orthogonalised(u @ torch.diag(scales) @ v.T) @ v
    off_diagonal = core - torch.diag(core.diagonal())
    assert float(off_diagonal.abs().max()) < 1e-3
    assert float(core.diagonal().min()) > 0.6


def test_stack_is_done_matrix_by_matrix() -> None:
    stack = random(4, 10, 6) * torch.tensor([1.0, 1e-3, 10.0, 1e3]).view(4, 1, 1)
    each = torch.stack([orthogonalised(matrix) for matrix in stack])
    torch.testing.assert_close(orthogonalised(stack), each, rtol=1e-4, atol=1e-5)


def test_tall_is_the_transpose_of_wide() -> None:
    matrix = random(20, 7)
    torch.testing.assert_close(orthogonalised(matrix).T, orthogonalised(matrix.T))


def test_size_of_the_gradient_does_not_matter() -> None:
    matrix = random(9, 9)
    large, small = orthogonalised(1e3 * matrix), orthogonalised(1e-3 * matrix)
    torch.testing.assert_close(large, small, rtol=1e-3, atol=1e-4)


def test_zero_gradient_moves_nothing() -> None:
    assert not orthogonalised(torch.zeros(4, 4)).any()


@pytest.mark.parametrize(("shape", "scale"), [((8, 8), 1.0), ((8, 32), 1.0), ((32, 8), 2.0)])
def test_size_of_a_step(shape: tuple[int, int], scale: float) -> None:
    parameter = torch.nn.Parameter(torch.zeros(shape))
    parameter.grad = random(*shape)
    Muon([parameter], lr=0.01).step()
    torch.testing.assert_close(
        parameter.detach(), -0.01 * scale * orthogonalised(random(*shape)), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8)], ids=str)
def test_moves_as_the_muon_of_torch_does(shape: tuple[int, int]) -> None:
    # Torch iterates in bf16, hence the tolerance.
    ours, theirs = (torch.nn.Parameter(random(*shape, seed=5)) for _ in range(2))
    mine = Muon([ours], lr=0.1, momentum=0.9)
    other = torch.optim.Muon([theirs], lr=0.1, momentum=0.9, weight_decay=0.0)
    start = ours.detach().clone()
    for seed in range(4):
        ours.grad = random(*shape, seed=seed)
        theirs.grad = random(*shape, seed=seed)
        mine.step()
        other.step()
        moved, expected = (p.detach() - start for p in (ours, theirs))
        assert float((moved - expected).norm() / expected.norm()) < 0.03


def test_parameter_without_a_gradient_stays() -> None:
    still, moving = (torch.nn.Parameter(random(4, 4)) for _ in range(2))
    moving.grad = random(4, 4, seed=1)
    Muon([still, moving]).step()
    assert torch.equal(still, random(4, 4))
    assert not torch.equal(moving, random(4, 4))


def test_finds_the_minimum_of_a_stack_of_quadratics() -> None:
    target = random(3, 6, 6, seed=1)
    parameter = torch.nn.Parameter(torch.zeros(3, 6, 6))
    optimiser = Muon([parameter], lr=0.05, momentum=0.9)
    for step in range(300):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / 300)
        loss = ((parameter - target) ** 2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float((parameter.detach() - target).abs().max()) < 0.02
