"""The families of a session, one module each, imported on use: what the core and the clients may ask of a running firmware."""
