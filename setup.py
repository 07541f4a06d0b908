"""Packaging. A plain install pulls no accelerator package: jax's own extras bring those (``.[cuda]``, ``.[tpu]``)."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(line.split('"')[1] for line in (HERE / "r1jax/__init__.py").read_text().splitlines() if "__version__" in line)

setup(
    name="r1jax",
    version=VERSION,
    description="The whole of DeepSeek-R1 in JAX",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["r1jax", "r1jax.*"]),
    package_data={
        "r1jax.reporting": ["page/*"],
        "r1jax.pipeline.curation": ["prompts/*"],
        "r1jax.scoring": ["prompts/*/*"],
    },
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12.8",
        "grain>=0.2.15",
        "tensorflow-datasets>=4.9.9",
        "importlib_resources",  # tensorflow-datasets needs it and does not say so
        "sentencepiece>=0.2",
        "tokenizers>=0.21",
        "safetensors>=0.5",
        "sympy>=1.13",
        "mpmath>=1.3",
        "numpy>=2",
        "jinja2>=3.1.6",
        "pyyaml>=6",
        "etils[epath]>=1.10",
        "rich>=13",
        "plotly>=6",
        "tensorboardX>=2.6",  # 0.7 MB; needs numpy, packaging and protobuf, which are here anyway
    ],
    extras_require={
        "cuda": ["jax[cuda12]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        "parquet": ["pyarrow>=15"],
        "wandb": ["wandb>=0.18"],
        "gguf": ["gguf>=0.17"],  # tools/get_smollm2.py
        # Install torch first, with plain pip (tools/test.sh does).
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.7",
            "hypothesis",
            "transformers>=5",
            "torch>=2.6",
            "gguf>=0.17",
            "accelerate",  # transformers reads no GGUF file without it
            "protobuf",
            "nbclient",
            "ipykernel",
            "matplotlib",
        ],
    },
    entry_points={"console_scripts": ["r1jax=r1jax.cli:main"]},
)
