"""Models on video files: what the commands share, for programs too."""
