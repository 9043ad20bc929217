"""``python -m automl_ext.bench`` is ``automl-ext bench`` without tyro and rich."""

import sys

from automl_ext.bench.command import main
from automl_ext.training.errors import UserError

if __name__ == "__main__":
    try:
        sys.exit(main("python -m automl_ext.bench", sys.argv[1:]))
    except (UserError, ModuleNotFoundError, OSError) as error:  # ModuleNotFoundError: a missing extra
        sys.exit(f"error: {error}")
