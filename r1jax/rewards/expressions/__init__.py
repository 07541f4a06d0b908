"""Mathematical expressions from untrusted text, compared as values and as sets. Nothing here evaluates Python.

``reading`` makes a tree of ``nodes.Node`` of a text; ``values`` computes exact and sampled values of it; ``symbolic`` and
``regions`` ask sympy what samples can't show; ``structure`` and ``equality`` say when two trees are one answer, ``keys`` gives
equal ones a common key. Each checks its bounds before it computes.
"""
