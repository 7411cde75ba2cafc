"""Parts of the Threshold page."""
