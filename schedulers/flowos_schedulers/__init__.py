"""The schedulers that come with Flow OS, one file each, on shared pieces."""
