"""The benchmark: the emulator beside its peers, in one run. `bench/README.md` says how to run and read it."""
