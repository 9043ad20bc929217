"""Search strategies: objects that propose candidates and learn from their scores."""
