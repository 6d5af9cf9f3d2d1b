"""The trainer's part: data sets, rollouts dispatched to agents, and what their rewards say."""
