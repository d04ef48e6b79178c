"""Is there any place at all, where the quick ways found none?"""
