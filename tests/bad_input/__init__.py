"""Files and settings that are no good, and what is said of them."""
