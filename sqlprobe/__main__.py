"""`python -m sqlprobe`."""

import sys

from sqlprobe.cli import main

sys.exit(main())
