"""Answers of an exported model: numpy, pillow, soundfile, tokenizers and onnxruntime, no torch."""
