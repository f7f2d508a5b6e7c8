"""What is wrong with driver, GPUs and recording, and what to do next."""
