"""Programs as answers: ``run_code`` runs them against tests behind walls that they can't see over (README.md)."""
