"""What jobs tell MLflow: their metrics, and a trace of each rollout. By its REST interface: MLflow itself is a process
of its own, and importing it here would take seconds and 200 MB."""
