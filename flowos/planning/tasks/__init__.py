"""Which task runs on which engine, and when?"""
