"""The oracle as a fixture: tests are not a package."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def oracle():
    spec = importlib.util.spec_from_file_location("loss_oracle", Path(__file__).with_name("oracle.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
