"""Run folders: files, checkpoints, encryption, signatures, and loading a trained model."""
