"""Who does what, when does it begin, and what is to be done again? The user's process decides."""
