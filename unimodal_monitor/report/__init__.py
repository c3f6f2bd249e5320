"""Where a check is shown: console, files, loggers, figures."""
