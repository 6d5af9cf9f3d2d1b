"""Model servers: whoever answers the samples. Bytes in, bytes out; they know nothing of AWS or trajectories."""
