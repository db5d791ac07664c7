import os
import subprocess
import sys

from truesweep.libraries import spin_briefly


def test_garbage_is_collected_after_the_imports() -> None:
    code = (
        "import gc, os, truesweep.libraries; "
        "print(gc.isenabled(), gc.get_freeze_count() > 100_000, os.environ['GOMP_SPINCOUNT'])"
    )
    unset = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=unset, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True True 3000\n"


def test_what_the_user_says_of_threads_stays() -> None:
    for said in ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}):
        environment = dict(said)
        spin_briefly(environment)
        assert environment == said
