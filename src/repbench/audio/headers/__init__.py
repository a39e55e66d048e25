"""Headers of sound files: each is read and compared with the bytes of its file. No sample is decoded."""
