"""The Studies page, and the form that makes a study."""
