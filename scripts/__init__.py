"""Speed and size, measured against peers in the same run. See `python -m scripts.speed --help`."""
