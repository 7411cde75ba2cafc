"""Results of the models that were compared, as Overview, Compare, the report and the slides show them."""
