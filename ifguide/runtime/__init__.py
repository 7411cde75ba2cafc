"""Running work: progress, background jobs, several processes, the memory allocator.

Imports `errors`, `config` and `storage`. It does not know what the work is.
"""
