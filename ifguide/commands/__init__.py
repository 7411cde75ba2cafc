"""Commands that live in files of their own; `ifguide.cli` adds them."""
