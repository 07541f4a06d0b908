"""Sandboxes to test with: each kind that this machine can have; whatever a file of tests left behind is found here."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from r1jax.rewards.code import sandbox as sandboxes
from r1jax.rewards.code.walls import SandboxUnavailable

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package: their helpers stand beside them
from family import descendants  # noqa: E402

_reasons = {}


def _unavailable(kind):
    """Why this machine can't have such walls; "" if it can."""
    if kind not in _reasons:
        try:
            sandboxes._tried(kind).close()
            _reasons[kind] = ""
        except SandboxUnavailable as error:
            _reasons[kind] = str(error)
    return _reasons[kind]


@pytest.fixture(params=["bubblewrap", "namespaces"])
def walls(request):
    if _unavailable(request.param):
        pytest.skip(f"no such sandbox here: {_unavailable(request.param)}")
    return request.param


@pytest.fixture
def best():
    """The walls that ``auto`` takes here."""
    for kind in ("bubblewrap", "namespaces"):
        if not _unavailable(kind):
            return kind
    pytest.skip(f"no sandbox here: {_reasons}")


def _scratch_folders():
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("r1jax-code-")}


@pytest.fixture(scope="module", autouse=True)
def own_scratch(tmp_path_factory):
    """Scratch folders of this process and its children alone: another worker of the tests makes and removes its own at the same
    time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("scratch")))
        patch.setenv("TMPDIR", tempfile.tempdir)
        yield


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(own_scratch):
    sandboxes.close_all()
    processes, folders = set(descendants(os.getpid())), _scratch_folders()
    mounts = Path("/proc/self/mountinfo").read_text()
    yield
    sandboxes.close_all()
    assert not set(descendants(os.getpid())) - processes
    assert not _scratch_folders() - folders
    assert Path("/proc/self/mountinfo").read_text() == mounts
