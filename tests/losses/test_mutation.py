"""The automatic mutation of the losses, whole: about an hour on one core."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
def test_no_small_change_of_the_losses_goes_unnoticed():
    done = subprocess.run([sys.executable, str(Path(__file__).with_name("mutate.py"))], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
