"""Search strategies, each an object that is asked for candidates and told what they were worth."""
