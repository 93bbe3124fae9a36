"""transformers, the hook through which experts run, the architectures, the embedded model."""

from importlib import metadata

from offsim.cli.probes.base import AGAIN, Found, Probe, fails, missing, works

ARCHITECTURES = (
    "mixtral",
    "olmoe",
    "qwen2_moe",
    "qwen3_moe",
    "deepseek_v2",
    "deepseek_v3",
    "gpt_oss",
    "phimoe",
    "granitemoe",
)
"""As transformers calls them; docs/architectures.md says what each has of its own."""
LAYERS = 4
"""The first three of DeepSeek-V3 are dense."""
LARGEST_DIFFERENCE = 1e-5
"""Of logits, relative to the largest: five times what rounding does to any of the architectures."""


def probes() -> list[Probe]:
    """A row each."""
    return [
        Probe("experts hook", hook),
        Probe("architectures", architectures),
        Probe("embedded model", embedded),
    ]


def hook() -> Found:
    """Whether transformers lets other code run experts, and has offsim's."""
    version = metadata.version("transformers")
    try:
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
    except ImportError:
        return missing(f"transformers {version} has no ALL_EXPERTS_FUNCTIONS", AGAIN)
    from offsim.model.hook import NAME

    if NAME not in ALL_EXPERTS_FUNCTIONS.valid_keys():
        return fails(f"transformers {version} has not taken offsim's function", AGAIN)
    return works(f"transformers {version}")


def architectures() -> Found:
    """Which architectures have experts that offsim can drive, by making a model of each."""
    refused = {name: why for name in ARCHITECTURES if (why := refused_by(name))}
    driven = [name for name in ARCHITECTURES if name not in refused]
    here = f"{len(driven)} of {len(ARCHITECTURES)} are driven"
    if refused:
        whys = "; ".join(f"{name}: {why}" for name, why in refused.items())
        return fails(f"{here} ({', '.join(driven)}); {whys}", AGAIN)
    return works(f"{here}: {', '.join(driven)}")


def refused_by(name: str) -> str:
    """Why an architecture cannot be driven; empty where it can. No memory is taken for weights."""
    import torch
    from transformers import AutoConfig
    from transformers.models.auto import AutoModelForCausalLM

    from offsim.errors import InputError
    from offsim.model.experts import expert_modules
    from offsim.model.hook import NAME

    try:
        config = AutoConfig.for_model(name, num_hidden_layers=LAYERS)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        expert_modules(model)
        model.set_experts_implementation(NAME)
    except (InputError, ImportError, ValueError) as error:
        return str(error)
    return ""


def embedded() -> Found:
    """Whether the shipped model computes the same through the hook as without it."""
    import torch

    from offsim.model.hook import Resident, handled
    from offsim.testbed.load import load

    model = load()
    resident = Resident(model)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        plain = model(ids).logits
        with handled(model, resident):
            driven = model(ids).logits
    difference = float((driven - plain).abs().max() / plain.abs().max())
    layers, experts = len(resident.experts), len(resident.experts[0])
    here = f"{layers} layers of {experts} experts; through the hook,"
    if difference > LARGEST_DIFFERENCE:
        return fails(f"{here} logits differ by {difference:.2g} of the largest", AGAIN)
    rounding = f" but for rounding ({difference:.1g} of the largest)" if difference else ""
    return works(f"{here} the same logits{rounding}")
