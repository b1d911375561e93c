"""What a population is under a code, and the mechanisms that codes share."""
