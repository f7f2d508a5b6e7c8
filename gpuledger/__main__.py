"""`python -m gpuledger`."""

from gpuledger.cli import main

if __name__ == "__main__":
    main()
