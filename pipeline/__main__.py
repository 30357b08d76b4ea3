"""`python -m pipeline` is `omnitrace`."""

import sys

from pipeline.cli import main

sys.exit(main())
