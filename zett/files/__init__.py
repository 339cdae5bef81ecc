"""The ground: files, folders, the cache and the Hub. Imports nothing of zett but its errors."""
