"""What every stage stands on: a command line, parameters, files written whole, figures, workers."""
