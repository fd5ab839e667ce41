"""`python -m sqlprobe.demo`."""

import sys

from sqlprobe.demo import main

sys.exit(main())
