"""The data room loads no accelerator library when it is imported."""

import subprocess
import sys


def test_importing_the_room_is_light():
    code = (
        "import sys, r1jax.data as data\n"
        "assert not any(m.startswith('r1jax.data.') for m in sys.modules), 'the package itself must load nothing'\n"
        "[getattr(data, name) for name in data.__all__ if name != 'pack']\n"
        "print([m for m in ('jax', 'flax', 'tensorflow', 'torch', 'transformers', 'grain') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_unknown_names_are_attribute_errors():
    import r1jax.data

    try:
        r1jax.data.nothing  # noqa: B018
    except AttributeError as error:
        assert "nothing" in str(error)
    else:
        raise AssertionError("no error")
