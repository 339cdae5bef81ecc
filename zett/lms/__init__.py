"""Base models: families of bodies (one file each), loading them from and saving them to Hugging Face folders."""

from zett.lms.base import BaseModel, check_causal, find_folder, load_base_model

__all__ = ["BaseModel", "check_causal", "find_folder", "load_base_model"]
