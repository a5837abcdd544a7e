"""The verbs of the command line, one file a verb or group of verbs."""
