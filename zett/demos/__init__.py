"""What `make` shows a newcomer: `quickstart` on the small model in the package, `smollm2` on a real one."""
