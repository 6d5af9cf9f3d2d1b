"""AWS on the wire: the service model, codec, validation, authentication, errors. Knows nothing of trajectories."""
