"""The conformance kit of the losses: oracles from the published formulas, laws that any policy loss must keep, mutants.

``oracle_*`` import nothing of r1jax: python numbers, one sequence after the other. ``laws`` knows a loss function by its
signature alone. Everything else takes the losses under test as an argument, so that a mutated copy can stand in their place.
"""
