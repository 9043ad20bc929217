"""``python -m automl_ext`` is ``automl-ext``."""

import sys

from automl_ext.cli import main

if __name__ == "__main__":
    sys.exit(main())
