"""Two tokenizers compared, before anything is trained or transferred: values, terminal, HTML."""
