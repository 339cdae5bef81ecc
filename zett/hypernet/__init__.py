"""The hypernetwork: its network, a trained one as a method, its released form, published checkpoints."""
