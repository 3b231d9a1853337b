"""The test stack: installs and runs the servers and readers that the end-to-end tests need, without a container engine."""
