"""Find what would spoil a result before a model is trained: copies, leaks, tell-tale files."""
