"""Configuration: TOML files with drop-ins, checked before anything acts on them.

    from nvcore.config.files import load
    configuration = load(command_line={"host": {"log_level": "debug"}})   # raises ConfigError with file and line
    configuration.host.socket, configuration.gpus, configuration.plugins, configuration.sections["vfio"]

Importing this package costs nothing; tomllib is imported when a file exists.
"""
