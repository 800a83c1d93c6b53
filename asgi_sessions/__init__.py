"""Server-side sessions for ASGI applications."""
