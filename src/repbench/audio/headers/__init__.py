"""What does the header of a sound file promise, and does the file hold it? No sample is decoded."""
