"""How does a value get from one process to another, and what do these say to each other?"""
