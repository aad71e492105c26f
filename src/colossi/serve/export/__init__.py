"""What others load: Hugging Face folders with their own modelling code, and GGUF files."""
