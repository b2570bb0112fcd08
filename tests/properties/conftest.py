"""How many examples the properties are tried on, and the weights that they use.

`STALIGN_EXAMPLES` is the number of examples of the whole suite, 320 by default. The default ones are always the same;
with the variable they are drawn anew each time.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Verbosity, settings

_COMMON = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    "verbosity": Verbosity.normal,
    "print_blob": False,
}
settings.register_profile("short", derandomize=True, **_COMMON)
settings.register_profile("long", derandomize=False, **_COMMON)
settings.load_profile("long" if "STALIGN_EXAMPLES" in os.environ else "short")


@pytest.fixture(scope="session")
def weights(small_weights):
    """Small untrained weights of the sections' genes; their genes take the niches as they are."""
    from tests.properties.calls import Weights
    from tests.properties.plain import GENES

    return Weights(small_weights(genes=GENES, rank=3, niche_sigma=0.0))


@pytest.fixture(scope="session")
def log_records():
    """Records of stalign's log, as pytest's own fixture is made anew for each test and not for each example."""
    import logging

    class Records(logging.Handler):
        def __init__(self):
            super().__init__()
            self.records, self.handler = [], self

        def emit(self, record):
            self.records.append(record)

        def clear(self):
            self.records.clear()

    return Records()
