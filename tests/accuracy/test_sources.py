import numpy as np
import pytest
import torch
from scipy.stats import kstest

from offsim.accuracy.sources import Coded, Normal, Source, Uniform, source_named
from offsim.codec import codec_named, decode, encode
from offsim.errors import InputError

WEIGHTS = (torch.randn(64, 96, generator=torch.Generator().manual_seed(0)) / 50).bfloat16().float()
SIZE = 0.01


def error(source: Source, size: float = SIZE, seed: int = 0, place: int = 0) -> np.ndarray:
    """The noise alone, [values] float64."""
    found = source.changed(torch.zeros(100, 100), size, seed, (place, 1, 2))
    return found.double().numpy().ravel()


def test_uniform_noise_is_uniform_within_the_bound() -> None:
    noise = error(Uniform())
    assert np.abs(noise).max() <= np.float32(SIZE)
    assert kstest(noise, "uniform", (-SIZE, 2 * SIZE)).pvalue > 0.01


def test_normal_noise_has_the_bound_as_its_standard_deviation() -> None:
    assert kstest(error(Normal()), "norm", (0, SIZE)).pvalue > 0.01


@pytest.mark.parametrize("source", [Uniform(), Normal()])
def test_noise_is_a_function_of_seed_and_place(source: Source) -> None:
    assert np.array_equal(error(source), error(source))
    for other in (error(source, seed=1), error(source, place=1)):
        assert abs(np.corrcoef(error(source), other)[0, 1]) < 0.05


@pytest.mark.parametrize("source", [Uniform(), Normal()])
def test_noise_of_two_sizes_differs_in_scale_alone(source: Source) -> None:
    np.testing.assert_allclose(error(source, 2 * SIZE), 2 * error(source), rtol=1e-6)


@pytest.mark.parametrize("source", [Uniform(), Normal()])
def test_noise_is_added_and_not_rounded_to_bf16(source: Source) -> None:
    found = source.changed(WEIGHTS, 1e-5, 0, (0, 0, 0))
    assert not torch.equal(found.bfloat16().float(), found)
    flat = source.changed(torch.zeros_like(WEIGHTS), 1e-5, 0, (0, 0, 0))
    torch.testing.assert_close(found - WEIGHTS, flat, rtol=0, atol=1e-8)


def test_noise_keeps_the_dtype_of_the_model() -> None:
    found = Normal().changed(WEIGHTS.bfloat16(), SIZE, 0, (0, 0, 0))
    assert found.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["sz3", "cuszp", "cuszp:mode=plain"])
def test_a_codec_s_error_is_what_it_decodes_in_bf16(name: str) -> None:
    source = source_named(f"codec:{name}")
    found = source.changed(WEIGHTS, SIZE, 0, (0, 0, 0))
    expected = decode(encode(WEIGHTS.bfloat16(), codec_named(name), SIZE))
    assert torch.equal(found, expected.float())
    assert 0 < float((found - WEIGHTS).abs().max()) <= SIZE


def test_weights_that_are_no_bf16_numbers_are_encoded_as_they_are() -> None:
    weights = WEIGHTS * 1.001
    found = source_named("codec:sz3").changed(weights, 1e-7, 0, (0, 0, 0))
    assert 0 < float((found - weights).abs().max()) <= 1e-7


def test_which_sources_take_a_bound_and_a_seed() -> None:
    named = {name: source_named(name) for name in ("uniform", "codec:sz3", "codec:rtn-int4")}
    assert [one.takes_bound for one in named.values()] == [True, True, False]
    assert [one.seeded for one in named.values()] == [True, False, False]
    assert isinstance(named["codec:sz3"], Coded)


@pytest.mark.parametrize("name", ["laplace", "codec", "codec:", "sz3", "codec:none"])
def test_unknown_sources(name: str) -> None:
    with pytest.raises(InputError, match=r"no (error|codec) is called"):
        source_named(name)
