"""Independent calls of one function: in this process, in processes, or on the nodes of a Ray cluster."""
