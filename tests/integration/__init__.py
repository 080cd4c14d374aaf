"""The programs of others, on this package."""
