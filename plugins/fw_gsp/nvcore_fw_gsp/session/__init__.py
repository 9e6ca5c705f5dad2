"""A running firmware: its objects, its events, its families. `gsp` holds the session, `rm` the object calls, `events` the decoding."""
