"""The HTTP side: one file for each endpoint."""
