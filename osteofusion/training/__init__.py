"""Where Lightning lives: data module, module, predictions of a run, command line."""
