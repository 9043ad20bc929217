"""A search with inherited weights, to be killed: ``python nas_search_killed.py RUN WORKERS``."""

import sys

from automl_ext.nas.search import search
from automl_ext.nas.search_config import ReNASConfig

if __name__ == "__main__":
    config = ReNASConfig(
        subset=200, channels=4, epochs=2, evaluations=60, population=4, sample=2, workers=int(sys.argv[2])
    )
    search("renas", config, sys.argv[1], resume="auto")
