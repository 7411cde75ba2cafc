"""Commands of the command line, one noun a file; `ifguide.cli` adds them."""
