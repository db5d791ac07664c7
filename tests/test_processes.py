"""Processes of tests, which most of the tests' time would go into if each imported anew."""

from tests import processes


def test_a_process_has_what_commands_import() -> None:
    done = processes.run(["-c", "import sys; print('torch' in sys.modules)"])
    assert done.stdout == "True\n", "a package has set a variable that is read at import"


def test_a_process_that_is_told_what_is_read_at_import_imports_it() -> None:
    env = {**processes.BEFORE_TESTS, "TORCH_HOME": "elsewhere"}
    done = processes.run(["-c", "import sys; print('torch' in sys.modules)"], env=env)
    assert done.stdout == "False\n"
