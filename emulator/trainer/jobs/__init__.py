"""Jobs that are really done: their data set is dispatched to the agent, and what comes of it is counted."""
