"""The process: uvicorn, with the direct path and a drain."""
