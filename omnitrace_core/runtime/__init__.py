"""torch and transformers as this machine has them."""
