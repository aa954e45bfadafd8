"""What families share when they learn."""
