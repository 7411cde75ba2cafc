"""The built-in study: a generated corpus with known insults, and a tiny model that learns it in minutes."""
