"""What others have published, read into this project's own forms."""
