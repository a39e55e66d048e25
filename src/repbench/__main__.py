"""`python -m repbench` is `repbench`."""

from repbench.cli import main

if __name__ == "__main__":
    main()
