"""`python -m gpuledger`."""

import sys

from gpuledger.cli import main

if __name__ == "__main__":
    sys.exit(main())
