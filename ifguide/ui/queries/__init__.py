"""Parts of the Queries page."""
