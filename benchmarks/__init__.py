"""Commands that print the numbers the docs quote, and write what is generated. Each is run as
`python -m benchmarks.NAME`."""
