"""Where a check is shown: the console, files, loggers."""
