"""Features of tables: the basic encoding, and families of constructed features that must earn their place."""
