"""Features of tables: the basic encoding, and families of constructed features, which are kept only if they help."""
