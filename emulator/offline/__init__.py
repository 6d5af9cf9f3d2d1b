"""What makes a program, unchanged, find the emulator and nothing else: variables, the SDK's configuration, a proxy."""
