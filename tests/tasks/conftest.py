"""What ranks find out together, once for all tests."""

from typing import Any

import pytest

from tests.tasks.on_ranks import start, write_samples


@pytest.fixture(scope="session")
def found_by_ranks(
    tmp_path_factory: pytest.TempPathFactory, _own_cache: None
) -> dict[int, list[dict[str, Any]]]:
    """What each of 2 and of 3 ranks found, see `on_ranks.start`."""
    folder = tmp_path_factory.mktemp("ranks")
    write_samples(folder)
    return {ranks: start(folder, ranks) for ranks in (2, 3)}
