"""One pipeline: stages that work on tiles of a tissue, and what they leave for one another."""
