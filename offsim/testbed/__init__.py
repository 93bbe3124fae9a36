"""The embedded MoE: a small Qwen3-MoE that offsim trained itself, its tasks, and how to load it.

`tasks/` generates and scores items, `data.py` packs them for training, `train.py` is the training
script, `load.py` gives the shipped checkpoint and `generate.py` its greedy answers.
"""
