"""Does work go to its data, or data to the work?"""
