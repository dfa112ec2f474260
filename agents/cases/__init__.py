"""One closed case per request."""
