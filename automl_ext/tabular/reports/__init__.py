"""The report of a fit: pictures and a page."""
