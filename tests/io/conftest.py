from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def log(caplog):
    from stalign._settings import logger

    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, logger="stalign")
    yield caplog
    logger.removeHandler(caplog.handler)
