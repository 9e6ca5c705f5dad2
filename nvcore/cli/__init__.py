"""The command line: nouns and verbs, documented exit codes, JSON first and tables second. Importing this package costs nothing."""
