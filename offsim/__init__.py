"""offsim: what an MoE model costs and loses when its experts are offloaded under an error bound."""

__version__ = "0.1.0"
