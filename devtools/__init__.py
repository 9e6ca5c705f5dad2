"""What `dev.py` does, one module a command. For developers of nvcore; never installed.

Standard library only, Python 3.11 to 3.13: these modules run before any environment exists. They import nothing of nvcore.
"""
