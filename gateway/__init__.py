"""Server-Sent Events broadcast gateway over Redis Pub/Sub."""

__version__ = "0.1.0"
