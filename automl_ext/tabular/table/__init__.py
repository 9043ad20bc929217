"""The table: reading, kinds of columns, cleaning, the task, splits."""
