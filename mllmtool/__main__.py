"""`python -m mllmtool`, which `torchrun -m mllmtool` needs."""

from mllmtool.cli import main

if __name__ == "__main__":
    main()
