"""Commands that print the numbers the docs quote. Each is run as `python -m benchmarks.NAME`."""
