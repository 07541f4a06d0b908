"""Mathematical expressions from untrusted text: tokens, a small parser, values. Nothing here evaluates Python.

``tokens`` reads characters, ``parser`` makes a tree of ``Node``, ``values`` computes exact and sampled values of it.
Each checks its bounds before it computes.
"""
