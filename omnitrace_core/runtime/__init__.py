"""Adapt torch and transformers to this machine: device, precision, torchvision."""
