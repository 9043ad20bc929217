"""``python -m automl_ext`` is ``automl-ext``."""

import sys

from automl_ext_cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
