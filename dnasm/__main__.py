"""`python -m dnasm`."""

import sys

from dnasm.cli import main

sys.exit(main())
