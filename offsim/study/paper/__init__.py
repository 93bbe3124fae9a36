"""The base paper (arXiv 2509.07727) in miniature: its tables on the embedded model, and beyond.

`numbers` has what the paper reports, `design` the cells, `run` measures them so that a run can be
cut off and go on, and `estimates`, `comparisons`, `takeaways` and `tolerance` say what was found.
"""
