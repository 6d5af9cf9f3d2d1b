"""What is measured: a module a group of figures."""
