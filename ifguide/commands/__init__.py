"""Commands of the command line, a noun a file; each has a function `add_commands(app)`."""
