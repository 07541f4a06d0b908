"""What runs inside the sandbox. Standard library only: the sandbox shows this folder and no other part of r1jax."""
